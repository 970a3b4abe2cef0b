"""Importing this imports all that stages need, also what they import late, but nothing that touches a GPU."""

import importlib

from ssrob.registry.lookup import load
from ssrob.registry.stages import STAGES

LATE = (
    "ssrob.runtime.error_messages",
    "torch._dynamo",  # torch imports it with the first optimizer, which takes a second
    "sklearn.datasets",
    "sklearn.linear_model",
    "scipy.special",
)

for kind in STAGES.values():
    load(kind.run)
for module in LATE:
    importlib.import_module(module)
