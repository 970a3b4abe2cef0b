"""Importing this imports all that stages need: torch and every kind of stage, but nothing that touches a GPU."""

from ssrob.registry.lookup import load
from ssrob.registry.stages import STAGES
from ssrob.runtime import error_messages

__all__ = ["error_messages"]

for kind in STAGES.values():
    load(kind.run)
