"""Modules of the user's own that a config names: found beside it, imported, identified by their source. No torch."""

import ast
import hashlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ssrob.config.fields import ConfigError

SHARED = ("site-packages", "dist-packages")  # folders whose modules do not belong together
Source = Mapping[str, str]  # hashes of a module: `text` as it is written, `code` without comments and docstrings


def import_plugins(names: Any, where: str = "config") -> None:
    """Import the modules that add rows of the user's own to the registries."""
    for name in names if isinstance(names, list) else [names]:
        try:
            importlib.import_module(name)
        except (ImportError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{where}: plugins: cannot import {name!r}: {error}") from None


def find_plugins_beside(path: Path, names: Any) -> None:
    """Let modules that lie beside a config be imported, here and in the processes that this one starts."""
    folder = path.resolve().parent
    for name in names if isinstance(names, list) else [names]:
        top = folder / str(name).partition(".")[0]
        if top.is_dir() or top.with_suffix(".py").is_file():
            if str(folder) not in sys.path:
                sys.path.append(str(folder))
            places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
            if str(folder) not in places:
                os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, places), str(folder)])


def plugin_sources(names: Sequence[str]) -> dict[str, Source]:
    """Return the sources of imported plugins by module, and of what they have imported from beside them."""
    found = {}
    for name in names:
        for module in _belonging(name):
            file = getattr(module, "__file__", None)
            if file and Path(file).suffix == ".py" and Path(file).is_file():
                found[module.__name__] = source_of(Path(file).read_bytes())
    return found


def source_of(content: bytes) -> Source:
    """Hash a module's text, and its code alone: comments and docstrings change nothing that it computes."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return {"text": _hash(content), "code": _hash(content)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _documented(node):
            node.body = node.body[1:]
    return {"text": _hash(content), "code": _hash(ast.dump(tree).encode())}


def differs(here: Source, there: Source) -> bool:
    """Return whether two sources may compute different things; `code` also differs between versions of Python."""
    return here["text"] != there["text"] and here["code"] != there["code"]


def _belonging(name: str) -> Iterator[ModuleType]:
    """Yield a plugin's module and those of its package, or of its folder, that are imported."""
    plugin = sys.modules.get(name)
    if plugin is None:
        return
    package, _, _ = name.partition(".")
    folder = Path(getattr(plugin, "__file__", None) or ".").parent
    for other, module in list(sys.modules.items()):
        beside = Path(getattr(module, "__file__", None) or "/").parent == folder and folder.name not in SHARED
        if other == name or other.startswith(f"{package}.") or (package == name and beside and other != "__main__"):
            yield module


def _documented(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
