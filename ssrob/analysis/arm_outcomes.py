"""The outcomes of an arm of a study on each image, for paired comparisons."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ssrob.analysis.collect import labels
from ssrob.analysis.paired import Outcomes, unpacked
from ssrob.analysis.standard_error import BoolArray
from ssrob.config.fields import Checkpoint
from ssrob.planning.plan import Arm, Plan
from ssrob.registry.lookup import meant
from ssrob.storage.store import Store
from ssrob.storage.tables import read_table


def find_arms(plan: Plan, name: str) -> dict[int, Arm]:
    """Return the arms that a name means, by seed: a label of the report, all its seeds, or the key of one model.

    A part of a key is enough where it means one model. Raises ValueError, with what there is, where it means none or
    several.
    """
    names = labels(plan)
    plain = " ".join(name.split()).casefold()
    arms = [arm for arm in plan.arms if names[arm.finetune].casefold() == plain]
    if not arms:
        arms = [arm for arm in plan.arms if name and name in arm.finetune]
        if len(arms) > 1 and len({names[arm.finetune] for arm in arms}) > 1:
            shown = "; ".join(dict.fromkeys(names[arm.finetune] for arm in arms))
            raise ValueError(f"arm {name!r} is in the keys of several; give one of these names: {shown}")
    if not arms:
        there = list(dict.fromkeys(names.values()))
        raise ValueError(f"arm {name!r}: not in this study{meant(name, there)}; there are: {'; '.join(there)}")
    by_seed = {arm.seed: arm for arm in arms}
    if len(by_seed) < len(arms):
        keys = ", ".join(arm.finetune for arm in arms)
        raise ValueError(f"arm {name!r}: means several of one seed: {keys}; give a key")
    return by_seed


def arm_outcomes(plan: Plan, store: Store, arms: Sequence[Arm], checkpoint: Checkpoint) -> Outcomes:
    """Read what arms, one per seed, did with each image; raises ValueError where one is not tested yet."""
    missing = [path for arm in arms for path in _tests(arm, checkpoint) if not store.done(path)]
    if missing:
        raise ValueError(f"{missing[0]} is not finished: `ssrob status CONFIG` says what is left")
    return _stacked([_outcomes(plan, store, arm.evaluate[checkpoint], arm.corrupt.get(checkpoint)) for arm in arms])


def _tests(arm: Arm, checkpoint: Checkpoint) -> list[str]:
    if checkpoint not in arm.evaluate:
        raise ValueError(f"checkpoint: expected {' or '.join(arm.evaluate)}, found {checkpoint!r}")
    return [paths[checkpoint] for paths in (arm.evaluate, arm.corrupt) if checkpoint in paths]


def _outcomes(plan: Plan, store: Store, evaluated: str, corrupted: str | None) -> Outcomes:
    rows = read_table(store.output(evaluated, "robustness.parquet"))
    robust: dict[str, Mapping[float, BoolArray]] = {}
    for norm, grid in plan.stages[evaluated].spec["eps"].items():
        failed = _of_norm(rows, norm)["first_failed"].to_numpy()
        robust[norm] = {float(eps): (failed > eps)[None] for eps in grid if eps > 0}
    clean = _of_norm(rows, next(iter(robust)))["clean_correct"].to_numpy(dtype=bool)[None]
    table = read_table(store.output(corrupted, "corruptions.parquet")) if corrupted else None
    return Outcomes(clean, robust, {} if table is None else unpacked(table))


def _of_norm(rows: pd.DataFrame, norm: str) -> pd.DataFrame:
    return rows[rows["eval_norm"] == norm].sort_values("example")


def _stacked(models: Sequence[Outcomes]) -> Outcomes:
    """Put the seeds of one way of training over each other."""
    first = models[0]
    robust = {
        norm: {eps: np.concatenate([each.robust[norm][eps] for each in models]) for eps in grid}
        for norm, grid in first.robust.items()
    }
    corrupted = {test: np.concatenate([each.corrupted[test] for each in models]) for test in first.corrupted}
    return Outcomes(np.concatenate([each.clean for each in models]), robust, corrupted)
