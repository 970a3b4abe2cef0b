"""Results that travel: an exported model stands alone, an import believes nothing and loses nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch
import yaml
from ssrob import cli
from ssrob.analysis.collect import samples
from ssrob.config.loader import parse_study
from ssrob.models.serialization import load_network
from ssrob.planning.plan import Plan, make_plan
from ssrob.runtime import runner
from ssrob.storage.bundle import opened, write
from ssrob.storage.export import export_model, export_study
from ssrob.storage.importing import import_stages
from ssrob.storage.lock import claimed
from ssrob.storage.store import Store, StoreError, sha256
from ssrob.storage.tables import read_table
from tests.conftest import ROOT, tiny_config

Finished = tuple[Plan, Store]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A study of one model, run for real; no test writes into it."""
    folder = tmp_path_factory.mktemp("finished")
    config = tiny_config(folder / "results", arms=[{"variant": "at", "norm": "linf"}])
    (folder / "tiny.yaml").write_text(json.dumps(config))
    plan = make_plan(parse_study(config))
    store = Store(plan.study.results)
    for stage in plan.stages.values():
        runner.run(stage, store, device="cpu")
    return plan, store


def contents(root: Path) -> dict[str, str]:
    return {str(file.relative_to(root)): sha256(file) for file in sorted(root.rglob("*")) if file.is_file()}


def copied(finished: Finished, to: Path) -> Store:
    shutil.copytree(finished[1].root, to)
    return Store(to)


@pytest.mark.parametrize("name", ["model", "model.tar.gz", "model.zip"])
def test_an_exported_model_is_loaded_by_the_lines_of_its_card(finished: Finished, tmp_path: Path, name: str) -> None:
    plan, store = finished
    path = plan.arms[0].finetune
    written = export_model(path.rpartition("-")[2], store, tmp_path / name)
    with opened(written, tmp_path) as unpacked:
        folder = unpacked if (unpacked / "README.md").exists() else unpacked / "model"
        code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
        assert code
        assert code[1].count("\n") == 3
        images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        torch.save(images, tmp_path / "images")
        lines = f"import torch\nimages = torch.load({str(tmp_path / 'images')!r})\n{code[1]}\n"
        lines += f"torch.save(logits, {str(tmp_path / 'logits')!r})"
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", lines], cwd=folder, env=environment, check=True)
    expected = load_network(store.folder(path) / "best.safetensors")(images)
    assert torch.equal(torch.load(tmp_path / "logits"), expected)


def test_the_card_has_the_numbers_of_the_tables(finished: Finished, tmp_path: Path) -> None:
    plan, store = finished
    arm = plan.arms[0]
    folder = export_model(arm.finetune, store, tmp_path / "model")
    text = (folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("ssrob", "image-classification")
    assert front["model_name"] == "AT, l-inf 0.1, seed 0", "its name in reports and in MLflow"
    assert f"# {front['model_name']}\n" in text
    assert "| l2 | 0.5 | " in text, "not in 255ths"
    examples = read_table(folder / "evaluate-best" / "robustness.parquet")
    linf = examples[examples.eval_norm == "linf"]
    assert f"| l-inf | 0.1 | {100 * (linf.first_failed > 0.1).mean():.1f} (" in text
    assert f"| l-inf | 0 (clean) | {100 * linf.clean_correct.mean():.1f} (" in text
    corrupted = read_table(folder / "corrupt-best" / "corruptions.parquet")
    assert all(f"| {name} | " in text for name in corrupted.corruption.unique())
    about = json.loads(store.output(plan.stages[arm.finetune].parents["data"], "data.json").read_text())
    assert about["fingerprint"] in text
    assert json.loads((folder / "spec.json").read_text()) == plan.stages[arm.finetune].spec
    assert {"provenance.json", "model.json", "best.safetensors", "last.safetensors"} <= contents(folder).keys()


def test_a_key_that_means_nothing_or_several_is_named(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"'nothing' means no finished model; there are\s+finetune/digits-at"):
        export_model("nothing", finished[1], tmp_path / "x")
    with pytest.raises(StoreError, match="already exists"):
        export_model("digits-at", finished[1], tmp_path)


@pytest.mark.parametrize("name", ["study.tar.gz", "study.zip", "study"])
def test_a_study_goes_to_another_machine_and_is_finished_there(finished: Finished, tmp_path: Path, name: str) -> None:
    plan, store = finished
    export_study(plan, store, tmp_path / name)
    there = Store(tmp_path / "there")
    outcome = import_stages(tmp_path / name, there)
    assert (outcome.taken, outcome.refused) == (list(plan.stages), {})
    wanted = contents(store.root / "stages")
    assert contents(there.root / "stages") == wanted
    assert [*there.root.glob(".*")] == []
    again = import_stages(tmp_path / name, there)
    assert (again.taken, again.there) == ([], list(plan.stages))
    assert contents(there.root / "stages") == wanted


def test_a_results_folder_is_taken_over_as_it_is(finished: Finished, tmp_path: Path) -> None:
    outcome = import_stages(finished[1].root, Store(tmp_path / "there"))
    assert outcome.taken == list(finished[0].stages)
    with pytest.raises(StoreError, match="no results folder"):
        import_stages(ROOT / "docs", Store(tmp_path / "there"))


def test_what_is_altered_is_refused_with_all_that_reads_it(finished: Finished, tmp_path: Path) -> None:
    plan, _ = finished
    other, there = copied(finished, tmp_path / "other"), Store(tmp_path / "there")
    arm = plan.arms[0]
    weights = other.folder(arm.finetune) / "best.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    outcome = import_stages(other.root, there)
    assert "best.safetensors does not have its checksum" in outcome.refused[arm.finetune]
    tests = {arm.evaluate["best"], arm.corrupt["best"]}
    assert set(outcome.refused) == {arm.finetune, *tests}
    assert all(arm.finetune in outcome.refused[path] for path in tests)
    assert {path for path in plan.stages if there.done(path)} == set(plan.stages) - set(outcome.refused)


@pytest.mark.parametrize("change", ["spec", "outputs", "key"])
def test_a_manifest_that_lies_is_refused(finished: Finished, tmp_path: Path, change: str) -> None:
    plan, _ = finished
    other = copied(finished, tmp_path / "other")
    path = plan.arms[0].finetune
    manifest = other.manifest(path)
    if change == "spec":
        manifest["spec"]["training"]["lr"] = 0.2
    elif change == "outputs":
        manifest["outputs"]["../../../escaped"] = manifest["outputs"].pop("best.safetensors")
    else:
        manifest["key"] = f"../../x-{manifest['key'].rpartition('-')[2]}"
    (other.folder(path) / "manifest.json").write_text(json.dumps(manifest))
    outcome = import_stages(other.root, Store(tmp_path / "there"))
    assert path in outcome.refused
    assert not (tmp_path / "escaped").exists()


def test_other_content_under_a_key_that_is_here_stays_out(finished: Finished, tmp_path: Path) -> None:
    plan, store = finished
    other = copied(finished, tmp_path / "other")
    path = plan.arms[0].finetune
    other_weights = other.folder(path) / "last.safetensors"
    other_weights.write_bytes(b"of a GPU")
    manifest = other.manifest(path)
    manifest["outputs"]["last.safetensors"] = {"sha256": sha256(other_weights), "bytes": 8}
    (other.folder(path) / "manifest.json").write_text(json.dumps(manifest))
    before = contents(store.root)
    outcome = import_stages(other.root, store)
    assert "other content (last.safetensors)" in outcome.refused[path]
    assert outcome.taken == []
    assert contents(store.root) == before


def test_without_weights_and_data_the_tables_travel(finished: Finished, tmp_path: Path) -> None:
    plan, store = finished
    about = export_study(plan, store, tmp_path / "light.tar", weights=False, data=False, images=False)
    assert (tmp_path / "light.tar").stat().st_size < 400_000
    there = Store(tmp_path / "there")
    outcome = import_stages(tmp_path / "light.tar", there)
    assert (outcome.refused, outcome.bare) == ({}, [plan.arms[0].finetune])
    assert set(outcome.taken) == set(about["stages"]) == {path for path in plan.stages if not path.startswith("data/")}
    assert len(read_table(there.output(plan.arms[0].evaluate["best"], "robustness.parquet"))) == 80
    assert len(samples(plan, store)) == 1
    assert samples(plan, there) == {}
    data = next(iter(plan.of_kind("data")))
    local = copied(finished, tmp_path / "local")
    changed = json.loads((local.folder(f"data/{data}") / "data.json").read_text()) | {"fingerprint": "another"}
    (local.folder(f"data/{data}") / "data.json").write_text(json.dumps(changed))
    manifest = local.manifest(f"data/{data}")
    manifest["outputs"]["data.json"]["sha256"] = sha256(local.folder(f"data/{data}") / "data.json")
    manifest["outputs"]["data.json"]["bytes"] = (local.folder(f"data/{data}") / "data.json").stat().st_size
    (local.folder(f"data/{data}") / "manifest.json").write_text(json.dumps(manifest))
    refused = import_stages(tmp_path / "light.tar", local).refused
    assert set(refused) == set(about["stages"])
    assert "other data" in refused[plan.arms[0].finetune]


def test_what_an_unfinished_training_starts_from_keeps_its_weights(tmp_path: Path) -> None:
    plan = make_plan(parse_study(tiny_config(tmp_path / "results")))
    store = Store(plan.study.results)
    for stage in (*plan.of_kind("data").values(), *plan.of_kind("pretrain").values()):
        runner.run(stage, store, device="cpu")
    about = export_study(plan, store, tmp_path / "begun", weights=False, data=False)
    assert (about["stages"], about["left_out"]) == ([f"pretrain/{key}" for key in plan.of_kind("pretrain")], [])
    assert list((tmp_path / "begun").rglob("*.safetensors"))


def unfinished(finished: Finished, root: Path, step: int, age: float) -> Store:
    """The study without its training, which has got so far, so many seconds ago."""
    store = copied(finished, root)
    path = finished[0].arms[0].finetune
    for kind in ("finetune", "evaluate", "corrupt"):
        shutil.rmtree(root / "stages" / kind)
    store.work(path).mkdir(parents=True)
    for name in ("checkpoint.pt", "records.jsonl", "running.json", "x.partial"):
        (store.work(path) / name).write_text(f"step {step}")
        os.utime(store.work(path) / name, (time.time() - age,) * 2)
    return store


@pytest.mark.parametrize("name", ["study.zip", "study.tar"])
def test_unfinished_work_goes_back_and_forth_and_the_newest_stays(
    finished: Finished, tmp_path: Path, name: str
) -> None:
    plan, path = finished[0], finished[0].arms[0].finetune
    ours, theirs = (unfinished(finished, tmp_path / f"s{step}", step, 1000 - step) for step in (5, 9))
    assert export_study(plan, theirs, tmp_path / name, work=True)["work"].keys() == {path}
    assert import_stages(tmp_path / name, ours).work == []
    assert import_stages(tmp_path / name, ours, work=True).work == [path]
    there = {file.name: file.read_text() for file in ours.work(path).iterdir() if file.name != "lock"}
    assert {there.pop("checkpoint.pt"), there.pop("records.jsonl")} == {"step 9"}
    assert there.keys() == {"running.json", "x.partial"}, "what is not worth keeping is neither taken nor touched"
    older = export_study(plan, unfinished(finished, tmp_path / "s2", 2, 998), tmp_path / "older.tar", work=True)
    assert older["work"]
    assert import_stages(tmp_path / "older.tar", ours, work=True).work == []
    assert (ours.work(path) / "checkpoint.pt").read_text() == "step 9"


def test_a_stage_that_is_running_here_is_left_alone(finished: Finished, tmp_path: Path) -> None:
    ours, path = unfinished(finished, tmp_path / "here", 3, 0), finished[0].arms[0].finetune
    with claimed(ours.work(path), print):
        refused = import_stages(finished[1].root, ours).refused
    assert refused[path].startswith(f"it is run by process {os.getpid()} on ")
    assert (ours.work(path) / "checkpoint.pt").is_file()
    assert not [*(ours.root / "work").glob("evaluate/*"), *(ours.root / "work").glob("corrupt/*")]


def test_the_commands(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, store = finished
    config = store.root.parent / "tiny.yaml"
    cli.app(["export", str(config), "--to", str(tmp_path / "s.tgz"), "--no-data"], standalone_mode=False)
    with pytest.raises(SystemExit) as ended:
        cli.app(["import", str(tmp_path / "s.tgz"), "--results", str(tmp_path / "there")], standalone_mode=False)
    assert ended.value.code == 0
    assert f"{len(plan.stages) - 1} stages taken over" in capsys.readouterr().out
    key = plan.arms[0].finetune
    cli.app(["export", key, "--results", str(tmp_path / "there"), "--to", str(tmp_path / "m")], standalone_mode=False)
    assert (tmp_path / "m" / "README.md").is_file()


@pytest.mark.parametrize("name", ["folder", "all.tar", "all.tar.gz"])
def test_what_is_written_is_readable_by_others(tmp_path: Path, name: str) -> None:
    private = tmp_path / "best.safetensors"
    private.write_bytes(b"weights")
    private.chmod(0o600)
    write({"best.safetensors": private}, tmp_path / name)
    if name == "folder":
        assert (tmp_path / name / "best.safetensors").stat().st_mode & 0o777 == 0o644
    else:
        with tarfile.open(tmp_path / name) as archive:
            assert [member.mode & 0o777 for member in archive.getmembers()] == [0o644]
