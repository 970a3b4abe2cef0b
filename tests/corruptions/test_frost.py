"""Frost: photographs when there are some, a procedural texture otherwise."""

import os

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from ssrob.corruptions import corrupt, ice, parameters
from tests.reference_corruptions import SameDraws, crops, frost, stored

IMAGES = crops(4, 32)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Five photographs under the original's names, and a sixth, which is one colour."""
    folder = tmp_path_factory.mktemp("frost")
    for i in range(5):
        Image.fromarray(load_sample_images().images[i % 2][50 * i :]).save(folder / f"frost{i + 1}.png")
    Image.new("RGB", (600, 400), (255, 0, 0)).save(folder / "frost6.jpg")
    (folder / "README.txt").write_text("where the photographs are from")
    return folder


def test_photographs_are_shrunk_cropped_and_added(photographs):
    cv2 = pytest.importorskip("cv2")
    files = [photographs / f"frost{i}.png" for i in range(1, 6)]
    plates = [cv2.resize(cv2.imread(str(file))[..., ::-1], (0, 0), fx=0.2, fy=0.2) for file in files]
    for severity in range(1, 6):
        params = parameters("frost", severity, "cifar")
        found = corrupt(IMAGES, "frost", severity, seed=3, frost=photographs)
        for number, image in enumerate(IMAGES):
            expected = stored(frost(image, params, SameDraws(3, "frost", severity, number), plates))
            assert np.abs(found[number].astype(int) - expected).max() <= 1


def test_the_originals_sixth_photograph_is_never_drawn(photographs):
    assert len(ice.read(photographs, 0.2, 32, 32)) == 5


def test_a_photograph_that_was_replaced_is_read_again(tmp_path):
    for shade in (255, 0):
        Image.new("RGB", (300, 300), (shade, shade, shade)).save(tmp_path / "frost1.png")
        os.utime(tmp_path / "frost1.png", ns=(shade, shade))  # a file system may count in seconds
        white = corrupt(IMAGES, "frost", 1, frost=tmp_path)
        assert np.array_equal(white, stored(np.minimum(255, IMAGES + 0.2 * shade)))


def test_plates_are_ice_coloured_and_differ():
    plates = ice.plates(32, 32)
    assert len(plates) == 5
    for plate in plates:
        assert plate.shape == (3, 128, 128)
        assert 0 <= plate.min() <= plate.max() <= 1
        red, _, blue = plate.mean((1, 2))
        assert red < blue
        assert 0.45 < plate.mean() < 0.58
        assert 0.15 < plate.std() < 0.25
    assert len({float(plate.sum()) for plate in plates}) == 5


def test_plates_are_the_same_every_time():
    before = ice.plates(16, 16)[0]
    ice._plate.cache_clear()
    assert ice.plates(16, 16)[0].equal(before)


def test_folders_that_will_not_do_are_refused(tmp_path, photographs):
    with pytest.raises(FileNotFoundError, match="no folder of frost photographs at"):
        corrupt(IMAGES, "frost", 1, frost=tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="no frost photographs"):
        corrupt(IMAGES, "frost", 1, frost=tmp_path)
    (tmp_path / "frost1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"frost1.png cannot be decoded as an image"):
        corrupt(IMAGES, "frost", 1, frost=tmp_path)
    with pytest.raises(ValueError, match=r"must exceed 96 x 96 once scaled by 0.2, found"):
        corrupt(crops(1, 96), "frost", 1, frost=photographs, table="cifar")
