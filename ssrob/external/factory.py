"""The function that makes somebody else's model, found by its name and called; what fails in it is one line."""

import functools
import importlib
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ssrob.external.zoos import Asked
from ssrob.formatting import one_line
from ssrob.registry.lookup import load, meant
from ssrob.registry.model_zoos import ZOOS
from ssrob.registry.optional import pip_line


def make_model(where: str, arguments: Mapping[str, Any], asked: Asked | None = None) -> nn.Module:
    """Call the factory behind ``package.module:factory``, or that of a zoo; raises ValueError with what to change."""
    factory, say = _find(where, asked)
    try:
        model = factory if isinstance(factory, nn.Module) else factory(**arguments)
    except TypeError as error:
        raise ValueError(f"--model {where}: {error}; arguments go into --model-args, as JSON") from None
    except Exception as error:  # of whatever kind: it is somebody else's code
        raise ValueError(f"--model {where}: {say(error)}") from error
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if not isinstance(model, nn.Module):
        raise ValueError(f"--model {where}: expected a torch.nn.Module, found {type(model).__name__}")
    return model


def _find(where: str, asked: Asked | None) -> tuple[Callable[..., Any], Callable[[Exception], str]]:
    """Return what makes the model, and what words an error of it."""
    module, _, name = where.partition(":")
    if not (module and name):
        raise ValueError(f"--model: expected package.module:factory, found {where!r}")
    loaded = _import(module, f"--model {where}")
    factory = getattr(loaded, name, None)
    if factory is None and module in ZOOS:
        return functools.partial(load(ZOOS[module]), name, asked), one_line
    if factory is None:
        there = [each for each, value in vars(loaded).items() if callable(value)]
        raise ValueError(f"--model {where}: {module!r} has no {name!r}{meant(name, there)}")
    if not callable(factory):
        raise ValueError(f"--model {where}: expected a function that returns a model, found {type(factory).__name__}")
    maker: Callable[..., Any] = factory
    return maker, _failure


def _import(module: str, what: str) -> ModuleType:
    if module.endswith(".py"):
        raise ValueError(f"{what}: expected a module's name, without .py and with . for /, found {module!r}")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        lacking = (error.name or module).partition(".")[0]
        raise ValueError(f"{what}: cannot import {module!r}: {error}{_remedy(module, lacking)}") from None
    except Exception as error:  # of whatever kind: it is the user's code
        raise ValueError(f"{what}: cannot import {module!r}: {_failure(error)}") from error


def _remedy(module: str, lacking: str) -> str:
    """Say which file of this folder may have been meant, or how a package is installed."""
    here = [path.stem for path in [*Path().glob("*.py"), *(path.parent for path in Path().glob("*/__init__.py"))]]
    guess = meant(module, here) if module.partition(".")[0] == lacking else ""
    return guess or f"; if that is a package to install: {pip_line(lacking)}"


def _failure(error: Exception) -> str:
    """Say what went wrong in the user's code, and in which line."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    place = "" if isinstance(error, SyntaxError) else at
    return f"{type(error).__name__}: {one_line(error)}{place}"
