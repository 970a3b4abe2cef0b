"""`ssrob status` and `ssrob ls`: what `ssrob.scheduling.status` has found, for people. Imports no torch."""

import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ssrob.formatting import duration, file_size
from ssrob.planning.plan import Plan
from ssrob.scheduling.status import STATES, StageStatus, State, expected, stage_statuses, work_of
from ssrob.scheduling.workload import as_text
from ssrob.storage.store import Store

EVERY = 2.0  # seconds between two looks
LISTED = 10  # stages of one state; `ssrob ls` lists all
COLOURS: dict[State, str] = {"done": "green", "running": "cyan", "failed": "red", "stopped": "yellow", "waiting": ""}
MEANING: dict[State, str] = {
    "failed": "failed",
    "stopped": "started, not running (it goes on from where it was when the workflow is run again)",
}


def status_text(plan: Plan, store: Store, now: float) -> str:
    """Say once where a study stands."""
    return as_text(render(plan, store, stage_statuses(plan, store, work_of(plan, store), now)))


def watch(plan: Plan, store: Store) -> None:
    """Show on a terminal where a study stands until all is done; without a terminal say it once."""
    if not sys.stdout.isatty():
        print(status_text(plan, store, time.time()))
        return
    work, stages = work_of(plan, store), dict[str, StageStatus]()
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            stages = stage_statuses(plan, store, work, time.time(), stages)
            live.update(render(plan, store, stages), refresh=True)
            if all(each.state == "done" for each in stages.values()):
                return
            time.sleep(EVERY)


def render(plan: Plan, store: Store, stages: Mapping[str, StageStatus]) -> RenderableType:
    """Lay out a study's state: counts and time by kind, what runs, what needs a look, and how long the rest takes."""
    of = {state: [each for each in stages.values() if each.state == state] for state in STATES}
    counts = ", ".join(f"{len(of[state])} {state}" for state in STATES[1:] if of[state])
    head = f"{plan.study.study}: {len(of['done'])} of {len(stages)} stages done" + (f", {counts}" if counts else "")
    parts: list[RenderableType] = [Text(head, "bold"), "", _by_kind(stages), ""]
    if of["running"]:
        parts += [_running(of["running"]), ""]
    for state in ("failed", "stopped"):
        if of[state]:
            parts += [_troubled(of[state], state, store), ""]
    return Group(*parts, _outlook(plan, stages))


def stages_text(plan: Plan, store: Store) -> str:
    """List every stage with its state and the size of its outputs."""
    table = Table("state", "size", "seconds", "stage", box=None)
    for path, each in stage_statuses(plan, store, dict.fromkeys(plan.stages), time.time()).items():
        size = ""
        if each.state == "done":
            size = file_size(sum(row["bytes"] for row in store.manifest(path)["outputs"].values()))
        table.add_row(each.state, size, "" if each.seconds is None else f"{each.seconds:.0f}", path)
    return as_text(table)


def _by_kind(stages: Mapping[str, StageStatus]) -> Table:
    table = Table("stage", "number", *STATES, "spent", "mean", box=None, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for kind in dict.fromkeys(each.kind for each in stages.values()):
        rows = [each for each in stages.values() if each.kind == kind]
        states = [sum(each.state == state for each in rows) for state in STATES]
        counts = [Text(str(n) if n else "-", COLOURS[state]) for n, state in zip(states, STATES, strict=True)]
        took = [each.seconds for each in rows if each.state == "done" and each.seconds is not None]
        spent = sum(each.seconds or 0.0 for each in rows)
        mean = duration(sum(took) / len(took)) if took else ""
        table.add_row(kind, str(len(rows)), *counts, duration(spent) if spent else "", mean)
    return table


def _running(stages: list[StageStatus]) -> Text:
    lines: list[str | tuple[str, str]] = []
    for each in stages[:LISTED]:
        left = "time left not known" if each.left is None else f"{duration(each.left)} left"
        progress = f"{100 * each.fraction:.0f} %, {'finishing' if each.fraction == 1 else left}; {each.message}"
        lines += [(each.path, COLOURS["running"]), f"  {progress if each.fraction else each.message}"]
    return _section("running", lines, len(stages))


def _troubled(stages: list[StageStatus], state: State, store: Store) -> Text:
    lines: list[str | tuple[str, str]] = []
    for each in stages[:LISTED]:
        lines += [(each.path + (f"  {100 * each.fraction:.0f} %" if each.fraction else ""), COLOURS[state])]
        lines += [f"  {each.message or 'no message'}", f"  more in {store.folder(each.path) / 'log.txt'}"]
    return _section(MEANING[state], lines, len(stages))


def _section(title: str, lines: Sequence[str | tuple[str, str]], count: int) -> Text:
    more = [f"... and {count - LISTED} more: ssrob ls CONFIG"] if count > LISTED else []
    return Text("\n").join([Text(title, "bold"), *(Text.assemble(line) for line in [*lines, *more])])


def _outlook(plan: Plan, stages: Mapping[str, StageStatus]) -> Text:
    spent = sum(each.seconds or 0.0 for each in stages.values())
    if all(each.state == "done" for each in stages.values()):
        page = plan.folder / "report.html"
        return Text(
            f"All stages are done, after {duration(spent)} of work; report: {page if page.exists() else 'not made yet'}"
        )
    left = expected(stages)
    if left is None:
        return Text("Expected time left: not known before a stage is finished")
    side = f"{left.at_once} at once" if any(each.state == "running" for each in stages.values()) else "one at a time"
    line = f"Expected time left: about {duration(left.wall)} ({side}; {duration(left.work)} of work)"
    line += f"\nExpected in all: about {duration(spent + left.work)} of work, {duration(spent)} of it spent"
    if left.guessed:
        line += f"\nNo {' or '.join(left.guessed)} stage is finished yet: assumed to be as fast as the others"
    return Text(line)
