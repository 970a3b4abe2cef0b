"""The order of training images, and batches of those that lie on the device as one uint8 tensor."""

from collections.abc import Collection

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.data.types import Pixels, Rows
from ssrob.registry.lookup import check_choice
from ssrob.seeding import generator

AUGMENTATIONS = ("crop", "flip", "resized_crop")


class Order:
    """Which images make up a training batch: a function of (seed, epoch) alone.

    labels (N,) int64 are copied to the device. What does not fill a batch at the end of an epoch is left out; fewer
    images than a batch make one batch of all.
    """

    def __init__(self, labels: Rows, batch_size: int, seed: int, device: torch.device | str = "cpu"):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {batch_size}")
        self.labels = torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
        self.batch_size = min(batch_size, len(labels))
        self.seed = seed
        self._order: tuple[int, Tensor] = (0, self._shuffled(0))

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return len(self.labels) // self.batch_size

    def numbers_at(self, step: int) -> tuple[int, Tensor]:
        """Return the epoch of a step and the numbers of its images, (B,) int64."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, self._shuffled(epoch))
        return epoch, self._order[1][position * self.batch_size : (position + 1) * self.batch_size]

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the batch of a step: x (B, C, H, W) in [0, 1], labels and image numbers (B,) int64."""
        raise NotImplementedError

    def _shuffled(self, epoch: int) -> Tensor:
        """Return a permutation (N,) of the images; drawn on the CPU so that every device has the same."""
        drawn = torch.randperm(len(self.labels), generator=generator(self.seed, "order", epoch))
        return drawn.to(self.labels.device)


class Batches(Order):
    """Training batches of images (N, H, W, C) uint8, which are copied to the device."""

    def __init__(self, images: Pixels, labels: Rows, batch_size: int, seed: int, device: torch.device | str = "cpu"):
        if len(images) != len(labels) or not len(images):
            raise ValueError(f"expected as many labels as images, at least 1; found {len(labels)} and {len(images)}")
        self.images = as_tensor(images, device)
        super().__init__(labels, batch_size, seed, device)

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the batch of a step: x (B, C, H, W) in [0, 1], labels and image numbers (B,) int64."""
        _, index = self.numbers_at(step)
        return unit(self.images.index_select(0, index)), self.labels[index], index


def as_tensor(images: Pixels, device: torch.device | str = "cpu") -> Tensor:
    """Copy images (N, H, W, C) uint8 to the device as (N, C, H, W) uint8."""
    return torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C")).to(device)


def labelled(images: Pixels, labels: Rows, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Copy images (N, H, W, C) uint8 and labels (N,) to the device: (N, C, H, W) float32 in [0, 1], and (N,) int64."""
    return unit(as_tensor(images, device)), torch.from_numpy(np.array(labels)).to(device)


def unit(images: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 in [0, 1], shape kept."""
    return images.to(torch.float32) / 255


def augment(x: Tensor, names: Collection[str], padding: int, rng: torch.Generator) -> Tensor:
    """Crop and flip every image by itself; x (B, C, H, W) -> same.

    crop: a window of H x W at a random place of the image padded with `padding` zeros (black) on every side.
    flip: left to right with probability 1/2. Draws come from `rng` in a fixed order (rows, columns, flips).
    resized_crop: nothing is left to do; images are decoded to such crops (`ssrob.data.decoding_loader`).
    """
    for name in names:
        check_choice("augmentation", name, AUGMENTATIONS)
    batch, channels, height, width = x.shape
    room = padding if "crop" in names else 0
    shift = torch.randint(2 * room + 1, (2, batch, 1), generator=rng, device=rng.device).to(x.device)
    flip = torch.randint(2, (batch, 1), generator=rng, device=rng.device).to(x.device).bool()
    if not room:
        return torch.where(flip[:, :, None, None], x.flip(3), x) if "flip" in names else x
    rows = shift[0] + torch.arange(height, device=x.device)
    columns = torch.arange(width, device=x.device).expand(batch, width)
    if "flip" in names:
        columns = torch.where(flip, width - 1 - columns, columns)
    columns = columns + shift[1]
    padded = F.pad(x, (room, room, room, room))
    place = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    chosen = padded.flatten(2).gather(2, place.view(batch, 1, -1).expand(batch, channels, -1))
    return chosen.view(x.shape)
