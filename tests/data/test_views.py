"""Views against torchvision's transforms of one image, and their gradients against finite differences."""

import colorsys
from collections.abc import Callable

import pytest
import torch
import torchvision.transforms.functional as F
from ssrob.data.views import AREA, PARAMETERS, draw, view
from ssrob.seeding import generator
from torch import Tensor

NOTHING = {"height": 1.0, "width": 1.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0}
SHAPES = [(3, 32, 32), (1, 8, 8), (3, 9, 14)]
LUMA_ROUNDED = 2e-4  # torchvision rounds the weight of red to 0.2989, here it is 0.299


def images(*shape: int, low: float = 0.0, high: float = 1.0, count: int = 5) -> Tensor:
    return low + (high - low) * torch.rand(count, *shape, generator=generator(0, "images", *shape))


def parameters(count: int = 5, **changes: float) -> Tensor:
    row = [(NOTHING | changes).get(name, 0.0) for name in PARAMETERS]
    return torch.tensor([row] * count)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_view_that_changes_nothing_is_the_image(shape: tuple[int, int, int]) -> None:
    x = images(*shape)
    assert torch.allclose(view(x, parameters()), x, atol=1e-6)  # float32


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("box", [(0, 0, 4, 5), (2, 1, 6, 7), (3, 3, 1, 2)])
def test_a_crop_is_torchvision_s_resized_crop(shape: tuple[int, int, int], box: tuple[int, int, int, int]) -> None:
    x, (_, height, width), (top, left, tall, wide) = images(*shape), shape, box
    chosen = {"top": top / height, "left": left / width, "height": tall / height, "width": wide / width}
    expected = F.resized_crop(x, top, left, tall, wide, [height, width])
    assert torch.allclose(view(x, parameters(**chosen)), expected, atol=1e-5)  # float32; places of up to 32 pixels
    mirrored = view(x, parameters(flip=1, **chosen))
    assert torch.allclose(mirrored, F.hflip(expected), atol=1e-5)


SINGLE: dict[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "grey": lambda x, _: F.rgb_to_grayscale(x, num_output_channels=3),
}


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_a_single_change_of_colour_is_torchvision_s(name: str, factor: float) -> None:
    x = images(3, 9, 14)
    value = 1.0 if name == "grey" else factor
    expected = SINGLE[name](x, factor)
    assert (expected - x).abs().max() > 0.05
    assert torch.allclose(view(x, parameters(**{name: value})), expected, atol=LUMA_ROUNDED)


@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_changes_of_grey_images_are_torchvision_s(name: str) -> None:
    x = images(1, 8, 8)
    assert torch.allclose(view(x, parameters(**{name: 0.7})), SINGLE[name](x, 0.7), atol=1e-6)
    assert torch.allclose(view(x, parameters(saturation=0.3, hue=0.1, grey=1)), x, atol=1e-6), "it has no colours"


@pytest.mark.parametrize("turn", [1 / 3, -1 / 3])
def test_a_third_of_a_turn_of_the_hue_is_torchvision_s(turn: float) -> None:
    x = images(3, 9, 14)
    assert torch.allclose(view(x, parameters(hue=turn)), F.adjust_hue(x, turn), atol=1e-5)  # HSV and back, float32


@pytest.mark.parametrize("turn", [0.1, -0.1, 0.05])
def test_the_hue_turns_as_far_and_the_same_way_as_torchvision_s(turn: float) -> None:
    x = images(3, 6, 6, low=0.35, high=0.65)  # nothing is cut off
    pixels = [
        each.permute(0, 2, 3, 1).reshape(-1, 3) for each in (view(x, parameters(hue=turn)), F.adjust_hue(x, turn))
    ]
    for ours, theirs in zip(*pixels, strict=True):
        difference = colorsys.rgb_to_hsv(*ours.tolist())[0] - colorsys.rgb_to_hsv(*theirs.tolist())[0]
        # HSV's angle goes round a hexagon and is up to 0.0031 turns off the angle round the circle, before and after.
        assert abs((difference + 0.5) % 1 - 0.5) < 0.007


def test_changes_follow_each_other_as_torchvision_s() -> None:
    x = images(3, 16, 16, low=0.4, high=0.6)  # nothing is cut off on the way
    chosen = {"top": 0.25, "left": 0.5, "height": 0.5, "width": 0.25, "flip": 1.0}
    jitter = {"brightness": 1.2, "contrast": 1.3, "saturation": 0.7, "hue": 1 / 3}
    expected = F.adjust_brightness(F.hflip(F.resized_crop(x, 4, 8, 8, 4, [16, 16])), 1.2)
    expected = F.adjust_hue(F.adjust_saturation(F.adjust_contrast(expected, 1.3), 0.7), 1 / 3)
    assert torch.allclose(view(x, parameters(**chosen, **jitter)), expected, atol=2 * LUMA_ROUNDED)
    grey = F.rgb_to_grayscale(expected, num_output_channels=3)
    assert torch.allclose(view(x, parameters(**chosen, **jitter, grey=1.0)), grey, atol=2 * LUMA_ROUNDED)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 4)])
def test_the_gradient_is_that_of_finite_differences(shape: tuple[int, int, int]) -> None:
    x = images(*shape, low=0.35, high=0.55, count=4).double().requires_grad_()  # away from where values are cut
    drawn = draw(4, generator(3), views=1)[0].double()
    assert torch.autograd.gradcheck(lambda each: view(each, drawn), x)


def test_an_image_s_view_is_its_own_and_in_range() -> None:
    x = images(3, 12, 12, count=64)
    before, drawn = x.clone(), draw(64, generator(1))[0]
    seen = view(x, drawn)
    assert seen.shape == x.shape
    assert seen.min() >= 0
    assert seen.max() <= 1
    assert torch.equal(x, before)
    alone = torch.cat([view(x[i : i + 1], drawn[i : i + 1]) for i in range(64)])
    assert torch.allclose(seen, alone, atol=1e-6)  # sums in another order


def test_half_precision_does_not_coarsen_a_view() -> None:
    x, drawn = images(3, 8, 8), draw(5, generator(1))[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(view(x, drawn), view(x, drawn).float())
        inside = view(x, drawn)
    assert torch.equal(inside, view(x, drawn))


def test_draws_are_what_is_documented() -> None:
    drawn = draw(20_000, generator(0))
    assert drawn.shape == (2, 20_000, len(PARAMETERS))
    assert torch.equal(drawn, draw(20_000, generator(0)))
    p = dict(zip(PARAMETERS, drawn.flatten(0, 1).unbind(1), strict=True))
    for start, size in (("top", "height"), ("left", "width")):
        assert p[start].min() >= 0
        assert (p[start] + p[size]).max() <= 1 + 1e-6
    area, ratio = p["height"] * p["width"], p["width"] / p["height"]
    assert area.min() >= AREA[0] * 3 / 4 - 1e-6  # where a side met the image's border
    assert area.max() <= 1
    assert ratio.min() >= 3 / 4 - 1e-6
    assert ratio.max() <= 4 / 3 + 1e-5
    assert p["flip"].mean().item() == pytest.approx(0.5, abs=0.0125)  # 40,000 draws: 5 standard errors
    assert p["grey"].mean().item() == pytest.approx(0.2, abs=0.01)
    assert (p["hue"] != 0).float().mean().item() == pytest.approx(0.8, abs=0.01)
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0.6, 1.4), ("saturation", 0.6, 1.4)):
        assert p[name].min().item() == pytest.approx(low, abs=1e-3)  # the extremes of 32,000 uniform draws
        assert p[name].max().item() == pytest.approx(high, abs=1e-3)
    assert p["hue"].abs().max().item() == pytest.approx(0.1, abs=1e-4)
    assert torch.corrcoef(drawn[:, :, PARAMETERS.index("top")])[0, 1].abs() < 0.05, "two views of their own"


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels, found 2"):
        view(torch.zeros(1, 2, 4, 4), parameters(1))
