"""The claims, the ways of training and the parts of an arm's name, in words, for a page that must explain itself."""

from collections.abc import Mapping

import pandas as pd

from ssrob.config.findings import Findings
from ssrob.config.variants import Perturb, Variant
from ssrob.reporting.figures.inputs import Inputs

LOSSES = {
    "xent": "cross-entropy",
    "ssl": "SSL loss",
    "kl_to_clean": "KL to the clean prediction",
    "views_xent": "cross-entropy at the SSL views",
}
LAYOUTS = {"shared": "", "copies": ", on image and views apart", "single": ", on the view as the image"}
PARTS = {  # how an arm's name shows it -> what it means
    "_nograd": "the same forward passes without an SSL gradient: BatchNorm's statistics alone see the SSL images",
    "_views": "a control: the SSL views as plain augmentation, without an SSL loss",
    "w=0.5": "the SSL weight w",
    "linf, l2": "the norm of the perturbations trained on; nothing: none",
    "x0.5": "trained with half the reference eps (the study's budget, 1 × eps)",
    "from ssl": "starts from the pre-training of that name; otherwise from random weights",
    "(passes of …)": "trained for longer, with as many network passes as the arm named there",
    "head alone": "the backbone stays as it was pre-trained",
}


def claims(findings: Findings) -> dict[str, str]:
    """Return every claim's question, for people."""
    words = {
        name: claim.words().replace("eps_train", "the training eps") for name, claim in findings.all_claims.items()
    }
    return {name: text[:1].upper() + text[1:] for name, text in words.items()}


def ways(inputs: Inputs) -> pd.DataFrame:
    """Return what each way and each pre-training of the study's arms does, in words; a row each, in display order.

    Columns: way, what each perturbation climbs, what the parameters minimise.
    """
    study = inputs.study
    rows = [(name, study.variants[name]) for name in dict.fromkeys(inputs.arms["variant"])]
    pretrained = {
        name: study.pretraining[name].objective for name in dict.fromkeys(inputs.arms["init"]) if name != "random"
    }
    rows += [(f"pre-training {name}", objective) for name, objective in pretrained.items() if objective is not None]
    told = [(name, _climbed(variant.perturb), _minimised(variant)) for name, variant in rows]
    return pd.DataFrame(told, columns=["way", "each perturbation climbs", "the parameters minimise"])


def _climbed(perturbations: Mapping[str, Perturb]) -> str:
    told = [f"{name}: {_sum(each.maximise)}{LAYOUTS[each.layout]}" for name, each in perturbations.items()]
    return "; ".join(told) or "none"


def _minimised(variant: Variant) -> str:
    told = [f"{_sum(terms)} at {_images(name)}" for name, terms in variant.train.items()]
    told += [
        f"nothing by the {', '.join(map(_loss, losses))} at {_images(name)}, which is only evaluated"
        for name, losses in variant.forward.items()
    ]
    return "; ".join(told)


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
