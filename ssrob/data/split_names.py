"""Which split a file or folder holds, by its name. Imports no torch."""

import re

NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval"),
    "validation": ("validation", "val", "valid", "dev"),
}
TESTED = ("test", "validation")  # which of them a model is tested on, the first that is there


def split_of(name: str) -> str | None:
    """Return the split that a whole name stands for: ``val`` is validation, ``valley`` is none."""
    return next((split for split, names in NAMES.items() if name.lower() in names), None)


def split_in(name: str) -> str | None:
    """Return the split that a word of a name stands for, as in ``validation-00000-of-00001.parquet``."""
    found = {split for word in re.split(r"[^A-Za-z]+", name) if (split := split_of(word))}
    return found.pop() if len(found) == 1 else None
