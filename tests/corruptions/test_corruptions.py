"""The contract of `corrupt`, for every corruption."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ssrob.corruptions import BENCHMARK, CORRUPTIONS, EXTRA, NAMES, apply, corrupt, families
from ssrob.registry.lookup import load
from tests.reference_corruptions import crops

DETERMINISTIC = {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
}
IMAGES = crops(6, 32)

# Mean |change| in grey levels at severity 3, seed 0, on IMAGES. Numbers that move mean that results move: the
# `corrupt` stage needs a new revision then.
GOLDEN = {
    "gaussian_noise": 14.67,
    "shot_noise": 12.36,
    "impulse_noise": 4.24,
    "defocus_blur": 2.93,
    "glass_blur": 5.8,
    "motion_blur": 6.65,
    "zoom_blur": 5.92,
    "snow": 22.65,
    "frost": 34.11,
    "fog": 35.47,
    "brightness": 22.25,
    "contrast": 19.96,
    "elastic_transform": 8.11,
    "pixelate": 2.12,
    "jpeg_compression": 5.29,
    "speckle_noise": 11.65,
    "gaussian_blur": 3.58,
    "spatter": 5.72,
    "saturate": 7.27,
}


def change(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.abs(after.astype(float) - before).mean())


def test_names_registry_and_families_agree():
    assert tuple(CORRUPTIONS) == NAMES == BENCHMARK + EXTRA
    assert (len(BENCHMARK), len(EXTRA)) == (15, 4)
    assert [load(row.function).__name__ for row in CORRUPTIONS.values()] == list(NAMES)
    assert sorted(name for family in families().values() for name in family) == sorted(NAMES)


def test_names_and_tables_are_importable_without_torch():
    code = "import sys, ssrob.corruptions as c; c.check_name('fog'); c.table_for(32); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(apply.__file__).parents[2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "table"), [((8, 8, 1), "imagenet"), ((8, 8, 3), "cifar"), ((19, 11, 3), "imagenet")])
def test_every_size_and_channel_count_works(name, shape, table):
    images = crops(3, 24)[:, : shape[0], : shape[1], : shape[2]]
    before = images.copy()
    for severity in (1, 5):
        after = corrupt(images, name, severity, table=table)
        assert after.shape == images.shape
        assert after.dtype == np.uint8
        assert after.flags.c_contiguous
        assert not np.shares_memory(after, images)
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"frost"}))  # whose plates at this size take seconds
def test_large_images_work(name):
    images = crops(1, 224)
    after = corrupt(images, name, 5)
    assert after.shape == images.shape
    assert change(images, after) > 3


@pytest.mark.parametrize("name", NAMES)
def test_results_have_not_moved(name):
    found = change(IMAGES, corrupt(IMAGES, name, 3))
    assert found == pytest.approx(GOLDEN[name], abs=0.02)  # JPEG and interpolation differ between libraries


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_company(name, monkeypatch):
    whole = corrupt(IMAGES, name, 4, seed=7)
    assert np.array_equal(corrupt(IMAGES[[4, 1]], name, 4, seed=7, index=[4, 1]), whole[[4, 1]])
    monkeypatch.setattr(apply, "_CHUNK_PIXELS", 1)
    assert np.array_equal(corrupt(IMAGES, name, 4, seed=7), whole)


@pytest.mark.parametrize("name", NAMES)
def test_only_seed_severity_and_number_change_the_draws(name):
    twice = IMAGES[:1].repeat(2, axis=0)
    first, second = corrupt(twice, name, 3, seed=1)
    other = corrupt(twice[:1], name, 3, seed=2)[0]
    again = corrupt(twice, name, 3, seed=1)[0]
    assert np.array_equal(first, again)
    assert np.array_equal(first, second) == (name in DETERMINISTIC)
    assert np.array_equal(first, other) == (name in DETERMINISTIC)


def test_no_global_generator_is_touched():
    numpy_state = np.random.get_state  # the legacy state is the one that could be touched
    torch_before, numpy_before = torch.get_rng_state(), numpy_state()[1].copy()
    for name in NAMES:
        corrupt(IMAGES[:1], name, 1)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(numpy_state()[1], numpy_before)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(families()["noise"]) - {"jpeg_compression"}))
def test_grey_images_become_the_luma_of_grey_colour_images(name):
    grey = IMAGES[..., :1] // 2  # dark, so that no channel is clipped
    for severity in (1, 4):  # at which spatter is water and mud
        luma = corrupt(grey.repeat(3, axis=3), name, severity) @ [0.299, 0.587, 0.114]
        # truncated before and after the sum; JPEG is left out for its chroma, noise as it differs by channel
        assert np.abs(corrupt(grey, name, severity)[..., 0] - luma).max() <= 1


def test_no_images_are_fine():
    assert corrupt(IMAGES[:0], "fog", 1).shape == (0, 32, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (
            (IMAGES, "gausian_noise", 1),
            {},
            r"unknown corruption 'gausian_noise' \(did you mean 'gaussian_noise'\?\); known: brightness, ",
        ),
        ((IMAGES, "x", 1), {}, "known: brightness, contrast"),
        ((IMAGES, "fog", 0), {}, "severity must be an integer 1..5, found 0"),
        ((IMAGES, "fog", True), {}, "severity must be an integer 1..5, found True"),
        ((IMAGES, "fog", 2.0), {}, "severity must be an integer 1..5, found 2.0"),
        ((IMAGES, "fog", np.float32(2)), {}, "severity must be an integer 1..5, found np.float32"),
        ((IMAGES, "fog", "2"), {}, "severity must be an integer 1..5, found '2'"),
        ((IMAGES.transpose(0, 3, 1, 2), "fog", 1), {}, r"found \(6, 3, 32, 32\): move axis 1"),
        ((IMAGES // 255, "fog", 1), {}, "found none above 1"),
        ((IMAGES[:, :1, :1], "fog", 1), {}, r"H, W >= 8, found \(6, 1, 1, 3\)"),
        ((IMAGES, "fog", 1), {"index": np.arange(12).reshape(2, 6)}, r"one for each image, found int64 \(2, 6\)"),
        ((IMAGES, "fog", 1), {"index": 3}, r"one for each image, found int64 \(\)"),
        ((IMAGES, "fog", 1), {"table": "imagnet"}, "unknown severity table 'imagnet' .known: cifar, imagenet"),
        ((IMAGES, "fog", 1), {"index": [0, 1]}, "index must be 6 integers, one for each image, found int64 .2,"),
        ((IMAGES, "fog", 1), {"index": np.zeros(6)}, "index must be 6 integers, one for each image, found float64"),
        ((IMAGES[0], "fog", 1), {}, r"images must be \(N, H, W, C\).*found \(32, 32, 3\)"),
        ((IMAGES[..., :2], "fog", 1), {}, r"C 1 or 3.*found \(6, 32, 32, 2\)"),
        ((IMAGES[:, :7], "fog", 1), {}, r"H, W >= 8, found \(6, 7, 32, 3\)$"),
        ((IMAGES[0], "fog", 1), {}, r"found \(32, 32, 3\): of one image take images\[None\]"),
        ((IMAGES[0, ..., 0], "fog", 1), {}, r"found \(32, 32\): of one grey image take images\[None, ..., None\]"),
        ((IMAGES[..., 0], "fog", 1), {}, r"found \(6, 32, 32\): of grey images take images\[..., None\]"),
        ((IMAGES.repeat(2, -1)[..., :4], "fog", 1), {}, r"found \(6, 32, 32, 4\): .*images\[..., :3\]"),
    ],
)
def test_wrong_arguments_are_refused(arguments, keywords, message):
    with pytest.raises(ValueError, match=message):
        corrupt(*arguments, **keywords)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (IMAGES / 255, "ndarray float64: turn values"),
        (IMAGES.astype(np.int64), "ndarray int64"),
        (IMAGES > 100, "ndarray bool"),
        (torch.from_numpy(IMAGES), r"Tensor torch.uint8"),
        (list(IMAGES), "list: .* numpy.stack"),
        (torch.rand(2, 3, 32, 32, requires_grad=True), "Tensor torch.float32: turn values"),
        (IMAGES / 100, "ndarray float64: turn values"),
        (IMAGES.astype(np.uint16), "ndarray uint16"),
        (IMAGES.astype(object), "ndarray object"),
        ([Image.fromarray(IMAGES[0])], "list"),
        (Image.fromarray(IMAGES[0]), "Image"),
        (None, "NoneType"),
    ],
)
def test_wrong_types_are_refused(images, found):
    with pytest.raises(TypeError, match=rf"images must be a uint8 numpy array \(N, H, W, C\), found {found}"):
        corrupt(images, "fog", 1)


@pytest.mark.parametrize("seed", [1.0, True, "1", None])
def test_seeds_that_are_no_integers_are_refused(seed):
    with pytest.raises(TypeError, match=f"seed must be an integer, found {seed!r}"):
        corrupt(IMAGES, "fog", 1, seed=seed)


def test_integers_of_any_kind_mean_the_same():
    expected = corrupt(IMAGES, "fog", 3, seed=2, index=range(5, 11))
    for integer in (np.int64, np.uint8):
        index = torch.arange(5, 11) if integer is np.int64 else np.arange(5, 11, dtype=integer)
        assert np.array_equal(corrupt(IMAGES, "fog", integer(3), seed=integer(2), index=index), expected)
    assert not np.array_equal(corrupt(IMAGES, "fog", 3, seed=-2, index=range(5, 11)), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.filterwarnings("error")  # torch warns about memory that may not be written
def test_the_callers_array_may_have_any_layout_and_is_never_written(name, channels):
    images = np.ascontiguousarray(IMAGES[..., :channels])
    expected = corrupt(images, name, 3)
    layouts = {
        "mirrored": images[:, :, ::-1].copy()[:, :, ::-1],
        "from planes": images.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1),
        "every other": images.repeat(2, axis=0)[::2],
        "Fortran": np.asfortranarray(images),
    }
    for layout in (*layouts.values(), images):
        layout.flags.writeable = False
        assert np.array_equal(corrupt(layout, name, 3), expected)
        assert np.array_equal(layout, images)


def test_a_masked_array_is_refused():
    with pytest.raises(TypeError, match=r"found a masked one: say by filled\(\)"):
        corrupt(np.ma.masked_array(IMAGES, IMAGES > 100), "fog", 1)


@pytest.mark.parametrize("name", NAMES)
def test_one_image_that_stands_for_many_and_no_image_at_all(name):
    many = np.broadcast_to(IMAGES[:1], IMAGES.shape)  # may not be written, and its rows are the same memory
    assert np.array_equal(
        corrupt(many, name, 3, index=[4] * 6), np.repeat(corrupt(IMAGES[:1], name, 3, index=[4]), 6, 0)
    )
    assert corrupt(IMAGES[:0], name, 3).shape == IMAGES[:0].shape


def test_black_images_are_images():
    assert corrupt(np.zeros_like(IMAGES), "contrast", 3).max() == 0
