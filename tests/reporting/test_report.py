"""The report: complete, self-contained, honest about what is missing, and equal to the tables that it shows."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ssrob.config.study import Study
from ssrob.reporting import insights, tables
from ssrob.reporting import report as report_module
from ssrob.reporting.figures.inputs import inputs
from ssrob.reporting.figures.recipes import RECIPES
from ssrob.reporting.report import build_report
from tests import synthetic

SMALL: dict[str, Any] = {
    "seeds": [0, 1],
    "findings": {"alpha": 0.1},
    "threat": {"linf": {"eps": "8/255"}},
    "evaluate": {"checkpoints": ["best", "last"], "eps": [0, 0.5, 1, 2]},
    "arms": [
        {"variant": ["standard", "at", "at_ssl_joint"], "norm": "linf"},
        {"variant": "at_ssl_joint", "norm": "linf", "weight": 2},
        {"variant": "at", "norm": "linf", "init": "adversarial_ssl"},
    ],
}


class Page(HTMLParser):
    """What a browser would fetch, run and show of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.in_cell = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def small() -> Study:
    return synthetic.study(**SMALL)


@pytest.fixture(scope="module")
def written(small: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, synthetic.Tables]:
    tables = synthetic.tables(small)
    folder = tmp_path_factory.mktemp("study")
    labels = list(dict.fromkeys(tables["arms"]["label"]))
    build_report(folder, small, tables, synthetic.samples(labels, images=2, size=8))
    return folder, tables


@pytest.fixture(scope="module")
def page(written: tuple[Path, synthetic.Tables]) -> Page:
    return Page(written[0] / "report.html")


def test_intervals_are_called_by_the_study_s_level(page: Page, written: tuple[Path, synthetic.Tables]) -> None:
    assert "percentage points of accuracy with 90 % intervals" in " ".join(page.text.split())
    assert "Bars: 90 % intervals" in (written[0] / "figures" / "effects.svg").read_text()


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw figures but do not write them: writing takes most of the time."""
    monkeypatch.setattr(report_module, "save", lambda *_: {})
    monkeypatch.setattr(report_module, "_data_address", lambda _: "data:image/png;base64,AA==")


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for figures only where there is nothing to draw: whether there is, is what matters."""
    monkeypatch.setattr(report_module, "_draw", _only_ask)


def test_every_figure_is_on_the_page_and_in_the_folder(page: Page, written: tuple[Path, synthetic.Tables]) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == len(RECIPES)
    assert all(str(picture["src"]).startswith("data:image/svg+xml;base64,") for picture in pictures)
    assert all(picture["alt"] for picture in pictures)
    saved = {path.name for path in (written[0] / "figures").iterdir()}
    assert saved == {f"{name}.{kind}" for name in RECIPES for kind in ("svg", "png")}


def test_the_page_needs_nothing_else(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href"):
            assert str(attributes.get(name) or "#").startswith(("#", "data:image/"))


def test_every_section_of_the_contents_exists(page: Page) -> None:
    targets = {str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"}
    assert targets <= {attributes.get("id") for _, attributes in page.tags}
    assert len(targets) == 14


def test_the_page_says_what_every_way_of_training_does(page: Page) -> None:
    rows = {row[0]: row[1:] for row in reversed(page.rows) if len(row) == 3}  # of the first such table
    assert rows["standard"] == ["none", "cross-entropy at clean images"]
    joint = ["adv: cross-entropy + w × SSL loss", "cross-entropy + w × SSL loss at adv images"]
    assert rows["at_ssl_joint"] == joint
    assert "pre-training adversarial_ssl" in rows
    assert "trained with half the reference eps" in page.text


def test_probes_and_diagnoses_that_were_not_run_are_counted(small: Study) -> None:
    stages = synthetic.tables(small)["stages"]
    explain = stages["kind"].isin(["probe", "diagnose"])
    total = int(explain.sum())
    assert total > 1
    assert tables.unexplained(small, stages) == (0, total)
    assert tables.unexplained(small, stages.drop(index=stages.index[explain][:1])) == (1, total)


def test_verdicts_come_with_effect_interval_n_and_why(page: Page) -> None:
    row = next(row for row in page.rows if row and row[0].startswith("C5a"))
    assert "contradicted" in row[1]
    assert row[2].split() == ["−1.8−2.6", "to", "−0.9"]
    assert [row[3], row[4]] == ["2 × 1000", "1.4"]
    assert "Within the frontier of AT." in row[5]
    assert "3 exploratory comparisons" in page.text


def test_the_summary_says_what_was_run(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "10 networks of type resnet (depth 8, width 8) were trained on digits in 3 ways" in text
    assert "5 arms, 2 seeds (0, 1)" in text
    assert "l-inf with eps = 8/255" in text
    assert "attacked on 1000 test images with 4 sizes of perturbation up to 2 times the reference" in text
    assert "15 natural corruptions at 5 severities. Unless" in text
    assert "2026-01-01 to 2026-01-03" in text
    assert "torch 2.11.0" in text
    assert "0123456789ab" in text
    assert "ssrob report CONFIG" in text


def test_failed_checks_and_failed_pretraining_are_warned_of_at_the_top(page: Page) -> None:
    top = page.text[: page.text.index("Verdicts")]
    assert "1 check of the evaluations did not pass" in " ".join(top.split())
    assert "'adversarial_ssl' ends at 50% rotation accuracy" in top
    assert any("falls_to_zero" in cell for row in page.rows for cell in row)


def test_main_numbers_equal_the_tables(page: Page, written: tuple[Path, synthetic.Tables]) -> None:
    folder, tables = written
    main = pd.read_csv(folder / "tables" / "main.csv").set_index("name")
    robust = tables["robustness"].merge(tables["arms"][["arm", "label"]], on="arm")
    robust = robust[(robust["checkpoint"] == "best") & (robust["label"] == "at_ssl_joint rotation w=0.5 linf")]
    for key, multiple in (("clean", 0), ("linf_0.5", 0.5), ("linf_1", 1), ("linf_2", 2)):
        seeds = 100 * robust.loc[robust["eps_multiple"] == multiple, "accuracy"]
        row = main.loc["at_ssl_joint rotation w=0.5 linf"]
        assert row[[key, f"{key}_low", f"{key}_high"]].to_list() == pytest.approx(
            [seeds.mean(), seeds.min(), seeds.max()]
        )
    corrupted = tables["corruptions"].merge(tables["arms"][["arm", "label"]], on="arm")
    corrupted = corrupted[(corrupted["checkpoint"] == "best") & (corrupted["label"] == "standard")]
    assert main.loc["standard", "corruptions"] == pytest.approx(100 * corrupted["accuracy"].mean())
    shown = next(row for row in page.rows if row and row[0] == "at linf" and len(row) == 7)
    assert [cell[:4] for cell in shown[2:]] == [f"{value:.1f}" for value in main.loc["at linf"].iloc[[2, 5, 8, 11, 14]]]


def test_latex_has_the_same_numbers_and_is_escaped(written: tuple[Path, synthetic.Tables]) -> None:
    folder, tables = written
    main = pd.read_csv(folder / "tables" / "main.csv").set_index("name")
    text = (folder / "tables" / "main.tex").read_text()
    assert text.startswith("\\begin{tabular}{lrrrrrr}\n\\toprule\n")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
    row = next(line for line in text.splitlines() if line.startswith(r"at\_ssl\_joint"))
    value = main.loc["at_ssl_joint rotation w=0.5 linf"]
    assert f"{value['linf_1']:.1f} {{[}}{value['linf_1_low']:.1f}, {value['linf_1_high']:.1f}]" in row
    verdicts = pd.read_csv(folder / "tables" / "verdicts.csv")
    assert verdicts["effect"].to_list() == tables["findings"]["effect"].to_list()
    latex = (folder / "tables" / "verdicts.tex").read_text()
    assert r"below eps\_train & 2.1 {[}1.2, 3.0] & 2 $\times$ 1000 & 1.4 & supported \\" in latex
    assert latex.count(r"\\") == 1 + 5  # the primary cells alone


def test_latex_signs_that_mean_something_are_escaped(tmp_path: Path) -> None:
    tables.write_latex(["a", "b"], [["50 % & #1_2", "[x] \\ ~ ^ {}"]], tmp_path / "t.tex")
    line = (tmp_path / "t.tex").read_text().splitlines()[4]
    expected = r"50 \% \& \#1\_2 & {[}x] \textbackslash{} \textasciitilde{} \textasciicircum{} \{\} \\"
    assert line == expected


def test_both_checkpoints_are_compared(page: Page) -> None:
    row = next(row for row in page.rows if row and row[0] == "at linf" and len(row) == 3)
    assert float(row[1]) > float(row[2])  # best, last


def test_it_is_written_the_same_twice(small: Study, written: tuple[Path, synthetic.Tables]) -> None:
    _, given_tables = written
    context = report_module._context
    given = inputs(small, given_tables, {})
    one, two = (context(given, given_tables, tables.main_numbers(given)) for _ in range(2))
    assert str(one) == str(two)


@pytest.mark.usefixtures("no_pictures")
def test_hostile_names_are_shown_not_run(tmp_path: Path) -> None:
    study = synthetic.study(**{**SMALL, "title": "<script>alert(1)</script> & more"})
    tables = synthetic.tables(study)
    tables["arms"]["label"] = '"><img src=x onerror=alert(2)> ' + tables["arms"]["label"]
    tables["findings"]["note"] = "</td></table><script src='//elsewhere'></script>"
    tables["checks"]["detail"] = "<b>bold</b>"
    found = Page(build_report(tmp_path, study, tables, {}))
    assert "<script>alert(1)</script> & more" in found.text
    assert not [tag for tag, _ in found.tags if tag == "script"]
    assert all(str(attributes["src"]).startswith("data:") for tag, attributes in found.tags if tag == "img")


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("corruptions", "No corruptions were tested."),
        ("findings", "No verdicts"),
        ("training", "No training records were collected."),
        ("checks", "No checks of the evaluations were recorded."),
        ("stages", "left no record of when and where"),
        ("robustness", "There are no attack sweeps."),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_a_missing_table_is_said_and_does_not_stop_the_report(
    missing: str, told: str, empty: bool, small: Study, tmp_path: Path
) -> None:
    tables = synthetic.tables(small)
    table = tables.pop(missing)
    if empty:
        tables[missing] = table.iloc[:0]
    assert told in Page(build_report(tmp_path, small, tables, {})).text


def _only_ask(recipe: Any, given: Any, folder: Path) -> list[report_module.Shown]:
    needed = {"tables/corruptions.parquet": given.corruptions, "tables/training.parquet": given.training}
    needed |= {"tables/robustness.parquet": given.robustness, "tables/findings.parquet": given.findings}
    needed |= {"tables/examples.parquet": given.examples, "tables/probes.parquet": given.probes}
    needed |= {"tables/diagnostics.parquet": given.diagnostics}
    rows = needed.get(recipe.source, pd.DataFrame())
    if rows.empty:
        assert recipe.draw(given) is None
    text, picture = (recipe.missing, "") if rows.empty else (recipe.caption, "data:image/png;base64,AA==")
    return [report_module.Shown(recipe.name, text, picture, recipe.source)]


@pytest.mark.usefixtures("no_pictures")
def test_nothing_but_trained_arms_makes_a_report(small: Study, tmp_path: Path) -> None:
    found = Page(build_report(tmp_path, small, {"arms": synthetic.tables(small)["arms"]}, {}))
    assert not [tag for tag, _ in found.tags if tag == "img"]
    assert "This is a demonstration." in found.text


@pytest.mark.usefixtures("no_pictures")
def test_one_seed_one_model_without_perturbation(tmp_path: Path) -> None:
    study = synthetic.study(seeds=[0], threat={"l2": {"eps": 0.5}}, arms=[{"variant": "standard"}])
    tables = synthetic.tables(study)
    text = Page(build_report(tmp_path, study, tables, {})).text
    assert "There is nothing to compare with plain AT" in text
    assert "No arm starts from a pre-training." in text
    assert "No example images were kept." in text
    assert pd.read_csv(tmp_path / "tables" / "main.csv")["l2_1"].notna().all()


def test_a_norm_of_its_own_figure_when_trained_on_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    monkeypatch.setattr(report_module, "save", lambda figure, folder, name: saved.append(name))
    monkeypatch.setattr(report_module, "_data_address", lambda _: "data:,")
    study = synthetic.study(seeds=[0], arms=[{"variant": ["standard", "at"]}])
    given = inputs(study, synthetic.tables(study), {})
    shown = report_module._draw(RECIPES["robust_accuracy"], given, tmp_path)
    assert saved == ["robust_accuracy", "robust_accuracy_l2"]
    assert [each.norm for each in shown] == ["l-inf", "l2"]


@pytest.mark.parametrize(
    ("verdicts", "detectable", "told"),
    [
        (["underpowered", "supported"], [4.0, 3.0], ""),
        (["underpowered", "inconclusive"], [0.4, 1.5], ""),
        (["underpowered", "underpowered"], [0.4, 3.1], "effects of 0.4 to 3.1 points"),
        (["underpowered", "underpowered"], [np.nan, np.nan], "no smallest"),
    ],
)
def test_a_study_that_decides_nothing_for_want_of_power_is_a_demonstration(
    verdicts: list[str], detectable: list[float], told: str
) -> None:
    """By its verdicts: one small cell, however small its detectable effect, says nothing of the study."""
    rows = {"primary": [True, True, False], "effect": 1.0, "verdict": [*verdicts, ""], "detectable": [*detectable, 0.1]}
    findings = pd.DataFrame(rows)
    assert tables.weak_cells(findings) == verdicts.count("underpowered")
    found = tables.demonstration(findings, 2.0)
    assert (told in found) if told else (found == "")


def test_a_large_svg_is_shown_as_a_bitmap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {"svg": tmp_path / "a.svg", "png": tmp_path / "a.png"}
    paths["svg"].write_text("<svg/>")
    paths["png"].write_bytes(b"png")
    assert report_module._data_address(paths).startswith("data:image/svg+xml")
    monkeypatch.setattr(report_module, "LARGEST_SVG", 3)
    assert report_module._data_address(paths) == "data:image/png;base64,cG5n"


def test_samples_may_be_files(small: Study, tmp_path: Path) -> None:
    arrays = synthetic.samples(["at linf"], images=2)["at linf"]
    np.savez(tmp_path / "samples.npz", **arrays)
    opened = report_module._opened({"at linf": tmp_path / "samples.npz"})
    np.testing.assert_array_equal(opened["at linf"]["clean"], arrays["clean"])


def test_warnings_cover_tasks_with_and_without_an_accuracy(small: Study) -> None:
    tables = synthetic.tables(small)
    renamed = {"rotation_accuracy": "vicreg_loss"}
    training = tables["training"].assign(metric=lambda t: t["metric"].replace(renamed, regex=True))
    (told,) = insights.pretraining_warnings(inputs(small, tables | {"training": training}, {}))
    assert "'adversarial_ssl' did not lower its vicreg loss on validation images" in told
    probes = tables["probes"].assign(accuracy=0.4)
    found = insights.pretraining_warnings(inputs(small, tables | {"probes": probes}, {}))
    assert any("has a linear probe of 40.0%, the same network untrained 40.0%" in each for each in found)


def test_corruption_numbers_are_means_and_relative_errors(small: Study) -> None:
    tables = synthetic.tables(small)
    given = inputs(small, tables, {})
    found = insights.corruption_numbers(given).set_index("arm")
    assert list(found)[:2] == ["mean of 15", "noise"]
    rows = given.corruptions[given.corruptions["name"] == "at linf"]
    assert found.loc["at linf", "mean of 15"] == pytest.approx(100 * rows["accuracy"].mean())
    assert found.loc["standard", "mCE to standard"] == pytest.approx(100)
    other = small.model_copy(update={"corrupt": small.corrupt.model_copy(update={"baseline": "trades"})})
    assert not any("mCE" in name for name in insights.corruption_numbers(inputs(other, tables, {})))


def test_the_diagnosis_is_told_in_words_and_numbers(small: Study) -> None:
    given = inputs(small, synthetic.tables(small), {})
    (words,) = insights.diagnosis_words(given)
    assert "Plain AT and rotation: mean cosine of the gradients +0.05 on clean images." in words
    assert "noise takes 2.0 points" in words
    assert "cross-entropy 40.0" in words
    table = insights.diagnosis_numbers(given).set_index(["arm", "head"])
    assert table.loc[("at_ssl_joint rotation w=0.5 linf", "own"), "cosine, clean"] == pytest.approx(0.25)
    assert table.loc[("at linf", "fitted"), "robust overfitting (points)"] == pytest.approx(1.25)
    probes = insights.pretraining_numbers(given)
    assert list(probes["features"]) == ["pretrained", "untrained"]
    assert probes.loc[0, "own task"].startswith("rotation 4")
