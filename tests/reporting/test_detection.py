"""Detection and calibration in the report: figures and tables say what the collected tables hold."""

import pandas as pd
import pytest
from ssrob.reporting import detection
from ssrob.reporting.data import ReportData, report_data
from ssrob.reporting.figures.detection import calibration_error, calibration_means, detection_auroc
from ssrob.reporting.layout import Table
from tests import synthetic

SMALL = {
    "seeds": [0, 1, 2],
    "threat": {"linf": {"eps": "8/255"}, "l2": {"eps": 0.5}},
    "arms": [{"variant": ["at", "at_ssl_joint"], "norm": "linf"}],
}
AT, JOINT = "AT, l-inf", "AT + rotation in attack and training, w 0.5, l-inf"


@pytest.fixture(scope="module")
def data() -> ReportData:
    study = synthetic.study(**SMALL)
    return report_data(study, synthetic.tables(study), {})


def laid_out(table: Table | None) -> pd.DataFrame:
    assert table is not None
    return table.frame


def test_the_detection_table_is_the_mean_of_its_rows(data: ReportData) -> None:
    table = laid_out(detection.detection(data)).set_index(["arm", "score"])
    assert [score for arm, score in table.index if arm == AT] == ["max softmax", "energy"]
    assert [score for arm, score in table.index if arm == JOINT] == ["max softmax", "energy", "rotation"]
    rows = data.detection[(data.detection["name"] == JOINT) & (data.detection["score"] == "rotation")]
    clean = rows[rows["eps"] == 0]
    expected = [clean["auroc"].mean(), clean["aupr"].mean(), clean["fpr"].mean(), rows[rows["eps"] > 0]["auroc"].mean()]
    assert table.loc[JOINT, "rotation"].tolist() == pytest.approx([100 * value for value in expected])
    assert "eps 8/255 on the score itself" in detection.detection_notes(data)[0]


def test_the_figure_has_a_mark_for_each_arm_clean_and_attacked(data: ReportData) -> None:
    figure = detection_auroc(data)
    assert figure is not None
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in panels] == ["classes held out", "gaussian", "blobs"]
    rows = data.detection[(data.detection["score"] == "max_softmax") & (data.detection["image_set"] == "blobs")]
    means = rows.groupby(["name", "eps"])["auroc"].mean()
    drawn = sorted(container.lines[0].get_xdata()[0] for container in panels[2].containers)
    assert drawn == pytest.approx(sorted(means))


def test_calibration_averages_corruptions_and_keeps_the_rest(data: ReportData) -> None:
    means = calibration_means(data.calibration).set_index(["name", "seed", "panel", "scaled"])["ece"]
    rows = data.calibration[(data.calibration["name"] == AT) & (data.calibration["seed"] == 1)]
    plain = rows[~rows["scaled"].astype(bool)].set_index("images")["ece"]
    assert means[AT, 1, "corrupted", False] == pytest.approx(plain[["fog", "gaussian_noise"]].mean())
    assert means[AT, 1, "attacked, l2", False] == plain["l2"]
    table = laid_out(detection.calibration(data))
    assert len(table) == 2 * 4 * 2
    figure = calibration_error(data)
    assert figure is not None
    assert [ax.get_title(loc="left") for ax in figure.axes][:3] == ["clean", "corrupted", "attacked, l-inf"]


def test_without_the_stages_there_is_no_section() -> None:
    study = synthetic.study(**SMALL)
    tables = {
        name: table for name, table in synthetic.tables(study).items() if name not in ("detection", "calibration")
    }
    empty = report_data(study, tables, {})
    assert detection_auroc(empty) is calibration_error(empty) is None
    assert detection.detection(empty) is detection.calibration(empty) is None
    assert detection.detection_notes(empty) == []
