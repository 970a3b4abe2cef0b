"""How verdicts and what they compare are worded, for pages, figures and tables alike."""

import re
from dataclasses import dataclass

from ssrob.formatting import NORMS


@dataclass(frozen=True)
class Verdict:
    """A word of a verdict: its sign, its colour (readable on white, apart for colour-blind readers), its meaning."""

    sign: str
    colour: str
    meaning: str


VERDICTS = {
    "supported": Verdict("✓", "#00795a", "the claim and every control hold at the level of the test"),
    "contradicted": Verdict("✗", "#b84600", "the opposite of the claim holds at the level of the test"),
    "inconclusive": Verdict("~", "#5f6670", "neither is shown, by a comparison that had the power to show it"),
    "underpowered": Verdict("?", "#8a6d00", "neither is shown, by too few seeds or images to show it"),
}


def compared(cell: str) -> tuple[str, str]:
    """Return who is compared in a finding's cell, and where, for people: ``A − B``, ``l-inf, best checkpoint; ...``."""
    arms, _, where = cell.partition(" | ")
    for norm, name in NORMS.items():
        where = re.sub(rf"\b{norm}\b", name, where)
    return arms.replace(" - ", " − "), where.replace(" | ", "; ")
