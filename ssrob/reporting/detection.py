"""Tables of a report on the detection of images of no known class, and on calibration."""

import pandas as pd

from ssrob.formatting import eps_text, number
from ssrob.registry.ood import SCORES
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import names_in
from ssrob.reporting.figures.detection import calibration_means
from ssrob.reporting.layout import Table, plain_table


def detection_notes(data: ReportData) -> list[str]:
    """Say what was attacked, and how."""
    attacked = data.detection[data.detection["eps"] > 0]
    if attacked.empty:
        return []
    eps, images = eps_text(float(attacked["eps"].iloc[0])), int(attacked["inside"].max())
    return [
        f"Attacked: l-inf PGD with eps {eps} on the score itself lowers that of {images} test images and raises that "
        "of the other images. Higher scores mean “of the training distribution”."
    ]


def detection(data: ReportData) -> Table | None:
    """Return per arm and score AUROC, clean and attacked, AUPR and FPR in per cent; means over image sets and seeds."""
    rows = data.detection
    if rows.empty:
        return None
    clean, attacked = (part.groupby(["name", "score"]) for part in (rows[rows["eps"] == 0], rows[rows["eps"] > 0]))
    known = clean["auroc"].mean().index
    keys = [key for name in names_in(rows, data.arms) for score in SCORES if (key := (name, score)) in known]
    table = pd.DataFrame({"arm": [name for name, _ in keys], "score": [score.replace("_", " ") for _, score in keys]})
    columns = {"AUROC": clean["auroc"], "AUPR": clean["aupr"], "FPR at 95 % TPR": clean["fpr"]}
    columns["AUROC attacked"] = attacked["auroc"]
    for heading, values in columns.items():
        if len(values):
            table[heading] = (100 * values.mean()).reindex(keys).to_numpy()
    return plain_table(table)


def calibration(data: ReportData) -> Table | None:
    """Return per arm and kind of images accuracy and ECE (per cent), NLL (nats) and Brier score; means over seeds."""
    if data.calibration.empty:
        return None
    rows = calibration_means(data.calibration)
    means = rows.groupby(["name", "panel", "scaled"], sort=False)[["accuracy", "ece", "nll", "brier"]].mean()
    order = {name: place for place, name in enumerate(names_in(rows, data.arms))}
    means = means.reset_index().sort_values("name", key=lambda names: names.map(order), kind="stable")
    temperature = means["scaled"].map({False: "as trained", True: "fitted"})
    table = pd.DataFrame({"arm": means["name"], "images": means["panel"], "temperature": temperature})
    table["accuracy"], table["ECE"] = 100 * means["accuracy"], 100 * means["ece"]
    table = table.assign(NLL=means["nll"], Brier=means["brier"]).reset_index(drop=True)
    return plain_table(table, dict.fromkeys(("NLL", "Brier"), lambda value: number(value, 3)))
