"""Final weights: safetensors with a small JSON beside them that rebuilds the network."""

import json
import pickle
import re
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssrob.config.variants import MAIN
from ssrob.formatting import first_line
from ssrob.models.network import Architecture, Network, build

_BRANCH = re.compile(r"\.branches\.[^.]+(?=\.[^.]+$)")  # in the name of a BatchNorm tensor


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Write a state dict as safetensors."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, path)


def save_architecture(architecture: Architecture, path: Path) -> None:
    """Write what rebuilds the network."""
    path.write_text(json.dumps(asdict(architecture), indent=2, sort_keys=True) + "\n")


def load_network(weights: Path | str, architecture: Path | None = None, branch: str = MAIN) -> Network:
    """Rebuild a network from its weights and the ``model.json`` beside them; in eval mode, in a branch of BatchNorm."""
    weights = Path(weights)
    told = json.loads((architecture or weights.with_name("model.json")).read_text())
    network = build(Architecture(**told | {"shape": tuple(told["shape"])}), seed=0)
    network.load_state_dict(load_file(weights))
    network.choose_branch(branch)
    return network.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read tensors from safetensors or from a weights-only checkpoint; pickled code is refused, never run."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except pickle.UnpicklingError:
        told = "expected tensors alone, as torch.save(model.state_dict(), FILE) writes; pickled code is never run"
        raise ValueError(f"{path}: not a file of weights that can be loaded safely ({told})") from None
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a file of weights that can be loaded safely ({first_line(error)})") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    tensors = {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: holds no tensors; expected a state dict, found {type(loaded).__name__}")
    return tensors


def load_backbone(network: Network, weights: dict[str, Tensor]) -> None:
    """Copy every backbone tensor of the weights into the network, and heads of the same name and shape.

    Names may carry a prefix (``module.``, ``backbone.``). A branch of BatchNorm that the weights do not have starts as
    their main one. Raises ValueError when a tensor is missing or its shape differs: starting from random weights by
    accident is the mistake that this prevents.
    """
    target = network.state_dict()
    stripped = {name.removeprefix("module.").removeprefix("_orig_mod."): value for name, value in weights.items()}
    expected = [name for name in target if name.startswith("backbone.")]
    found = {}
    for name in expected:
        main = _BRANCH.sub("", name)
        own = [name, name.removeprefix("backbone."), main, main.removeprefix("backbone.")]
        value = next((stripped[each] for each in own if each in stripped), None)
        if value is not None and value.shape != target[name].shape:
            raise ValueError(f"{name}: expected shape {tuple(target[name].shape)}, found {tuple(value.shape)}")
        if value is not None:
            found[name] = value
    if not found:
        shown = ", ".join(list(stripped)[:3])
        raise ValueError(f"no backbone tensor matched: expected names such as {expected[0]!r}, found {shown}")
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(f"{len(missing)} of {len(expected)} backbone tensors are missing, such as {missing[0]!r}")
    heads = {
        name: value
        for name, value in stripped.items()
        if name.startswith("heads.") and name in target and value.shape == target[name].shape
    }
    network.load_state_dict(found | heads, strict=False)
