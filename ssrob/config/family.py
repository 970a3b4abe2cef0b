"""The variants and pre-trainings that every study can name: `variants.yaml`."""

import functools
from importlib.resources import files
from typing import Any

import yaml


@functools.cache
def family() -> dict[str, Any]:
    """The methods and controls of `ssrob/config/variants.yaml`, which every study can name and override."""
    loaded: dict[str, Any] = yaml.safe_load((files("ssrob.config") / "variants.yaml").read_text())
    return loaded


def shipped_variants() -> list[str]:
    """Return the names of the shipped variants."""
    return list(family()["variants"])


def shipped_inits() -> list[str]:
    """Return the names of the shipped pre-trainings, and `random`."""
    return ["random", *family()["pretraining"]]
