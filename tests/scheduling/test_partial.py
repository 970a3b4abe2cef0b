"""Tables and a report of an unfinished study: complete models alone, and a list of what was not run."""

import shutil
from pathlib import Path

import pytest
from ssrob.analysis.collect import collect, read_tables, samples
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.reporting.report import build_report
from ssrob.scheduling.priority import finished_part
from ssrob.storage.store import Store, StoreError
from tests.conftest import Finished, jobs, reopen

pytestmark = [pytest.mark.study, pytest.mark.xdist_group("workflow")]


@pytest.fixture
def unfinished(finished: Finished, tmp_path: Path) -> Plan:
    """A study of which the second model was not tested on corruptions, and the third not trained."""
    _, config = finished
    shutil.copytree(Path(config["results"]) / "stages", tmp_path / "results" / "stages")
    plan = make_plan(parse_study(config | {"results": str(tmp_path / "results")}))
    store, (_, second, third) = Store(plan.study.results), plan.arms
    for path in (second.corrupt["best"], third.finetune, third.evaluate["best"], third.corrupt["best"]):
        reopen(store, path)
    return plan


def test_only_complete_models_are_compared_and_the_others_are_listed(unfinished: Plan) -> None:
    store = Store(unfinished.study.results)
    part = finished_part(unfinished, store)
    made = collect(part, store)
    first, second, third = unfinished.arms
    for name in ("arms", "robustness", "examples", "corruptions", "training"):
        assert set(made[name]["arm"]) == {first.finetune}, name
    missing = made["not_run"].set_index("arm")
    assert missing[["finished", "stages"]].to_numpy().tolist() == [[3, 4], [2, 5]], "data, trainings, tests of both"
    assert list(missing.index) == [second.finetune, third.finetune]
    assert len(made["stages"]) == len([path for path in unfinished.stages if store.done(path)])
    primary = made["findings"][made["findings"]["primary"]]
    assert set(primary["verdict"]) <= {"inconclusive", "underpowered"}
    assert primary["note"].str.contains("not compared, missing: ").all()


def test_a_diagnosis_that_was_not_run_keeps_no_model_out(unfinished: Plan) -> None:
    store, first = Store(unfinished.study.results), unfinished.arms[0]
    for path in first.diagnose.values():
        reopen(store, path)
    made = collect(finished_part(unfinished, store), store)
    assert set(made["robustness"]["arm"]) == {first.finetune}
    assert made["diagnostics"].empty


def test_the_report_says_what_was_not_run(unfinished: Plan) -> None:
    store = Store(unfinished.study.results)
    part = finished_part(unfinished, store)
    collect(part, store)
    page = build_report(part.folder, part.study, read_tables(part), samples(part, store)).read_text()
    assert "The study is not finished." in page
    assert "AT + rotation in attack and training, w 0.5, l-inf (" in page
    assert "seeds 0, 3 of 4 stages finished" in page


def test_the_workflow_still_asks_for_everything(unfinished: Plan, finished: Finished, tmp_path: Path) -> None:
    store = Store(unfinished.study.results)
    part = finished_part(unfinished, store)
    collect(part, store)
    assert part.folder == unfinished.folder / "partial"
    left = {"corrupt": 2, "evaluate": 1, "finetune": 1, "diagnose": 1, "collect": 1, "report": 1, "track": 1}
    assert jobs(tmp_path, finished[1] | {"results": str(tmp_path / "results")}) == left


def test_a_finished_study_is_its_own_finished_part(finished: Finished) -> None:
    plan = make_plan(parse_study(finished[1]))
    assert finished_part(plan, Store(plan.study.results)) is plan


def test_a_study_without_a_complete_model_has_no_part(unfinished: Plan) -> None:
    store = Store(unfinished.study.results)
    reopen(store, unfinished.arms[0].evaluate["best"])
    with pytest.raises(StoreError, match="no model of the study tiny is trained and tested yet"):
        finished_part(unfinished, store)
