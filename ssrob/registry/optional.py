"""Packages that only some settings need, and the line that installs each. Imports no torch."""

from importlib.util import find_spec

EXTRAS = {"pyautoattack": "autoattack", "snakemake_executor_plugin_slurm": "slurm", "timm": "timm"}
"""Module -> extra of this package that installs it (`pyproject.toml`)."""


def missing(module: str) -> str | None:
    """Return the command that installs a module's package, None where it is installed."""
    return None if find_spec(module) is not None else pip_line(module)


def pip_line(module: str) -> str:
    """Return the command that installs a module's package."""
    return f"pip install 'ssrob[{EXTRAS[module]}]'" if module in EXTRAS else f"pip install {module}"
