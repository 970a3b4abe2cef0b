"""The tracking store: opening it, one writer at a time, and the few operations that an import needs."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ssrob.formatting import one_line
from ssrob.storage.lock import only_process

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset
    from mlflow.entities import Experiment as MlflowExperiment
    from mlflow.entities import Run as MlflowRun

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    # The defaults wait 246 s for a server that is away and 20 minutes for one that stays silent.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
KEY = "ssrob.key"
MODEL = "ssrob.model"
# MLflow stores 1000 points, parameters and tags in one step, the points beyond that in a second one, after the tags.
BATCH = 900
PAGE = 1000


class TrackingError(RuntimeError):
    """The tracking store cannot be used; the message says which one and why. Results are not affected."""


@dataclass
class LoggedRun:
    """One run as the store knows it; `metrics` holds the last value of each."""

    id: str
    start_ms: int
    status: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> str | None:
        """The id of the model that was logged from it."""
        return self.tags.get(MODEL)


Point = tuple[str, int, float]  # metric, step, value


class Experiment:
    """The runs of one study. Whatever is logged twice is stored once, so that an import can be repeated."""

    def __init__(self, client: "MlflowClient", name: str, artifacts: str | None):
        self._client = client
        self.id = _experiment_id(client, name, artifacts)
        self.runs = self._find_runs()

    def describe(self, tags: dict[str, str]) -> None:
        """Set tags of the experiment itself."""
        for name, value in tags.items():
            self._client.set_experiment_tag(self.id, name, value)

    def create(self, key: str, name: str, start_ms: int) -> LoggedRun:
        """Start the run of a key."""
        run = self._client.create_run(self.id, start_time=start_ms, tags={KEY: key}, run_name=name)
        self.runs[key] = _logged(run)
        return self.runs[key]

    def discard(self, key: str) -> None:
        """Move a run, and the model that was logged from it, to MLflow's trash."""
        run = self.runs.pop(key)
        if run.model:
            self._client.delete_logged_model(run.model)
        self._client.delete_run(run.id)

    def log(
        self,
        run: LoggedRun,
        points: list[Point] | None = None,
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
        *,
        of_model: bool = False,
    ) -> None:
        """Log at most BATCH points, what is new among the parameters and what differs among the tags.

        of_model: the points are measurements of the run's model, too.

        A point's time follows from its step: a point is identified by metric, step, time and value, and the store
        ignores one that it has. Tags are written after the points, so that a tag may say how many there are.
        """
        from mlflow.entities import Metric, Param, RunTag

        points = points or []
        params = {name: value for name, value in (params or {}).items() if name not in run.params}
        tags = {name: value for name, value in (tags or {}).items() if run.tags.get(name) != value}
        if not (points or params or tags):
            return
        self._client.log_batch(
            run.id,
            metrics=[
                Metric(name, value, run.start_ms + step, step, model_id=run.model if of_model else None)
                for name, step, value in points
            ],
            params=[Param(name, value) for name, value in params.items()],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        run.params.update(params)
        run.tags.update(tags)
        run.metrics.update((name, value) for name, _, value in points)

    def log_dataset(self, run: LoggedRun, dataset: "Dataset", role: str) -> None:
        """Say which data a run read; `role` is training or testing."""
        from mlflow.entities import DatasetInput, InputTag

        self._client.log_inputs(run.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", role)])])

    def log_model(self, run: LoggedRun, name: str, write: Callable[[Path], None]) -> None:
        """Log the model that a run has made; `write` puts its files into a folder. A half-logged one is completed."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        if run.model:
            return
        logged = self._client.search_logged_models([self.id], filter_string=f"source_run_id = '{run.id}'")
        model = logged[0] if logged else self._client.create_logged_model(self.id, name, run.id)
        if model.status != LoggedModelStatus.READY:
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder))
                self._client.log_model_artifacts(model.model_id, folder)
            self._client.log_outputs(run.id, [LoggedModelOutput(model.model_id, step=0)])
            self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self.log(run, tags={MODEL: model.model_id})

    def log_file(self, run: LoggedRun, file: Path, folder: str = "") -> None:
        """Copy a file into the run's artifacts; one of the same name is replaced."""
        self._client.log_artifact(run.id, str(file), folder or None)

    def finish(self, run: LoggedRun, end_ms: int) -> None:
        """Mark a run as finished."""
        self._client.set_terminated(run.id, "FINISHED", end_ms)
        run.status = "FINISHED"

    def _find_runs(self) -> dict[str, LoggedRun]:
        runs: dict[str, LoggedRun] = {}
        token = None
        while token != "":
            page = self._client.search_runs([self.id], max_results=PAGE, page_token=token)
            runs |= {key: _logged(run) for run in page if (key := run.data.tags.get(KEY))}
            token = page.token or ""
        return runs


def default_uri(root: Path) -> str:
    """Return the address of the store inside a results folder."""
    return f"sqlite:///{root.resolve() / 'mlflow.db'}"


def set_environment() -> None:
    """Set MLflow's switches, before it is imported; what the user has set stays."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def open_experiment(uri: str, name: str, root: Path) -> Iterator[Experiment]:
    """Open the experiment of a study as its only writer; errors of the store become TrackingError."""
    set_environment()
    if not (urlsplit(uri).scheme or uri == "databricks"):
        raise TrackingError(f"tracking store: expected sqlite:///FILE.db or an http(s) address, found {uri!r}")
    with _one_line_errors(uri), _single_writer(root):
        from mlflow import MlflowClient

        local = not urlsplit(uri).scheme.startswith(("http", "databricks"))
        if local:
            _create_sqlite(uri)
        artifacts = f"{(root.resolve() / 'mlartifacts').as_uri()}/{name}" if local else None
        yield Experiment(MlflowClient(tracking_uri=uri), name, artifacts)


def without_password(text: str, uri: str) -> str:
    """Return a text without the user and password that an address may hold."""
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return text.replace(user + at, "") if at else text


@contextmanager
def _single_writer(root: Path) -> Iterator[None]:
    """Hold the results folder's tracking lock."""
    message = f"another `ssrob track` is writing for {root}; waiting until it is done"
    with only_process(root / "mlflow.lock", lambda: print(message, file=sys.stderr)):
        yield


@contextmanager
def _one_line_errors(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        reason = "no answer" if "Max retries exceeded" in str(error) else one_line(error)
        message = f"tracking store {uri}: {reason}; results are not affected, run `ssrob track` again later"
        raise TrackingError(without_password(message, uri)) from None


def _create_sqlite(uri: str) -> None:
    """Create an sqlite store in one step: a half-made one, after a kill, would never open again."""
    from mlflow import MlflowClient

    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    client = MlflowClient(tracking_uri=f"sqlite:///{partial}")
    client.delete_experiment("0")  # "Default", which no study uses
    os.replace(partial, path)


def _experiment_id(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """Find or create the experiment. One in the trash, or of a results folder that was copied here, is set aside."""
    present = client.get_experiment_by_name(name)
    if present is not None and present.lifecycle_stage == "active" and artifacts in (None, present.artifact_location):
        return str(present.experiment_id)
    if present is not None:
        _set_aside(client, present)
    return str(client.create_experiment(name, artifact_location=artifacts))


def _set_aside(client: "MlflowClient", experiment: "MlflowExperiment") -> None:
    if experiment.lifecycle_stage != "active":
        client.restore_experiment(experiment.experiment_id)
    client.rename_experiment(experiment.experiment_id, f"{experiment.name} (set aside {time.time_ns()})")
    client.delete_experiment(experiment.experiment_id)


def _logged(run: "MlflowRun") -> LoggedRun:
    info, data = run.info, run.data
    return LoggedRun(info.run_id, info.start_time, info.status, dict(data.tags), dict(data.params), dict(data.metrics))
