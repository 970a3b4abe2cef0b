"""What an evaluation has found: to print, as a table, as a figure, and in a notebook."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ssrob.attacks.result import SweepResult, draw_curve
from ssrob.corruptions import BENCHMARK, SEVERITIES
from ssrob.external.identity import SHORT
from ssrob.external.request import Request
from ssrob.formatting import NORMS, curve_text, eps_text, interval, notebook_html, percent
from ssrob.storage.tables import accuracy_table


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
            f"{NORMS[self.request.norm]} eps {eps_text(last['eps'])}, {percent(clean['accuracy'])} clean"
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
        return "\n".join([self.headline, curve_text(self.curve), self.verdict_on_checks, self.what_was_run])

    def _repr_html_(self) -> str:
        table = self.curve.assign(eps=self.curve["eps"].map(eps_text))
        return notebook_html([self.headline], table, [self.verdict_on_checks, self.what_was_run])


def curve(result: SweepResult) -> pd.DataFrame:
    """Return accuracy over eps with its 95 % binomial interval; the clean accuracy stands at eps = 0."""
    attacked = result.to_frame()
    clean = accuracy_table(np.zeros(1), result.clean_correct.numpy()[None])
    return pd.concat([clean, attacked[attacked["eps"] > 0]], ignore_index=True)


def corruption_means(table: pd.DataFrame) -> tuple[float, float]:
    """Return the mean accuracy over the benchmark's 15 corruptions, and over all of the table."""
    means = table.set_index("corruption")[list(SEVERITIES)].mean(axis=1)
    return float(means.loc[list(BENCHMARK)].mean()), float(means.mean())
