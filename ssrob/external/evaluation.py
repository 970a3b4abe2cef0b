"""What an evaluation has found: to print, as a table, as a figure, and in a notebook."""

import html
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssrob.attacks.result import SweepResult, draw_curve
from ssrob.corruptions import BENCHMARK, SEVERITIES
from ssrob.external.identity import SHORT
from ssrob.external.request import Request
from ssrob.formatting import NORMS, eps_text, interval, percent
from ssrob.reporting.figures.summary import wilson


@dataclass(frozen=True)
class Evaluation:
    """What was found. Accuracies are shares 0..1."""

    request: Request
    facts: dict[str, Any]  # data, model, device, versions
    assumed: list[str]
    warnings: list[str]
    curve: pd.DataFrame  # eps, accuracy, low, high (95 % interval), from eps = 0 on
    checks: pd.DataFrame  # `tables.CHECKED`
    corruptions: pd.DataFrame | None  # corruption, one column per severity

    @property
    def failed(self) -> pd.DataFrame:
        """The checks that did not pass."""
        return self.checks[~self.checks["passed"].astype(bool)]

    @property
    def answer(self) -> str:
        """Accuracy at the largest eps with its interval, and of clean images."""
        clean, last = (self.curve.iloc[i] for i in (0, -1))
        return (
            f"{percent(last['accuracy'])} robust ({interval(100 * last['low'], 100 * last['high'])}) at "
            f"{NORMS[self.request.norm]} eps {eps_label(last['eps'])}, {percent(clean['accuracy'])} clean"
        )

    @property
    def headline(self) -> str:
        """The answer in one line, with the model's name."""
        return f"{self.request.title}: {self.answer}"

    @property
    def verdict_on_checks(self) -> str:
        """How many checks passed, and what follows from it, in one line."""
        passed = f"{len(self.checks) - len(self.failed)} of {len(self.checks)} checks passed"
        return f"{passed}; find out why before you quote these numbers" if len(self.failed) else passed

    @property
    def what_was_run(self) -> str:
        """Model, images and attacks in one line."""
        model, request = self.facts["model"], self.request
        return (
            f"{model['class']}, weights {model['weights_sha256'][:SHORT]}; {self.facts['n']:,} images of "
            f"{self.facts['dataset']}; {request.preset} attacks, seed {request.seed}"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return eps, accuracy and its 95 % interval, one row per eps from 0 on; shares 0..1."""
        return self.curve.copy()

    def plot(self, axes: Any = None) -> Any:
        """Draw accuracy over eps with its 95 % interval onto matplotlib axes (default: new ones); return the axes."""
        return draw_curve(self.curve, self.request.norm, axes, self.request.title)

    def __str__(self) -> str:
        """Five lines: the answer, the curve, the checks, what was run."""
        texts = [eps_label(eps) for eps in self.curve["eps"]]
        shares = [f"{100 * share:.1f}" for share in self.curve["accuracy"]]
        widths = [max(map(len, pair)) for pair in zip(texts, shares, strict=True)]
        rows = (
            "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) for cells in (texts, shares)
        )
        eps, accuracy = rows
        return "\n".join(
            [self.headline, f"eps         {eps}", f"accuracy %  {accuracy}", self.verdict_on_checks, self.what_was_run]
        )

    def _repr_html_(self) -> str:
        table = self.curve.assign(eps=[eps_label(eps) for eps in self.curve["eps"]])
        rows = table.to_html(index=False, float_format=lambda share: f"{share:.3f}")
        below = "<br>".join(map(html.escape, (self.verdict_on_checks, self.what_was_run)))
        return f"<p><b>{html.escape(self.headline)}</b></p>{rows}<p>{below}</p>"


def eps_label(eps: float) -> str:
    """Write an eps as people do, 0 as ``0``."""
    return eps_text(float(eps)) if eps else "0"


def curve(result: SweepResult) -> pd.DataFrame:
    """Return accuracy over eps with its 95 % binomial interval; the clean accuracy stands at eps = 0."""
    points = {0.0: float(result.clean_correct.double().mean())}
    points |= dict(zip(result.eps.tolist(), result.accuracy.tolist(), strict=True))
    frame = pd.DataFrame(points.items(), columns=["eps", "accuracy"])
    low, high = wilson(frame["accuracy"], pd.Series(len(result.distance), index=frame.index))
    return frame.assign(low=low.clip(lower=0), high=high.clip(upper=1))


def corruption_means(table: pd.DataFrame) -> tuple[float, float]:
    """Return the mean accuracy over the benchmark's 15 corruptions, and over all of the table."""
    means = table.set_index("corruption")[list(SEVERITIES)].mean(axis=1)
    return float(means.loc[list(BENCHMARK)].mean()), float(means.mean())
