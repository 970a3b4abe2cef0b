"""Weights of others are matched to a model whatever their names are wrapped in, or refused, never guessed."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from ssrob.models.weights import match_weights, read_weights
from torch import Tensor, nn


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 3))


class Holder(nn.Module):
    def __init__(self, name: str, model: nn.Module) -> None:
        super().__init__()
        setattr(self, name, model)


def wrapped(model: nn.Module, *names: str) -> nn.Module:
    for name in reversed(names):
        model = Holder(name, model)
    return model


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda value: (100 * value).to(torch.int8), r"found torch.int8 \(quantised\?\)"),
        (lambda value: value.to(torch.complex64), "found torch.complex64"),
        (lambda value: value.to("meta"), "meta, without values"),
        (lambda value: value.to_sparse(), "torch.sparse_coo, torch.float32"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "torch.strided, torch.qint8"),
    ],
)
def test_values_of_another_kind_are_refused(change: Any, found: str) -> None:
    state = {name: change(value) if value.ndim == 2 else value for name, value in net().state_dict().items()}
    with pytest.raises(ValueError, match=rf"3\.weight: expected .*{found}"):
        match_weights(net().state_dict(), state)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        assert match_weights(net().state_dict(), {name: value.to(kind) for name, value in net().state_dict().items()})


WRAPPINGS: tuple[tuple[str, ...], ...] = (
    (),
    ("module",),
    ("_orig_mod",),
    ("module", "_orig_mod"),
    ("_orig_mod", "module"),
    ("model",),
    ("model", "module", "_orig_mod"),
    ("module", "model"),
    ("net",),
    ("backbone",),
)


@pytest.mark.parametrize("theirs", WRAPPINGS)
@pytest.mark.parametrize("mine", WRAPPINGS)
def test_every_wrapping_fits_every_other(mine: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    source, target = net(0), wrapped(net(1), *mine)
    match = match_weights(target.state_dict(), wrapped(source, *theirs).state_dict())
    target.load_state_dict(match.tensors)
    loaded = target.state_dict().values()
    assert all(torch.equal(one, other) for one, other in zip(loaded, source.state_dict().values(), strict=True))
    assert not match.unused


@pytest.mark.parametrize("keys", [("state_dict",), ("model",), ("net",), ("checkpoint", "weights", "model_state"), ()])
def test_checkpoints_of_training_frameworks(tmp_path: Path, keys: tuple[str, ...]) -> None:
    source, optimizer = net(0), torch.optim.SGD(net().parameters(), 0.1, momentum=0.9)
    content: Any = wrapped(source, "module").state_dict()
    for key in reversed(keys):
        content = {key: content}
    if keys:
        content |= {"optimizer": optimizer.state_dict(), "epoch": 3, "best": np.float64(0.5)}
        content |= {"args": argparse.Namespace(lr=0.1, out=Path("here"))}
    torch.save(content, tmp_path / "weights.pth.tar")
    match = match_weights(net(1).state_dict(), read_weights(tmp_path / "weights.pth.tar"))
    assert all(torch.equal(match.tensors[name], value) for name, value in source.state_dict().items())
    assert match.notes[0].startswith("weights: 9 tensors of the file")


def test_counters_of_batchnorm_may_be_missing_or_too_many() -> None:
    whole = net(0).state_dict()
    old = {name: value for name, value in whole.items() if "num_batches" not in name}
    match = match_weights(net(1).state_dict(), old)
    assert match.absent == ("1.num_batches_tracked",)
    assert match_weights(old, whole).unused == ("1.num_batches_tracked",)
    with pytest.raises(ValueError, match=r"1 missing \(such as '1.running_mean'\)"):
        match_weights(whole, {name: value for name, value in old.items() if "mean" not in name})


def test_the_average_of_a_training_is_said_not_taken() -> None:
    source, average = net(0).state_dict(), net(1).state_dict()
    content = {f"state_dict.{name}": value for name, value in source.items()}
    content |= {f"state_dict_ema.{name}": value for name, value in average.items()}
    match = match_weights(net(2).state_dict(), content)
    assert torch.equal(match.tensors["0.weight"], source["0.weight"])
    assert match.notes[-1] == "warning: the file has other weights that fit, under 'state_dict_ema.'"
    asked = match_weights(net(2).state_dict(), content, "state_dict_ema")
    assert torch.equal(asked.tensors["0.weight"], average["0.weight"])


def test_two_that_fit_alike_are_not_guessed() -> None:
    content = {
        f"{who}.{n}": v for who, seed in (("student", 0), ("teacher", 1)) for n, v in net(seed).state_dict().items()
    }
    with pytest.raises(ValueError, match=r"several weights in it fit, under 'student.', 'teacher.'; say which"):
        match_weights(net(2).state_dict(), content)
    match = match_weights(net(2).state_dict(), content, "teacher.")
    assert torch.equal(match.tensors["0.weight"], net(1).state_dict()["0.weight"])
    with pytest.raises(ValueError, match=r"no name begins with 'nobody\.'"):
        match_weights(net(2).state_dict(), content, "nobody")


def test_another_layer_is_no_other_wrapping() -> None:
    expected = {"linear.weight": torch.zeros(2, 2), "linear.bias": torch.zeros(2)}
    with pytest.raises(ValueError, match="no tensor matched"):
        match_weights(expected, {"head.weight": torch.zeros(2, 2), "head.bias": torch.zeros(2)})


def test_what_is_more_is_refused_unless_a_beginning_tells_it_apart() -> None:
    whole = net(0).state_dict()
    with pytest.raises(ValueError, match=r"1 not in the model \(such as 'extra'\)"):
        match_weights(net(1).state_dict(), whole | {"extra": torch.zeros(1)})
    content = {f"model.{name}": value for name, value in whole.items()} | {"criterion.weight": torch.zeros(3)}
    match = match_weights(net(1).state_dict(), content)
    assert match.unused == ("criterion.weight",)
    assert "1 tensors of the file are not used (criterion.weight)" in match.notes[1]


def test_weights_of_an_averaged_model() -> None:
    average = torch.optim.swa_utils.AveragedModel(net(0))
    match = match_weights(net(1).state_dict(), average.state_dict())
    assert match.unused == ("n_averaged",)


def script(file: Path) -> None:
    torch.jit.script(net()).save(str(file))


FILES: dict[str, tuple[Any, str]] = {
    "a whole model": (lambda file: torch.save(net(), file), r"torch.save\(model.state_dict\(\), FILE\)"),
    "a tensor": (lambda file: torch.save(torch.zeros(3), file), "expected a state dict, .*found a Tensor"),
    "a list": (lambda file: torch.save([torch.zeros(3)], file), "found a list of 1"),
    "a number": (lambda file: torch.save(3, file), "found a int"),
    "no tensors": (lambda file: torch.save({"epoch": 3}, file), "found a dict of 1"),
    "nothing": (lambda file: torch.save(None, file), "found a NoneType"),
    "a script": (script, "TorchScript archive|not a file of weights"),
    "text": (lambda file: file.write_text("hello"), "not a file of weights"),
    "no bytes": (lambda file: file.write_bytes(b""), "not a file of weights"),
    "a folder": (lambda file: file.mkdir(), "folder|directory"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_holds_no_weights_ends_in_one_line(tmp_path: Path, name: str, suffix: str) -> None:
    write, message = FILES[name]
    write(tmp_path / f"file.{suffix}")
    with pytest.raises(ValueError, match=message if suffix == "pt" else "file.safetensors") as caught:
        read_weights(tmp_path / f"file.{suffix}")
    assert "\n" not in str(caught.value)


def test_safetensors_under_another_name(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {"a.b": torch.ones(2)}
    save_file(tensors, tmp_path / "pytorch_model.bin")
    assert torch.equal(read_weights(tmp_path / "pytorch_model.bin")["a.b"], tensors["a.b"])
