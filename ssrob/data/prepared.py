"""A finished data stage, opened; all but its test split, which is in `test_split.py` for evaluation alone."""

import json
from pathlib import Path

import numpy as np
import torch

from ssrob.config.data import Data
from ssrob.data.content import image_digests
from ssrob.data.decode import crop_of
from ssrob.data.held_out import kept_labels
from ssrob.data.sources import open_source
from ssrob.data.splits import balanced
from ssrob.data.stored_images import StoredImages
from ssrob.data.types import DataError, Digests, Pixels, Rows, refusal
from ssrob.seeding import example_keys


class Prepared:
    """What `prepare` wrote into a folder. Images are memory-mapped; writing into them never reaches the file.

    shape: (C, H, W). mean, std: per channel of the training images, in [0, 1] units. classes: empty if
    unlabelled, and then every label is -1. in_files: training images stay in the files of `source`.
    """

    def __init__(self, folder: Path, source: Data | None = None):
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
        self.folder, self._source = folder, source
        self.in_files: bool = about.get("storage") == "files"

    def train(self, kept: Rows | None = None) -> tuple[Pixels, Rows]:
        """Return images (N, H, W, C) uint8 and labels (N,) int64 to train on, validation left out.

        kept: the numbers of those that are wanted, (N,); images that stay in their files have to be named so.
        """
        labels, numbers = self.train_labels, slice(None) if kept is None else kept
        if not self.in_files:
            return self._images()[: self.counts["train"]][numbers], labels[numbers]
        if kept is None:
            raise DataError(f"{self.folder}: its training images stay in their files; open them by `stored_images`")
        return self.stored_images().decoded(kept), labels[kept]

    def train_subset(self, count: int, seed: int, purpose: str) -> Rows:
        """Choose so many training images, equally many per class as far as they reach; their numbers, ascending."""
        keys = example_keys(torch.arange(len(self.train_labels)), seed, purpose).numpy()
        return np.sort(balanced(self.train_labels, keys, count))

    @property
    def train_labels(self) -> Rows:
        """The labels (N,) int64 of the images to train on."""
        return self._labels()[: self.counts["train"]]

    def stored_images(self) -> StoredImages:
        """Return the training images as they lie in the source; raises DataError if these are others by now."""
        if self._source is None:
            raise DataError(f"{self.folder}: its training images are in files, and no data set was given to open them")
        opened, every = open_source(self._source), self.counts["train"] + self.counts["validation"]
        split, labels = opened.train, kept_labels(self._source, opened.classes, opened.train.labels)
        rows = load_array(self.folder / "train_rows.npy", (every,))
        if rows.max() >= len(split) or not np.array_equal(labels[rows], self._labels()):
            raise refusal(self._source, "path", "has other images or labels than when it was prepared; put them back")
        return StoredImages(split, rows[: self.counts["train"]], self.shape, crop_of(self._source))

    def validation(self) -> tuple[Pixels, Rows]:
        """Return the validation images (N, H, W, C) uint8 and labels (N,) int64.

        They are in an order in which every prefix has the classes in proportion.
        """
        first = 0 if self.in_files else self.counts["train"]
        return self._images()[first:], self._labels()[self.counts["train"] :]

    def digests(self) -> Digests:
        """Return the hashes (N,) of all training and validation images, by `image_digests`.

        Images that stay in their files were hashed when they were prepared. Folders of older versions lack these
        hashes: their images are decoded once more.
        """
        if not self.in_files:
            return image_digests(self._images())
        file, count = self.folder / "train_digests.npy", self.counts["train"]
        if file.is_file():
            trained = load_array(file, (count,))
        else:
            *_, trained, refused = self.stored_images().survey()
            refused.check()
        return np.concatenate([trained, image_digests(self.validation()[0])])

    def _images(self) -> Pixels:
        channels, height, width = self.shape
        count = self.counts["validation"] + (0 if self.in_files else self.counts["train"])
        return load_array(self.folder / "train_images.npy", (count, height, width, channels))

    def _labels(self) -> Rows:
        return load_array(self.folder / "train_labels.npy", (self.counts["train"] + self.counts["validation"],))


def load_array(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read an array of a known shape; images are mapped into memory, copy on write."""
    try:
        array: np.ndarray = np.load(file, mmap_mode="c" if len(shape) == 4 and shape[0] else None)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: cannot be read ({error}); remove {file.parent} and prepare again") from error
    if array.shape != shape:
        raise DataError(f"{file}: expected shape {shape}, found {array.shape}; remove {file.parent} and prepare again")
    return array
