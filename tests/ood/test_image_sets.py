"""Images outside the training distribution."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_images
from ssrob import seeding
from ssrob.data.content import image_digests
from ssrob.ood.image_sets import SYNTHETIC, check_outside, fitted, synthetic

PHOTOGRAPH = load_sample_images().images[0]  # 427 x 640 x 3


@pytest.mark.parametrize("name", SYNTHETIC)
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 20, 30)])
def test_an_image_is_a_function_of_its_number(name, shape):
    images = synthetic(name, 6, shape, seed=1)
    assert images.shape == (6, *shape[1:], shape[0])
    assert images.dtype == np.uint8
    assert np.array_equal(synthetic(name, 3, shape, seed=1), images[:3])
    assert len({image.tobytes() for image in images}) == 6
    assert not np.array_equal(synthetic(name, 6, shape, seed=2), images)
    assert images.std() > 20  # none is one colour
    assert synthetic(name, 0, shape).shape == (0, *shape[1:], shape[0])


def test_noise_is_distributed_as_published():
    values = {name: synthetic(name, 40, (3, 32, 32)) / 255 for name in ("gaussian", "uniform", "rademacher")}
    assert values["gaussian"].mean() == pytest.approx(0.5, abs=0.004)  # 122,880 values: 5 standard errors
    inner = np.abs(values["gaussian"] - 0.5)
    assert (inner < 0.25).mean() == pytest.approx(0.6827, abs=0.01)  # within one standard deviation
    assert values["uniform"].mean() == pytest.approx(0.5, abs=0.005)
    assert values["uniform"].std() == pytest.approx(12**-0.5, abs=0.005)
    assert set(np.unique(values["rademacher"])) == {0, 1}
    assert values["rademacher"].mean() == pytest.approx(0.5, abs=0.008)


def test_blobs_are_those_of_the_published_code():
    keys = seeding.example_keys(torch.arange(2), 0, "ood", "blobs", "noise")
    noise = (seeding.uniform(keys, (3, 32, 32)) < 0.7).numpy().transpose(0, 2, 3, 1).astype(np.float64)
    expected = np.array([gaussian_filter(x, 1.5, mode="nearest") for x in noise])
    expected[expected < 0.75] = 0
    assert np.array_equal(synthetic("blobs", 2, (3, 32, 32)), np.rint(255 * expected))


def test_every_image_is_the_same_however_many_are_made_at_once():
    assert np.array_equal(synthetic("blobs", 400, (3, 40, 40))[390:], synthetic("blobs", 410, (3, 40, 40))[390:400])


def test_unknown_sets_are_refused():
    with pytest.raises(ValueError, match=r"unknown synthetic image set 'dots' \(known: gaussian, uniform"):
        synthetic("dots", 1, (3, 8, 8))


def test_images_of_another_set_take_the_models_shape():
    square = Image.fromarray(PHOTOGRAPH[:, 106:533])
    assert square.size == (427, 427)
    expected = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC))
    found = fitted(PHOTOGRAPH[None], (3, 32, 32))[0]
    assert np.abs(found.astype(int) - expected).max() <= 8  # the centre lies between two columns
    assert np.abs(found.astype(int) - expected).mean() < 1
    assert np.array_equal(fitted(np.asarray(square)[None], (3, 32, 32))[0], expected)
    grey = fitted(np.asarray(square)[None], (1, 32, 32))
    assert np.array_equal(grey[0, ..., 0], np.asarray(Image.fromarray(expected).convert("L")))
    assert np.array_equal(fitted(grey, (3, 32, 32)), grey.repeat(3, axis=3))
    assert np.array_equal(fitted(grey, (1, 32, 32)), grey)
    assert fitted(PHOTOGRAPH[None], (3, 20, 40)).shape == (1, 20, 40, 3)


def test_the_callers_images_stay_as_they_are():
    images = PHOTOGRAPH[None].copy()
    images.flags.writeable = False
    fitted(images, (3, 32, 32))
    assert np.array_equal(images[0], PHOTOGRAPH)


def test_what_was_trained_on_is_refused():
    training, outside = synthetic("uniform", 20, (1, 8, 8)), synthetic("blobs", 5, (1, 8, 8))
    trained = image_digests(training)
    check_outside("blobs", outside, trained, "mine")
    outside[3] = training[7]
    for images in (outside, outside.repeat(3, axis=3)):  # grey or grey in three channels
        with pytest.raises(ValueError, match="ood set 'b': 1 of its 5 images, the first at 3, are among the training"):
            check_outside("b", images, trained, "mine")
    outside[3, 0, 0] ^= 1
    check_outside("b", outside, trained, "mine")
