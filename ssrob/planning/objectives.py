"""From a variant as a config writes it to an objective in numbers. Imports no torch."""

from collections.abc import Iterable

from ssrob.config.fields import WEIGHT, ConfigError, Norm
from ssrob.config.study import Study
from ssrob.config.variants import MAIN, Perturb, Variant
from ssrob.planning.perturbation_layouts import check_layouts
from ssrob.planning.specs import Objective, Perturbation
from ssrob.registry.attacks import STEP_RATIO
from ssrob.registry.losses import LOSSES, loss_row


def resolve_objective(
    study: Study, variant: Variant, *, norm: Norm, task: str, weight: float, eps_scale: float = 1.0
) -> Objective:
    """Put numbers for the names: the task for `ssl`, the weight for `w`, the reference attack for each perturbation.

    Terms of weight zero vanish here, before any forward pass or random draw, and with them every perturbation that
    nothing is trained on: with w = 0 a variant *is* its baseline.
    """
    train = {name: terms for name, raw in variant.train.items() if (terms := _resolve_terms(raw, task, weight))}
    if not train:
        raise ConfigError("an objective whose terms all have weight zero trains nothing")
    for name, losses in variant.forward.items():
        train[name] = train.get(name, {}) | {_loss(loss, task): 0.0 for loss in losses}
    perturb = {}
    for name, raw in variant.perturb.items():
        if name in train:
            maximise = _resolve_terms(raw.maximise, task, weight)
            perturb[name] = _resolve_attack(study, name, raw, norm=norm, eps_scale=eps_scale).model_copy(
                update={"maximise": maximise, "view": _loss(raw.view, task) if raw.layout == "single" else None}
            )
    objective = Objective(perturb=perturb, train=train)
    return check_layouts(
        objective.model_copy(
            update={"arguments": _arguments(study, objective, task), "batchnorm": _branches(objective, variant)}
        )
    )


def _resolve_attack(study: Study, name: str, raw: Perturb, *, norm: Norm, eps_scale: float) -> Perturbation:
    """Return a perturbation in numbers, but for what it maximises."""
    threat = study.threat.get(raw.norm or norm)
    if threat is None:
        raise ConfigError(f"perturbation {name!r}: norm {raw.norm!r} is not under threat")
    scale, steps = eps_scale * raw.eps_scale, raw.steps or threat.steps
    size = threat.step_size * threat.steps / steps if threat.step_size else STEP_RATIO * threat.eps / steps
    return Perturbation(
        maximise={},
        norm=raw.norm or norm,
        eps=threat.eps * scale,
        steps=steps,
        step_size=size * scale if raw.step_size is None else raw.step_size * eps_scale,
        layout=raw.layout,
        views=raw.views,
    )


def changed_arguments(study: Study, losses: Iterable[str]) -> dict[str, dict[str, int | float | str]]:
    """Return the arguments that the study gives these losses, where they are not the default."""
    changed = {
        name: {key: value for key, value in study.losses[name].items() if value != LOSSES[name].arguments[key]}
        for name in sorted(set(losses) & set(study.losses))
    }
    return {name: dict(given) for name, given in changed.items() if given}


def _arguments(study: Study, objective: Objective, task: str) -> dict[str, dict[str, int | float | str]]:
    """Return the arguments of all losses whose views or values are in use."""
    arguments: dict[str, dict[str, int | float | str]] = {}
    for name in objective.losses:
        argument = LOSSES[name].task_argument
        if argument and task != LOSSES[name].arguments[argument]:
            arguments[name] = {argument: task}
    views = [loss_row(name, arguments).views_of for name in objective.losses]
    views += [perturbation.view for perturbation in objective.perturb.values()]
    return arguments | changed_arguments(study, [*objective.losses, *(name for name in views if name)])


def _branches(objective: Objective, variant: Variant) -> dict[str, str]:
    """Return the branches of BatchNorm that are in use beside the main one."""
    asks_clean = any("clean" in objective.row(name).forwards for name in objective.losses)
    used = {*objective.train, *(["clean"] if asks_clean else [])}
    return {name: branch for name, branch in variant.batchnorm.items() if name in used and branch != MAIN}


def _loss(name: str, task: str) -> str:
    return task if name == "ssl" else name


def _resolve_terms(terms: dict[str, float | str], task: str, weight: float) -> dict[str, float]:
    resolved: dict[str, float] = {}
    for name, raw in terms.items():
        value = _resolve_weight(raw, weight)
        if value:
            loss = _loss(name, task)
            resolved[loss] = resolved.get(loss, 0.0) + value
    return resolved


def _resolve_weight(raw: float | str, weight: float) -> float:
    if not isinstance(raw, str):
        return float(raw)
    match = WEIGHT.fullmatch(raw)
    assert match is not None
    times, over = match.groups()
    return float(times or 1) * weight / float(over or 1)
