"""Jigsaw puzzles: in which of some fixed orders do an image's tiles stand?

Task and set of orders: Noroozi and Favaro 2016. The tiles are put together to one image for the one backbone, as in
Carlucci et al. 2019 (there each tile may also go through a network of its own); they adjoin, without gaps.
"""

import functools
import itertools

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ssrob.losses.batch import Model, Task
from ssrob.seeding import example_keys, uniform

CANDIDATES = 50_000  # among which orders are chosen where all of them are too many to list


def draw(batch_size: int, generator: torch.Generator, *, permutations: int, **_: int) -> Tensor:
    """Draw the number of an order per image, (B,) int64 below `permutations`.

    Each comes as often in the batch; which of them are left over is drawn as well.
    """
    order = torch.randperm(batch_size, generator=generator, device=generator.device)
    return (order + torch.randint(permutations, (1,), generator=generator, device=generator.device)) % permutations


def views(x: Tensor, number: Tensor, *, grid: int, permutations: int) -> tuple[Tensor]:
    """Return the images, each with its tiles in the order of its number."""
    return (shuffle(x, number, grid, permutations),)


def jigsaw(model: Model, x: Tensor, task: Task) -> Tensor:
    """Cross-entropy of the task's head at the shuffled x against the order's number."""
    (shuffled,) = task.views
    return F.cross_entropy(model(shuffled, head=task.head), task.drawn, reduction="none")


def correct(model: Model, x: Tensor, task: Task) -> Tensor:
    """(B,) bool: whether the task's head predicts the order."""
    (shuffled,) = task.views
    return model(shuffled, head=task.head).argmax(dim=1) == task.drawn


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
    lexicographic order, so that the set is the same everywhere. Theirs has the second rule alone, and among 30 orders
    of 9 tiles has some that differ in two places; here it is seven. More than nine tiles have too many orders to list:
    there, 50,000 of them stand for all.
    """
    every = _candidates(tiles)
    if not 2 <= count <= every.shape[1]:
        raise ValueError(f"{tiles} tiles have {every.shape[1]} orders: choose 2 or more of them, found {count}")
    chosen, nearest, summed = [0], np.full(every.shape[1], tiles), np.zeros(every.shape[1], dtype=np.int64)
    while len(chosen) < count:
        distance = (every != every[:, chosen[-1:]]).sum(axis=0)
        nearest, summed = np.minimum(nearest, distance), summed + distance
        chosen.append(int((nearest * tiles * count + summed).argmax()))
    return tuple(tuple(int(tile) for tile in every[:, index]) for index in chosen)


def _candidates(tiles: int) -> NDArray[np.int8]:
    """List orders, one a column, the first with the tiles as they are."""
    if tiles <= 9:
        return np.array(list(itertools.permutations(range(tiles))), dtype=np.int8).T
    drawn = uniform(example_keys(torch.arange(CANDIDATES), 0, "jigsaw"), (tiles,)).argsort(dim=1, stable=True)
    drawn[0] = torch.arange(tiles)
    return drawn.numpy().astype(np.int8).T


@functools.cache
def _table(tiles: int, count: int, device: torch.device) -> Tensor:
    """Return the orders on the device, (count, tiles) int64; kept, because a copy to a GPU waits for it."""
    return torch.tensor(orders(tiles, count), device=device)
