"""Reader of the official CIFAR-10-C files: what the benchmark's numbers were measured on."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ssrob.registry.corruptions import SEVERITIES, check_name, check_severity

TEST_SIZE = 10_000
_SHAPE = (len(SEVERITIES) * TEST_SIZE, 32, 32, 3)


def official(folder: Path, name: str, severity: int, index: ArrayLike | None = None) -> NDArray[np.uint8]:
    """Return corrupted CIFAR-10 test images, (N, 32, 32, 3) uint8, from `folder`/`name`.npy.

    `index` (N,) holds numbers 0..9999 in CIFAR-10's own test order; all 10,000 images when left out.
    """
    check_name(name)
    check_severity(severity)
    blocks = _load(Path(folder) / f"{name}.npy", _SHAPE)
    rows = np.arange(TEST_SIZE) if index is None else _test_numbers(index)
    return np.ascontiguousarray(blocks[(severity - 1) * TEST_SIZE + rows])


def official_labels(folder: Path) -> NDArray[np.uint8]:
    """Return the labels of the 10,000 test images, (10000,) uint8, from `folder`/labels.npy.

    Compare them with the data set's own: the files are of use only if both are in the same order.
    """
    return np.array(_load(Path(folder) / "labels.npy", _SHAPE[:1])[:TEST_SIZE])


def _load(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if not path.is_file():
        raise FileNotFoundError(f"no CIFAR-10-C file {path}; the folder must hold <corruption>.npy and labels.npy")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged or not a .npy array: {error}") from error
    if array.dtype != np.uint8 or array.shape != shape:
        raise ValueError(f"{path} must be uint8 {shape}, found {array.dtype} {array.shape}")
    images: NDArray[np.uint8] = array
    return images


def _test_numbers(index: ArrayLike) -> NDArray[np.int64]:
    numbers = np.asarray(index)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise ValueError(f"index must be one-dimensional integers, found {numbers.dtype} {numbers.shape}")
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < TEST_SIZE:
        raise ValueError(f"index must lie in 0..{TEST_SIZE - 1}, found {numbers.min()}..{numbers.max()}")
    return numbers.astype(np.int64)
