"""What the figures of a report are drawn from: a study's tables, with names and looks for the arms."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssrob.config.study import Study
from ssrob.reporting.figures.arms import name_arms, with_names
from ssrob.reporting.figures.style import Looks, looks
from ssrob.storage.tables import (
    ALL_EXAMPLES,
    CORRUPTIONS,
    DIAGNOSTICS,
    FINDINGS,
    PROBES,
    ROBUSTNESS,
    TRAINING,
    Columns,
)

Tables = Mapping[str, pd.DataFrame]
Samples = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Inputs:
    """What figures are drawn from: a study's tables at its headline checkpoint, with the arms' names and looks."""

    study: Study
    arms: pd.DataFrame
    looks: Looks
    robustness: pd.DataFrame
    corruptions: pd.DataFrame
    training: pd.DataFrame
    findings: pd.DataFrame
    examples: pd.DataFrame
    probes: pd.DataFrame
    diagnostics: pd.DataFrame
    samples: Samples
    classes: Sequence[str]
    norm: str

    def trained_on(self, norm: str) -> "Inputs":
        """Return the same with the arms trained on one norm alone, and those trained on none."""
        return dataclasses.replace(
            self,
            norm=norm,
            arms=_of_norm(self.arms, norm),
            robustness=_of_norm(self.robustness, norm),
            corruptions=_of_norm(self.corruptions, norm),
            training=_of_norm(self.training, norm),
            examples=self.examples[self.examples["arm"].isin(set(_of_norm(self.arms, norm)["arm"]))],
            diagnostics=_of_norm(self.diagnostics, norm),
        )

    @property
    def norms(self) -> list[str]:
        """The norms that arms were trained on, the primary one first; it alone where there are none."""
        primary = self.study.findings.primary.norm
        found = list(dict.fromkeys(self.arms["norm"].dropna()))
        return sorted(found, key=lambda norm: norm != primary) or [self.norm]


def inputs(study: Study, tables: Tables, samples: Samples, classes: Sequence[str] = ()) -> Inputs:
    """Name the arms and take the rows of the headline checkpoint; tables by name as collected, absent ones empty."""
    arms = name_arms(tables["arms"])
    checkpoint = headline_checkpoint(study)

    def named(name: str, columns: Columns) -> pd.DataFrame:
        rows = tables.get(name, pd.DataFrame(columns=list(columns)))
        frame = with_names(rows.rename(columns={"label": "class"}), arms)  # `label` is the arm's, in every figure
        tested = "checkpoint" in columns and name != "diagnostics"  # which has one checkpoint alone
        return frame[frame["checkpoint"] == checkpoint] if tested else frame

    return Inputs(
        study=study,
        arms=arms,
        looks=looks(arms),
        robustness=named("robustness", ROBUSTNESS),
        corruptions=named("corruptions", CORRUPTIONS),
        training=named("training", TRAINING),
        findings=tables.get("findings", pd.DataFrame(columns=list(FINDINGS))),
        examples=named("examples", ALL_EXAMPLES),
        probes=tables.get("probes", pd.DataFrame(columns=list(PROBES))),
        diagnostics=named("diagnostics", DIAGNOSTICS),
        samples=samples,
        classes=classes,
        norm=study.findings.primary.norm if study.findings.primary.norm in study.threat else next(iter(study.threat)),
    )


def headline_checkpoint(study: Study) -> str:
    """Return the checkpoint that figures show: the primary one, or the first where it was not tested."""
    wanted = study.findings.primary.checkpoint
    return wanted if wanted in study.evaluate.checkpoints else study.evaluate.checkpoints[0]


def _of_norm(frame: pd.DataFrame, norm: str) -> pd.DataFrame:
    return frame[(frame["norm"] == norm) | frame["norm"].isna()]
