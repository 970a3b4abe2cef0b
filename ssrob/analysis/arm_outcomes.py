"""The outcomes of an arm of a study on each image, for paired comparisons."""

from collections.abc import Sequence

import numpy as np

from ssrob.analysis.collect import labels
from ssrob.analysis.paired import Outcomes, outcomes_of
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
    models = []
    for arm in arms:
        swept, corrupted = arm.evaluate[checkpoint], arm.corrupt.get(checkpoint)
        examples = read_table(store.output(swept, "robustness.parquet"))
        file = store.output(corrupted, "corruptions.parquet") if corrupted else None
        models.append(outcomes_of(examples, plan.stages[swept].spec["eps"], file))
    return _stacked(models)


def _tests(arm: Arm, checkpoint: Checkpoint) -> list[str]:
    if checkpoint not in arm.evaluate:
        raise ValueError(f"checkpoint: expected {' or '.join(arm.evaluate)}, found {checkpoint!r}")
    return [paths[checkpoint] for paths in (arm.evaluate, arm.corrupt) if checkpoint in paths]


def _stacked(models: Sequence[Outcomes]) -> Outcomes:
    """Put the seeds of an arm over each other."""
    first = models[0]
    robust = {
        norm: {eps: np.concatenate([each.robust[norm][eps] for each in models]) for eps in grid}
        for norm, grid in first.robust.items()
    }
    corrupted = {test: np.concatenate([each.corrupted[test] for each in models]) for test in first.corrupted}
    return Outcomes(np.concatenate([each.clean for each in models]), robust, corrupted)
