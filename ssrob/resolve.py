"""From a variant in words to an objective in numbers. Imports no torch."""

from ssrob.spec import WEIGHT, ConfigError, Norm, Study, Variant
from ssrob.stage_specs import Objective, Perturbation


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
    if variant.normalise_weights:
        total = sum(weight for terms in train.values() for weight in terms.values())
        train = {name: {loss: value / total for loss, value in terms.items()} for name, terms in train.items()}
    for name, losses in variant.forward.items():
        train[name] = train.get(name, {}) | {task if loss == "ssl" else loss: 0.0 for loss in losses}
    perturb = {}
    for name, raw in variant.perturb.items():
        climb = _resolve_terms(raw.climb, task, weight)
        if name in train and not climb:
            raise ConfigError(f"perturbation {name!r}: every loss it climbs has weight zero")
        if name in train:
            threat = study.threat.get(raw.norm or norm)
            if threat is None:
                raise ConfigError(f"perturbation {name!r}: norm {raw.norm!r} is not under threat")
            scale, steps = eps_scale * raw.eps_scale, raw.steps or threat.steps
            size = threat.step_size * threat.steps / steps if threat.step_size else 2.5 * threat.eps / steps
            perturb[name] = Perturbation(
                climb=climb,
                norm=raw.norm or norm,
                eps=threat.eps * scale,
                steps=steps,
                step_size=size * scale,
            )
    return Objective(perturb=perturb, train=train, attack_mode=variant.attack_mode)


def budget_label(variant: str, task: str | None, init: str = "random") -> str:
    """Name the budget of an arm that was given another arm's passes; without an init, those of fine-tuning alone."""
    name = variant if init == "random" else f"{init} + {variant}"
    return f"passes of {name}" + (f" ({task})" if task else "")


def _resolve_terms(terms: dict[str, float | str], task: str, weight: float) -> dict[str, float]:
    resolved: dict[str, float] = {}
    for name, raw in terms.items():
        value = _resolve_weight(raw, weight)
        if value:
            loss = task if name == "ssl" else name
            resolved[loss] = resolved.get(loss, 0.0) + value
    return resolved


def _resolve_weight(raw: float | str, weight: float) -> float:
    if not isinstance(raw, str):
        return float(raw)
    match = WEIGHT.fullmatch(raw)
    assert match is not None
    times, over = match.groups()
    return float(times or 1) * weight / float(over or 1)
