"""What the figures and tables of a report are made from: a study's tables, with names and styles for the arms."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssrob.config.study import Study
from ssrob.reporting.figures.arm_styles import ArmStyles, arm_styles
from ssrob.reporting.figures.arms import name_arms, with_names
from ssrob.storage.tables import COLLECTED

Tables = Mapping[str, pd.DataFrame]
Samples = Mapping[str, Mapping[str, Any]]
TESTED = ("robustness", "corruptions", "detection", "calibration", "examples")  # tables with rows of each checkpoint
OF_ARMS = (*TESTED, "training", "diagnostics")


@dataclass(frozen=True)
class ReportData:
    """A study's tables at its headline checkpoint, with the arms' names and styles; absent tables are empty."""

    study: Study
    arms: pd.DataFrame
    styles: ArmStyles
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
        arms = self.arms[(self.arms["norm"] == norm) | self.arms["norm"].isna()]
        tables = {name: getattr(self, name) for name in OF_ARMS}
        kept = {name: table[table["arm"].isin(set(arms["arm"]))] for name, table in tables.items()}
        return dataclasses.replace(self, norm=norm, arms=arms, **kept)

    @property
    def norms(self) -> list[str]:
        """The norms that arms were trained on, the primary one first; it alone where there are none."""
        primary = self.study.findings.primary.norm
        trained = dict.fromkeys(self.arms["norm"].dropna())
        return sorted(trained, key=lambda norm: norm != primary) or [self.norm]

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

    primary = study.findings.primary.norm
    frames = {name: _or_empty(tables.get(name), columns) for name, columns in COLLECTED.items()}
    named = {  # a column `label` is the arm's
        name: with_names(frames[name].rename(columns={"label": "class"}), arms) for name in (*OF_ARMS, "checks")
    }
    at_checkpoint = {name: named[name][named[name]["checkpoint"] == checkpoint] for name in TESTED}
    plain = {name: frames[name] for name in ("findings", "probes", "stages", "not_run")}
    return ReportData(
        study=study,
        arms=arms,
        styles=arm_styles(arms),
        all_robustness=named["robustness"],
        samples=samples,
        classes=classes,
        norm=primary if primary in study.threat else next(iter(study.threat)),
        **plain | named | at_checkpoint,
    )


def headline_checkpoint(study: Study) -> str:
    """Return the checkpoint that figures show: the primary one, or the first where it was not tested."""
    wanted = study.findings.primary.checkpoint
    return wanted if wanted in study.evaluate.checkpoints else study.evaluate.checkpoints[0]


def _or_empty(frame: pd.DataFrame | None, columns: Iterable[str]) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns)) if frame is None or frame.empty else frame
