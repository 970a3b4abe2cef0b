"""How devices compute: settings given back, precision where it matters, and steps that never wait for the device."""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ssrob.attacks.frozen import frozen
from ssrob.config.loader import parse_study
from ssrob.data.loader import Batches
from ssrob.hardware import device
from ssrob.models.network import Architecture, Network, build
from ssrob.models.resnet import PreActResNet
from ssrob.planning.plan import make_plan
from ssrob.planning.specs import TrainSpec
from ssrob.registry.stages import STAGES
from ssrob.runtime import runner
from ssrob.seeding import generator
from ssrob.training.fit import TrainingRun, graphed_step, training_step
from ssrob.training.state import TrainState
from ssrob.training.train_step import GRADIENT, as_tensors, compute_gradients, from_tensors, sample_batch
from tests.conftest import tiny_config
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
OWN = {  # views drawn at every attack step, weights that change over training
    "changing": {"perturb": {"adv": {"xent": 1, "ssl": "w"}}, "train": {"adv": {"xent": 1, "ssl": "w"}}}
}
VARIANTS = [*sorted(parse_study(tiny_config(Path())).variants), *OWN]


def spec_of(variant: str, norm: str = "linf", task: str = "rotation", **training: Any) -> TrainSpec:
    arms = [{"variant": variant, "norm": norm}]
    config = tiny_config(Path("unused"), arms=arms, variants=OWN, ssl={"task": task})
    config["finetune"] |= training
    plan = make_plan(parse_study(config))
    return TrainSpec.model_validate(next(iter(plan.of_kind("finetune").values())).spec)


def network_of(spec: TrainSpec, shape: tuple[int, int, int] = (1, 8, 8), width: int = 4) -> Network:
    heads = {"class": 10} | spec.objective.heads
    mean, std = [0.5] * shape[0], [0.25] * shape[0]
    return build(Architecture("resnet", {"depth": 8, "width": width}, shape, mean, std, heads), seed=0)


def images(count: int, shape: tuple[int, int, int] = (1, 8, 8)) -> tuple[torch.Tensor, torch.Tensor]:
    draws = generator(0, "data")
    return torch.rand(count, *shape, generator=draws), torch.randint(10, (count,), generator=draws)


class Watch(TorchDispatchMode):
    """Notes every operation, and what would make the host wait for a GPU or copy to it while it computes."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique", "lift_fresh", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.seen: list[tuple[str, list[torch.dtype], list[torch.dtype]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, result = function.__name__.partition(".")[0], function(*args, **(kwargs or {}))
        given, made = list(tensors((args, kwargs))), list(tensors(result))
        moved = name == "_to_copy" and result.device != given[0].device
        masked = name in ("index", "index_put", "index_put_") and any(
            each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        )
        if name.startswith(self.WAITS) or moved or masked:
            self.waits.append(name)
        self.seen.append((name, [each.dtype for each in given], [each.dtype for each in made]))
        return result


def tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from tensors(each)


def a_task(spec: TrainSpec) -> tuple[TrainState, TrainingRun]:
    network = network_of(spec)
    x, y = images(40)
    pixels = (255 * x).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    task = TrainingRun(spec, Batches(pixels, y.numpy(), 10, 0), (x[:10], y[:10]))
    return TrainState(network, torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)), task


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_step_waits_for_the_device(variant: str, norm: str) -> None:
    spec = spec_of(variant, norm, augment=["crop", "flip"], precision="bfloat16")
    state, task = a_task(spec)
    compute = graphed_step(state, task)
    for _ in range(2):
        with Watch() as watch:
            metrics = training_step(state, task, compute)
        state.step += 1
        assert watch.waits == []
    assert all(isinstance(value, torch.Tensor) for name, value in metrics.items() if name != "lr")


@pytest.mark.parametrize("task", ["jigsaw", "jigsaw_3x3", "contrastive", "vicreg"])
def test_no_task_waits_for_the_device(task: str) -> None:
    spec = spec_of("at_ssl_joint", task=task)
    state, work = a_task(spec)
    compute = graphed_step(state, work)
    training_step(state, work, compute)  # tables of orders are copied once
    with Watch() as watch:
        training_step(state, work, compute)
    assert watch.waits == []


def test_the_watch_sees_what_waits() -> None:
    x = torch.arange(3.0)
    for wait in (lambda: x.sum().item(), lambda: bool(x.any()), lambda: x[x > 1], x.nonzero):
        with Watch() as watch:
            wait()
        assert watch.waits
    for wait in (lambda: torch.tensor([1.0]), lambda: x.to(torch.device("meta"))):
        with Watch() as watch:
            wait()
        assert watch.waits


@pytest.mark.parametrize("variant", ["at", "trades", "at_ssl_joint", "at_ssl_ensemble"])
def test_what_is_recorded_depends_on_no_value(variant: str) -> None:
    """On tensors without data: anything that looked at a value, or drew one on another device, would raise."""
    spec = spec_of(variant, "l2")
    batch = from_tensors(
        {name: value.to("meta") for name, value in as_tensors(sample_batch(spec, *images(8), 3)).items()}
    )
    found = compute_gradients(network_of(spec).to("meta"), spec, batch)
    assert {value.device.type for value in found.values()} == {"meta"}


def test_half_precision_ends_at_logits_losses_norms_and_gradients() -> None:
    spec = spec_of("at_ssl_joint", "l2", precision="bfloat16")
    network, batch = network_of(spec), sample_batch(spec, *images(8), 0)
    with Watch() as watch:
        found = compute_gradients(network, spec, batch)
    half = {name for name, given, made in watch.seen if torch.bfloat16 in [*given, *made]}
    assert "convolution" in half
    whole = ["_log_softmax", "nll_loss_forward", "linalg_vector_norm", "clamp", "_log_softmax_backward_data"]
    assert half.isdisjoint(whole), half & set(whole)
    assert {"_log_softmax", "linalg_vector_norm", "clamp"} <= {name for name, *_ in watch.seen}
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("task", ["contrastive", "vicreg"])
def test_ssl_losses_compare_in_single_precision(task: str) -> None:
    spec = spec_of("at_ssl_adv", task=task, precision="bfloat16")
    network, batch = network_of(spec), sample_batch(spec, *images(8), 0)
    with Watch() as watch:
        compute_gradients(network, spec, batch)
    half = {name for name, given, made in watch.seen if torch.bfloat16 in [*given, *made]}
    assert half.isdisjoint({"linalg_vector_norm", "var", "mse_loss", "_log_softmax", "bmm"}), half


def test_a_gpu_computes_deterministically_and_in_real_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = device.kernel_settings()
    with device.numerics(CUDA):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == device.WORKSPACE
    assert device.kernel_settings() == before
    with device.numerics(CUDA, deterministic=False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
    with device.numerics(CUDA, strict=False):
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    with device.exact_float32(CUDA):
        assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert not torch.are_deterministic_algorithms_enabled()
    with device.numerics(CPU), device.exact_float32(CPU):
        assert device.kernel_settings() == before
    assert device.kernel_settings() == before


def test_settings_are_given_back_after_an_error() -> None:
    before = device.kernel_settings()
    with pytest.raises(KeyError), device.numerics(CUDA):
        raise KeyError
    assert device.kernel_settings() == before


def stop(context: runner.Context) -> None:
    raise runner.Interrupted(context.stage.kind)


def test_a_stage_runs_under_the_numerics_of_its_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    config = tiny_config(tmp_path / "results", arms=[{"variant": "at", "norm": "linf", "init": "ssl"}])
    config["finetune"] = config["finetune"] | {"deterministic": False}
    plan = make_plan(parse_study(config))
    monkeypatch.setattr(
        runner, "STAGES", dict.fromkeys(STAGES, replace(STAGES["data"], run="tests.hardware.test_device:stop"))
    )
    for stage in plan.stages.values():
        note = lambda device, kind=stage.kind, **how: asked.update({kind: how}) or contextlib.nullcontext()  # noqa: E731
        monkeypatch.setattr(runner, "numerics", note)
        with pytest.raises(runner.Interrupted, match=stage.kind):
            runner.run(stage, runner.Store(plan.study.results), device="cpu")
    training = {"pretrain", "finetune"}
    assert training < asked.keys()
    assert asked == {kind: {"deterministic": kind != "finetune", "strict": kind in training} for kind in asked}


def test_images_take_the_layout_of_their_device() -> None:
    x = torch.rand(2, 3, 8, 8)
    assert device.to_memory_format(x) is x
    assert device.memory_format(CUDA) == torch.channels_last
    assert device.memory_format(CPU) == torch.contiguous_format


def test_a_step_in_channels_last_computes_the_same() -> None:
    """The layout of a GPU, on a CPU: values agree, and a state loaded from another layout stays in this one."""
    spec, shape = spec_of("at_ssl_joint", "l2"), (3, 8, 8)
    batch = sample_batch(spec, *images(16, shape), 0)
    # Of width 8: narrower shortcuts may not be trained in this layout (see `device.memory_format`).
    plain, last = (network_of(spec, shape, width=8) for _ in range(2))
    last.to(memory_format=torch.channels_last)
    last.load_state_dict(plain.state_dict())
    kernel = last.backbone.blocks[0].conv1.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    tensors = as_tensors(batch) | {"x": batch.x.contiguous(memory_format=torch.channels_last)}
    found, expected = compute_gradients(last, spec, from_tensors(tensors)), compute_gradients(plain, spec, batch)
    for name, value in expected.items():
        if name.startswith(("loss", GRADIENT)):
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)  # float32, sums in another order


@pytest.mark.parametrize("norms", [False, True])
def test_a_traced_backbone_gives_the_same_gradients(norms: bool) -> None:
    """All of compilation but the code generation: modes, frozen parameters and two backward passes of one forward."""
    spec = spec_of("at_ssl_joint", compile=True)
    batch, plain, traced = sample_batch(spec, *images(16), 0), network_of(spec), network_of(spec)
    traced.backbone.compile(dynamic=False, backend="aot_eager")
    found, expected = (compute_gradients(network, spec, batch, norms=norms) for network in (traced, plain))
    assert found.keys() == expected.keys() == {*expected}
    assert any(name.startswith("gradient_norm") for name in found) == norms
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)  # float32, another order of sums
    assert traced.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.skipif("SSROB_TEST_COMPILE" not in os.environ, reason="takes up to a minute; set SSROB_TEST_COMPILE=1")
def test_a_compiled_attack_climbs_the_same_gradient() -> None:
    network = PreActResNet(1, 4, (4,), 1).eval()
    x, _ = images(4)

    def gradient() -> torch.Tensor:
        point = x.clone().requires_grad_()
        with frozen(network):
            return torch.autograd.grad(network(point).square().sum(), point)[0]

    expected = gradient()
    network.compile(dynamic=False)
    torch.testing.assert_close(gradient(), expected, rtol=1e-4, atol=1e-6)  # float32, fused


def test_a_state_is_built_as_the_spec_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssrob.data.prepared import Prepared
    from ssrob.storage.store import Store
    from ssrob.training.train import start

    plan = make_plan(parse_study(tiny_config(tmp_path / "results", arms=[{"variant": "standard"}])))
    store, data = Store(plan.study.results), next(iter(plan.of_kind("data").values()))
    runner.run(data, store, device="cpu")
    compiled: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: compiled.append((type(self).__name__, how)))
    for wanted in (False, True):
        spec = spec_of("standard", compile=wanted)
        state = start(spec, Prepared(store.folder(data.path)), None, CPU, logging.getLogger("test"))
        assert compiled == [("PreActResNet", {"dynamic": False})] * wanted
        assert state.optimizer.param_groups[0]["fused"] is None


@pytest.mark.parametrize("name", ["foo", "CUDA", "cuda:", "cuda:-1", "cpu:0", "mps", ""])
def test_a_device_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="device: expected auto, cpu, cuda or cuda:N, found"):
        device.device_of(name)


def test_a_device_is_found_or_missed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.device_of("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.device_of("auto") == CPU
    with pytest.raises(ValueError, match=r"'cuda:0' was asked for, found no GPU that PyTorch .* ask for auto or cpu"):
        device.device_of("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device.device_of(name) for name in ("auto", "cuda", "cuda:1")] == [CUDA, CUDA, torch.device("cuda:1")]
    with pytest.raises(ValueError, match="'cuda:2' was asked for, found 2 GPUs that PyTorch"):
        device.device_of("cuda:2")
