"""The tracking import: every run, point and file in MLflow exactly once, whatever happened to earlier imports."""

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ssrob.config.fields import Strict
from ssrob.config.loader import load_study
from ssrob.models.network import Architecture, build
from ssrob.models.serialization import load_network, save_architecture, save_weights
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.stage import Stage
from ssrob.registry.stages import STAGES, StageKind
from ssrob.storage.metrics_log import Records
from ssrob.storage.store import Store, sha256, write_json
from ssrob.storage.tables import CORRUPTED, DIAGNOSED, EXAMPLES, PROBED, RECORDS, read_table, write_table
from ssrob.tracking import TrackingError, client, default_uri, points, serve, track, view
from ssrob.tracking.describe import run_name, run_params, run_tags
from ssrob.tracking.server import free_port

CONFIG = Path(__file__).parents[2] / "config" / "quickstart.yaml"
STEPS, METRICS, TESTED = 300, ("loss/total", "lr", "accuracy/adv", "validation/robust_accuracy"), 40


def training_frame(seed: int, steps: int = STEPS) -> pd.DataFrame:
    """Made-up curves: len(METRICS) values at each step, so more than one batch of BATCH points."""
    rng = np.random.default_rng(seed)
    rows = [
        (step, step / 25, metric, float(np.exp(-step / 100) + 0.05 * rng.random()))
        for step in range(1, steps + 1)
        for metric in METRICS
    ]
    return pd.DataFrame(rows, columns=list(RECORDS))


def examples_frame(spec: dict[str, Any], seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for norm, eps in spec["eps"].items():
        first = np.append(eps, np.inf)[rng.integers(0, len(eps) + 1, TESTED)]
        parts.append(
            pd.DataFrame(
                {
                    "eval_norm": norm,
                    "example": np.arange(TESTED),
                    "label": 0,
                    "clean_correct": first > 0,
                    "distance": first,
                    "first_failed": first,
                    "attack": "pgd",
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def corrupted_frame(spec: dict[str, Any], seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        (name, severity, TESTED, np.packbits(rng.random(TESTED) > severity / 8).tobytes())
        for name in spec["names"]
        for severity in spec["severities"]
    ]
    return pd.DataFrame(rows, columns=list(CORRUPTED))


def probed_frame() -> pd.DataFrame:
    bits = np.packbits(np.arange(8) < 6).tobytes()
    rows = [(features, "linear", None, 0.0, 8, bits) for features in ("pretrained", "untrained")]
    return pd.DataFrame(rows, columns=list(PROBED))


def diagnosed_frame() -> pd.DataFrame:
    rows = [("own", "clean", i, 0.1 * i, 1.0, 1.0, 0.5, 0.5, i > 0, True) for i in range(4)]
    return pd.DataFrame(rows, columns=list(DIAGNOSED))


def fabricate(plan: Plan, store: Store, stage: Stage, seed: int = 0) -> None:
    """Publish a stage as if it had run."""
    produced = store.work(stage.path) / "out"
    produced.mkdir(parents=True)
    if stage.kind == "data":
        about = {"fingerprint": "f" * 32, "counts": {"train": 1212, "validation": 135, "test": 450}}
        about |= {"shape": [1, 8, 8], "classes": list("0123456789")}
        write_json(produced / "data.json", about)
    elif stage.kind in ("pretrain", "finetune"):
        write_table(training_frame(seed), RECORDS, produced / "training.parquet")
        heads = {"class": 10} if stage.kind == "finetune" else {"rotation": 4}
        architecture = Architecture("resnet", {"depth": 8, "width": 4}, (1, 8, 8), (0.3,), (0.4,), heads)
        for name, of_seed in (("best", seed), ("last", seed + 1)):
            save_weights(build(architecture, of_seed).state_dict(), produced / f"{name}.safetensors")
        save_architecture(architecture, produced / "model.json")
    elif stage.kind == "evaluate":
        write_table(examples_frame(stage.spec, seed), EXAMPLES, produced / "robustness.parquet")
    elif stage.kind == "probe":
        write_table(probed_frame(), PROBED, produced / "probes.parquet")
    elif stage.kind == "diagnose":
        write_table(diagnosed_frame(), DIAGNOSED, produced / "diagnosis.parquet")
    else:
        write_table(corrupted_frame(stage.spec, seed), CORRUPTED, produced / "corruptions.parquet")
    started = f"2026-01-05T10:{seed:02d}:00+00:00"
    facts = {"started": started, "seconds": 60.0, "peak_memory_mb": 500.0, "device": "cpu", "commit": "a" * 40}
    store.publish(stage, produced, facts)


def fabricate_report(plan: Plan) -> None:
    (plan.folder / "figures").mkdir(parents=True)
    (plan.folder / "report.html").write_text("<h1>A report</h1>")
    (plan.folder / "figures" / "robust_accuracy.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')


def make_study(root: Path) -> tuple[Plan, Store]:
    """One model trained from scratch, one from a pre-training, both tested: 11 stages."""
    arms = "[{variant: at_ssl_joint, norm: linf}, {variant: at, init: ssl, norm: linf}]"
    study = load_study(CONFIG, ["seeds=[0]", f"arms={arms}", f"results={root}"])
    return make_plan(study), Store(root)


def finish_all(plan: Plan, store: Store) -> None:
    for seed, stage in enumerate(plan.stages.values()):
        fabricate(plan, store, stage, seed)
    fabricate_report(plan)


def query(root: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask the store itself, past MLflow."""
    with sqlite3.connect(root / "mlflow.db") as connection:
        return connection.execute(sql).fetchall()


ACTIVE = "from runs join tags key using (run_uuid) where key.key = 'ssrob.key' and lifecycle_stage = 'active'"


def contents(root: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that is logged, without the ids that MLflow draws, and without order."""
    named = "from {} t join runs using (run_uuid) join tags k using (run_uuid) " + (
        "where k.key = 'ssrob.key' and lifecycle_stage = 'active'"
    )
    drawn = "t.key not in ('mlflow.parentRunId', 'ssrob.complete', 'ssrob.model', 'mlflow.runName')"
    return {
        "runs": sorted(query(root, f"select key.value, name, status, end_time - start_time {ACTIVE}")),
        "metrics": sorted(query(root, f"select k.value, t.key, t.step, t.value {named.format('metrics')}")),
        "params": sorted(query(root, f"select k.value, t.key, t.value {named.format('params')}")),
        "tags": sorted(query(root, f"select k.value, t.key, t.value {named.format('tags')} and {drawn}")),
        "files": sorted((f.name, f.stat().st_size) for f in (root / "mlartifacts").rglob("*") if f.is_file()),
    }


def run_value(root: Path, key: str, column: str) -> Any:
    [(value,)] = query(root, f"select {column} {ACTIVE} and key.value = '{key}'")
    return value


def logged_points(root: Path, key: str) -> list[tuple[int, str, float]]:
    """Return the training curves in a run, in the order of its table."""
    names = ", ".join(f"'{name}'" for name in METRICS)
    of_run = f"run_uuid = '{run_value(root, key, 'run_uuid')}' and key in ({names})"
    return query(root, f"select step, key, value from metrics where {of_run} order by step, key")


def expected_points(frame: pd.DataFrame) -> list[tuple[int, str, float]]:
    rows = frame.sort_values(["step", "metric"])
    return list(zip(rows.step.tolist(), rows.metric, rows.value.tolist(), strict=True))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty sqlite store: making one takes MLflow seconds, copying it none."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    client.set_environment()
    client._create_sqlite(f"sqlite:///{path}")
    return path


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> tuple[Plan, Store]:
    """A finished study, imported once; tests only read it."""
    root = tmp_path_factory.mktemp("tracked")
    shutil.copy(empty_store, root)
    plan, store = make_study(root)
    finish_all(plan, store)
    report = track(plan, store)
    assert (report.runs, report.created) == (12, 12)
    return plan, store


def test_importing_the_package_imports_neither_mlflow_nor_torch() -> None:
    code = "import sys, ssrob.tracking; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_stage_is_a_finished_run_with_its_times(tracked: tuple[Plan, Store]) -> None:
    plan, store = tracked
    rows = query(store.root, f"select key.value, status, start_time, end_time - start_time {ACTIVE}")
    assert {row[0] for row in rows} == {*plan.stages, f"study/quickstart/{plan.digest}"}
    assert {row[1] for row in rows} == {"FINISHED"}
    stage = list(plan.stages)[3]
    assert run_value(store.root, stage, "start_time") == pd.Timestamp("2026-01-05T10:03Z").value // 10**6
    assert run_value(store.root, stage, "end_time - start_time") == 60_000


def test_curves_are_the_training_table(tracked: tuple[Plan, Store]) -> None:
    plan, store = tracked
    for path in (stage.path for kind in ("pretrain", "finetune") for stage in plan.of_kind(kind).values()):
        table = read_table(store.folder(path) / "training.parquet")
        assert len(table) > client.BATCH
        assert logged_points(store.root, path) == expected_points(table)


def test_a_model_and_its_tests_carry_the_same_accuracies(tracked: tuple[Plan, Store]) -> None:
    plan, store = tracked
    arm = plan.arms[0]
    examples = read_table(store.folder(arm.evaluate["best"]) / "robustness.parquet")
    corrupted = read_table(store.folder(arm.corrupt["best"]) / "corruptions.parquet")
    linf = examples[examples.eval_norm == "linf"]
    bits = [np.unpackbits(np.frombuffer(b, np.uint8))[:TESTED] for b in corrupted.correct]
    wanted = {
        "robust_accuracy/linf/x1.00": sum(failed > 0.15 for failed in linf.first_failed) / TESTED,
        "robust_accuracy/linf/x2.00": sum(failed > 0.30 for failed in linf.first_failed) / TESTED,
        "clean_accuracy": examples.clean_correct.mean(),
        "corruption_accuracy/mean": np.concatenate(bits).mean(),  # equal n and severities for all
    }
    for run in (arm.finetune, arm.evaluate["best"], arm.corrupt["best"]):
        metrics = dict(
            query(
                store.root,
                f"select key, value from latest_metrics where run_uuid = '{run_value(store.root, run, 'run_uuid')}'",
            )
        )
        shared = [name for name in wanted if name in metrics]
        assert len(shared) == {"finetune": 4, "evaluate": 3, "corrupt": 1}[run.split("/")[0]]
        for name in shared:
            assert metrics[name] == pytest.approx(wanted[name], abs=1e-6)  # accuracies have six decimals


def test_runs_are_nested_by_study_and_model(tracked: tuple[Plan, Store]) -> None:
    plan, store = tracked
    parents = {
        key: query(
            store.root,
            f"select k.value from tags t join tags k on k.run_uuid = t.value and k.key = 'ssrob.key' "
            f"where t.key = 'mlflow.parentRunId' and t.run_uuid = '{run_value(store.root, key, 'run_uuid')}'",
        )
        for key in plan.stages
    }
    study = f"study/quickstart/{plan.digest}"
    for key, stage in plan.stages.items():
        assert parents[key] == [(stage.parents.get("model", study),)]


def test_names_tags_and_params_say_what_a_run_is(tracked: tuple[Plan, Store]) -> None:
    plan, _ = tracked
    names = [run_name(plan, stage) for stage in plan.stages.values()]
    assert "AT + rotation in attack and training, w 0.5, l-inf 0.15, seed 0" in names
    assert "AT, l-inf 0.15, from rotation pre-training, seed 0" in names
    assert "evaluate: AT + rotation in attack and training, w 0.5, l-inf 0.15, seed 0, best" in names
    assert len(set(names)) == len(names)
    train = plan.stages[plan.arms[0].finetune]
    tags, params = run_tags(plan, train), run_params(plan, train)
    assert tags["kind"] == "finetune"
    assert tags["ssrob.parent.data"] in plan.stages
    assert {"variant": "at_ssl_joint", "task": "rotation", "seed": "0"}.items() <= tags.items()
    assert tags["arm"] == "AT + rotation in attack and training, w 0.5, l-inf 0.15", "groups seeds with one click"
    assert {
        "weight": "0.5",
        "eps_train": "0.15",
        "training.momentum": "0.9",
        "model.depth": "8",
    }.items() <= params.items()
    test = run_params(plan, plan.stages[plan.arms[0].evaluate["best"]])
    assert {"variant": "at_ssl_joint", "weight": "0.5", "test.checkpoint": "best"}.items() <= test.items()


def test_importing_again_changes_nothing(tracked: tuple[Plan, Store]) -> None:
    plan, store = tracked
    before = contents(store.root)
    again = track(plan, store)
    assert (again.runs, again.created, again.points, again.files) == (12, 0, 0, 0)
    assert contents(store.root) == before


def test_a_killed_import_is_completed_without_doubling(
    tracked: tuple[Plan, Store], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = make_study(root)
    finish_all(plan, store)
    from mlflow import MlflowClient

    whole, calls = MlflowClient.log_batch, iter(range(10**6))

    def dies(self: MlflowClient, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        if next(calls) % 4 == 3:  # in the middle of a call: the points are in, the tag that counts them is not
            whole(self, run_id, metrics=metrics)
            raise KeyboardInterrupt
        whole(self, run_id, metrics=metrics, params=params, tags=tags)

    monkeypatch.setattr(MlflowClient, "log_batch", dies)
    kills = 0
    while True:
        try:
            track(plan, store)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills > 5
    assert contents(root) == contents(tracked[1].root)


def test_a_running_stage_grows_and_is_finished_later(root: Path) -> None:
    plan, store = make_study(root)
    data, train = next(iter(plan.of_kind("data").values())), plan.stages[plan.arms[0].finetune]
    fabricate(plan, store, data)
    frame = training_frame(7)
    store.work(train.path).mkdir(parents=True)
    live = store.work(train.path) / "records.jsonl"

    def write(steps: range) -> None:
        with Records(live, live.stat().st_size if live.exists() else 0) as records:
            for step in steps:
                rows = frame[frame.step == step]
                records.write(step, step / 25, dict(zip(rows.metric, rows.value, strict=True)))

    write(range(1, 101))
    track(plan, store)
    assert run_value(root, train.path, "status") == "RUNNING"
    # The last step may still be incomplete, so it waits for the next one.
    assert logged_points(root, train.path) == expected_points(frame[frame.step < 100])
    started = run_value(root, train.path, "start_time")

    write(range(101, 151))
    with live.open("a") as file:
        file.write('{"step": 151, "epoch": 6.04, "metric": "lo')
    track(plan, store)
    assert logged_points(root, train.path) == expected_points(frame[frame.step < 150])

    shutil.rmtree(store.work(train.path))
    fabricate(plan, store, train, seed=7)
    track(plan, store)
    assert run_value(root, train.path, "status") == "FINISHED"
    assert run_value(root, train.path, "start_time") == started
    assert logged_points(root, train.path) == expected_points(frame)


def test_a_stage_that_went_back_to_its_checkpoint(root: Path) -> None:
    """Logged to step 99, it goes on from step 50 with other values: the run follows the table, in the end."""
    plan, store = make_study(root)
    train = plan.stages[plan.arms[0].finetune]
    store.work(train.path).mkdir(parents=True)
    live = store.work(train.path) / "records.jsonl"
    live.write_text(
        "".join(json.dumps({"step": i, "epoch": 0, "metric": "lr", "value": 1.0}) + "\n" for i in range(101))
    )
    track(plan, store)
    live.write_text(
        "".join(json.dumps({"step": i, "epoch": 0, "metric": "lr", "value": 1.0}) + "\n" for i in range(51))
    )
    assert track(plan, store).points == 0  # it is not back yet; nothing is taken away
    assert len(logged_points(root, train.path)) == 100
    shutil.rmtree(store.work(train.path))
    fabricate(plan, store, train)
    track(plan, store)
    assert logged_points(root, train.path) == expected_points(training_frame(0))


def test_the_study_run_holds_report_and_figures(tracked: tuple[Plan, Store], root: Path) -> None:
    plan, store = make_study(root)
    assert track(plan, store).runs == 1
    key = f"study/quickstart/{plan.digest}"
    assert run_value(root, key, "status") == "RUNNING"
    fabricate_report(plan)
    assert track(plan, store).files == 2
    folder = root / "mlartifacts" / "quickstart" / run_value(root, key, "run_uuid") / "artifacts"
    assert (folder / "figures" / "robust_accuracy.svg").is_file()
    (plan.folder / "report.html").write_text("<h1>Another report</h1>")
    (plan.folder / "tracked.json").write_text("{}")
    assert track(plan, store).files == 2
    assert (folder / "report.html").read_text() == "<h1>Another report</h1>"
    assert track(plan, store).files == 0


def test_data_is_logged_as_a_dataset(tracked: tuple[Plan, Store]) -> None:
    plan, store = tracked
    rows = query(store.root, "select name, digest, dataset_profile from datasets")
    assert rows == [("digits", "f" * 32, '{"classes": 10, "test": 450, "train": 1212, "validation": 135}')]
    roles = query(store.root, "select value, count(*) from input_tags group by value")
    assert roles == [("testing", 4), ("training", 4), ("validation", 3)]
    import mlflow

    run = mlflow.MlflowClient(default_uri(store.root)).get_run(run_value(store.root, plan.arms[0].finetune, "run_uuid"))
    [read] = run.inputs.dataset_inputs
    data = next(iter(plan.of_kind("data").values()))
    assert Path(mlflow.data.get_source(read.dataset).load()) == store.folder(data.path)


LOAD = """
import builtins, pickle, sys
import numpy as np

def refuse(*_, **__):
    raise AssertionError("something was unpickled")

pickle.load = pickle.loads = pickle.Unpickler = refuse
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
np.save(sys.argv[4], model.predict(np.load(sys.argv[3])))
"""


def test_mlflow_loads_a_models_weights_without_unpickling(tracked: tuple[Plan, Store], tmp_path: Path) -> None:
    plan, store = tracked
    images = np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    path = plan.arms[0].finetune
    [(model,)] = query(
        store.root,
        f"select value from tags where key = 'ssrob.model' and run_uuid = '{run_value(store.root, path, 'run_uuid')}'",
    )
    arguments = [default_uri(store.root), f"models:/{model}", tmp_path / "images.npy", tmp_path / "logits.npy"]
    subprocess.run([sys.executable, "-c", LOAD, *map(str, arguments)], check=True)
    with torch.no_grad():
        expected = load_network(store.folder(path) / "best.safetensors")(torch.from_numpy(images)).numpy()
    assert (np.load(tmp_path / "logits.npy") == expected).all()
    folder = store.root / "mlartifacts" / "quickstart" / "models" / model / "artifacts"
    written = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    data = {f"data/{name}" for name in ("weights.safetensors", "model.json", "plugins.json")}
    assert written - {"registered_model_meta"} == {"MLmodel", "requirements.txt"} | data  # the first is of its loading
    assert "python_model" not in (folder / "MLmodel").read_text()


def test_every_training_has_one_model_with_its_accuracies(tracked: tuple[Plan, Store]) -> None:
    plan, store = tracked
    ready = "select name from logged_models where status = 2 and lifecycle_stage = 'active'"
    assert len(query(store.root, ready)) == 3  # a pre-training and two fine-tunings
    metrics = query(store.root, "select distinct metric_name from logged_model_metrics")
    assert {"clean_accuracy", "robust_accuracy/linf/x1.00", "corruption_accuracy/mean", "cost/passes"} <= {
        name for (name,) in metrics
    }
    assert sha256(store.folder(plan.arms[0].finetune) / "best.safetensors") in {
        sha256(file) for file in (store.root / "mlartifacts").rglob("weights.safetensors")
    }


class Measured(Strict):
    """The spec of a kind of stage that a plugin adds."""

    eps: float
    names: list[str]


def test_a_kind_of_stage_that_the_import_does_not_know(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "measure", StageKind("nowhere:stage", revision=1, spec=f"{__name__}:Measured"))
    plan, store = make_study(root)
    train = plan.stages[plan.arms[0].finetune]
    probe = Stage("measure", "digits-measure-0", {"eps": 0.1, "names": ["a"]}, train.parents | {"model": train.path})
    plan = replace(plan, stages=dict(list(plan.stages.items())[:1]) | {train.path: train, probe.path: probe})
    for stage in (next(iter(plan.stages.values())), train):
        fabricate(plan, store, stage)
    (store.work(probe.path) / "out").mkdir(parents=True)
    (store.work(probe.path) / "out" / "measured.txt").write_text("something")
    store.publish(probe, store.work(probe.path) / "out", {"started": "2026-01-05T10:00:00+00:00", "seconds": 1.0})
    assert track(plan, store).runs == 4
    assert run_value(root, probe.path, "name") == f"measure: {run_name(plan, train)}"
    assert run_params(plan, probe)["test.eps"] == "0.1"


def test_a_copied_results_folder_keeps_its_artifacts_to_itself(tracked: tuple[Plan, Store], tmp_path: Path) -> None:
    original = tracked[1].root
    before = contents(original)
    shutil.copytree(original, tmp_path / "copy")
    plan, store = make_study(tmp_path / "copy")
    track(plan, store)
    assert contents(original) == before
    artifacts = query(tmp_path / "copy", f"select artifact_uri {ACTIVE}")
    assert len(artifacts) == 12
    assert all(uri.startswith((tmp_path / "copy").as_uri()) for (uri,) in artifacts)


def test_a_second_writer_waits_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def second() -> None:
        with client._single_writer(tmp_path):
            order.append("second")

    with client._single_writer(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    assert "another `ssrob track` is writing" in capsys.readouterr().err


@pytest.mark.parametrize("silent", [False, True])
def test_a_server_that_is_away_or_silent_is_one_short_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    plan, store = make_study(tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if silent:
            listener.listen()
        uri = f"http://me:secret@127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(TrackingError, match=r"tracking store http://127\.0\.0\.1") as error:
            track(plan, store, tracking_uri=uri)
    assert time.monotonic() - began < 10
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert "no answer" in str(error.value)


def test_the_view_fits_into_a_tag_and_names_metrics_that_exist(tracked: tuple[Plan, Store]) -> None:
    text = view.view_tag(["linf", "l2"])
    assert len(text) <= 5000  # MLflow's limit for an experiment's tag
    parsed = json.loads(text)
    logged = {f"metrics.`{name}`" for (name,) in query(tracked[1].root, "select distinct key from metrics")}
    assert set(parsed["selectedColumns"]) <= logged
    charted = {f"metrics.`{chart['metricKey']}`" for chart in parsed["compareRunCharts"] if "metricKey" in chart}
    assert len(charted & logged) >= 5
    axes = {
        chart["selectedXAxisMetricKey"] for chart in parsed["compareRunCharts"] if chart.get("xAxisKey") == "metric"
    }
    assert axes == {"eps_multiple/linf", "eps_multiple/l2", "severity"}
    assert {f"metrics.`{name}`" for name in axes} <= logged, "an axis says what it is"


def test_tests_of_the_last_checkpoint_have_names_of_their_own(tracked: tuple[Plan, Store]) -> None:
    plan, store = tracked
    stage = plan.stages[plan.arms[0].corrupt["best"]]
    best = points.measured_points(store, stage)
    last = points.measured_points(store, replace(stage, spec=stage.spec | {"checkpoint": "last"}))
    assert last == [(f"last/{name}", step, value) for name, step, value in best]


def test_corruption_accuracies() -> None:
    rows = pd.DataFrame({"corruption": ["fog", "fog"], "severity": [1, 2], "n": [3, 3], "correct": [b"\xe0", b"\x80"]})
    found = {(name, step): value for name, step, value in points.corrupted_points(rows)}
    assert found[("corruption_accuracy/fog", 0)] == pytest.approx(2 / 3)  # 3 and 1 of 3 correct
    assert found[("corruption_accuracy_by_severity/mean", 2)] == pytest.approx(1 / 3)


def test_serving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrackingError, match="run `ssrob track` first"):
        serve(tmp_path)
    assert serve(tmp_path, "https://me:secret@mlflow.example") == 0
    assert "https://mlflow.example" in capsys.readouterr().out
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) not in (port, 0)
    assert default_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
