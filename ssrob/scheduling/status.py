"""Where a study stands: what is done, running, failed and waiting, and how long the rest will take. No torch.

Everything is read from the results folder, so it is the same on a workstation and beside a cluster's shared disk.
"""

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ssrob.planning.plan import Plan
from ssrob.planning.specs import TrainSpec
from ssrob.planning.stage import Stage
from ssrob.registry.stages import STAGES, pace
from ssrob.scheduling.workload import image_counts, passes
from ssrob.storage import heartbeat
from ssrob.storage.metrics_log import last_record
from ssrob.storage.store import Store, StoreError

State = Literal["done", "running", "failed", "stopped", "waiting"]
STATES: tuple[State, ...] = ("done", "running", "failed", "stopped", "waiting")
LOG_TAIL = 65536  # bytes; a log grows by a line per epoch
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ([A-Z]+) (.*)")


@dataclass(frozen=True)
class StageStatus:
    """One stage. `work` is in passes of one image (None: not known), `fraction` 0..1 of it is behind."""

    path: str
    kind: str
    state: State
    work: float | None
    seconds: float | None = None  # of a finished stage what it took, of a running one since it was started
    fraction: float = 0.0
    left: float | None = None  # seconds, of a running stage
    message: str = ""  # counts and speed of a running stage, the last line in the log of a failed or stopped one


@dataclass(frozen=True)
class Expected:
    """How long the rest takes: seconds of work one after another, of wall time, and what the estimate is made of."""

    work: float
    wall: float
    at_once: int
    guessed: list[str] = field(default_factory=list)  # kinds of which none is finished, taken as fast as the others


def work_of(plan: Plan, store: Store) -> dict[str, float | None]:
    """Return every stage's work in passes of one image forward; None where the data's size is not known."""
    counts = image_counts(plan, store)
    return {path: passes(stage, counts[stage.parents.get("data", path)]) for path, stage in plan.stages.items()}


def stage_statuses(
    plan: Plan,
    store: Store,
    work: Mapping[str, float | None],
    now: float,
    known: Mapping[str, StageStatus] | None = None,
) -> dict[str, StageStatus]:
    """Return where each stage stands at the time `now` (seconds since 1970).

    known: an earlier answer; what was done then is not looked at again.
    """
    done = {path: each for path, each in (known or {}).items() if each.state == "done"}
    return {path: done.get(path) or stage_status(stage, store, work[path], now) for path, stage in plan.stages.items()}


def stage_status(stage: Stage, store: Store, work: float | None, now: float) -> StageStatus:
    """Look at one stage. A sign of life decides whether a started one is running (see `ssrob.storage.heartbeat`)."""
    here = StageStatus(stage.path, stage.kind, "waiting", work)
    if store.done(stage.path):
        return replace(here, state="done", seconds=_took(store, stage), fraction=1.0)
    sign = heartbeat.read(store.work(stage.path) / heartbeat.FILE, now)
    if sign is not None:
        return _running(here, stage, sign)
    log, gone = store.folder(stage.path) / "log.txt", heartbeat.left_behind(store.work(stage.path) / heartbeat.FILE)
    if not log.is_file() and gone is None:
        return here
    failed, line = (False, gone) if gone else last_message(log)
    return replace(here, state="failed" if failed else "stopped", message=line, fraction=_recorded(stage, store))


def expected(stages: Mapping[str, StageStatus]) -> Expected | None:
    """Estimate the time left; None where nothing is known to go by.

    A stage takes its passes times the median seconds per pass of the finished stages of its kind, a running one what
    its own speed says. As many stages go on side by side as are running now.
    """
    rates = seconds_per_pass(stages)
    rest = [each for each in stages.values() if each.state != "done"]
    guessed = sorted({each.kind for each in rest if each.left is None and each.work and pace(each.kind) not in rates})
    if any(each.work is None and each.left is None for each in rest) or (guessed and not rates):
        return None
    usual = statistics.median(rates.values()) if rates else 0.0
    seconds = [_left(each, rates.get(pace(each.kind), usual)) for each in rest]
    at_once = max(1, sum(each.state == "running" for each in rest))
    return Expected(sum(seconds), max([sum(seconds) / at_once, *seconds]) if seconds else 0.0, at_once, guessed)


def seconds_per_pass(stages: Mapping[str, StageStatus]) -> dict[str, float]:
    """Return the median over finished stages, by kind; the trainings are one kind, as they run the same loop."""
    seen: dict[str, list[float]] = {}
    for each in stages.values():
        if each.state == "done" and each.seconds and each.work:
            seen.setdefault(pace(each.kind), []).append(each.seconds / each.work)
    return {group: statistics.median(rates) for group, rates in seen.items()}


def last_message(log: Path) -> tuple[bool, str]:
    """Return whether a stage's last words are an error, and the line that says it best."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    at, match = next(
        ((i, match) for i in reversed(range(len(lines))) if (match := LOG_LINE.match(lines[i]))), (0, None)
    )
    if match is None or match.group(1) != "ERROR":
        return False, match.group(2) if match else ""
    trace = [line for line in lines[at + 1 :] if line.strip() and not line[0].isspace()]
    return True, trace[-1] if trace else match.group(2)


def _running(here: StageStatus, stage: Stage, sign: dict[str, Any]) -> StageStatus:
    """Fill in a running stage. It may have several bars (a sweep one per norm), and may have begun in the middle."""
    here = replace(here, state="running", seconds=sign["seconds"])
    if not sign.get("total"):
        return replace(here, message="starting")
    several = STAGES[stage.kind].progress
    bars = len(stage.spec[several]) if several else 1
    fraction = min(1.0, (sign["part"] + sign["done"] / sign["total"]) / bars)
    here_done = fraction - sign["initial"] / sign["total"] / bars
    left = sign["seconds"] * (1 - fraction) / here_done if here_done > 0 else None
    line = f"{sign['done']:,.0f} of {sign['total']:,.0f} {sign['unit']}s, {sign['speed']:.3g} a second"
    line += f", part {sign['part'] + 1} of {bars}" if bars > 1 else ""
    return replace(here, fraction=fraction, left=left, message=line)


def _recorded(stage: Stage, store: Store) -> float:
    """Return how far a training's records go, 0..1; after a kill it goes on from a checkpoint a little before."""
    last = last_record(store.work(stage.path) / "records.jsonl")
    return min(1.0, float(last["epoch"]) / TrainSpec.model_validate(stage.spec).training.epochs) if last else 0.0


def _left(each: StageStatus, rate: float) -> float:
    return each.left if each.left is not None else rate * (each.work or 0.0) * (1 - each.fraction)


def _took(store: Store, stage: Stage) -> float | None:
    try:
        return float(store.provenance(stage.path)["seconds"])
    except (StoreError, KeyError):
        return None  # lost or damaged: no reason to show nothing at all
