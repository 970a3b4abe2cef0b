"""Sources that come as arrays from a library: digits (scikit-learn) and CIFAR (torchvision)."""

import numpy as np

from ssrob.config.data import Data
from ssrob.data.types import DataError, Opened, refusal, split_of_arrays
from ssrob.formatting import one_line
from ssrob.storage.files import user_cache


def digits(data: Data) -> Opened:
    """Load the 1,797 grey 8x8 digits of scikit-learn; levels 0..16 become 0..255. There is no test split."""
    from sklearn.datasets import load_digits  # takes a second to import

    loaded = load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    return Opened(tuple("0123456789"), split_of_arrays(images, loaded.target.astype(np.int64), data.name))


def cifar10(data: Data) -> Opened:
    """Load CIFAR-10, downloading it once into `path`."""
    return _cifar(data, "CIFAR10")


def cifar100(data: Data) -> Opened:
    """Load CIFAR-100 with its 100 fine labels, downloading it once into `path`."""
    return _cifar(data, "CIFAR100")


def _cifar(data: Data, kind: str) -> Opened:
    from torchvision import datasets  # imports torch

    root = data.path or user_cache("ssrob", filled=True)
    if root.exists() and not root.is_dir():
        raise refusal(data, "path", f"expected a folder to download into, found the file {root}")
    try:
        train, test = (getattr(datasets, kind)(root, train=train, download=True) for train in (True, False))
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"data set {data.name!r}: {kind} is not in {root} and cannot be downloaded ({one_line(error)}); "
            "prepare it once where there is a network, or set path to a folder that holds it"
        ) from error
    splits = [split_of_arrays(s.data, np.asarray(s.targets, dtype=np.int64), kind) for s in (train, test)]
    return Opened(tuple(train.classes), *splits)
