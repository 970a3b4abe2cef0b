"""The report: complete, self-contained, honest about what is missing, and equal to the tables that it shows."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ssrob.config.study import Study
from ssrob.formatting import signed
from ssrob.reporting import answer, insights, layout, main_table, tables
from ssrob.reporting import report as report_module
from ssrob.reporting.data import ReportData, report_data
from ssrob.reporting.figures.saving import Saved
from ssrob.reporting.registry import ITEMS, SECTIONS, FigureRow
from ssrob.reporting.report import build_report
from tests import synthetic
from tests.reporting.test_detection import laid_out

JOINT = "AT + rotation in attack and training, w 0.5, l-inf"
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


def test_the_answer_comes_first(page: Page) -> None:
    """A sentence on what was found and how sure it is, then a row per comparison that names its claim."""
    text = " ".join(page.text.split())
    start = text.index("Supported: SSL inside AT raises robust accuracy below eps_train (C2, +2.1 points); ")
    assert "Contradicted: SSL pre-training improves AT (C5a, −1.8 points). Open: C4." in text[start:]
    assert text.index("Supported") < text.index("Run: 10 networks") < text.index("Evidence for each verdict")
    for claim in ("C2", "C3", "C4", "C5a", "C5b"):
        assert claim in text[start : text.index("Run: ")]
    assert "Too small" not in text


def test_claims_without_a_result_are_one_line(small: Study) -> None:
    tables = synthetic.tables(small)
    findings = tables["findings"].assign(effect=lambda t: t["effect"].where(~t["claim"].isin(["C4", "C5b"])))
    data = report_data(small, tables | {"findings": findings}, {})
    assert answer.untested(data) == ["C4", "C5b"]
    assert {line.claim for line in answer.verdict_lines(data)} == {"C2", "C3", "C5a"}
    assert answer.headline(data).endswith("Contradicted: SSL pre-training improves AT (C5a, −1.8 points).")
    two = report_data(small, tables | {"findings": findings[findings["claim"] != "C3"]}, {})
    assert answer.headline(two).endswith("(−1.8 points, 90 % interval −2.6 to −0.9, 2 seeds × 1,000 images).")


def test_nothing_decided_names_the_largest_difference(small: Study) -> None:
    tables = synthetic.tables(small)
    weak = ", and the study is too small to tell it from chance."
    for word, ending in (("inconclusive", "."), ("underpowered", weak)):
        findings = tables["findings"].assign(verdict=word)
        said = answer.headline(report_data(small, tables | {"findings": findings}, {}))
        start = "None of the 5 claims tested is supported or contradicted; the largest difference is +2.1 points"
        assert said == f"{start} (+1.2 to +3.0){ending}"
    none = answer.headline(report_data(small, tables | {"findings": findings.assign(effect=np.nan)}, {}))
    assert none.startswith("No claim was tested")


def test_intervals_are_called_by_the_study_s_level(page: Page, written: tuple[Path, synthetic.Tables]) -> None:
    assert "with its 90 % interval; seeds × test images" in " ".join(page.text.split())
    assert "Bars: 90 % intervals" in page.text
    assert "Bars: 90 % intervals" in (written[0] / "figures" / "effects.svg").read_text()


class NotSaved(Saved):
    """A figure that was not written."""

    def markup(self) -> str:
        return "<svg></svg>"


NOT_SAVED = NotSaved(Path("none.svg"), "title", "note", (0, 1))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw figures but do not write them: writing takes most of the time."""
    monkeypatch.setattr(report_module, "save", lambda *_: NOT_SAVED)


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for figures only where there is nothing to draw: whether there is, is what matters."""
    monkeypatch.setattr(report_module, "_drawn", _only_ask)


def test_every_figure_is_on_the_page_and_in_the_folder(page: Page, written: tuple[Path, synthetic.Tables]) -> None:
    """One is not drawn: few arms need no panel each."""
    drawn = {str(attributes["id"]).removeprefix("figure-") for tag, attributes in page.tags if tag == "figure"}
    rows = {item.name for item in ITEMS if isinstance(item, FigureRow)}
    assert rows - drawn == {"every_difference"}
    assert len([tag for tag, _ in page.tags if tag in ("svg", "img")]) == len(drawn)
    assert {path.stem for path in (written[0] / "figures").iterdir()} == drawn
    labelled = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert all(attributes.get("aria-label") for attributes in labelled)


def test_a_row_names_a_section_that_there_is() -> None:
    assert {item.section for item in ITEMS} <= {section.id for section in SECTIONS}
    names = [item.name for item in ITEMS if isinstance(item, FigureRow)]
    assert len(set(names)) == len(names)


def test_ids_on_the_page_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_tables_become_cards_on_a_phone(page: Page) -> None:
    """Every cell names its column, because there the headings are not seen."""
    assert all(attributes.get("data-label") is not None for tag, attributes in page.tags if tag == "td")
    assert all("cards" in str(attributes["class"]).split() for tag, attributes in page.tags if tag == "table")


def test_the_page_needs_nothing_else(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            assert str(attributes.get(name) or "#").startswith(("#", "data:image/"))


def test_every_section_of_the_contents_exists(page: Page) -> None:
    targets = {str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a"}
    assert targets <= {attributes.get("id") for _, attributes in page.tags}
    assert len(targets) == 16


def test_the_page_says_what_every_method_does(page: Page) -> None:
    rows = {row[1]: row for row in page.rows if len(row) == 4}
    assert rows["standard"] == ["standard training", "standard", "none", "cross-entropy at clean images"]
    joint = ["adv: cross-entropy + w × SSL loss", "cross-entropy + w × SSL loss at adv images"]
    assert rows["at_ssl_joint"] == ["AT + rotation in attack and training", "at_ssl_joint", *joint]
    assert "adversarial_ssl" in rows
    assert "trained with half the reference eps" in page.text


def test_probes_and_diagnoses_that_were_not_run_are_counted(small: Study) -> None:
    stages = synthetic.tables(small)["stages"]
    explain = stages["kind"].isin(["probe", "diagnose"])
    total = int(explain.sum())
    assert total > 1
    assert tables.unexplained(small, stages) == (0, total)
    assert tables.unexplained(small, stages.drop(index=stages.index[explain][:1])) == (1, total)


def test_verdicts_come_with_effect_interval_n_and_why(page: Page) -> None:
    row = next(row for row in page.rows if row and row[0] == "C5a" and len(row) == 7)
    assert row[2].split() == ["−1.8−2.6", "to", "−0.9"]
    assert row[3:5] == ["2 × 1000", "1.4"]
    assert row[5].split() == ["✗contradicted"]
    assert "Within the frontier of AT." in row[6]
    assert len([row for row in page.rows if len(row) == 6 and row[0] == "C2"]) == 3


def test_the_summary_says_what_was_run(page: Page) -> None:
    text = " ".join(page.text.split())
    run = "10 networks (resnet) on digits: 5 arms, 2 seeds; eps l-inf 8/255; 1,000 test images; 15 corruptions."
    assert run in text
    assert "2026-01-01 to 2026-01-03" in text
    assert "torch 2.11.0" in text
    assert "0123456789ab" in text


def test_failed_checks_and_failed_pretraining_are_warned_of_at_the_top(page: Page) -> None:
    top = page.text[: page.text.index("Evidence for each verdict")]
    assert "1 check of the evaluations did not pass" in " ".join(top.split())
    assert "'adversarial_ssl' ends at 50 % rotation accuracy" in top
    assert any("falls_to_zero" in cell for row in page.rows for cell in row)


def test_main_numbers_equal_the_tables(page: Page, written: tuple[Path, synthetic.Tables]) -> None:
    folder, tables = written
    main = pd.read_csv(folder / "tables" / "main.csv").set_index("name")
    robust = tables["robustness"].merge(tables["arms"][["arm", "label"]], on="arm")
    robust = robust[(robust["checkpoint"] == "best") & (robust["label"] == JOINT)]
    for key, multiple in (("clean", 0), ("linf_0.5", 0.5), ("linf_1", 1), ("linf_2", 2)):
        seeds = 100 * robust.loc[robust["eps_multiple"] == multiple, "accuracy"]
        row = main.loc[JOINT]
        assert row[[key, f"{key}_low", f"{key}_high"]].to_list() == pytest.approx(
            [seeds.mean(), seeds.min(), seeds.max()]
        )
    corrupted = tables["corruptions"].merge(tables["arms"][["arm", "label"]], on="arm")
    corrupted = corrupted[(corrupted["checkpoint"] == "best") & (corrupted["label"] == "standard training")]
    assert main.loc["standard training", "corruptions"] == pytest.approx(100 * corrupted["accuracy"].mean())
    shown = next(row for row in page.rows if row and row[0] == "AT, l-inf" and len(row) == 7)
    keys = ["clean", "linf_0.5", "linf_1", "linf_2", "corruptions"]
    assert [cell[:4] for cell in shown[2:]] == [f"{main.loc['AT, l-inf', key]:.1f}" for key in keys]
    joint = next(row for row in page.rows if row and row[0] == JOINT and len(row) == 7)
    gain = main.loc[JOINT, "linf_1"] - main.loc["AT, l-inf", "linf_1"]
    assert main.loc[JOINT, "linf_1_to_at"] == pytest.approx(gain)
    assert signed(main.loc[JOINT, "linf_1_to_at"]) in joint[4], "the difference to AT beside the value"


def test_the_best_of_a_column_is_bold_and_rows_are_grouped_by_question(small: Study) -> None:
    data = report_data(small, synthetic.tables(small), {})
    table = main_table.main(data)
    assert table is not None
    assert [title for title, _ in table.groups] == ["Methods", "SSL weight", "Initialisation", "Without a perturbation"]
    numbers = main_table.main_numbers(data).set_index("name")
    for place, key in enumerate(main_table.main_columns(data), start=2):
        bold = [row[0].text for row in table.rows if row[place].kind == "best"]
        assert numbers[key].idxmax() in bold


def test_one_model_under_two_names_says_so(small: Study) -> None:
    made = synthetic.tables(small)
    arms = made["arms"][made["arms"]["label"] == "AT, l-inf"]
    twins = arms.assign(arm=arms["arm"] + "-again", budget="passes of at", label="AT again")
    rows = made["robustness"][made["robustness"]["arm"].isin(set(arms["arm"]))]
    rows = rows.assign(arm=rows["arm"] + "-again", budget="passes of at")
    both = {"arms": pd.concat([made["arms"], twins], ignore_index=True)}
    both["robustness"] = pd.concat([made["robustness"], rows], ignore_index=True)
    table = main_table.main(report_data(small, made | both, {}))
    assert table is not None
    (noted,) = [row[0] for row in table.rows if row[0].below]
    assert noted.below == "the same model as “AT, l-inf”"


def test_latex_has_the_same_numbers_and_is_escaped(written: tuple[Path, synthetic.Tables]) -> None:
    folder, made = written
    main = pd.read_csv(folder / "tables" / "main.csv").set_index("name")
    text = (folder / "tables" / "main.tex").read_text()
    assert text.startswith("\\begin{tabular}{lrrrrrr}\n\\toprule\n")
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
    row = next(line for line in text.splitlines() if line.startswith(f"{JOINT} &"))
    value = main.loc[JOINT]
    assert f"{value['linf_1']:.1f} ({value['linf_1_low']:.1f} to {value['linf_1_high']:.1f})" in row
    verdicts = pd.read_csv(folder / "tables" / "verdicts.csv")
    primary = made["findings"][made["findings"]["primary"]]
    assert verdicts["effect"].to_list() == primary["effect"].to_list()
    latex = (folder / "tables" / "verdicts.tex").read_text()
    assert r"+2.1 (+1.2 to +3.0) & 2 $\times$ 1000 & 1.4 & supported &" in latex
    assert r"-1.8 ($-$2.6" not in latex
    assert r"$-$1.8 ($-$2.6 to $-$0.9)" in latex


def test_latex_signs_that_mean_something_are_escaped(tmp_path: Path) -> None:
    table = layout.plain_table(pd.DataFrame({"a": ["50 % & #1_2"], "b": ["\\ ~ ^ {}"]}))
    assert table is not None
    layout.write_latex(table, tmp_path / "t.tex")
    line = (tmp_path / "t.tex").read_text().splitlines()[4]
    assert line == r"50 \% \& \#1\_2 & \textbackslash \space \textasciitilde \space \textasciicircum \space \{\} \\"


def test_both_checkpoints_are_compared(page: Page) -> None:
    row = next(row for row in page.rows if row and row[0] == "AT, l-inf" and len(row) == 3)
    assert float(row[1]) > float(row[2])  # best, last


def test_it_is_written_the_same_twice(small: Study) -> None:
    made = synthetic.tables(small)
    one, two = (report_module._context(report_data(small, made, {})) for _ in range(2))
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
    ("missing", "said"),
    [
        ("corruptions", "not collected: Natural corruptions."),
        ("findings", "No claim was tested"),
        ("training", "not collected: Training."),
        ("checks", "not collected: Checks."),
        ("stages", "not collected: How it was run."),
        ("robustness", "not collected: Against plain adversarial training"),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_a_missing_table_is_said_and_does_not_stop_the_report(
    missing: str, said: str, empty: bool, small: Study, tmp_path: Path
) -> None:
    tables = synthetic.tables(small)
    table = tables.pop(missing)
    if empty:
        tables[missing] = table.iloc[:0]
    assert said in Page(build_report(tmp_path, small, tables, {})).text


def _only_ask(row: FigureRow, data: ReportData, folder: Path) -> list[report_module.Shown]:
    needed = getattr(data, row.source)
    if needed.empty:
        assert row.draw(data) is None
        return []
    return [report_module.Shown(row.name, row.caption, row.folded, picture=NOT_SAVED, source=row.source)]


@pytest.mark.usefixtures("no_pictures")
def test_nothing_but_trained_arms_makes_a_report(small: Study, tmp_path: Path) -> None:
    found = Page(build_report(tmp_path, small, {"arms": synthetic.tables(small)["arms"]}, {}))
    assert not [tag for tag, _ in found.tags if tag in ("img", "svg", "figure")]
    assert "No claim was tested" in found.text


@pytest.mark.usefixtures("no_pictures")
def test_one_seed_one_model_without_perturbation(tmp_path: Path) -> None:
    study = synthetic.study(seeds=[0], threat={"l2": {"eps": 0.5}}, arms=[{"variant": "standard"}])
    tables = synthetic.tables(study)
    text = Page(build_report(tmp_path, study, tables, {})).text
    absent = text[text.index("Not in this study, or not collected: ") :]
    assert all(title in absent for title in ("Against plain adversarial training", "Pre-training", "Example images"))
    assert pd.read_csv(tmp_path / "tables" / "main.csv")["l2_1"].notna().all()


def test_a_norm_of_its_own_figure_when_trained_on_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    monkeypatch.setattr(report_module, "save", lambda figure, folder, name: saved.append(name))
    study = synthetic.study(seeds=[0], arms=[{"variant": ["standard", "at"]}])
    row = next(item for item in ITEMS if item.name == "robust_accuracy")
    assert isinstance(row, FigureRow)
    first, second = report_module._drawn(row, report_data(study, synthetic.tables(study), {}), tmp_path)
    assert saved == ["robust_accuracy", "robust_accuracy_l2"]
    assert (first.folded, second.folded) == (False, True)
    assert second.caption.startswith("The same for models trained on l2.")


@pytest.mark.parametrize(
    ("words", "detectable", "said"),
    [
        (["supported", "inconclusive"], [4.0, 3.0], ""),
        (["underpowered", "supported"], [3.1, 0.4], "Too small to answer 1 of 2 comparisons: only effects of 3.1 p"),
        (["underpowered", "underpowered"], [0.4, 3.1], "Too small to answer all 2 comparisons: only effects of 0.4 to"),
        (["underpowered", "underpowered"], [np.nan, np.nan], "with so few seeds it is not known"),
    ],
)
def test_a_study_that_is_too_small_says_so_at_the_top(
    small: Study, words: list[str], detectable: list[float], said: str
) -> None:
    """Always: one comparison that is decided does not hide that another could not have been."""
    made = synthetic.tables(small)
    findings = made["findings"].iloc[:2].assign(verdict=words, detectable=detectable)
    found = answer.too_small(report_data(small, made | {"findings": findings}, {}))
    assert (said in found) if said else (found == "")


def test_a_figure_on_the_page_leaves_its_words_to_the_page_and_its_ids_are_its_own(tmp_path: Path) -> None:
    drawn = '<g id="title"><text>t</text></g><use href="#m1"/><g id="m1" clip-path="url(#p)"/>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="60pt" height="100pt" viewBox="0 0 60 100">{drawn}</svg>'
    (tmp_path / "a.svg").write_text(svg)
    markup = Saved(tmp_path / "a.svg", "5 < 6", "n = 4", (0.1, 0.9)).markup()
    assert markup.startswith('<svg role="img" aria-label="5 &lt; 6" ')
    assert 'viewBox="0 10.0 60 80.0"' in markup
    assert "<text>t" not in markup
    assert 'href="#a-m1"' in markup
    assert 'id="a-m1"' in markup
    assert "url(#a-p)" in markup
    Image.new("RGB", (60, 100)).save(tmp_path / "a.png")
    markup = Saved(tmp_path / "a.png", "title", "", (0.1, 0.9)).markup()
    picture = base64.b64decode(markup.partition("base64,")[2].rstrip('">'))
    assert Image.open(io.BytesIO(picture)).size == (60, 80)


def test_samples_may_be_files(small: Study, tmp_path: Path) -> None:
    arrays = synthetic.samples(["at"], images=2)["at"]
    np.savez(tmp_path / "samples.npz", **arrays)
    opened = report_module._opened({"at": tmp_path / "samples.npz"})
    np.testing.assert_array_equal(opened["at"]["clean"], arrays["clean"])


def test_warnings_cover_tasks_with_and_without_an_accuracy(small: Study) -> None:
    tables = synthetic.tables(small)
    renamed = {"rotation_accuracy": "vicreg_loss"}
    training = tables["training"].assign(metric=lambda t: t["metric"].replace(renamed, regex=True))
    (said,) = insights.pretraining_warnings(report_data(small, tables | {"training": training}, {}))
    assert "'adversarial_ssl' did not lower its vicreg loss on validation images" in said
    probes = tables["probes"].assign(accuracy=0.4)
    found = insights.pretraining_warnings(report_data(small, tables | {"probes": probes}, {}))
    assert any("has a linear probe of 40.0 %, untrained 40.0 %" in each for each in found)


def test_corruption_numbers_are_means_and_relative_errors(small: Study) -> None:
    tables = synthetic.tables(small)
    given = report_data(small, tables, {})
    found = laid_out(insights.corruptions_by_family(given)).set_index("arm")
    assert list(found)[:2] == ["mean of 15", "noise"]
    rows = given.corruptions[given.corruptions["name"] == "AT, l-inf"]
    assert found.loc["AT, l-inf", "mean of 15"] == pytest.approx(100 * rows["accuracy"].mean())
    assert found.loc["standard training", "mCE to standard"] == pytest.approx(100)
    other = small.model_copy(update={"corrupt": small.corrupt.model_copy(update={"baseline": "trades"})})
    assert not any("mCE" in name for name in laid_out(insights.corruptions_by_family(report_data(other, tables, {}))))


def test_the_diagnosis_is_told_in_words_and_numbers(small: Study) -> None:
    given = report_data(small, synthetic.tables(small), {})
    (words,) = insights.diagnosis_words(given)
    assert "Plain AT and rotation: mean cosine of the gradients +0.05 on clean images." in words
    assert "noise takes 2.0 points" in words
    assert "cross-entropy 40.0" in words
    table = laid_out(insights.diagnosis(given)).set_index(["arm", "head"])
    assert table.loc[(JOINT, "own"), "cosine, clean"] == pytest.approx(0.25)
    assert table.loc[("AT, l-inf", "fitted"), "robust overfitting (points)"] == pytest.approx(1.25)
    probes = laid_out(insights.pretraining(given))
    assert list(probes["features"]) == ["pretrained", "untrained"]
    assert probes.loc[0, "own task"].startswith("rotation 4")
