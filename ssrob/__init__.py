"""How self-supervision changes a model's robustness to l2 and l-inf perturbations and to natural corruptions.

From Python, all importable from here:

- `attack_sweep(model, images, labels, norm=..., eps=[...])`: robust accuracy over a range of budgets
- `compare(a, b)`: two results of `ssrob evaluate`, paired image by image, by their folders
- `corrupt(images, name, severity)`: the 19 natural corruptions of CIFAR-10-C, batched
- `load_network(path)`: a network that a study has trained
- `load_study(path)`, `make_plan(study)`: a config, and the stages and arms that it stands for
- `read_table(path)`: a table of a study (`ssrob where CONFIG` says where they are); columns in `ssrob.storage.tables`

A whole evaluation with checks, tables and a page is `ssrob.external.run.evaluate`, as `ssrob evaluate` on the command
line. Results print themselves, and have `to_frame()`, `plot()` and a form for notebooks. What takes long shows a
progress bar on a terminal and in a notebook (off with `progress=False`).

Single attacks are in `ssrob.attacks`, names that a config may use in `ssrob.registry`. From the command line:
``ssrob --help``. Importing this package imports nothing else; torch is loaded when a function first needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssrob.config.loader import load_study
    from ssrob.corruptions import corrupt
    from ssrob.evaluate import attack_sweep
    from ssrob.external.comparison import compare
    from ssrob.models.serialization import load_network
    from ssrob.planning.plan import make_plan
    from ssrob.storage.tables import read_table

__version__ = "0.1.0"
__all__ = ["__version__", "attack_sweep", "compare", "corrupt", "load_network", "load_study", "make_plan", "read_table"]

_WHERE = {
    "attack_sweep": "ssrob.evaluate",
    "compare": "ssrob.external.comparison",
    "corrupt": "ssrob.corruptions",
    "load_network": "ssrob.models.serialization",
    "load_study": "ssrob.config.loader",
    "make_plan": "ssrob.planning.plan",
    "read_table": "ssrob.storage.tables",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
