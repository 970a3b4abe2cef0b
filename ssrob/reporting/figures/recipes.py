"""Every figure of a report: what it is drawn from, how it is read, and what is missing where it cannot be drawn."""

import pandas as pd
from matplotlib.figure import Figure

from ssrob.reporting.figures.arms import is_frontier, names_in
from ssrob.reporting.figures.corruption import corruption_families, corruption_means
from ssrob.reporting.figures.curves import difference_to_at, gain_from_pretraining, robust_accuracy
from ssrob.reporting.figures.effects import effects
from ssrob.reporting.figures.heatmaps import corruption_heatmap, sweep_heatmap
from ssrob.reporting.figures.inputs import Inputs
from ssrob.reporting.figures.insights import INSIGHTS
from ssrob.reporting.figures.pictures import adversarial_examples, in_norm
from ssrob.reporting.figures.recipe import Recipe
from ssrob.reporting.figures.summary import differences_to_at, differences_to_random
from ssrob.reporting.figures.trade_offs import at_reference, clean_against_robust, cost_against_robust
from ssrob.reporting.figures.training import pretraining_curves, pretraining_rows, training_curves

MOST_PICTURED = 8  # arms in the grid of example images


def _robust_accuracy(i: Inputs) -> Figure | None:
    return None if i.robustness.empty else robust_accuracy(i.robustness, i.looks)


def _difference(i: Inputs) -> Figure | None:
    floor = i.study.findings.floor
    rows = i.robustness if i.robustness.empty else differences_to_at(i.robustness, floor)
    return None if rows.empty else difference_to_at(rows, i.looks, floor)


def _gain(i: Inputs) -> Figure | None:
    floor = i.study.findings.floor
    rows = i.robustness if i.robustness.empty else differences_to_random(i.robustness, floor)
    return None if rows.empty else gain_from_pretraining(rows, i.looks, floor)


def _sweep(i: Inputs) -> Figure | None:
    return None if i.robustness.empty else sweep_heatmap(i.robustness, i.looks)


def _families(i: Inputs) -> Figure | None:
    means = i.corruptions if i.corruptions.empty else corruption_means(i.corruptions)
    return None if means.empty else corruption_families(means, i.looks)


def _corruptions(i: Inputs) -> Figure | None:
    return None if i.corruptions.empty else corruption_heatmap(i.corruptions, i.looks)


def _training(i: Inputs) -> Figure | None:
    return training_curves(i.training, i.looks) if (i.training["stage"] == "finetune").any() else None


def _pretraining(i: Inputs) -> Figure | None:
    rows = pretraining_rows(i.training)
    return None if rows.empty else pretraining_curves(rows, i.study.losses)


def _clean(i: Inputs) -> Figure | None:
    points = _at_reference(i)
    return None if points is None else clean_against_robust(points, i.looks)


def _cost(i: Inputs) -> Figure | None:
    points = _at_reference(i)
    known = points is not None and points.loc[points["norm"] == points["eval_norm"], "passes"].notna().any()
    return cost_against_robust(points, i.looks) if known else None


def _effects(i: Inputs) -> Figure | None:
    some = len(i.findings) and (i.findings["primary"].astype(bool) & i.findings["effect"].notna()).any()
    return effects(i.findings, i.study.findings.detectable, i.study.findings.level) if some else None


def _pictures(i: Inputs) -> Figure | None:
    arms = i.arms[~is_frontier(i.arms) & i.arms["budget"].isna() & ((i.arms["norm"] == i.norm) | i.arms["norm"].isna())]
    labels = dict(zip(arms["name"], arms["label"], strict=True))
    chosen = [name for name in names_in(arms, i.arms) if labels[name] in i.samples][:MOST_PICTURED]
    arrays = {name: in_norm(i.samples[labels[name]], i.norm) for name in chosen}
    found = {name: sample for name, sample in arrays.items() if sample is not None}
    return adversarial_examples(found, i.classes) if found else None


def _at_reference(i: Inputs) -> pd.DataFrame | None:
    points = i.robustness if i.robustness.empty else at_reference(i.robustness, i.arms)
    return None if points.empty or not (points["norm"] == points["eval_norm"]).any() else points


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "effects",
            "Each claim's effect in percentage points with its interval. An interval that reaches over zero is "
            "compatible with no effect; one inside the grey zone with no effect that matters here.",
            "tables/findings.parquet",
            "No effect could be computed: the arms that the claims compare were not all trained.",
            _effects,
            per_norm=False,
        ),
        Recipe(
            "robust_accuracy",
            "Share of test images that stay correctly classified under every attack, by size of the perturbation. "
            "eps = 0 is clean accuracy. Models are tested on both norms, the one not trained on, too. "
            "With many arms it shows the main comparison here: the ways of training at the usual SSL task and weight.",
            "tables/robustness.parquet",
            "There are no attack sweeps.",
            _robust_accuracy,
        ),
        Recipe(
            "difference_to_at",
            "Above zero: more robust than plain adversarial training (AT). A gain at small eps with a loss at large is "
            "also what plain AT with a smaller eps gives: compare with the thin grey lines.",
            "tables/robustness.parquet",
            "There is nothing to compare with plain AT: it was not trained, or nothing beside it was.",
            _difference,
        ),
        Recipe(
            "sweep_heatmap",
            "The same numbers for every arm at once.",
            "tables/robustness.parquet",
            "No attack sweeps.",
            _sweep,
        ),
        Recipe(
            "corruption_families",
            "Accuracy on corrupted test images, the mean over severities. Nothing was trained or chosen on them.",
            "tables/corruptions.parquet",
            "No corruptions were tested.",
            _families,
        ),
        Recipe(
            "corruption_heatmap",
            "Accuracy on each corruption.",
            "tables/corruptions.parquet",
            "No corruptions.",
            _corruptions,
        ),
        Recipe(
            "pretraining_curves",
            "Whether the self-supervised task was learnt. Accuracy that stays near chance: the pre-training failed.",
            "tables/training.parquet",
            "No arm starts from a pre-training.",
            _pretraining,
            per_norm=False,
        ),
        Recipe(
            "gain_from_pretraining",
            "Above zero: more robust than the same training from random initialisation, which took fewer passes.",
            "tables/robustness.parquet",
            "No way of training was run both from a pre-training and from random initialisation.",
            _gain,
        ),
        Recipe(
            "training_curves",
            "A robust accuracy that falls late in training is robust overfitting. The best checkpoint is chosen on "
            "these validation images.",
            "tables/training.parquet",
            "No training records were collected.",
            _training,
        ),
        Recipe(
            "adversarial_examples",
            "A few test images attacked at the reference eps.",
            "the evaluation stages' samples.npz",
            "No example images were kept.",
            _pictures,
            per_norm=False,
        ),
        Recipe(
            "clean_against_robust",
            "Up and to the right is better. Beyond the grey line: more than plain AT reaches by the choice of its eps.",
            "tables/robustness.parquet",
            "No model was trained against a perturbation and tested at the reference eps.",
            _clean,
            per_norm=False,
        ),
        Recipe(
            "cost_against_robust",
            "One pass is one forward of one image; a backward to the input counts one, a full backward two.",
            "tables/robustness.parquet",
            "No model was trained against a perturbation and tested at the reference eps.",
            _cost,
            per_norm=False,
        ),
        *INSIGHTS,
    )
}
