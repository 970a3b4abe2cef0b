"""What a report shows, in its order: one row per section, per table and per figure; the page loops over them.

To add a figure: a function from `ReportData` to a figure (None where there is nothing to draw), and its row here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from ssrob.reporting import detection, glossary, insights, main_table, tables
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures import classes, corruption, curves, effects, heatmaps, pictures, probes, trade_offs
from ssrob.reporting.figures.detection import calibration_error, detection_auroc
from ssrob.reporting.figures.diagnosis import diagnosis
from ssrob.reporting.figures.training import pretraining_curves, training_curves
from ssrob.reporting.layout import Table


@dataclass(frozen=True)
class Section:
    """A part of the page: its address, its heading, and sentences before its tables and figures."""

    id: str
    title: str
    notes: Callable[[ReportData], list[str]] = lambda _: []


@dataclass(frozen=True)
class FigureRow:
    """A figure: its section, its function, how it is read, and the table it is drawn from."""

    section: str
    draw: Callable[[ReportData], Figure | None]
    caption: str
    source: str
    per_norm: bool = True  # one figure for each norm that arms were trained on
    folded: bool = False

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.draw.__name__


@dataclass(frozen=True)
class TableRow:
    """A table: its section, its function, what it holds, and whether its numbers are files of their own, too."""

    section: str
    make: Callable[[ReportData], Table | None]
    caption: str
    folded: bool = False
    saved: bool = False

    @property
    def name(self) -> str:
        """The name of its files."""
        return self.make.__name__


SECTIONS = (
    Section("evidence", "Evidence for each verdict"),
    Section("against-at", "Against plain adversarial training"),
    Section("robust", "Robust accuracy"),
    Section("numbers", "Main numbers"),
    Section("corruptions", "Natural corruptions", insights.corruption_notes),
    Section("ood", "Images of no known class", detection.detection_notes),
    Section("calibration", "Calibration"),
    Section("pretraining", "Pre-training", insights.pretraining_warnings),
    Section("diagnosis", "Gradients and transfer", insights.diagnosis_words),
    Section("training", "Training"),
    Section("examples", "Example images"),
    Section("checks", "Checks", tables.check_notes),
    Section("cost", "Cost"),
    Section("names", "Methods and words"),
    Section("run", "How it was run", tables.provenance_notes),
)

ITEMS: tuple[FigureRow | TableRow, ...] = (
    FigureRow(
        "evidence",
        effects.effects,
        "Each claim's effect with its interval. Where the interval includes zero, no effect is shown; where it lies "
        "inside the grey zone, there is none that matters here.",
        "findings",
        per_norm=False,
    ),
    TableRow(
        "evidence",
        tables.verdicts,
        "Comparisons were fixed in the config before anything ran. Effects are percentage points of accuracy.",
        saved=True,
    ),
    TableRow("evidence", tables.exploratory, "Exploratory comparisons, without verdicts", folded=True),
    FigureRow(
        "against-at",
        curves.difference_to_at,
        "Above zero: more robust than plain adversarial training (AT). A gain at small eps with a loss at large eps is "
        "also what plain AT with a smaller eps gives: compare with the thin grey lines.",
        "robustness",
    ),
    FigureRow(
        "against-at", curves.every_difference, "The same for every arm, a panel each.", "robustness", folded=True
    ),
    FigureRow(
        "against-at", curves.difference_by_weight, "The same by the weight of the SSL loss.", "robustness", folded=True
    ),
    FigureRow(
        "robust",
        curves.robust_accuracy,
        "Share of test images that stay correctly classified under every attack, by size of the perturbation; eps = 0 "
        "is clean accuracy.",
        "robustness",
    ),
    FigureRow("robust", heatmaps.sweep_heatmap, "Robust accuracy of every arm in per cent.", "robustness", folded=True),
    FigureRow(
        "robust",
        trade_offs.clean_against_robust,
        "Up and to the right is better. Beyond the grey line: more than plain AT reaches by the choice of its eps.",
        "robustness",
    ),
    FigureRow(
        "robust", classes.per_class, "Shows whether robustness rests on a few easy classes.", "examples", folded=True
    ),
    TableRow(
        "numbers",
        main_table.main,
        "Accuracy in per cent on test images, mean over seeds, with the difference to plain AT in points beside it and "
        "the interval that figures show below it. Bold: the best of a column.",
        saved=True,
    ),
    TableRow("numbers", tables.checkpoints, "Checkpoints, at the reference eps of the training norm", folded=True),
    FigureRow(
        "corruptions",
        corruption.corruption_families,
        "Accuracy on corrupted test images, the mean over severities. Nothing was trained or chosen on them.",
        "corruptions",
    ),
    TableRow("corruptions", insights.corruptions_by_family, "By family, in per cent", folded=True, saved=True),
    FigureRow(
        "corruptions",
        heatmaps.corruption_heatmap,
        "Accuracy of every arm on each corruption.",
        "corruptions",
        folded=True,
    ),
    FigureRow(
        "ood",
        detection_auroc,
        "How well a score tells test images from images of no known class. AUROC: the chance that a test image scores "
        "higher; 100 % is perfect, 50 % chance, and below it the other images look more familiar.",
        "detection",
    ),
    TableRow(
        "ood",
        detection.detection,
        "By score, in per cent, means over image sets and seeds. FPR at 95 % TPR: the share of other images that pass "
        "where 95 % of test images do; less is better.",
        folded=True,
        saved=True,
    ),
    FigureRow(
        "calibration",
        calibration_error,
        "How far confidence is from accuracy. The temperature was fitted on clean validation images; it changes no "
        "prediction.",
        "calibration",
    ),
    TableRow(
        "calibration",
        detection.calibration,
        "Expected calibration error (ECE) and accuracy in per cent, negative log-likelihood (NLL) in nats, Brier score "
        "0 to 2; less is better. Means over seeds, and over corruptions.",
        folded=True,
        saved=True,
    ),
    TableRow(
        "pretraining",
        insights.pretraining,
        "Accuracies in per cent of probes on frozen features, clean and attacked at the reference eps, on validation "
        "images, mean over seeds; “untrained” is the same network before pre-training.",
        saved=True,
    ),
    FigureRow(
        "pretraining",
        probes.probe_accuracies,
        "Where filled marks are no better than hollow ones, pre-training was worth no more than a random start.",
        "probes",
        per_norm=False,
    ),
    FigureRow(
        "pretraining",
        curves.gain_from_pretraining,
        "Above zero: more robust than the same training from random weights, which took fewer passes.",
        "robustness",
    ),
    FigureRow(
        "pretraining",
        pretraining_curves,
        "Whether the self-supervised task was learnt. Accuracy that stays near chance: the pre-training failed.",
        "training",
        per_norm=False,
        folded=True,
    ),
    FigureRow(
        "diagnosis",
        diagnosis,
        "Cosine 1: both losses ask for the same perturbation. Near 0: they are practically unrelated, and a "
        "perturbation of one should do no more to the other than noise does. No verdict rests on it.",
        "diagnostics",
    ),
    TableRow("diagnosis", insights.diagnosis, "The numbers, for every arm", folded=True, saved=True),
    FigureRow(
        "training",
        training_curves,
        "A robust accuracy that falls late in training is robust overfitting. The best checkpoint is chosen on these "
        "validation images.",
        "training",
    ),
    FigureRow(
        "examples",
        pictures.adversarial_examples,
        "A few test images attacked at the reference eps.",
        "robustness",
        per_norm=False,
    ),
    TableRow("checks", tables.failed_checks, "Checks that did not pass"),
    TableRow("checks", tables.checked_for, "What each check would find", folded=True),
    FigureRow(
        "cost",
        trade_offs.cost_against_robust,
        "One pass is one forward of one image; a backward to the input counts one, a full backward two.",
        "robustness",
        per_norm=False,
        folded=True,
    ),
    TableRow(
        "cost",
        tables.costs,
        "Training cost per arm, mean over seeds; passes are counted from the objective, per training image",
        folded=True,
    ),
    TableRow("names", glossary.terms, "Words", folded=True),
    TableRow("names", glossary.methods, "What each method does", folded=True),
    TableRow("run", tables.stages, "Stages", folded=True),
)
