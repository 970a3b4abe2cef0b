"""What a training step costs, against its floor: the bare passes that `ssrob.planning.cost` counts from a spec.

    python benchmarks/training.py [--config config/cifar10-mini.yaml] [--rounds 9]

A floor has the same network, batch, precision and layout: forwards with input gradients in eval mode, then forwards
with full backwards in train mode, then forwards alone. No augmentation, losses, projections or optimiser. Images are
random.
"""

import argparse
from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from ssrob.attacks.frozen import frozen
from ssrob.config.loader import load_study
from ssrob.data.loader import Batches
from ssrob.hardware.device import precision
from ssrob.planning.cost import step_passes
from ssrob.planning.plan import make_plan
from ssrob.planning.specs import TrainSpec
from ssrob.training.fit import TrainingRun, graphed_step, training_step
from ssrob.training.state import TrainState, start
from torch import Tensor

from timing import interleaved, ratio

SIZE = 32


def floor(state: TrainState, spec: TrainSpec, x: Tensor) -> None:
    """Run the passes of one training step and nothing else."""
    network, passes = state.network, step_passes(spec.objective)
    with precision(spec.training.precision, x.device):
        with frozen(network):
            for _ in range(passes.input_backwards):
                point = x.clone().requires_grad_()
                torch.autograd.grad(network(point).sum(), point)
        network.train()
        for _ in range(passes.full_backwards):
            network.zero_grad(set_to_none=True)
            torch.autograd.backward(network(x).sum())
        with torch.no_grad():
            for _ in range(passes.forwards - passes.input_backwards - passes.full_backwards):
                network(x)


def contest(spec: TrainSpec) -> dict[str, Callable[[], object]]:
    """A step of a variant, and its floor."""
    draws, batch = np.random.default_rng(0), spec.training.batch_size
    images = draws.integers(0, 256, (20 * batch, SIZE, SIZE, 3), dtype=np.uint8)
    labels = draws.integers(0, 10, len(images))
    classes = tuple(str(k) for k in range(10))
    data = SimpleNamespace(shape=(3, SIZE, SIZE), mean=(0.5,) * 3, std=(0.25,) * 3, classes=classes)
    state = start(spec, data, None, torch.device("cpu"), getLogger(__name__))  # type: ignore[arg-type]
    batches = Batches(images, labels, batch, spec.seed)
    x = batches.at(0)[0]
    task = TrainingRun(spec, batches, (x, x))
    compute = graphed_step(state, task)

    def step() -> None:
        state.step = 1 + state.step % 8  # never an epoch's first, which also measures norms of gradients
        training_step(state, task, compute)

    return {"step": step, "floor": lambda: floor(state, spec, x)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=Path("config/cifar10-mini.yaml"))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    stages = make_plan(load_study(options.config)).of_kind("finetune").values()
    specs = {spec.variant: spec for stage in stages for spec in [TrainSpec.model_validate(stage.spec)]}
    print(f"{options.config.stem}: step over floor, n = {options.rounds} rounds, torch {torch.__version__}")
    for variant, spec in specs.items():
        passes = step_passes(spec.objective)
        seconds = interleaved(contest(spec), options.rounds)
        passes_text = f"{passes.forwards} forwards, {passes.input_backwards} to the input, {passes.full_backwards} full"
        print(f"{variant:24s}{ratio(seconds, 'step', 'floor')}   {passes_text}", flush=True)


if __name__ == "__main__":
    main()
