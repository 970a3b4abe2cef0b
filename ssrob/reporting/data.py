"""What the figures and tables of a report are made from: a study's tables, with names and looks for the arms."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssrob.config.study import Study
from ssrob.reporting.figures.arms import name_arms, with_names
from ssrob.reporting.figures.looks import Looks, looks
from ssrob.storage.tables import (
    ALL_CHECKS,
    ALL_EXAMPLES,
    CALIBRATION,
    CORRUPTIONS,
    DETECTION,
    DIAGNOSTICS,
    FINDINGS,
    NOT_RUN,
    PROBES,
    ROBUSTNESS,
    STAGES,
    TRAINING,
    Columns,
)

Tables = Mapping[str, pd.DataFrame]
Samples = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class ReportData:
    """A study's tables at its headline checkpoint, with the arms' names and looks; absent tables are empty."""

    study: Study
    arms: pd.DataFrame
    looks: Looks
    robustness: pd.DataFrame
    all_robustness: pd.DataFrame  # of every checkpoint
    corruptions: pd.DataFrame
    detection: pd.DataFrame
    calibration: pd.DataFrame
    training: pd.DataFrame
    findings: pd.DataFrame
    examples: pd.DataFrame
    probes: pd.DataFrame
    diagnostics: pd.DataFrame
    checks: pd.DataFrame
    stages: pd.DataFrame
    not_run: pd.DataFrame
    samples: Samples
    classes: Sequence[str]
    norm: str

    def trained_on(self, norm: str) -> "ReportData":
        """Return the same with the arms trained on one norm alone, and those trained on none."""
        arms = _of_norm(self.arms, norm)
        examples = self.examples[self.examples["arm"].isin(set(arms["arm"]))]
        return dataclasses.replace(
            self,
            norm=norm,
            arms=arms,
            robustness=_of_norm(self.robustness, norm),
            corruptions=_of_norm(self.corruptions, norm),
            detection=_of_norm(self.detection, norm),
            calibration=_of_norm(self.calibration, norm),
            training=_of_norm(self.training, norm),
            examples=examples,
            diagnostics=_of_norm(self.diagnostics, norm),
        )

    @property
    def norms(self) -> list[str]:
        """The norms that arms were trained on, the primary one first; it alone where there are none."""
        primary = self.study.findings.primary.norm
        found = list(dict.fromkeys(self.arms["norm"].dropna()))
        return sorted(found, key=lambda norm: norm != primary) or [self.norm]

    @property
    def primary(self) -> pd.DataFrame:
        """The findings on which verdicts are given."""
        return self.findings[self.findings["primary"].astype(bool)]

    @property
    def eps(self) -> float:
        """The reference eps of the norm, [0, 1] pixel units."""
        return self.study.threat[self.norm].eps if self.norm in self.study.threat else 0.0


def report_data(study: Study, tables: Tables, samples: Samples, classes: Sequence[str] = ()) -> ReportData:
    """Name the arms and take the rows of the headline checkpoint; tables by name as collected, absent ones empty."""
    arms = name_arms(tables["arms"], study)
    checkpoint = headline_checkpoint(study)

    def plain(name: str, columns: Columns) -> pd.DataFrame:
        frame = tables.get(name)
        return pd.DataFrame(columns=list(columns)) if frame is None or frame.empty else frame

    def named(name: str, columns: Columns) -> pd.DataFrame:
        return with_names(plain(name, columns).rename(columns={"label": "class"}), arms)  # `label` is the arm's

    def tested(name: str, columns: Columns) -> pd.DataFrame:
        rows = named(name, columns)
        return rows[rows["checkpoint"] == checkpoint]

    return ReportData(
        study=study,
        arms=arms,
        looks=looks(arms),
        robustness=tested("robustness", ROBUSTNESS),
        all_robustness=named("robustness", ROBUSTNESS),
        corruptions=tested("corruptions", CORRUPTIONS),
        detection=tested("detection", DETECTION),
        calibration=tested("calibration", CALIBRATION),
        training=named("training", TRAINING),
        findings=plain("findings", FINDINGS),
        examples=tested("examples", ALL_EXAMPLES),
        probes=plain("probes", PROBES),
        diagnostics=named("diagnostics", DIAGNOSTICS),
        checks=named("checks", ALL_CHECKS),
        stages=plain("stages", STAGES),
        not_run=plain("not_run", NOT_RUN),
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
