"""What the run of a whole study says: the answer of its report, as numbers and words."""

import json

from ssrob.reporting.answer import headline
from ssrob.reporting.data import report_data
from ssrob.tracking.study import description, effect_points, verdict_params
from ssrob.tracking.view import view_tag
from tests import synthetic


def test_effects_are_metrics_verdicts_parameters_and_the_answer_the_description() -> None:
    study = synthetic.study()
    data = report_data(study, synthetic.tables(study), {})
    points = {name: value for name, _, value in effect_points(data)}
    assert points["C2.1/effect_points"] == 2.1
    assert (points["C5a.1/low"], points["C5a.1/high"]) == (-2.6, -0.9)
    params = verdict_params(data)
    assert params["C5a.1/verdict"] == "contradicted"
    assert params["C2.1/compared"] == "at_ssl_joint (rotation, w 0.5) - at"
    assert len(params) == 2 * 5
    text = description(data)
    assert headline(data) in text
    assert "| −1.8 (−2.6 to −0.9) | contradicted |" in text


def test_the_view_draws_every_run_and_says_what_a_step_is() -> None:
    view = json.loads(view_tag(["linf"]))
    assert view["runsHiddenMode"] == "SHOWALL"
    lines = [chart for chart in view["compareRunCharts"] if chart["type"] == "LINE"]
    titles = [chart["displayName"] for chart in lines]
    assert titles[0] == "robust accuracy, linf; eps in multiples of the reference"
    assert lines[0]["selectedXAxisMetricKey"] == "eps_multiple/linf", "the axis is called so"
    assert all("step: " in chart["displayName"] or chart["xAxisKey"] == "metric" for chart in lines)
