"""What one of several replicas of a training shares with the others: its part of a batch, averages, measurements."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssrob.hardware.cuda_graphs import Tensors
from ssrob.losses.batch import Batch
from ssrob.models.network import Network
from ssrob.registry.lookup import load
from ssrob.registry.losses import loss_row
from ssrob.seeding import generator


class LostReplica(RuntimeError):
    """Another replica did not answer: it has failed, and says why."""


@dataclass(frozen=True)
class Team:
    """Replica number `rank` of `size`; the default is a training by itself, where nothing is exchanged."""

    rank: int = 0
    size: int = 1

    def part(self, batch: Batch) -> Batch:
        """Return this replica's share of a batch of which everything has been drawn for the whole."""
        if self.size == 1:
            return batch
        count = len(batch.x)
        if count % self.size:
            raise ValueError(f"a batch of {count} images cannot be shared equally by {self.size} replicas")
        share = count // self.size
        first = self.rank * share
        return replace(
            batch,
            x=batch.x[first : first + share],
            y=batch.y[first : first + share],
            views={name: each.narrow(_image_axis(name, batch), first, share) for name, each in batch.views.items()},
            # one block of images for each view that moves
            starts={
                name: each.reshape(-1, count, *each.shape[1:]).narrow(1, first, share).flatten(0, 1)
                for name, each in batch.starts.items()
            },
            resampled={
                name: each.narrow(1 + _image_axis(name.partition(":")[2], batch), first, share)
                for name, each in batch.resampled.items()
            },
        )

    def average(self, found: Tensors, network: Network) -> Tensors:
        """Return the means over replicas of gradients and metrics; running BatchNorm statistics become theirs, too."""
        if self.size == 1:
            return found
        statistics = _statistics(network)
        tensors = [*found.values(), *statistics]
        flat = torch.cat([tensor.float().flatten() for tensor in tensors])
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise LostReplica(str(error)) from error
        parts = torch.split(flat / self.size, [tensor.numel() for tensor in tensors])
        means = [torch.empty_like(t).copy_(part.view(t.shape)) for t, part in zip(tensors, parts, strict=True)]
        for tensor, mean in zip(statistics, means[len(found) :], strict=True):
            tensor.copy_(mean)
        return dict(zip(found, means, strict=False))

    def gathered(self, mine: dict[int, Any]) -> dict[int, Any]:
        """Return what all replicas have measured, by number in ascending order."""
        if self.size == 1:
            return mine
        shared: list[dict[int, Any]] = [{} for _ in range(self.size)]
        try:
            dist.all_gather_object(shared, mine)
        except RuntimeError as error:
            raise LostReplica(str(error)) from error
        return dict(sorted(item for each in shared for item in each.items()))

    def agree(self, network: Network) -> None:
        """Raise a RuntimeError unless all replicas have the same weights to the bit."""
        if self.size == 1:
            return
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        if len(set(self.gathered({self.rank: digest.hexdigest()}).values())) > 1:
            raise RuntimeError("the replicas of one training have different weights; are their devices of one kind?")


ALONE = Team()


def _image_axis(loss: str, batch: Batch) -> int:
    """Return the axis of a loss's view parameters that counts images: the one that grows with the batch."""
    row = loss_row(loss, batch.arguments)
    assert row.draw is not None
    shapes = [load(row.draw)(count, generator(0, "shape"), **row.arguments).shape for count in (2, 3)]
    return next(axis for axis, (two, three) in enumerate(zip(*shapes, strict=True)) if two != three)


def _statistics(network: Network) -> list[Tensor]:
    """Return the running statistics of every BatchNorm that is being trained."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False) if buffer.is_floating_point()]
