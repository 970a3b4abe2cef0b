"""Whether every perturbation of an objective maximises something and fits its layout. Imports no torch."""

from ssrob.config.fields import ConfigError
from ssrob.planning.specs import Objective, Perturbation
from ssrob.registry.losses import LOSSES


def check_layouts(objective: Objective) -> Objective:
    """Return the objective without attacks that change nothing; a ConfigError says what makes no sense."""
    for name, perturbation in objective.perturb.items():
        if not perturbation.maximise:
            raise ConfigError(f"perturbation {name!r}: every loss it maximises has weight zero")
    for name in objective.losses:
        row = objective.row(name)
        argument = LOSSES[name].task_argument
        if argument and row.views_of is None:
            raise ConfigError(
                f"{name}: {argument} {row.arguments[argument]!r} does not name its views (`views` in its row)"
            )
    checks = {"copies": _copies, "single": _single}
    perturb = {
        name: checks[each.layout](objective, name, each) if each.layout in checks else each
        for name, each in objective.perturb.items()
    }
    return objective.model_copy(update={"perturb": perturb})


def _copies(objective: Objective, name: str, perturbation: Perturbation) -> Perturbation:
    """Every tensor has its own d: what is trained must be maximised, and what is not trained need not be."""
    for loss in {**objective.train[name], **perturbation.maximise}:
        row = objective.row(loss)
        if row.view_names and (row.views_of is None or "x" in row.forwards):
            raise ConfigError(
                f"perturbation {name!r}: layout copies: {loss!r} must name its views, and look at them alone"
            )
    trained = {objective.row(loss).views_of for loss in objective.train[name]}
    groups = objective.groups(perturbation)
    if missing := [loss for loss in objective.train[name] if objective.row(loss).views_of not in groups]:
        raise ConfigError(
            f"perturbation {name!r}: layout copies: it maximises nothing that moves what {missing[0]!r} sees"
        )
    maximise = {loss: weight for source in groups if source in trained for loss, weight in groups[source].items()}
    forwards = sorted({each for loss in maximise for each in objective.row(loss).forwards if each != "clean"})
    if unknown := sorted(set(perturbation.views) - set(forwards)):
        raise ConfigError(f"perturbation {name!r}: views: found {unknown[0]!r}; it could move {', '.join(forwards)}")
    for loss in maximise:
        if perturbation.views and not set(objective.row(loss).forwards) & set(perturbation.views):
            raise ConfigError(
                f"perturbation {name!r}: views: none of those that {loss!r} looks at, found {perturbation.views}"
            )
    return perturbation.model_copy(update={"maximise": maximise})


def _single(objective: Objective, name: str, perturbation: Perturbation) -> Perturbation:
    """The image is a view: there must be just one, and no clean image of which it is not the view."""
    assert perturbation.view is not None
    row = objective.row(perturbation.view)
    if row.views_of is None or len(row.view_names) != 1:
        forwards = ", ".join(row.view_names) or "none"
        raise ConfigError(
            f"perturbation {name!r}: layout single needs a task with one view; {perturbation.view!r} has {forwards}"
        )
    for loss in {**objective.train[name], **perturbation.maximise}:
        if "clean" in objective.row(loss).forwards:
            raise ConfigError(f"perturbation {name!r}: layout single: {loss!r} compares with the image before the view")
    return perturbation
