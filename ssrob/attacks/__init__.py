"""Attacks on classifiers: `pgd`, `apgd`, `fmn` and `square` as plain functions, and the sweep over a range of eps.

    from ssrob.attacks import pgd
    adversarial = pgd(model, images, labels, norm="linf", eps="8/255")

Imports torch when a function is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssrob.attacks.functions import apgd, fmn, pgd, square

__all__ = ["apgd", "fmn", "pgd", "square"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("ssrob.attacks.functions"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
