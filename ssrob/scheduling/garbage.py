"""What lies in a results folder that no config asks for, and how to be rid of it. Imports no torch."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from ssrob.formatting import file_size
from ssrob.planning.plan import Plan
from ssrob.scheduling.disk_usage import folder_size
from ssrob.scheduling.workload import as_text
from ssrob.storage import heartbeat
from ssrob.storage.store import Store


@dataclass(frozen=True)
class Unused:
    """A stage that no plan has: its path, whether it was finished, its size in bytes, and whether it is running."""

    path: str
    done: bool
    size: int
    running: bool


def unused(plans: Iterable[Plan], store: Store) -> list[Unused]:
    """Find the stages of a results folder that none of the plans has, finished or not."""
    wanted = {path for plan in plans for path in plan.stages}
    paths = dict.fromkeys([*store.paths("stages"), *store.paths("work")])
    now = time.time()
    return [
        Unused(
            path,
            store.done(path),
            sum(folder_size(folder) for folder in (store.folder(path), store.work(path))),
            heartbeat.read(store.work(path) / heartbeat.FILE, now) is not None,
        )
        for path in paths
        if path not in wanted
        and not (store.folder(path).is_symlink() or store.work(path).is_symlink())  # someone's own arrangement
    ]


def delete(unused: Iterable[Unused], store: Store) -> None:
    """Delete stages, but none that is running. What is left after a kill is an unfinished stage, never half of one."""
    for each in unused:
        if not each.running:
            store.remove(each.path)


def unused_text(unused: list[Unused], store: Store, *, deleted: bool) -> str:
    """List what was found, and say what was or could be done about it."""
    if not unused:
        return f"{store.root}: every stage belongs to a config that was given"
    table = Table("state", "size", "stage", box=None)
    for each in unused:
        state = "running" if each.running else "done" if each.done else "unfinished"
        table.add_row(state, file_size(each.size), each.path)
    gone = [each for each in unused if not each.running]
    total = f"{len(gone)} stages, {file_size(sum(each.size for each in gone))}"
    foot = f"Deleted {total}." if deleted else f"{total} that no config given here asks for; --delete removes them."
    kept = " A running stage is kept." if len(gone) < len(unused) else ""
    return f"{as_text(table)}\n\n{store.root}: {foot}{kept}"
