"""What an arm of a study is, column by column, and its names: one for folders and machines, one for people. No torch.

A new column is a field of `ArmColumns` with its word in `arm_id` and `arm_label`: specs, tables and runs take it from
here. A config lists its values under the same name (`Arms` in config/arms.py).
"""

import re

from pydantic import Field

from ssrob.config.fields import Norm, Strict, Tune
from ssrob.config.study import Study
from ssrob.config.variants import ROLES, Pretraining, built_in_variants, family
from ssrob.formatting import NORMS, eps_text

BUDGET = re.compile(r"passes of (?:(?P<init>\S+) \+ )?(?P<variant>\S+)(?: \((?P<task>\S+)\))?")


class ArmColumns(Strict):
    """What distinguishes one arm of a study from another; every field is a column of the tables of results."""

    variant: str = Field(description="method or control, by its name in the config")
    init: str = Field("random", description="random, or the name of a pre-training")
    task: str | None = Field(None, description="SSL task of the variant, null if it has none")
    weight: float | None = Field(None, description="SSL weight w, null if it has none")
    norm: Norm | None = Field(None, description="norm of the training perturbation, null without one")
    eps_scale: float = Field(1.0, description="eps_train in multiples of the reference eps")
    eps_train: float | None = Field(None, description="[0,1] pixel units, null without a perturbation")
    tune: Tune = Field("full", description="full: all weights were trained; head: the heads alone, on a fixed backbone")
    budget: str | None = Field(None, description="null, or the arm whose passes this one was given")
    seed: int = Field(description="seed of initialisation, order, augmentation and attacks")


# What all seeds of an arm share: the findings compare these (`Cell`), and looks go on with them. eps_train follows from
# norm and scale; linear fine-tuning is not compared.
SHARED = tuple(name for name in ArmColumns.model_fields if name not in ("eps_train", "tune", "seed"))


def arm_id(arm: ArmColumns) -> str:
    """Return an arm's name for machines, e.g. ``ssl-at_ssl_joint-rotation-w0.5-linf8-s0``; it is part of stage keys."""
    parts = [*([arm.init] if arm.init != "random" else []), arm.variant]
    parts += [arm.tune] if arm.tune != "full" else []
    parts += [arm.task] if arm.task else []
    parts += [f"w{arm.weight:g}"] if arm.weight is not None else []
    parts += [f"{arm.norm}{_eps_id(arm.norm, arm.eps_train)}"] if arm.norm and arm.eps_train else []
    parts += ["long"] if arm.budget else []
    return "-".join([*parts, f"s{arm.seed}"])


def arm_label(arm: ArmColumns, study: Study | None = None, *, init_task: str | None = None, eps: bool = False) -> str:
    """Return an arm's name for people, without its seed, e.g. ``AT + rotation on clean images, w 0.5, l-inf``.

    study: its own variants may have labels; without it the variants of every study have. init_task: the SSL task of the
    pre-training, where it is to be named. eps: write eps_train, for readers who do not know the reference eps.
    """
    parts = [variant_label(arm.variant, arm.task, study)]
    parts += [f"w {arm.weight:g}"] if arm.weight is not None else []
    parts += [NORMS[arm.norm] + (f" {eps_text(arm.eps_train)}" if eps and arm.eps_train else "")] if arm.norm else []
    parts += [f"{arm.eps_scale:g} × eps"] if arm.eps_scale != 1 and not eps else []
    parts += [f"from {init_label(arm.init, init_task, study)}"] if arm.init != "random" else []
    parts += ["linear fine-tuning"] if arm.tune == "head" else []
    return ", ".join(parts) + (f" ({_budget_text(arm.budget, study)})" if arm.budget else "")


def variant_label(variant: str, task: str | None = None, study: Study | None = None) -> str:
    """Return the name of a variant or a pre-training for people: its label (a control's: its method's), or its own."""
    row = (study.variants if study else built_in_variants()).get(variant)
    if row is None:
        return init_label(variant, task, study)
    if row.control_of is not None:
        return f"{variant_label(row.control_of, task, study)}, {ROLES[row.role]}"
    return _filled(row.label, variant, task)


def init_label(init: str, task: str | None = None, study: Study | None = None) -> str:
    """Return a pre-training's name for people: its label, or its own name."""
    raw = family()["pretraining"].get(init)
    row = study.pretraining.get(init) if study else Pretraining.model_validate(raw) if raw else None
    return _filled(row.objective.label if row and row.objective else None, init, task)


def budget_label(variant: str, task: str | None, init: str = "random") -> str:
    """Name the budget of an arm that was given another arm's passes; without an init, those of fine-tuning alone."""
    name = variant if init == "random" else f"{init} + {variant}"
    return f"passes of {name}" + (f" ({task})" if task else "")


def _budget_text(budget: str, study: Study | None) -> str:
    """Return a budget in the words of labels."""
    match = BUDGET.fullmatch(budget)
    if match is None:
        return budget
    init, variant, task = match.group("init", "variant", "task")
    before = f"{init_label(init, task, study)} and " if init else ""
    return f"passes of {before}{variant_label(variant, None if init else task, study)}"


def _filled(label: str | None, name: str, task: str | None) -> str:
    return label.replace("{task}", task or "SSL") if label else " ".join(filter(None, (name, task)))


def _eps_id(norm: Norm, eps: float) -> str:
    levels = eps * 255
    whole = norm == "linf" and abs(levels - round(levels)) < 1e-6
    return f"{round(levels)}" if whole else f"{eps:.4g}"
