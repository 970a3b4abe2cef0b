"""A finished data stage, opened; all but its test split, which is in `test_split.py` for evaluation alone."""

import json
from pathlib import Path

import numpy as np

from ssrob.data.types import DataError, Pixels, Rows


class Prepared:
    """What `prepare` wrote into a folder. Images are memory-mapped; writing into them never reaches the file.

    shape: (C, H, W). mean, std: per channel of the training images, in [0, 1] units. classes: empty if
    unlabelled, and then every label is -1.
    """

    def __init__(self, folder: Path):
        file = folder / "data.json"
        try:
            about = json.loads(file.read_text())
            self.name: str = about["name"]
            self.classes: tuple[str, ...] = tuple(about["classes"])
            self.shape: tuple[int, int, int] = tuple(about["shape"])
            self.mean: tuple[float, ...] = tuple(about["mean"])
            self.std: tuple[float, ...] = tuple(about["std"])
            self.counts: dict[str, int] = about["counts"]
            self.fingerprint: str = about["fingerprint"]
            self.source_fingerprint: str = about["source_fingerprint"]
        except FileNotFoundError:
            raise DataError(f"{folder}: no prepared data (data.json is missing); run the data stage") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}: damaged ({error!r}); remove {folder} and prepare again") from error
        self.folder = folder

    def train(self) -> tuple[Pixels, Rows]:
        """Return images (N, H, W, C) uint8 and labels (N,) int64 to train on, validation left out."""
        images, labels = self._training()
        return images[: self.counts["train"]], labels[: self.counts["train"]]

    def validation(self) -> tuple[Pixels, Rows]:
        """Return the validation images (N, H, W, C) uint8 and labels (N,) int64.

        They are in an order in which every prefix has the classes in proportion.
        """
        images, labels = self._training()
        return images[self.counts["train"] :], labels[self.counts["train"] :]

    def _training(self) -> tuple[Pixels, Rows]:
        channels, height, width = self.shape
        count = self.counts["train"] + self.counts["validation"]
        images = load_array(self.folder / "train_images.npy", (count, height, width, channels))
        return images, load_array(self.folder / "train_labels.npy", (count,))


def load_array(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read an array of a known shape; images are mapped into memory, copy on write."""
    try:
        array: np.ndarray = np.load(file, mmap_mode="c" if len(shape) == 4 and shape[0] else None)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: cannot be read ({error}); remove {file.parent} and prepare again") from error
    if array.shape != shape:
        raise DataError(f"{file}: expected shape {shape}, found {array.shape}; remove {file.parent} and prepare again")
    return array
