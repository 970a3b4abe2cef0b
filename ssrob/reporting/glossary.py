"""What the methods of a study do and what the words of a report mean: a page must explain itself."""

from collections.abc import Mapping

import pandas as pd

from ssrob.config.variants import Perturb, Variant
from ssrob.planning.names import variant_label
from ssrob.reporting.data import ReportData
from ssrob.reporting.layout import Table, plain_table
from ssrob.reporting.verdicts import VERDICTS

LOSSES = {
    "xent": "cross-entropy",
    "ssl": "SSL loss",
    "kl_to_clean": "KL to the clean prediction",
    "views_xent": "cross-entropy at the SSL views",
}
LAYOUTS = {"shared": "", "copies": ", on image and views separately", "single": ", on the view as the image"}
TERMS = {
    "arm": "one method in one setting, with all its seeds",
    "AT": "adversarial training (Madry et al. 2018); TRADES: Zhang et al. 2019",
    "SSL": "a self-supervised task, trained alongside classification; w is the weight of its loss",
    "eps": "the size of a perturbation in its norm, in [0, 1] pixel units; each norm has a reference",
    "0.5 × eps": "trained with half the reference eps",
    "no SSL gradient": "a control: the same forward passes, so that BatchNorm's statistics alone see the SSL images",
    "SSL views as augmentation": "a control: the SSL views as plain augmentation, without an SSL loss",
    "passes of …": "a control: trained longer, with as many network passes as the arm that is named",
    "linear fine-tuning": "the backbone stays as it was pre-trained",
    "detectable": "the smallest effect that a comparison finds with 80 % power",
}


def methods(data: ReportData) -> Table | None:
    """Say what each method and each pre-training of the study's arms does; a row each, in display order."""
    study, rows = data.study, []
    for variant, task in data.arms[["variant", "task"]].drop_duplicates("variant").itertuples(index=False):
        label = variant_label(variant, None if pd.isna(task) else task, study)
        rows.append((label, variant, study.variants[variant]))
    for init in dict.fromkeys(data.arms["init"]):
        objective = study.pretraining[init].objective if init != "random" else None
        if objective is not None:
            rows.append((f"pre-training {init}", init, objective))
    lines = [(label, name, _maximised(each.perturb), _minimised(each)) for label, name, each in rows]
    return plain_table(
        pd.DataFrame(lines, columns=["method", "in configs", "perturbations maximise", "training minimises"])
    )


def terms(data: ReportData) -> Table | None:
    """Explain the words of the page."""
    rows = [*TERMS.items(), *((word, verdict.meaning) for word, verdict in VERDICTS.items())]
    return plain_table(pd.DataFrame(rows, columns=["word", "meaning"]))


def _maximised(perturbations: Mapping[str, Perturb]) -> str:
    terms = [f"{name}: {_sum(each.maximise)}{LAYOUTS[each.layout]}" for name, each in perturbations.items()]
    return "; ".join(terms) or "none"


def _minimised(variant: Variant) -> str:
    parts = [f"{_sum(terms)} at {_images(name)}" for name, terms in variant.train.items()]
    parts += [
        f"nothing by the {', '.join(map(_loss, losses))} at {_images(name)}, which is only evaluated"
        for name, losses in variant.forward.items()
    ]
    return "; ".join(parts)


def _images(name: str) -> str:
    return "clean images" if name == "clean" else f"{name} images"


def _sum(terms: Mapping[str, float | str]) -> str:
    return " + ".join(_term(weight, name) for name, weight in terms.items())


def _term(weight: float | str, name: str) -> str:
    return (
        _loss(name) if weight == 1 else f"{weight if isinstance(weight, str) else format(weight, 'g')} × {_loss(name)}"
    )


def _loss(name: str) -> str:
    return LOSSES.get(name, name)
