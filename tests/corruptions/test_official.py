"""The reader of the official CIFAR-10-C files."""

from pathlib import Path

import numpy as np
import pytest
from ssrob.corruptions import official, official_labels


@pytest.fixture(scope="module")
def cifar10c(tmp_path_factory) -> Path:
    """A folder with one official-looking file: sparse, with a few rows that are not zero."""
    folder = tmp_path_factory.mktemp("cifar10c")
    images = np.lib.format.open_memmap(folder / "fog.npy", mode="w+", dtype=np.uint8, shape=(50000, 32, 32, 3))
    images[[2, 20002, 49999]] = np.array([1, 2, 3], np.uint8)[:, None, None, None]
    labels = np.tile(np.arange(10000) % 10, 5).astype(np.uint8)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "snow.npy", np.zeros((10, 32, 32, 3), np.uint8))
    (folder / "frost.npy").write_bytes(b"not an array")
    return folder


def test_official_files_are_read_by_severity_and_number(cifar10c):
    assert official(cifar10c, "fog", 1, [2, 0]).max((1, 2, 3)).tolist() == [1, 0]
    assert official(cifar10c, "fog", 3, [2]).max() == 2
    last = official(cifar10c, "fog", 5)
    assert last.shape == (10000, 32, 32, 3)
    assert last[-1].min() == 3
    assert official_labels(cifar10c)[:12].tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize(
    ("name", "severity", "index", "message"),
    [
        ("rain", 1, [0], "unknown corruption 'rain'"),
        ("fog", 6, [0], "severity must be an integer 1..5, found 6"),
        ("fog", 1, [10000], r"index must lie in 0..9999, found 10000..10000"),
        ("fog", 1, [-1], r"index must lie in 0..9999, found -1..-1"),
        ("fog", 1, [[0]], "index must be one-dimensional integers"),
        ("contrast", 1, [0], r"no CIFAR-10-C file .*contrast.npy"),
        ("snow", 1, [0], r"must be uint8 \(50000, 32, 32, 3\), found uint8 \(10, 32, 32, 3\)"),
        ("frost", 1, [0], "frost.npy is damaged or not a .npy array"),
    ],
)
def test_wrong_official_files_are_refused(cifar10c, name, severity, index, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        official(cifar10c, name, severity, index)
