"""From a name in a config to a row of a registry, and from a row to the function behind it."""

import difflib
import importlib
from collections.abc import Callable, Iterable
from typing import Any


def load(where: str) -> Callable[..., Any]:
    """Import the function behind ``"module:function"``."""
    module, _, name = where.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return loaded


def check_choice(what: str, name: str, names: Iterable[str]) -> str:
    """Return the name if it is known, otherwise raise a ValueError that lists what is and guesses what was meant."""
    names = sorted(names)
    if name in names:
        return name
    raise ValueError(f"unknown {what} {name!r}{meant(name, names)}; known: {', '.join(names)}")


def meant(name: str, names: Iterable[str]) -> str:
    """Guess which name was meant: `` (did you mean 'fast'?)``, or nothing where none is near."""
    close = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.65)
    return f" (did you mean {close[0]!r}?)" if close else ""
