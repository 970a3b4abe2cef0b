"""How verdicts are shown: one row per word, for pages, figures and tables alike."""

from dataclasses import dataclass


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
DECIDED = ("supported", "contradicted")
