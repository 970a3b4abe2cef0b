"""The view of a study that the UI opens with: its trained models, compared. Imports no mlflow.

MLflow keeps a shared view of an experiment as JSON in a tag of the experiment, and shows it under an address that
names the tag. The format is the UI's own, read from version 3.17; a UI that does not know it shows its plain table.
"""

import json
from typing import Any
from urllib.parse import urlencode

from ssrob.planning.plan import Plan
from ssrob.tracking.points import EPS_AXIS, SEVERITY_AXIS

VIEW = "training"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
SECTION = "trained-models"
TRAINING_CURVES = ("validation/clean_accuracy", "validation/robust_accuracy", "loss/total")


def experiment_tags(plan: Plan) -> dict[str, str]:
    """Return the tags of a study's experiment: what it is, and the view that its page opens with."""
    tested = {norm: None for stage in plan.of_kind("evaluate").values() for norm in stage.spec["eps"]}
    note = (
        f"**{plan.study.title or plan.study.study}**\n\nReport, figures and tables are artifacts of the run "
        "`study`. Runs of kind `finetune` are the trained models, with the results of their tests.\n\n"
        "`robust_accuracy/linf/x1.00`: accuracy under l-inf perturbations of 1.00 times the reference eps; "
        "`eps_multiple`: such multiples. Of the parameters, `eps_train` is the eps of training's perturbations, "
        "`eps_scale` how many times the reference eps that is. An eps is in [0, 1] pixel units."
    )
    kind = "custom_model_development"  # not generative AI, which the UI would show otherwise
    return {"mlflow.experimentKind": kind, "mlflow.note.content": note, VIEW_TAG: view_tag(list(tested))}


def view_tag(norms: list[str]) -> str:
    """Return the view as JSON: the fine-tuned models, their main accuracies and the charts that compare them."""
    robust = [f"robust_accuracy/{norm}/x1.00" for norm in norms]
    columns = ["clean_accuracy", *robust, "corruption_accuracy/mean", "cost/passes"]
    selected = [f"metrics.`{name}`" for name in columns]
    widths = {"attributes.`Run Name`": 290} | dict.fromkeys(selected, 190)
    charts = [_scatter("clean_accuracy", name) for name in robust]
    charts += [_line(f"robust_accuracy_by_eps_percent/{norm}", f"{EPS_AXIS}/{norm}") for norm in norms]
    charts += [_line("corruption_accuracy_by_severity/mean", SEVERITY_AXIS), *map(_line, TRAINING_CURVES)]
    section = {"uuid": SECTION, "name": "Trained models", "display": True, "isReordered": True, "isGenerated": False}
    view = {
        "searchFilter": "tags.kind = 'finetune'",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": selected,
        "columnOrder": list(widths),
        "columnWidths": widths,
        "compareRunCharts": charts,
        "compareRunSections": [section],
        "runsHiddenMode": "SHOWALL",  # the default draws the first ten runs alone
        "isAccordionReordered": True,  # the section stays before those that the UI adds
    }
    return json.dumps(view, separators=(",", ":"))


def view_path(experiment: str) -> str:
    """Return the view's address below the server's."""
    query = {"workflowType": "machine_learning", "viewStateShareKey": VIEW}
    return f"/#/experiments/{experiment}/runs?{urlencode(query)}"


def _scatter(x: str, y: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return _card("SCATTER", y) | axes


def _line(metric: str, over: str = "") -> dict[str, Any]:
    """Draw a metric over another one, which its axis then names; without one, over the step."""
    return _card("LINE", metric) | {
        "metricKey": metric,
        "displayName": _title(metric),
        "selectedMetricKeys": [metric],
        "xAxisKey": "metric" if over else "step",
        "selectedXAxisMetricKey": over,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "range": {},
        "lineSmoothness": 0,
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": True,
    }


def _title(metric: str) -> str:
    """Say what a curve is, and of one over steps what a step is."""
    if "_by_eps_percent/" in metric:
        return f"robust accuracy, {metric.partition('/')[2]}; eps in multiples of the reference"
    return "corruption accuracy" if "_by_severity" in metric else f"{metric}; step: optimiser steps"


def _card(kind: str, metric: str) -> dict[str, Any]:
    shared = {"metricSectionId": SECTION, "deleted": False, "isGenerated": False, "runsCountToCompare": 500}
    return {"uuid": f"{kind}-{metric}", "type": kind} | shared
