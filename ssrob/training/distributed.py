"""What one of several replicas of a training shares with the others: the batch, averages, measurements."""

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssrob.hardware.cuda_graphs import Tensors
from ssrob.losses.batch import Batch
from ssrob.models.network import Network

CAUSE_FIRST_SECONDS = 1.0  # so that the replica that failed is reported before those that wait for it


class LostReplica(RuntimeError):
    """Another replica did not answer: it has failed, and says why."""

    def __init__(self) -> None:
        time.sleep(CAUSE_FIRST_SECONDS)
        super().__init__("another replica ended, and its node says why; run it again to go on from the last checkpoint")


@dataclass(frozen=True)
class ReplicaGroup:
    """Replica number `rank` of `size`; the default is a training by itself, where nothing is exchanged."""

    rank: int = 0
    size: int = 1

    def local_shard(self, batch: Batch) -> Batch:
        """Return this replica's share of a batch of which everything has been drawn for the whole."""
        if self.size == 1:
            return batch
        count = len(batch.x)
        if count % self.size:
            raise ValueError(f"a batch of {count} images cannot be shared equally by {self.size} replicas")
        share = count // self.size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        # The start of V stacked views is V blocks of images.
        starts = {
            name: each.reshape(-1, count, *each.shape[1:])[:, mine].flatten(0, 1) for name, each in batch.starts.items()
        }
        return Batch(batch.x[mine], batch.y[mine], {name: each[mine] for name, each in batch.drawn.items()}, starts)

    def average(self, outputs: Tensors, network: Network) -> Tensors:
        """Return the means over replicas of gradients and metrics; running BatchNorm statistics become theirs, too."""
        if self.size == 1:
            return outputs
        statistics = _statistics(network)
        tensors = [*outputs.values(), *statistics]
        flat = torch.cat([tensor.float().flatten() for tensor in tensors])
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise LostReplica from error
        parts = torch.split(flat / self.size, [tensor.numel() for tensor in tensors])
        means = [torch.empty_like(t).copy_(part.view(t.shape)) for t, part in zip(tensors, parts, strict=True)]
        for tensor, mean in zip(statistics, means[len(outputs) :], strict=True):
            tensor.copy_(mean)
        return dict(zip(outputs, means, strict=False))

    def all_gather(self, mine: dict[int, Any]) -> dict[int, Any]:
        """Return what all replicas have measured, by number in ascending order."""
        if self.size == 1:
            return mine
        shared: list[dict[int, Any]] = [{} for _ in range(self.size)]
        try:
            dist.all_gather_object(shared, mine)
        except RuntimeError as error:
            raise LostReplica from error
        return dict(sorted(item for each in shared for item in each.items()))

    def assert_replicas_equal(self, network: Network) -> None:
        """Raise a RuntimeError unless all replicas have the same weights to the bit."""
        if self.size == 1:
            return
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        if len(set(self.all_gather({self.rank: digest.hexdigest()}).values())) > 1:
            raise RuntimeError("the replicas of one training have different weights; are their devices of one kind?")


ALONE = ReplicaGroup()


def _statistics(network: Network) -> list[Tensor]:
    """Return the running statistics of every BatchNorm that is being trained."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training]
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False) if buffer.is_floating_point()]
