"""What changes while a network is trained: its weights, the optimiser, the weight average, the best checkpoint."""

from dataclasses import dataclass, field
from logging import Logger
from pathlib import Path
from typing import Any

import torch

from ssrob.data.prepared import Prepared
from ssrob.hardware.device import memory_format
from ssrob.models.network import CLASS_HEAD, Architecture, Network, build
from ssrob.models.serialization import load_backbone
from ssrob.models.weights import read_weights
from ssrob.planning.specs import TrainSpec
from ssrob.registry.losses import LOSSES, Widths
from ssrob.training.ema import WeightAverage


@dataclass
class TrainState:
    """Everything that changes while training; what a checkpoint holds."""

    network: Network
    optimizer: torch.optim.SGD
    average: WeightAverage | None = None
    step: int = 0
    best: dict[str, Any] = field(default_factory=dict)  # score, epoch, weights

    @property
    def eval_network(self) -> Network:
        """The network that is validated and saved: the average of the weights where there is one."""
        return self.average.network if self.average else self.network

    def to_dict(self) -> dict[str, Any]:
        """Return the state in the form that a checkpoint stores."""
        stored = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
        }
        return stored | ({"average": self.average.network.state_dict()} if self.average else {})

    def load(self, saved: dict[str, Any]) -> None:
        """Take over a stored state."""
        self.network.load_state_dict(saved["network"])
        fused = self.optimizer.param_groups[0]["fused"]
        self.optimizer.load_state_dict(saved["optimizer"])
        for group in self.optimizer.param_groups:
            group["fused"] = fused  # that of this device, whichever the checkpoint came from
        self.step, self.best = saved["step"], saved["best"]
        if self.average:
            self.average.network.load_state_dict(saved["average"])


def start(spec: TrainSpec, data: Prepared, init: Path | None, device: torch.device, log: Logger) -> TrainState:
    """Build the network and its optimiser; `init` is a file of weights for the backbone, or None for random."""
    network = build(_architecture(spec, data), spec.seed)
    if init is not None:
        notes = load_backbone(network, read_weights(init))
        log.info("init: backbone taken from %s (%s)", init, "; ".join(notes))
    if spec.tune == "head":
        network.backbone.requires_grad_(False)
    network.to(device=device, memory_format=memory_format(device))  # type: ignore[call-overload]
    training = spec.training
    if training.compile:
        network.backbone.compile(dynamic=False)
    optimizer = torch.optim.SGD(
        [parameter for parameter in network.parameters() if parameter.requires_grad],
        lr=training.lr,
        momentum=training.momentum,
        nesterov=training.nesterov and training.momentum > 0,
        weight_decay=training.weight_decay,
        fused=device.type == "cuda" or None,  # None is torch's own choice, and the documented bits on a CPU
    )
    return TrainState(network, optimizer, WeightAverage(network, training.ema) if training.ema else None)


def _architecture(spec: TrainSpec, data: Prepared) -> Architecture:
    needs_classes = any(not LOSSES[name].self_supervised for name in spec.objective.losses)
    class_head: dict[str, Widths] = {CLASS_HEAD: len(data.classes)} if needs_classes else {}
    return Architecture(
        backbone=spec.model.name,
        arguments=spec.model.arguments,
        shape=data.shape,
        mean=data.mean,
        std=data.std,
        heads=class_head | spec.objective.heads,
        classes=data.classes,
        branches=spec.objective.branches,
    )
