"""Captured and replayed steps: what a capture must notice, shown with a backend that captures on a CPU."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ssrob.config.loader import parse_study
from ssrob.data.loader import Batches
from ssrob.data.prepared import Prepared
from ssrob.hardware.cuda_graphs import MAX_CAPTURES, WARM_UPS, GraphedStep, Tensors
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.specs import TrainSpec
from ssrob.runtime import runner
from ssrob.storage.store import Store
from ssrob.training.fit import TrainingRun, fit, graphed_step, training_step
from ssrob.training.state import TrainState, start
from tests.conftest import tiny_config

CPU = torch.device("cpu")


class FakeGraphs:
    """Captures as a GPU does: nothing runs during a capture; a replay reads and writes the memory it was given then."""

    def __init__(self, state: Callable[[], list[torch.Tensor]] = list, error: str = ""):
        self.state, self.error, self.warm_ups, self.captures, self.replays = state, error, 0, 0, 0

    def warm_up(self, function: Callable[[], Tensors]) -> Tensors:
        self.warm_ups += 1
        return function()

    def capture(self, function: Callable[[], Tensors]) -> tuple[Tensors, Callable[[], None]]:
        if self.error:
            raise RuntimeError(self.error)
        self.captures += 1
        before = [tensor.clone() for tensor in self.state()]
        outputs = {name: torch.full_like(value, torch.nan) for name, value in function().items()}
        with torch.no_grad():
            for tensor, value in zip(self.state(), before, strict=True):
                tensor.copy_(value)

        def replay() -> None:
            self.replays += 1
            for name, value in function().items():
                outputs[name].copy_(value)

        return outputs, replay


def doubled(inputs: Tensors) -> Tensors:
    return {"y": 2 * inputs["x"]}


def test_after_two_calls_a_function_is_captured_and_then_replayed() -> None:
    backend = FakeGraphs()
    compute = GraphedStep(doubled, list, backend)
    for value in range(6):
        assert compute({"x": torch.full((3,), float(value))})["y"].tolist() == [2.0 * value] * 3
    assert (backend.warm_ups, backend.captures, backend.replays) == (WARM_UPS, 1, 6 - WARM_UPS)


def test_the_callers_tensors_are_not_the_captures() -> None:
    compute = GraphedStep(doubled, list, FakeGraphs())
    x = torch.ones(2)
    for _ in range(5):
        compute({"x": x})
    x += 1
    assert x.tolist() == [2, 2]
    assert compute({"x": torch.zeros(2)})["y"].tolist() == [0, 0]
    assert x.tolist() == [2, 2], "an input was written into"


CHANGES = {
    "shape": lambda: {"x": torch.ones(4)},
    "type": lambda: {"x": torch.ones(2, dtype=torch.float64)},
    "layout": lambda: {"x": torch.ones(2, 2)[:, 0]},
    "name": lambda: {"x": torch.ones(2), "z": torch.ones(2)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_inputs_are_captured_anew(what: str) -> None:
    backend = FakeGraphs()
    compute = GraphedStep(doubled, list, backend)
    for inputs in [{"x": torch.ones(2)}] * 4 + [CHANGES[what]()] * 4:
        assert compute(inputs)["y"].tolist() == (2 * inputs["x"]).tolist()
    assert (backend.warm_ups, backend.captures, backend.replays) == (2 * WARM_UPS, 2, 4)


def test_the_place_of_a_parameter_and_whether_it_is_trained_are_part_of_a_capture() -> None:
    backend, weights = FakeGraphs(), [torch.ones(2)]
    compute = GraphedStep(lambda inputs: {"y": weights[0] * inputs["x"]}, lambda: weights, backend)
    for _ in range(4):
        compute({"x": torch.ones(2)})
    assert backend.captures == 1
    weights[0].add_(1)  # in place: the capture sees it
    assert compute({"x": torch.ones(2)})["y"].tolist() == [2, 2]
    assert backend.warm_ups == WARM_UPS
    weights[0] = torch.full((2,), 5.0)  # another place
    for _ in range(3):
        assert compute({"x": torch.ones(2)})["y"].tolist() == [5, 5]
    assert backend.captures == 2
    weights[0].requires_grad_()
    for _ in range(3):
        compute({"x": torch.ones(2)})
    assert backend.captures == 3


def test_what_cannot_be_captured_is_called_directly_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    backend = FakeGraphs(error="operation not permitted when stream is capturing\nmore")
    compute = GraphedStep(doubled, list, backend)
    with caplog.at_level(logging.WARNING, "ssrob.hardware.cuda_graphs"):
        for value in range(6):
            assert compute({"x": torch.full((1,), float(value))})["y"].item() == 2 * value
    assert [record.getMessage() for record in caplog.records] == [
        "steps are launched one by one from here on: operation not permitted when stream is capturing"
    ]
    assert backend.warm_ups == WARM_UPS


def test_what_changes_all_the_time_is_not_captured_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    backend = FakeGraphs()
    compute = GraphedStep(doubled, list, backend)
    with caplog.at_level(logging.WARNING, "ssrob.hardware.cuda_graphs"):
        for size in range(1, MAX_CAPTURES + 4):
            for _ in range(4):
                assert compute({"x": torch.ones(size)})["y"].tolist() == [2] * size
    assert backend.captures == MAX_CAPTURES
    assert [record.getMessage() for record in caplog.records] == [
        f"steps are launched one by one from here on: what it depends on has changed {MAX_CAPTURES} times"
    ]


def test_an_error_of_the_function_is_not_taken_for_one_of_the_capture() -> None:
    def wrong(inputs: Tensors) -> Tensors:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        GraphedStep(wrong, list, FakeGraphs())({"x": torch.ones(1)})


WAYS = [
    "standard-None",
    "trades-None",
    "at_ssl_joint-rotation",
    "at_ssl_ensemble-rotation",
    "at_ssl_adv_nograd-rotation",
]
WAYS += ["at_ssl_adv-vicreg", "at_ssl_adv-contrastive", "at_ssl_adv-jigsaw"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Prepared]:
    arms = [{"variant": ["standard", "trades", "at_ssl_joint", "at_ssl_ensemble", "at_ssl_adv_nograd"], "norm": "linf"}]
    arms += [{"variant": "at_ssl_adv", "norm": "l2", "task": ["vicreg", "contrastive", "jigsaw"]}]
    config = tiny_config(tmp_path_factory.mktemp("capture"), arms=arms)
    config["finetune"] |= {"epochs": 3, "augment": ["crop", "flip"]}
    plan = make_plan(parse_study(config))
    store, data = Store(plan.study.results), next(iter(plan.of_kind("data").values()))
    runner.run(data, store, device="cpu")
    return plan, Prepared(store.folder(data.path))


def specs(plan: Plan) -> dict[str, TrainSpec]:
    found = [TrainSpec.model_validate(stage.spec) for stage in plan.of_kind("finetune").values()]
    return {f"{spec.variant}-{spec.task}": spec for spec in found}


def training(
    spec: TrainSpec, data: Prepared, backend: Any = None, device: torch.device = CPU
) -> tuple[TrainState, TrainingRun]:
    state = start(spec, data, None, device, logging.getLogger("test"))
    images, labels = data.validation()
    x = torch.from_numpy(images[:20].copy()).permute(0, 3, 1, 2).to(device).float() / 255
    batches = Batches(*data.train(), 100, spec.seed, device)
    return state, TrainingRun(spec, batches, (x, torch.from_numpy(labels[:20].copy()).to(device)), backend)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", WAYS)
def test_replayed_training_has_the_bits_of_direct_training(
    way: str, precision: str, prepared: tuple[Plan, Prepared]
) -> None:
    plan, data = prepared
    spec = specs(plan)[way]
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"precision": precision})})
    direct, task = training(spec, data)
    expected = list(fit(direct, task))
    backend = FakeGraphs()
    replayed, task = training(spec, data, backend)
    backend.state = lambda: [*replayed.network.parameters(), *replayed.network.buffers()]
    found = list(fit(replayed, task))
    assert backend.captures == 1
    assert backend.replays >= 3
    assert found == expected
    for name, value in direct.network.state_dict().items():
        assert torch.equal(replayed.network.state_dict()[name], value), name


def test_a_checkpoint_brings_no_kernels_along(prepared: tuple[Plan, Prepared]) -> None:
    """One from a GPU says that its optimiser is fused: on a CPU it goes on as on a CPU."""
    plan, data = prepared
    state, task = training(specs(plan)["standard-None"], data)
    training_step(state, task, graphed_step(state, task))
    saved = state.to_dict()
    saved["optimizer"]["param_groups"][0]["fused"] = True
    other, _ = training(task.spec, data)
    other.load(saved)
    assert other.optimizer.param_groups[0]["fused"] is None
    momenta = [each.optimizer.state_dict()["state"][0]["momentum_buffer"] for each in (state, other)]
    assert torch.equal(*momenta)
