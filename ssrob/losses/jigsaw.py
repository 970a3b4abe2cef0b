"""Jigsaw puzzles: in which of some fixed orders do an image's tiles stand?

Task and set of orders: Noroozi and Favaro 2016. The tiles are put together to one image for the one backbone, as in
Carlucci et al. 2019 (there each tile may also go through a network of its own); they adjoin, without gaps.
"""

import functools
import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssrob.losses.batch import Batch, Model

COARSE = (2, 12)  # tiles per side, orders: any two differ in at least three places, 24 would in two
FINE = (3, 30)  # as many as Carlucci et al.; any two differ in at least seven places


def draw(batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw the number of an order of 2 x 2 tiles per image, (B,) int64 in 0..11."""
    return _balanced(batch_size, COARSE[1], generator)


def jigsaw(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the jigsaw head at the shuffled x (2 x 2 tiles) against the order's number."""
    number = batch.views["jigsaw"]
    return F.cross_entropy(model(shuffle(x, number, *COARSE), head="jigsaw"), number, reduction="none")


def correct(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """(B,) bool: whether the jigsaw head names the order."""
    number = batch.views["jigsaw"]
    return model(shuffle(x, number, *COARSE), head="jigsaw").argmax(dim=1) == number


def draw_3x3(batch_size: int, generator: torch.Generator) -> Tensor:
    """Draw the number of an order of 3 x 3 tiles per image, (B,) int64 in 0..29."""
    return _balanced(batch_size, FINE[1], generator)


def jigsaw_3x3(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the head jigsaw_3x3 at the shuffled x (3 x 3 tiles) against the order's number."""
    number = batch.views["jigsaw_3x3"]
    return F.cross_entropy(model(shuffle(x, number, *FINE), head="jigsaw_3x3"), number, reduction="none")


def correct_3x3(model: Model, x: Tensor, batch: Batch) -> Tensor:
    """(B,) bool: whether the head jigsaw_3x3 names the order."""
    number = batch.views["jigsaw_3x3"]
    return model(shuffle(x, number, *FINE), head="jigsaw_3x3").argmax(dim=1) == number


def shuffle(x: Tensor, number: Tensor, side: int, count: int) -> Tensor:
    """Put tile `order[j]` of an image at place j, row by row, where order is that of its number.

    x (B, C, H, W), number (B,) -> (B, C, H', W'): H and W cut about the centre to multiples of `side`.
    """
    batch, channels, height, width = x.shape
    if min(height, width) < side:
        raise ValueError(f"a jigsaw of {side} x {side} tiles needs images as large, found {height} x {width}")
    tall, wide = height // side, width // side
    top, left = (height - tall * side) // 2, (width - wide * side) // 2
    inner = x[:, :, top : top + tall * side, left : left + wide * side]
    tiles = inner.reshape(batch, channels, side, tall, side, wide).permute(0, 2, 4, 1, 3, 5).reshape(batch, side**2, -1)
    order = _table(side**2, count, x.device)[number]
    moved = tiles.gather(1, order[:, :, None].expand_as(tiles))
    moved = moved.view(batch, side, side, channels, tall, wide).permute(0, 3, 1, 4, 2, 5)
    return moved.reshape(batch, channels, tall * side, wide * side)


@functools.cache
def orders(tiles: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Choose so many orders of the tiles that are far apart, the first as they are.

    Greedy, after Noroozi and Favaro 2016, algorithm 1: next is the order whose nearest of those chosen differs in the
    most places; of these, the one that differs from all of them in the most places; of these, the first in
    lexicographic order, so that the set is the same everywhere. Theirs minds the second alone, and among 30 orders
    of 9 tiles has some that differ in two places; here it is seven.
    """
    every = np.array(list(itertools.permutations(range(tiles))), dtype=np.int8).T
    if not 2 <= count <= every.shape[1]:
        raise ValueError(f"{tiles} tiles have {every.shape[1]} orders: choose 2 or more of them, found {count}")
    chosen, nearest, summed = [0], np.full(every.shape[1], tiles), np.zeros(every.shape[1], dtype=np.int64)
    while len(chosen) < count:
        distance = (every != every[:, chosen[-1:]]).sum(axis=0)
        nearest, summed = np.minimum(nearest, distance), summed + distance
        chosen.append(int((nearest * tiles * count + summed).argmax()))
    return tuple(tuple(int(tile) for tile in every[:, index]) for index in chosen)


@functools.cache
def _table(tiles: int, count: int, device: torch.device) -> Tensor:
    """Return the orders on the device, (count, tiles) int64; kept, because a copy to a GPU waits for it."""
    return torch.tensor(orders(tiles, count), device=device)


def _balanced(batch_size: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw numbers below `count`, each as often in the batch; which of them are left over is drawn as well."""
    order = torch.randperm(batch_size, generator=generator, device=generator.device)
    return (order + torch.randint(count, (1,), generator=generator, device=generator.device)) % count
