"""The 19 corruptions of CIFAR-10-C, batched: `corrupt(images, name, severity)`.

Importing this package imports no torch, so that a config can be checked against the names alone; `corrupt`
loads it when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from ssrob.corruptions.cifar10c import official, official_labels
from ssrob.corruptions.parameters import TABLES, parameters, table_for
from ssrob.corruptions.relative_error import corruption_errors, mce
from ssrob.registry.corruptions import (
    BENCHMARK,
    CORRUPTIONS,
    EXTRA,
    NAMES,
    SEVERITIES,
    check_name,
    check_severity,
    families,
)

if TYPE_CHECKING:
    from ssrob.corruptions.apply import corrupt

__all__ = [
    "BENCHMARK",
    "CORRUPTIONS",
    "EXTRA",
    "NAMES",
    "SEVERITIES",
    "TABLES",
    "check_name",
    "check_severity",
    "corrupt",
    "corruption_errors",
    "families",
    "mce",
    "official",
    "official_labels",
    "parameters",
    "table_for",
]


def __getattr__(name: str) -> Any:
    if name == "corrupt":
        from ssrob.corruptions.apply import corrupt

        return corrupt
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
