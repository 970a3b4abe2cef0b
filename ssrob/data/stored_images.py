"""Images that stay in the files of their source, and are decoded when they are needed."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ssrob.data import resized_crop
from ssrob.data.arrays import check_shape, count_levels
from ssrob.data.content import image_digests
from ssrob.data.decode import Crop, decode, decode_picture
from ssrob.data.refused_images import RefusedImages
from ssrob.data.types import Digests, Pixels, Rows, Split
from ssrob.data.worker_processes import ahead

CHUNK = 256  # images that a worker takes at once
Content = tuple[str, bytes | Pixels]  # where an image lies, and what is stored there


@dataclass(frozen=True)
class StoredImages:
    """Images of a source that stay in its files: these rows of a split, in this order.

    shape: (C, H, W) of every decoded image. crop: how it gets there, as in a prepared array.
    """

    split: Split
    rows: Rows
    shape: tuple[int, int, int]
    crop: Crop | None

    def decoded(self, numbers: Rows, boxes: Tensor | None = None) -> Pixels:
        """Decode images by number (B,) to (B, H, W, C) uint8; boxes (B, 10, 4): to random resized crops instead."""
        channels, height, width = self.shape
        out = np.empty((len(numbers), height, width, channels), np.uint8)
        order = np.argsort(self.rows[numbers], kind="stable")
        for position, content in zip(order, self.split.read(self.rows[numbers][order]), strict=True):
            pixels = self._centre(content) if boxes is None else self._cropped(content, boxes[position])
            out[position] = pixels[..., :channels]
        return out

    def survey(self) -> tuple[Rows, bool, Digests, RefusedImages]:
        """Decode all once: how often each level is in each channel (3, 256), whether all are grey, what is unusable.

        And the hashes (N,) of `content.image_digests`, in no order that means anything.
        """
        counts, all_grey, digests, refused = np.zeros((3, 256), np.int64), True, [], RefusedImages()
        chunks = -(-len(self.rows) // CHUNK)
        parts = tqdm(ahead(self._survey, range(chunks)), "decode train", chunks, leave=False, disable=None)
        for found, grey, hashes, unusable in parts:
            counts += found
            all_grey = all_grey and grey
            digests.append(hashes)
            refused.add(unusable)
        return counts, all_grey, np.concatenate(digests), refused

    def _survey(self, chunk: int) -> tuple[Rows, bool, Digests, RefusedImages]:
        counts, all_grey, digests, refused = np.zeros((3, 256), np.int64), True, [image_digests([])], RefusedImages()
        for where, content in self.split.read(np.sort(self.rows[chunk * CHUNK : (chunk + 1) * CHUNK])):
            with refused.gathered():
                pixels, grey = decode(content, where, self.crop)
                counts += count_levels(self._checked(pixels, where)[None])
                all_grey = all_grey and grey
                digests.append(image_digests([pixels]))
        return counts, all_grey, np.concatenate(digests), refused

    def _centre(self, stored: Content) -> Pixels:
        where, content = stored
        return self._checked(decode(content, where, self.crop)[0], where)

    def _cropped(self, stored: Content, numbers: Tensor) -> Pixels:
        where, content = stored
        picture, _ = decode_picture(content, where)
        cut = picture.crop(resized_crop.box(numbers, *picture.size))
        return np.asarray(cut.resize(self.shape[:0:-1], Image.Resampling.BILINEAR))

    def _checked(self, pixels: Pixels, where: str) -> Pixels:
        check_shape(pixels, self.shape[1:], where)
        return pixels
