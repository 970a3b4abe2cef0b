"""The one training loop, for pre-training and fine-tuning alike: a difference between them is in the spec."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ssrob.data.loader import Order
from ssrob.hardware.cuda_graphs import Backend, GraphedStep
from ssrob.planning.cost import training_passes
from ssrob.planning.specs import TrainSpec
from ssrob.training.distributed import ALONE, ReplicaGroup
from ssrob.training.lr_schedule import learning_rate
from ssrob.training.state import TrainState
from ssrob.training.train_step import GRADIENT, as_tensors, compute_gradients, from_tensors, sample_batch
from ssrob.training.validate import score, validate

Metrics = dict[str, Tensor | float]


@dataclass(frozen=True)
class TrainingRun:
    """What is trained: a spec, the batches in their order, and validation images (N, C, H, W) with labels (N,)."""

    spec: TrainSpec
    batches: Order
    validation: tuple[Tensor, Tensor]
    backend: Backend | None = None  # captures steps; None: their kernels are launched one by one
    replicas: ReplicaGroup = ALONE

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training."""
        return max(1, round(self.spec.training.epochs * self.batches.steps_per_epoch))


def fit(state: TrainState, run: TrainingRun) -> Iterator[Metrics]:
    """Train from the state's step to the end; after each step yield its metrics, and validate at epochs' ends."""
    per_epoch = run.batches.steps_per_epoch
    graphed = graphed_step(state, run)
    while state.step < run.steps:
        metrics = training_step(state, run, graphed)
        if state.average:
            state.average.update(state.network, state.step)
        state.step += 1
        if state.step % (run.spec.training.validate_every * per_epoch) == 0 or state.step == run.steps:
            epoch = state.step / per_epoch
            run.replicas.assert_replicas_equal(state.network)
            validated = validate(state.eval_network, run.spec, *run.validation, run.replicas)
            metrics |= validated | {"passes": training_passes(run.spec, epoch)}
            if not state.best or score(validated) > state.best["score"]:
                weights = {name: tensor.clone() for name, tensor in state.eval_network.state_dict().items()}
                state.best = {"score": score(validated), "epoch": epoch, "weights": weights}
        yield metrics


def graphed_step(state: TrainState, run: TrainingRun) -> GraphedStep:
    """Return what computes gradients and metrics of a sampled batch; with a backend it is captured and replayed."""
    network = state.network
    return GraphedStep(
        lambda tensors: compute_gradients(network, run.spec, from_tensors(tensors)),
        lambda: [*network.parameters(), *network.buffers()],
        run.backend,
    )


def training_step(state: TrainState, run: TrainingRun, graphed: GraphedStep) -> Metrics:
    """Perturb one batch and take one optimiser step; every draw is a function of (seed, purpose, step)."""
    spec, network, step = run.spec, state.network, state.step
    lr = learning_rate(step, run.steps, spec.training)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    x, y, _ = run.batches.at(step)
    batch = run.replicas.local_shard(sample_batch(spec, x, y, step))
    first = step % run.batches.steps_per_epoch == 0
    outputs = compute_gradients(network, spec, batch, norms=True) if first else graphed(as_tensors(batch))
    outputs = run.replicas.average(outputs, network)
    for name, parameter in network.named_parameters():
        parameter.grad = outputs.get(GRADIENT + name)
    state.optimizer.step()
    # A replay overwrites its outputs, and the metrics stay on the device for a while.
    metrics: Metrics = {"loss/total": outputs["loss/total"].clone(), "lr": lr}
    return metrics | {name: value.clone() for name, value in outputs.items() if not name.startswith(GRADIENT)}
