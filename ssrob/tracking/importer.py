"""From a results folder to MLflow runs: one run per stage, any number of times with the same result."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ssrob.planning.cost import training_passes
from ssrob.planning.plan import Plan
from ssrob.planning.specs import TrainSpec
from ssrob.planning.stage import Stage
from ssrob.registry.stages import STAGES
from ssrob.storage.store import Store, prepared_facts, sha256
from ssrob.tracking.client import BATCH, Experiment, LoggedRun, Point, default_uri, open_experiment
from ssrob.tracking.describe import model_of, provenance_tags, run_name, run_params, run_tags
from ssrob.tracking.model import dataset, final_weights, model_name, write_model
from ssrob.tracking.points import as_bytes, measured_points, training_points
from ssrob.tracking.view import experiment_tags

LAYOUT = "4"  # raised when what is logged of a finished stage changes, so that it is looked at again
MAX_ARTIFACT_BYTES = 16 * 2**20  # larger files stay in the results folder alone; weights are logged as models
ARTIFACT_SUFFIXES = {".json", ".parquet", ".png", ".svg", ".html", ".log", ".txt"}
MARKER = "tracked.json"  # written after an import, for the workflow: no part of what is imported
CONTEXTS = {"training": "training", "explanation": "validation", "test": "testing"}  # of data, by a stage's role
PARENT = "mlflow.parentRunId"
SEAL = "ssrob.complete"  # with what a finished stage was linked when all of it had been logged
DESCRIBED = "ssrob.layout"  # of the experiment's description and its view
LOGGED = "ssrob.records"  # how many training records were logged, and their digest


@dataclass(frozen=True)
class Tracked:
    """What an import found, and what it had to write: a repeated one writes nothing."""

    runs: int
    created: int
    points: int
    files: int

    def __str__(self) -> str:
        return f"{self.runs} runs; new: {self.created} runs, {self.points} points, {self.files} files"


def track(plan: Plan, store: Store, *, tracking_uri: str | None = None) -> Tracked:
    """Import every stage of a study that is finished or has records into the experiment named after the study.

    Raises TrackingError when the tracking store cannot be used.
    """
    uri = tracking_uri or plan.study.tracking_uri or default_uri(store.root)
    with open_experiment(uri, plan.study.study, store.root) as experiment:
        return _Import(plan, store, experiment).run()


class _Import:
    """One pass over a plan. Kept together because every step reads the same plan, store and experiment."""

    def __init__(self, plan: Plan, store: Store, experiment: Experiment):
        self.plan, self.store, self.experiment = plan, store, experiment
        self.wrote: Counter[str] = Counter()
        self.done = [stage for stage in plan.stages.values() if store.done(stage.path)]

    def run(self) -> Tracked:
        study = self._study_run()
        runs = 1
        for stage in self.plan.stages.values():
            if self.store.done(stage.path) or (self.store.work(stage.path) / "records.jsonl").is_file():
                self._import_stage(stage, study)
                runs += 1
        self._finish_study(study)
        return Tracked(runs, self.wrote["created"], self.wrote["points"], self.wrote["files"])

    def _study_run(self) -> LoggedRun:
        """Find or create the run that holds the report; a changed study gets a new one."""
        study = self.plan.study
        run = self._run_of(f"study/{study.study}/{self.plan.digest}", f"study {study.study}", self._earliest_start)
        if run.tags.get(DESCRIBED) != LAYOUT:
            self.experiment.describe(experiment_tags(self.plan))
        tags = {"kind": "study", "study": study.study, "title": study.title, "ssrob.digest": self.plan.digest}
        tags[DESCRIBED] = LAYOUT
        tags["stages"] = f"{len(self.done)} of {len(self.plan.stages)} done"
        self.experiment.log(run, tags=tags)
        return run

    def _finish_study(self, run: LoggedRun) -> None:
        folder = self.plan.folder
        files = [file for file in sorted(folder.rglob("*")) if _is_artifact(file) and file.name != MARKER]
        listed = "\n".join(f"{file.relative_to(folder)} {sha256(file)}" for file in files)
        seal = hashlib.sha256(listed.encode()).hexdigest()[:16]
        if files and run.tags.get(SEAL) != seal:
            for file in files:
                inside = file.parent.relative_to(folder).as_posix()
                self._log_file(run, file, "" if inside == "." else inside)
            self._log_answer(run)
            self.experiment.log(run, tags={SEAL: seal})
        if files and len(self.done) == len(self.plan.stages) and run.status != "FINISHED":
            ends = [_end_ms(self.store.provenance(stage.path)) for stage in self.done]
            self.experiment.finish(run, max(ends))

    def _log_answer(self, run: LoggedRun) -> None:
        """Log what the study has found; verdicts are parameters, which cannot change, once everything is done."""
        from ssrob.tracking import study  # and all of the analysis, which MLflow does not want when it loads a model

        data = study.read_study(self.plan)
        if data is None:
            return
        points = [point for point in study.effect_points(data) if run.metrics.get(point[0]) != point[2]]
        complete = len(self.done) == len(self.plan.stages)
        params = study.verdict_params(data) if complete else {}
        self.experiment.log(run, points, params=params, tags={"mlflow.note.content": study.description(data)})
        self.wrote["points"] += len(points)

    def _import_stage(self, stage: Stage, study: LoggedRun) -> None:
        model = self._model_run(stage)
        parent = model or study
        seal = "/".join([LAYOUT, parent.id])
        done = self.store.done(stage.path)
        present = self.experiment.runs.get(stage.path)
        if done and present is not None and present.tags.get(SEAL) == seal:
            return
        records = training_points(self.store, stage)
        if present is not None and _other_history(present, records, done):
            self.experiment.discard(stage.path)
        provenance = self.store.provenance(stage.path) if done else {}
        run = self._run_of(stage.path, run_name(self.plan, stage), lambda: _start_ms(provenance))
        tags = run_tags(self.plan, stage) | provenance_tags(provenance) | {PARENT: parent.id}
        self.experiment.log(run, params=run_params(self.plan, stage), tags=tags)
        self._log_records(run, records)
        if done:
            self._log_results(stage, run, model, provenance)
            self.experiment.log(run, tags={SEAL: seal})

    def _log_results(self, stage: Stage, run: LoggedRun, model: LoggedRun | None, provenance: dict[str, Any]) -> None:
        logged = run.status == "FINISHED" and run.tags.get(SEAL, "").startswith(f"{LAYOUT}/")  # to be linked anew alone
        if not logged and final_weights(stage, self.store):
            name = model_name(run_name(self.plan, stage))
            self.experiment.log_model(run, name, lambda folder: write_model(stage, self.store, folder))
        points = measured_points(self.store, stage)
        self._log_summary(run, points + _cost_points(stage, provenance))
        if model is not None:
            self._log_summary(model, points)
        if logged:
            return
        self._log_data(stage, run)
        for file in sorted(self.store.folder(stage.path).iterdir()):
            if _is_artifact(file):
                self._log_file(run, file)
        self.experiment.finish(run, run.start_ms + round(1000 * float(provenance.get("seconds", 0))))

    def _log_records(self, run: LoggedRun, records: list[Point]) -> None:
        """Append what the run does not have yet; the tag that counts is written with each batch, after its points.

        A tracker killed between the two logs one batch again, which the store ignores point by point.
        """
        logged = _logged_count(run)
        hashed = hashlib.sha256(as_bytes(records[:logged]))
        for start in range(logged, len(records), BATCH):
            batch = records[start : start + BATCH]
            hashed.update(as_bytes(batch))
            self.experiment.log(run, batch, tags={LOGGED: _logged_tag(start + len(batch), hashed.hexdigest())})
            self.wrote["points"] += len(batch)

    def _log_summary(self, run: LoggedRun, points: list[Point]) -> None:
        new = [point for point in points if point[0] not in run.metrics]  # a batch is stored whole or not at all
        self.experiment.log(run, new, of_model=run.model is not None)
        self.wrote["points"] += len(new)

    def _log_file(self, run: LoggedRun, file: Path, folder: str = "") -> None:
        self.experiment.log_file(run, file, folder)
        self.wrote["files"] += 1

    def _model_run(self, stage: Stage) -> LoggedRun | None:
        model = model_of(self.plan, stage)
        return self.experiment.runs.get(model.path) if model is not stage else None

    def _log_data(self, stage: Stage, run: LoggedRun) -> None:
        data = self.plan.stages[stage.parents.get("data", stage.path)]
        if not self.store.done(data.path):
            return
        about = prepared_facts(self.store, data.path)
        role = CONTEXTS[STAGES[stage.kind].role]
        self.experiment.log_dataset(run, dataset(data.spec["name"], about, self.store.folder(data.path)), role)
        if stage is data:
            counts = ", ".join(f"{count} {split}" for split, count in about["counts"].items())
            self.experiment.log(run, tags={"fingerprint": about["fingerprint"], "images": counts})

    def _earliest_start(self) -> int:
        return min((_start_ms(self.store.provenance(stage.path)) for stage in self.done), default=_now_ms())

    def _run_of(self, key: str, name: str, start_ms: Callable[[], int]) -> LoggedRun:
        if key in self.experiment.runs:
            return self.experiment.runs[key]
        self.wrote["created"] += 1
        return self.experiment.create(key, name, start_ms())


def _other_history(run: LoggedRun, records: list[Point], done: bool) -> bool:
    """Return whether the logged records are not the beginning of these.

    A stage that was killed and goes on from its checkpoint repeats some steps, on a GPU perhaps with other values.
    """
    logged = _logged_count(run)
    if not done and len(records) < logged:
        return False  # not yet back where it was
    digest_before = hashlib.sha256(as_bytes(records[:logged])).hexdigest()
    return logged > 0 and run.tags[LOGGED] != _logged_tag(logged, digest_before)


def _logged_tag(count: int, digest: str) -> str:
    return f"{count} {digest[:16]}"


def _logged_count(run: LoggedRun) -> int:
    return int(run.tags.get(LOGGED, "0").split()[0])


def _cost_points(stage: Stage, provenance: dict[str, Any]) -> list[Point]:
    """Return what a stage cost: seconds, memory, and for a training the passes per image (in forward passes)."""
    costs = {f"cost/{name}": provenance.get(name) for name in ("seconds", "peak_memory_mb")}
    if STAGES[stage.kind].weights:
        spec = TrainSpec.model_validate(stage.spec)
        costs["cost/passes"] = training_passes(spec)
    return [(name, 0, float(value)) for name, value in costs.items() if value is not None]


def _is_artifact(file: Path) -> bool:
    return file.is_file() and file.suffix in ARTIFACT_SUFFIXES and file.stat().st_size <= MAX_ARTIFACT_BYTES


def _start_ms(provenance: dict[str, Any]) -> int:
    if "started" not in provenance:
        return _now_ms()
    started = datetime.fromisoformat(provenance["started"])
    return round(1000 * (started if started.tzinfo else started.replace(tzinfo=UTC)).timestamp())


def _end_ms(provenance: dict[str, Any]) -> int:
    return _start_ms(provenance) + round(1000 * float(provenance.get("seconds", 0)))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
