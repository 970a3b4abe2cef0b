"""Importing again and again while a study runs, which makes its curves live. Imports no mlflow."""

import sys
import threading
import time
from collections.abc import Hashable
from pathlib import Path

from ssrob.planning.plan import Plan
from ssrob.storage.store import Store
from ssrob.tracking.client import TrackingError
from ssrob.tracking.importer import Tracked, track
from ssrob.tracking.server import serve

EVERY = 5.0  # seconds between two looks at the results folder
REST = 4  # times as long as the last import took: at most a fifth of one core goes into following


def follow(plan: Plan, store: Store, *, tracking_uri: str | None = None, every: float = EVERY) -> None:
    """Import what is new until all stages are done and in the store. It may be killed and started at any time.

    A tracking store that does not answer is reported once and asked again; what it missed arrives later.
    """
    imported: Hashable = None
    complaint = ""
    while True:
        now, began = _snapshot(plan, store), time.monotonic()
        if now != imported:
            try:
                _print(track(plan, store, tracking_uri=tracking_uri))
                imported, complaint = now, ""
            except TrackingError as error:
                if str(error) != complaint:
                    print(f"{error}\n  (it is tried again)", file=sys.stderr, flush=True)
                complaint = str(error)
        if now == imported and all(store.done(path) for path in plan.stages):
            return
        time.sleep(max(every, REST * (time.monotonic() - began)))


def serve_and_follow(plan: Plan, store: Store, port: int) -> int:
    """Show the tracking store while the study is imported into it; returns the server's exit code."""
    uri = plan.study.tracking_uri
    track(plan, store, tracking_uri=uri)
    follower = threading.Thread(target=follow, args=(plan, store), kwargs={"tracking_uri": uri}, daemon=True)
    follower.start()
    code = serve(store.root, uri, port, study=plan.study.study)
    if uri and uri.startswith("http"):  # nothing was started here that could end
        follower.join()
    return code


def _snapshot(plan: Plan, store: Store) -> Hashable:
    """Return a value that changes when there is something new to import, without reading it."""
    stages = ("done" if store.done(path) else _bytes(store.work(path) / "records.jsonl") for path in plan.stages)
    return (*stages, _bytes(plan.folder / "report.html"))


def _bytes(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def _print(tracked: Tracked) -> None:
    if tracked.created or tracked.points or tracked.files:
        print(f"track     {tracked}", file=sys.stderr, flush=True)
