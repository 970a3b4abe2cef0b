"""A published study: small, complete, and all of it from the study's own records."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ssrob.config.loader import parse_study
from ssrob.planning.plan import make_plan
from ssrob.reporting.publish import MOST, _smaller, _write_figures, publish
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
    told = [
        "make study CONFIG=tiny.yaml",
        "digits, fingerprint `",
        "| models | 3 of 3 ",
        stage["device"],
        stage["commit"][:12],
    ]
    assert all(text in page for text in [*told, "| C5a | ", "torch ", data.partition("/")[0]]), page
    assert "## Not run" not in page
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["## Outcome", "## Main numbers", "## What it ran on", "## Files"]
    assert "- **C5a: underpowered.** " in page
    assert "- Not tested, as what they compare was not trained: C2, C3, C4, C5b." in page
    assert "| claim | compared | effect in points (95 % interval) | seeds × images | detectable |" in page
    assert any(line.startswith("| at linf | 1 | ") for line in page.splitlines())
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
    for name in ("adversarial_examples", "corruption_heatmap", "robust_accuracy", "robust_accuracy_l2", "effects"):
        (source / f"{name}.svg").write_bytes(b"x" * 60)
        Image.new("RGB", (8, 8)).save(source / f"{name}.png")  # more than 60 bytes in any case
    (source / "effects.svg").write_bytes(b"x" * 100_000)
    (source / "corruption_heatmap.svg").write_bytes(b"x" * 50)
    room = 120 + _smaller(source / "effects.svg", tmp_path).stat().st_size
    left_out = _write_figures(source, tmp_path / "to", room)
    kept = {file.name: file.stat().st_size for file in (tmp_path / "to").iterdir()}
    assert set(kept) == {"robust_accuracy.svg", "effects.png", "corruption_heatmap.svg"}
    assert sum(kept.values()) <= room
    assert Image.open(tmp_path / "to" / "effects.png").mode == "P"
    assert left_out == ["`adversarial_examples` (images of the data set)", "`robust_accuracy_l2.svg` (60 bytes)"]


def test_a_published_bitmap_keeps_the_colours_of_thin_lines(tmp_path: Path) -> None:
    pixels = np.full((300, 300, 3), 255, np.uint8)
    pixels[:200] = np.linspace(0, 255, 200 * 300 * 3).reshape(200, 300, 3)  # thousands of colours
    line = (204, 121, 167)
    pixels[250, ::7] = line
    Image.fromarray(pixels).save(tmp_path / "lines.png")
    (tmp_path / "lines.svg").write_bytes(b"x" * 10_000_000)
    (tmp_path / "to").mkdir()
    kept = np.asarray(Image.open(_smaller(tmp_path / "lines.svg", tmp_path / "to")).convert("RGB")).astype(int)
    assert np.abs(kept[250, ::7] - line).max() <= 24


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
