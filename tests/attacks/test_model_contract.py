"""Models with other faces are attacked as what they compute, or refused with a remedy; what they do stays with them."""

import copy
import warnings
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ssrob.attacks.autoattack import autoattack_sweep
from ssrob.attacks.model_contract import Adapted, adapt, evaluation_mode
from ssrob.attacks.sanity_checks import check
from ssrob.evaluate import attack_sweep
from torch import Tensor, nn

EPS = [0.0, 0.02, 0.2]


def network(classes: int = 4) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, classes)
        return nn.Sequential(*layers).eval()


def images(count: int = 7) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, network()(x).argmax(1)


def quietly(model: Any, x: Tensor, y: Tensor, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attack_sweep(model, x, y, eps=EPS, preset="fast", **settings)


class Around(nn.Module):
    """The network, and something around it."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.net, self.change = network(), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.net, x)


Output = namedtuple("Output", ["logits", "features"])

SAME = {
    "tuple": Around(lambda net, x: (net(x), x)),
    "list": Around(lambda net, x: [net(x)]),
    "named tuple": Around(lambda net, x: Output(net(x), x)),
    "dict": Around(lambda net, x: {"loss": torch.tensor(0.0), "features": x, "logits": net(x)}),
    "dict of one": Around(lambda net, x: {"y": net(x)}),
    "object": Around(lambda net, x: SimpleNamespace(logits=net(x))),
    "1 x 1 maps": Around(lambda net, x: net(x)[:, :, None, None]),
    "images beside": Around(lambda net, x: (x, net(x))),
    "loss beside": Around(lambda net, x: (torch.tensor(0.0), net(x))),
    "dict beside": Around(lambda net, x: {"pixels": x, "scores of mine": net(x)}),
    "heads": Around(lambda net, x: [net(x), net(x).flip(1)]),
    "squeezed": Around(lambda net, x: net(x).squeeze()),
    "float64": Around(lambda net, x: net(x)).double(),
    "in place": Around(lambda net, x: net(x.mul_(1))),
    "function": lambda x: network()(x) + 0,
    "scripted": torch.jit.script(network()),
    "frozen": torch.jit.freeze(torch.jit.script(network())),
    "traced": torch.jit.trace(network(), torch.rand(1, 3, 8, 8)),
    "exported for two": torch.export.export(network(), (torch.rand(2, 3, 8, 8),)).module(),
    "exported for one": torch.export.export(network(), (torch.rand(1, 3, 8, 8),)).module(),
    "exported inside": nn.Sequential(nn.Identity(), torch.export.export(network(), (torch.rand(2, 3, 8, 8),)).module()),
}


@pytest.mark.parametrize("name", SAME)
def test_another_face_is_attacked_as_what_it_computes(name: str) -> None:
    x, y = images()
    before = x.clone()
    expected, found = quietly(network(), x, y), quietly(SAME[name], x, y)
    assert found.attacks == expected.attacks
    assert torch.allclose(found.accuracy, expected.accuracy, atol=1 / 7 + 1e-6)  # an image at its boundary
    assert found.clean_correct.all()
    assert found.confirmed.all()
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_attacked_by_its_own_gradients(dtype: torch.dtype) -> None:
    x, _ = images()
    model = network().to(dtype)
    y = model(x.to(dtype)).argmax(1)
    found = quietly(model, x, y)
    assert found.clean_correct.all()
    assert found.accuracy[2] < 1
    assert next(model.parameters()).dtype == dtype


WRITERS = {
    "scales": lambda net, x: net(x.mul_(0.5)),
    "clamps": lambda net, x: net(x.clamp_(0.4, 0.6)),
    "zeros after": lambda net, x: (net(x.clone()), x.zero_())[0],
    "normalises a view": lambda net, x: net(x.sub_(0.5).div_(0.25)),
    "behind autograd": lambda net, x: (x.data.mul_(0.5), net(x))[1],
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_model_that_writes_into_its_input_changes_nobody_s_images(name: str) -> None:
    x, _ = images()
    model = Around(WRITERS[name])
    y = model(x.clone()).argmax(1)
    before = x.clone()
    found = quietly(model, x, y, keep_adversarial=True)
    assert torch.equal(x, before)
    assert found.accuracy[0] == 1
    away = (found.adversarial - x).abs().amax((1, 2, 3))
    assert away.max() <= EPS[-1] * (1 + 1e-5)
    wrong = model(found.adversarial.clone()).argmax(1) != y
    assert torch.equal(wrong, found.distance <= EPS[-1])
    assert check(model, x, y, found, preset="fast", audit=7, queries=5) is not None
    assert torch.equal(x, before)


def no_gradient_models() -> dict[str, Any]:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        @torch.no_grad()
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    return {
        "quantised": torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8),
        "numpy": lambda x: network()(x).detach().numpy(),
        "no_grad": Cut(),
        "detached": Around(lambda net, x: net(x.detach())),
    }


@pytest.mark.parametrize("name", ["quantised", "numpy", "no_grad", "detached"])
def test_without_a_gradient_black_box_attacks_run_and_it_is_said(name: str) -> None:
    model, (x, _) = no_gradient_models()[name], images()
    y = torch.as_tensor(model(x)).argmax(1)
    with pytest.warns(UserWarning, match="no gradient reaches the images"):
        found = attack_sweep(model, x, y, eps=EPS, preset="fast")
    assert found.attacks == ("square1000-margin",)
    assert found.gradients == 0
    assert found.accuracy[2] < found.accuracy[0] == 1
    flags = {flag.name: flag.message for flag in check(model, x, y, found, preset="fast", audit=7)}
    assert "no gradient reaches" in flags["zero_gradient"]
    strong = quietly(model, x[:2], y[:2], store={}, block=2) if name == "quantised" else None
    assert strong is None or strong.attacks == found.attacks


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_reference_s_code_runs_its_black_box_attack_alone(classes: int, norm: str) -> None:
    pytest.importorskip("pyautoattack")
    model, (x, _) = torch.ao.quantization.quantize_dynamic(network(classes), {nn.Linear}, torch.qint8), images()
    y, before = model(x).argmax(1), x.clone()
    eps = [0.0, 0.3] if norm == "linf" else [0.0, 3.0]
    with pytest.warns(UserWarning, match="no gradient reaches the images"):
        found = autoattack_sweep(model, x, y, norm=norm, eps=eps)
    assert (found.attacks, found.gradients) == (("square",), 0)
    assert found.confirmed.all()
    assert found.accuracy[1] < found.accuracy[0] == 1
    assert set(found.attack) <= {"square", "none"}
    assert torch.equal(x, before)


def test_the_reference_s_targeted_loss_needs_four_classes() -> None:
    pytest.importorskip("pyautoattack")
    x, y = images()
    with pytest.raises(ValueError, match="targeted DLR loss needs >= 4 classes, found 2"):
        autoattack_sweep(network(2), x, y % 2, eps=[0.1])
    quietly_alone = autoattack_sweep(network(2), x, y % 2, eps=[0.1], attacks=("square",))
    assert quietly_alone.attacks == ("square",)


def test_within_inference_mode_the_gradient_is_used_all_the_same() -> None:
    model, (x, y) = network(), images()
    expected = quietly(model, x, y)
    with torch.inference_mode():
        inside = quietly(model, x, y)
        remembered = x.clone()
        also = quietly(model, remembered, y.clone())
        assert torch.is_inference_mode_enabled()
        late = network()
    for found in (inside, also, quietly(model, remembered, y)):
        assert (found.attacks, found.gradients) == (expected.attacks, expected.gradients)
        assert torch.equal(found.distance, expected.distance)
    with pytest.raises(ValueError, match=r"weights were made under torch\.inference_mode.*load it outside"):
        attack_sweep(late, x, y, eps=EPS)


def test_images_may_lie_in_memory_as_they_like() -> None:
    def views(net: Any, x: Tensor) -> Tensor:
        return net(x.view(len(x), -1).view(x.shape))

    x, y = images()
    expected = quietly(network(), x, y)
    for odd in (x.to(memory_format=torch.channels_last), x.repeat_interleave(2, 0)[::2], x.mT.contiguous().mT):
        assert torch.equal(odd, x)
        assert torch.equal(quietly(Around(views), odd, y).distance, expected.distance)
    one = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"it takes channels first: images\.permute\(0, 3, 1, 2\)"):
        quietly(one, x.permute(0, 2, 3, 1), y)


def test_logits_that_depend_on_the_other_images_are_pointed_out() -> None:
    x, _ = images()
    for change in (lambda net, x: net(x) - net(x).mean(0), lambda net, x: net(x) / net(x).norm()):
        assert any("depend on the other images of its batch" in note for note in adapt(Around(change), x).notes)
    for change in (lambda net, x: net(x), lambda net, x: net(nn.functional.dropout(x)), lambda net, x: net(x) * 1e3):
        assert not any("depend on the other" in note for note in adapt(Around(change), x).notes)


def test_of_several_outputs_it_is_said_which_was_taken() -> None:
    x, _ = images()
    notes = adapt(Around(lambda net, x: (net(x), x.flatten(1))), x).notes
    assert notes == ("the model returns a tuple, of which its logits are taken (the first, of 4 and 192 outputs)",)


def test_one_output_is_two_classes() -> None:
    x, _ = images()
    two = network(2)
    difference = lambda x: two(x)[:, 1:] - two(x)[:, :1]  # noqa: E731
    y = two(x).argmax(1)
    expected = quietly(two, x, y)
    for model in (difference, lambda x: difference(x).squeeze(1), lambda x: difference(x).sigmoid()):
        found = quietly(model, x, y)
        assert found.clean_correct.all()
        assert (found.accuracy - expected.accuracy).abs().max() <= 1 / 7 + 1e-6


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("weights.pt", "must be callable, found str"),
        (lambda x: x, r"for 1 images shape \(1, 3, 8, 8\)"),
        (lambda x: {"a": 1}, "a tuple, a dict or an object with .logits that holds them; found dict"),
        (lambda x: None, "found NoneType"),
        (lambda x: network()(x).argmax(1), r"found numbers of classes \(an argmax\?\)"),
        (lambda x: network()(x).argmax(1).numpy(), "found numbers of classes"),
        (lambda x: {"feat": x.flatten(1), "cls": network()(x)}, "by the key 'logits'; found 'feat' of 192, 'cls' of 4"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), "it takes 3 x 32 x 32; set `size: 32`"),
        (nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 2)), "it takes 1 x 28 x 28"),
        (torch.export.export(network(), (torch.rand(2, 3, 8, 8),)), r"exported_program.module\(\)|take .module"),
    ],
)
def test_what_cannot_be_attacked_is_refused_with_a_remedy(model: Any, message: str) -> None:
    x, y = images()
    with pytest.raises(ValueError, match=message) as caught:
        attack_sweep(model, x, y, eps=EPS)
    assert "\n" not in str(caught.value)


def test_a_look_changes_nothing_of_a_model_in_training() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), *network()).train()
    model[0].eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    with torch.random.fork_rng():
        state = torch.get_rng_state()
        adapt(model, images()[0])
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_with_the_usual_face_computes_the_same_bits() -> None:
    x, _ = images()
    model = network()
    adapted = adapt(model, x)
    assert isinstance(adapted, Adapted)
    assert adapted.notes == ()
    assert torch.equal(adapted(x), model(x))
    assert adapt(adapted, x) is adapted
    assert evaluation_mode(model.train()).training is False


def test_the_reference_s_code_is_given_the_same_model() -> None:
    pytest.importorskip("pyautoattack")
    x, y = images()
    found = autoattack_sweep(Around(WRITERS["scales"]), x, y, eps=[0.02], attacks=("apgd-ce",))
    assert found.confirmed.all()
