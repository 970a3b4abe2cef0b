"""The reader of ImageNet-C's folders."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ssrob.corruptions.fingerprint import fingerprint
from ssrob.corruptions.imagenetc import CorruptedFolders, is_tree
from ssrob.data.types import DataError

CLASSES = ("n01440764", "n02123045")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Two corruptions at two severities of three and two images, each of one grey level of its own."""
    level = 0
    for name in ("fog", "snow"):
        for severity in (2, 5):
            for wnid, count in zip(CLASSES, (3, 2), strict=True):
                folder = tmp_path / name / str(severity) / wnid
                folder.mkdir(parents=True)
                (folder / "LICENSE.txt").touch()
                for number in range(count):
                    level += 10
                    Image.new("L" if number else "RGB", (24, 16), level if number else (level,) * 3).save(
                        folder / f"ILSVRC2012_val_{number:08}.JPEG", quality=95
                    )
    return tmp_path


def test_images_are_found_by_class_and_name(published: Path) -> None:
    found = CorruptedFolders(published, CLASSES)
    assert found.names == ("snow", "fog")
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    images = found.at("fog", 5, np.array([4, 0, 1]))
    assert images.shape == (3, 16, 24, 3)
    assert np.abs(images.mean((1, 2, 3)) - [100, 60, 70]).max() < 2
    assert CorruptedFolders(published, CLASSES[1:]).at("snow", 2, np.array([0])).mean() == pytest.approx(140, abs=2)


def test_what_is_missing_or_damaged_is_named(published: Path) -> None:
    found = CorruptedFolders(published, CLASSES)
    with pytest.raises(DataError, match=r"n03: cannot be listed \(No such file or directory\); it must hold"):
        CorruptedFolders(published, [*CLASSES, "n03"])
    file = published / "fog/2/n01440764/ILSVRC2012_val_00000001.JPEG"
    content = file.read_bytes()
    file.write_bytes(content[:300])
    with pytest.raises(DataError, match=r"fog/2/n01440764/ILSVRC2012_val_00000001\.JPEG: cannot be decoded"):
        found.at("fog", 2, np.array([1]))
    file.unlink()
    with pytest.raises(DataError, match=r"val_00000001\.JPEG: cannot be read \(No such file or directory\)"):
        found.at("fog", 2, np.array([0, 1]))
    Image.new("RGB", (16, 24)).save(file)
    with pytest.raises(DataError, match=r"fog/2: expected images of one size, found \(16, 24, 3\) and \(24, 16, 3\)"):
        found.at("fog", 2, np.array([0, 1]))


def test_a_tree_is_told_from_arrays_and_by_what_it_holds(published: Path, tmp_path: Path) -> None:
    before = fingerprint(published)
    assert is_tree(published)
    (published / "fog/5/n01440764/ILSVRC2012_val_00000001.JPEG").write_bytes(b"other")
    assert fingerprint(published) != before
    assert not is_tree(published / "fog")
