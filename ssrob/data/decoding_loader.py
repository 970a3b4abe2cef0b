"""Batches of images that stay in their files and are decoded by worker processes, ahead of the training.

A batch is a function of the seed and its step alone, so the same ones come from any number of workers and any start.
"""

import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from ssrob.data import resized_crop
from ssrob.data.loader import Order, unit
from ssrob.data.stored_images import StoredImages
from ssrob.data.types import Rows
from ssrob.data.worker_processes import ahead


class DecodedBatches(Order):
    """As `ssrob.data.loader.Batches`, of images that are decoded when they are needed.

    random_crops: every image as a random resized crop of what is stored. part: the images of each batch that are
    decoded, by the replica that needs them; the others are black.
    """

    def __init__(
        self,
        images: StoredImages,
        labels: Rows,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        *,
        random_crops: bool = False,
        part: tuple[int, int] = (0, 1),
        workers: int | None = None,
    ):
        super().__init__(labels, batch_size, seed)
        self._images, self._device, self._random_crops = images, torch.device(device), random_crops
        share = self.batch_size // part[1]
        self._part = slice(part[0] * share, (part[0] + 1) * share) if part[1] > 1 else slice(None)
        self._workers = workers
        self._stream: Iterator[Tensor] = iter(())
        self._next = -1

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the batch of a step: x (B, C, H, W) in [0, 1], labels and image numbers (B,) int64."""
        if step != self._next:
            numbers = range(step, sys.maxsize)
            self._stream = ahead(self._load, numbers, self._workers, pin=self._device.type == "cuda")
        pixels, self._next = next(self._stream).to(self._device, non_blocking=True), step + 1
        _, index = self.numbers_at(step)
        x = unit(pixels.permute(0, 3, 1, 2).contiguous())
        if len(x) < len(index):
            whole = x.new_zeros((len(index), *self._images.shape))
            whole[self._part] = x
            x = whole
        return x, self.labels[index].to(self._device, non_blocking=True), index.to(self._device, non_blocking=True)

    def _load(self, step: int) -> Tensor:
        epoch, index = self.numbers_at(step)
        mine = index[self._part]
        boxes = resized_crop.draw(mine, self.seed, epoch) if self._random_crops else None
        return torch.from_numpy(self._images.decoded(mine.numpy(), boxes))
