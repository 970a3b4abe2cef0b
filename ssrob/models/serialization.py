"""Final weights: safetensors with a small JSON beside them that rebuilds the network."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from ssrob.config.variants import MAIN
from ssrob.models.network import Architecture, Network, build
from ssrob.models.split_batchnorm import main_name
from ssrob.models.weights import match_weights


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Write a state dict as safetensors."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, path)


def save_architecture(architecture: Architecture, path: Path) -> None:
    """Write what rebuilds the network."""
    path.write_text(json.dumps(asdict(architecture), indent=2, sort_keys=True) + "\n")


def load_network(weights: Path | str, architecture: Path | None = None, branch: str = MAIN) -> Network:
    """Rebuild a network from its weights and the ``model.json`` beside them; in eval mode, in a branch of BatchNorm."""
    weights = Path(weights)
    described = architecture or weights.with_name("model.json")
    if missing := [file for file in (weights, described) if not file.is_file()]:
        raise ValueError(f"{missing[0]}: no such file; a trained network is its weights and the model.json beside them")
    stored = json.loads(described.read_text())
    network = build(Architecture(**stored | {"shape": tuple(stored["shape"])}), seed=0)
    network.load_state_dict(load_file(weights))
    network.choose_branch(branch)
    return network.eval()


def load_backbone(network: Network, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy every backbone tensor of the weights into the network, and heads of the same name and shape.

    Names may be wrapped (`weights.match_weights`). A branch of BatchNorm that the weights do not have starts as their
    main one. Returns what was matched and what was not; raises ValueError when a tensor is missing or its shape
    differs: starting from random weights by accident is the mistake that this prevents.
    """
    target = network.state_dict()
    expected = {name: value for name, value in target.items() if name.startswith("backbone.")}
    main = {name: value for name, value in expected.items() if main_name(name) == name}
    match = match_weights(main, weights, whole=False)
    state = dict(match.tensors)
    for branch in network.architecture.branches:
        names = [name for name in expected if f".branches.{branch}." in name]
        try:
            theirs = match_weights(main | {name: expected[name] for name in names}, weights, whole=False).tensors
        except ValueError:  # no such branch in the file
            theirs = {name: state[plain] for name in names if (plain := main_name(name)) in state}
        state |= theirs
    heads = _fitting_heads(target, weights, match.prefix)
    network.load_state_dict(state | {name: weights[theirs] for name, theirs in heads.items()}, strict=False)
    kept = sorted({name.split(".")[1] for name in heads})
    unused = tuple(name for name in match.unused if name not in heads.values())
    return [*replace(match, unused=unused).notes, *(f"weights: the head {name!r} is the file's" for name in kept)]


def _fitting_heads(target: Mapping[str, Tensor], weights: Mapping[str, Tensor], prefix: str) -> dict[str, str]:
    """Return tensors of heads that the weights have in the same shape: name in the network -> name in the file."""
    fitting = {}
    for before in (prefix, prefix.removesuffix("backbone.")):
        for theirs, value in weights.items():
            name = theirs.removeprefix(before)
            if name.startswith("heads.") and name in target and value.shape == target[name].shape:
                fitting[name] = theirs
    return fitting
