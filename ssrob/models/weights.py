"""Other people's weights: read without running code, and matched to a model whatever their names are wrapped in.

A training framework puts words before names (`module.`, `_orig_mod.`, `model.`, `state_dict.model.`, ...), on the side
of the file, of the model, or of both, in any order. Weights fit if after taking one beginning off on each side the
names are the same and every shape agrees; what remains open is refused, never guessed.
"""

import argparse
import itertools
import pathlib
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ssrob.formatting import first_line

WRAPPERS = ("module", "_orig_mod")  # of torch's own wrappers: anywhere in a name
HOLDERS = (
    *(*WRAPPERS, "state_dict", "model_state_dict", "model_state", "weights", "params"),
    *("model", "net", "network", "backbone", "encoder", "_model", "inner"),
)
POSITIONS = re.compile(r"pos_embed|relative_(position|coords)|position_embedding")  # tables of transformers
COUNTER = "num_batches_tracked"  # of BatchNorm: counts steps, decides nothing in eval mode; old files lack it
# Classes that checkpoints carry beside tensors, whose loading runs no code of the file's.
_HARMLESS: list[Any] = [argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath, np.dtype, np.ndarray]
_HARMLESS += [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")]
_HARMLESS += [np._core.multiarray.scalar, np._core.multiarray._reconstruct]  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Match:
    """Weights by the names of a model, and what was made of the file's names.

    prefix: what was taken off the file's names; unused: the names that have no such beginning, or no place.
    """

    tensors: dict[str, Tensor]
    prefix: str
    unused: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()  # counters that the file lacks: the model's own stay
    others: tuple[str, ...] = ()  # prefixes that would fit as well

    @property
    def notes(self) -> list[str]:
        """Say what was matched and what was not."""
        before = f" under {self.prefix!r}" if self.prefix else ""
        lines = [f"weights: {len(self.tensors)} tensors of the file{before} are the model's"]
        if self.unused:
            shown = ", ".join(self.unused[:3]) + (", ..." if len(self.unused) > 3 else "")
            lines.append(f"weights: {len(self.unused)} tensors of the file are not used ({shown})")
        if self.absent:
            lines.append(f"weights: the file lacks {len(self.absent)} counters of BatchNorm, which decide nothing here")
        if self.others:
            lines.append(f"warning: the file has other weights that fit, under {', '.join(map(repr, self.others))}")
        return lines


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors from safetensors or a checkpoint, by dotted names; pickled code is refused, never run."""
    try:
        if path.suffix == ".safetensors" or _looks_like_safetensors(path):
            return load_file(path)
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that are refused below
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: expected a file of weights, found a folder") from None
    except pickle.UnpicklingError:
        advice = "expected tensors alone, as torch.save(model.state_dict(), FILE) writes; pickled code is never run"
        raise ValueError(f"{path}: not a file of weights that can be loaded safely ({advice})") from None
    except Exception as error:  # bytes that are no weights make readers raise anything
        reason = first_line(error)
        if "TorchScript" in str(error):
            reason = "it is a TorchScript archive; let the factory return torch.jit.load(FILE)"
        raise ValueError(f"{path}: not a file of weights that can be loaded safely ({reason})") from None
    tensors = dict(_flat(loaded, "")) if isinstance(loaded, Mapping) else {}
    if not tensors:
        found = f"a {type(loaded).__name__}" + (f" of {len(loaded)}" if isinstance(loaded, list | tuple | dict) else "")
        advice = "expected a state dict, as torch.save(model.state_dict(), FILE) writes"
        raise ValueError(f"{path}: holds no tensors by name; {advice}, found {found}")
    return tensors


def _looks_like_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors do: the length of a header, and its brace."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _flat(value: Mapping[Any, Any], before: str) -> Iterator[tuple[str, Tensor]]:
    for key, inner in value.items():
        name = f"{before}{key}"
        if isinstance(inner, Tensor):
            yield name, inner
        elif isinstance(inner, Mapping):
            yield from _flat(inner, f"{name}.")


def match_weights(
    expected: Mapping[str, Tensor], file: Mapping[str, Tensor], prefix: str | None = None, *, whole: bool = True
) -> Match:
    """Match a file's tensors to a model's (`expected`, its state dict), every one of them or raise ValueError.

    prefix: what to take off the file's names, where the user says it. whole: the file must have nothing more under it.
    """
    asked = None if prefix is None else prefix.rstrip(".") + "." if prefix else ""
    if asked is not None and not any(name.startswith(asked) for name in file):
        shown = ", ".join(list(file)[:3])
        raise ValueError(f"no name begins with {asked!r}; the file has {shown}, ...")
    fits: dict[str, Match] = {}
    starts = _beginnings(file) if asked is None else [asked]
    for mine, theirs in itertools.product(_common_beginnings(expected), starts):
        if not (_is_wrapping(mine) or _is_wrapping(theirs)):
            continue  # `linear.` and `head.` are other layers, not other wrappings of one
        fitting = _matched(expected, file, (mine, theirs), whole=whole)
        if fitting is not None and not any(_same(fitting, each) for each in fits.values()):
            fits[theirs] = fitting
    if not fits:
        raise ValueError(_mismatch(expected, file, asked or "", whole=whole))
    if len(fits) == 1:
        return next(iter(fits.values()))
    plain = sorted((each for each in fits if _is_wrapping(each)), key=len)
    names = ", ".join(map(repr, fits))
    if not plain or (len(plain) > 1 and plain[0]):
        raise ValueError(f"several weights in it fit, under {names}; say which, by --weights-prefix")
    chosen = fits.pop(plain[0])
    return Match(chosen.tensors, chosen.prefix, chosen.unused, chosen.absent, tuple(fits))


def _matched(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], beginnings: tuple[str, str], *, whole: bool
) -> Match | None:
    """Match names after taking a beginning off on each side; None where they do not fit."""
    mine, theirs = beginnings
    model, file = _stripped(expected, mine), _stripped(found, theirs)
    missing = [name for key, name in model.items() if key not in file]
    extra = [name for key, name in file.items() if key not in model]
    tensors = {name: found[file[key]] for key, name in model.items() if key in file}
    if not tensors or any(not name.endswith(COUNTER) for name in missing):
        return None
    if whole and any(not name.endswith(COUNTER) for name in extra):
        return None
    if any(_unlike(expected[name], value) for name, value in tensors.items()):
        return None
    unused = tuple(name for name in found if not name.startswith(theirs) or name in extra)
    return Match(tensors, theirs, unused, tuple(missing))


def _unlike(mine: Tensor, theirs: Tensor) -> str:
    """Say how a tensor of a file cannot be one of the model's: by shape, or by values of another kind."""
    if theirs.shape != mine.shape:
        return f"expected shape {tuple(mine.shape)}, found {tuple(theirs.shape)}"
    if theirs.is_meta or theirs.layout != torch.strided or theirs.is_quantized != mine.is_quantized:
        kind = "meta, without values" if theirs.is_meta else f"{theirs.layout}, {theirs.dtype}"
        return f"expected a plain tensor of {mine.dtype}, found one that is {kind}"
    if mine.is_floating_point() and not theirs.is_floating_point():
        return f"expected numbers like {mine.dtype}, found {theirs.dtype} (quantised?)"
    return ""


def _stripped(names: Mapping[str, Tensor], beginning: str) -> dict[str, str]:
    """Return names by what is left of them: without the beginning, and without torch's wrappers where that is clear."""
    rest = {name.removeprefix(beginning): name for name in names if name.startswith(beginning)}
    plain = {".".join(p for p in key.split(".") if p not in WRAPPERS): name for key, name in rest.items()}
    return plain if len(plain) == len(rest) else rest


def _beginnings(names: Mapping[str, Tensor]) -> list[str]:
    """Return every dotted beginning of a name, the empty one first."""
    beginnings = {"": None}
    for name in names:
        parts = name.split(".")
        beginnings |= dict.fromkeys(".".join(parts[:i]) + "." for i in range(1, len(parts)))
    return list(beginnings)


def _common_beginnings(names: Mapping[str, Tensor]) -> list[str]:
    """Return the dotted beginnings that all names share, the empty one first."""
    return [start for start in _beginnings(names) if all(name.startswith(start) for name in names)]


def _is_wrapping(beginning: str) -> bool:
    return all(word in HOLDERS for word in beginning.split(".") if word)


def _same(one: Match, other: Match) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        one.tensors[name].data_ptr() == other.tensors[name].data_ptr() for name in one.tensors
    )


def _mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], beginning: str, *, whole: bool) -> str:
    """Say how names and shapes differ, under the beginnings with which most of them agree."""
    starts = [beginning] if beginning else _beginnings(found)
    pairs = itertools.product(_common_beginnings(expected), starts)
    mine, theirs = max(pairs, key=lambda pair: _agreeing(expected, found, pair))
    model, file = _stripped(expected, mine), _stripped(found, theirs)
    missing, extra = (
        sorted(key for key in one.keys() - other.keys() if not key.endswith(COUNTER))
        for one, other in ((model, file), (file, model))
    )
    if not model.keys() & file.keys():
        names = ", ".join(list(found)[:3])
        return f"does not fit the model: no tensor matched; expected names such as {next(iter(model))!r}, found {names}"
    for key in sorted(model.keys() & file.keys()):
        if unlike := _unlike(expected[model[key]], found[file[key]]):
            advice = "; positions belong to a size of images and patches" if POSITIONS.search(key) else ""
            return f"does not fit the model: {model[key]}: {unlike}{advice}"
    lists = " and ".join(
        f"{len(names)} {what} (such as {names[0]!r})"
        for what, names in (("missing", missing), ("not in the model", extra if whole else []))
        if names
    )
    return f"does not fit the model: {lists} of {len(expected)} tensors"


def _agreeing(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], beginnings: tuple[str, str]) -> int:
    mine, theirs = beginnings
    if not (_is_wrapping(mine) or _is_wrapping(theirs)):
        return -1
    return len(_stripped(expected, mine).keys() & _stripped(found, theirs).keys())
