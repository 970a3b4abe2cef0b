"""What a figure of a report needs to be made: the form of the rows in `recipes.py` and `insights.py`."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from ssrob.reporting.figures.inputs import Inputs


@dataclass(frozen=True)
class Recipe:
    """One figure: its name, how to read it, what it comes from, and how to draw it (None: nothing to draw)."""

    name: str
    caption: str
    source: str
    missing: str
    draw: Callable[[Inputs], Figure | None]
    per_norm: bool = True  # one figure for each norm that arms were trained on
