"""Final weights: safetensors with a small JSON beside them that rebuilds the network."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from ssrob.config.variants import MAIN
from ssrob.models.network import Architecture, Network, build
from ssrob.models.weights import match_weights

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
    stored = json.loads((architecture or weights.with_name("model.json")).read_text())
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
    main = {name: value for name, value in expected.items() if not _BRANCH.search(name)}
    match = match_weights(main, weights, whole=False)
    state = dict(match.tensors)
    for branch in network.architecture.branches:
        names = [name for name in expected if f".branches.{branch}." in name]
        try:
            theirs = match_weights(main | {name: expected[name] for name in names}, weights, whole=False).tensors
        except ValueError:  # no such branch in the file
            theirs = {name: state[plain] for name in names if (plain := _BRANCH.sub("", name)) in state}
        state |= theirs
    for before in (match.prefix, match.prefix.removesuffix("backbone.")):
        for name, value in ((name.removeprefix(before), value) for name, value in weights.items()):
            if name.startswith("heads.") and name in target and value.shape == target[name].shape:
                state[name] = value
    network.load_state_dict(state, strict=False)
    return match.notes
