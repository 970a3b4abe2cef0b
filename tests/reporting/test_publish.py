"""A published study: small, complete, and all of it from the study's own records."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from ssrob.config.loader import parse_study
from ssrob.planning.plan import make_plan
from ssrob.reporting.publish import MOST, _write_figures, _write_tables, publish
from ssrob.storage.store import Store, StoreError
from ssrob.storage.tables import read_table
from tests.conftest import Finished

pytestmark = [pytest.mark.study, pytest.mark.xdist_group("workflow")]


def test_a_published_study_says_what_was_run_on_what(finished: Finished, tmp_path: Path) -> None:
    plan = make_plan(parse_study(finished[1]))
    store, to = Store(plan.study.results), tmp_path / "docs" / "tiny"
    for _ in range(2):  # the second time over the first
        left_out = publish(plan, store, to, "make study CONFIG=tiny.yaml")
    page = (to / "README.md").read_text()
    data = next(path for path in plan.stages if path.startswith("data/"))
    stage = store.provenance(plan.arms[0].finetune)
    facts = [
        "make study CONFIG=tiny.yaml",
        "digits, fingerprint `",
        "| models | 3 of 3 ",
        stage["device"],
        stage["commit"][:12],
    ]
    assert all(text in page for text in [*facts, "torch ", data.partition("/")[0]]), page
    assert "## Not run" not in page
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["## Outcome", "## Main numbers", "## What it ran on", "## Files"]
    named = {claim for claim in ("C2", "C3", "C4", "C5a", "C5b") if claim in page}
    assert len(named) == 5, "every claim is judged or named as not tested"
    assert any(line.startswith("| AT, l-inf | 1 | ") for line in page.splitlines())
    assert (to / "report.html").is_file(), "the report of a small study is kept"
    assert 'id="figure-adversarial_examples"' not in (to / "report.html").read_text()
    shown = [line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert shown
    assert all((to / name).is_file() for name in shown)
    assert not (to / "tables" / "examples.parquet").exists()
    assert left_out[0].startswith("`examples`")
    kept = read_table(to / "tables" / "training.parquet")
    assert len(kept)
    assert kept["metric"].str.startswith("validation/").all()
    assert sum(file.stat().st_size for file in to.rglob("*") if file.is_file()) <= MOST


def test_the_largest_figures_go_if_room_is_short_and_the_page_s_last(tmp_path: Path) -> None:
    source = tmp_path / "figures"
    source.mkdir()
    sizes = {"adversarial_examples": 60, "corruption_heatmap": 50, "robust_accuracy": 60, "robust_accuracy_l2": 60}
    for name, size in {**sizes, "effects": 100}.items():
        (source / f"{name}.svg").write_bytes(b"x" * size)
    (source / ".hidden.svg").write_bytes(b"x")  # of an editor or a file system
    left_out = _write_figures(source, tmp_path / "to", 220, lambda _: True)
    kept = {file.name: file.stat().st_size for file in (tmp_path / "to").iterdir()}
    assert set(kept) == {"robust_accuracy.svg", "effects.svg", "corruption_heatmap.svg"}
    assert left_out == ["`adversarial_examples` (images of the data set)", "`robust_accuracy_l2.svg` (60 bytes)"]


def test_nothing_is_deleted_that_was_not_published(finished: Finished, tmp_path: Path) -> None:
    plan = make_plan(parse_study(finished[1]))
    mine = tmp_path / "docs"
    mine.mkdir()
    (mine / "README.md").write_text("# Mine\n")
    with pytest.raises(StoreError, match="did not write"):
        publish(plan, Store(plan.study.results), mine, "make study")
    assert [file.name for file in mine.iterdir()] == ["README.md"]
    (mine / "README.md").unlink()
    for _ in range(2):  # into an empty folder, and over what was published
        publish(plan, Store(plan.study.results), mine, "make study")
    assert (mine / "tables" / "main.csv").is_file()
    assert [file.name for file in tmp_path.iterdir()] == ["docs"]


def test_a_study_without_a_report_is_not_published(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(Path(finished[1]["results"]) / "stages", tmp_path / "results" / "stages")
    plan = make_plan(parse_study(finished[1] | {"results": str(tmp_path / "results")}))
    with pytest.raises(StoreError, match=r"report.html: not made yet"):
        publish(plan, Store(plan.study.results), tmp_path / "out", "make study")


def test_tables_with_a_row_per_image_are_left_out(tmp_path: Path) -> None:
    made = {"ood_scores": pd.DataFrame({"example": [0], "value": [0.5]}), "detection": pd.DataFrame({"auroc": [0.9]})}
    for folder in ("source", "to"):
        (tmp_path / folder).mkdir()
    for name in made:
        (tmp_path / "source" / f"{name}.parquet").touch()
    _write_tables(made, tmp_path / "source", tmp_path / "to")
    assert [file.name for file in (tmp_path / "to").iterdir()] == ["detection.parquet"]
