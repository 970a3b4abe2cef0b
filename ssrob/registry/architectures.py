"""Networks of torchvision and timm by name, known without importing either: both packages import torch."""

import difflib
import functools
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ssrob.registry.optional import missing

_RESERVED = {  # arguments that a config may not set -> why
    "pretrained": "weights come from a file: pretraining: {mine: {weights: FILE}}",
    "weights": "weights come from a file: pretraining: {mine: {weights: FILE}}",
    "checkpoint_path": "weights come from a file: pretraining: {mine: {weights: FILE}}",
    "num_classes": "a study adds its own heads",
    "in_chans": "the data says how many channels there are",
    "features_only": "a backbone returns one vector an image",
}
_REGISTERED = re.compile(r"^@register_model\b[^\n]*\n(?:(?!def )[^\n]*\n)*?def (\w+)\(", re.MULTILINE)


@functools.cache
def architectures(library: str) -> frozenset[str]:
    """Return the names of a library's classifiers, as its source registers them; empty where it is not installed."""
    spec = find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    files = Path(spec.submodule_search_locations[0], "models").glob("*.py")
    return frozenset(name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8")))


def check_installed(library: str) -> None:
    """Raise a ValueError that says how to install a library, unless it is there."""
    if line := missing(library):
        raise ValueError(f"{library} is not installed: {line}")


def check_architecture(library: str, name: object) -> None:
    """Raise a ValueError with the nearest names unless the library has this one; without the library all may be."""
    known = architectures(library)
    if not isinstance(name, str):
        raise ValueError(f"{library} needs the name of a network, such as arch: resnet50; found {name!r}")
    if known and name not in known:
        close = difflib.get_close_matches(name.partition(".")[0], known, n=3)
        guess = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
        raise ValueError(f"unknown arch {name!r}{guess}; {library} has {len(known):,}, which its list_models() names")


def check_arguments(library: str, arguments: Mapping[str, Any]) -> None:
    """Check a backbone's arguments: `arch`, and those of the library's own constructor."""
    check_architecture(library, arguments.get("arch"))
    for name, value in arguments.items():
        if reason := _RESERVED.get(name):
            raise ValueError(f"{name} is not an argument here: {reason}; found {value!r}")
        if "drop" in name or name.startswith("stochastic"):
            reason = "attacks need a loss that stays the same from step to step, and a seed the same bits"
            raise ValueError(f"{name}: dropout and stochastic depth are off ({reason}); found {value!r}")
        inner = value if isinstance(value, list) else [value]
        if not inner or not all(isinstance(each, int | float | str) for each in inner):
            raise ValueError(f"{name} must be a number, a word, true, false or a list of these; found {value!r}")
