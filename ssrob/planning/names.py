"""Names of folders, for people. Imports no torch."""

from ssrob.planning.specs import TrainSpec


def slug(spec: TrainSpec) -> str:
    """Return what of a training people want to see in a folder's name; the digest after it tells the rest."""
    parts = [spec.data, *([spec.init] if spec.init != "random" else []), spec.variant]
    parts += [spec.tune] if spec.tune != "full" else []
    parts += [spec.task] if spec.task else []
    parts += [f"w{spec.weight:g}"] if spec.weight is not None else []
    parts += [f"{spec.norm}{_eps_name(spec)}"] if spec.norm and spec.eps_train else []
    parts += ["long"] if spec.budget else []
    return "-".join([*parts, f"s{spec.seed}"])


def _eps_name(spec: TrainSpec) -> str:
    assert spec.eps_train is not None
    pixels = spec.eps_train * 255
    if spec.norm == "linf" and abs(pixels - round(pixels)) < 1e-6:
        return f"{round(pixels)}"
    return f"{spec.eps_train:.4g}"
