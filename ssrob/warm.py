"""Importing this imports all that stages need: torch and every kind of stage, but nothing that touches a GPU."""

from ssrob import trouble
from ssrob.catalog import load
from ssrob.stages import KINDS

__all__ = ["trouble"]

for where in KINDS.values():
    load(where)
