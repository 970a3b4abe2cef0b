"""Runs the stages of studies, each time in a child process that is killed somewhere, until it has had its kills.

A process of its own, because it forks: python -m tests.killer < requests.json, a list of objects that have

    results   folder
    stages    [stage as JSON]
    set       {"module:name": value}, e.g. a block size; {} for none
    kills     {kind of stage: [{"at": "module:function", "of": text in its first argument, "call": n,
                                "when": before|after, "signal": name, "torn": bool}]}

It prints one line of JSON per process: [results, kind, exit code]. A kill that never happened is a code of 0.
"""

import functools
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def named(place: str) -> tuple[Any, str]:
    module, _, name = place.partition(":")
    *outer, last = name.split(".")
    return functools.reduce(getattr, outer, importlib.import_module(module)), last


def arm(kill: dict[str, Any]) -> None:
    """Let the n-th call of a function send this process a signal. A torn one has its first argument cut in half."""
    where, name = named(kill["at"])
    function, calls = getattr(where, name), [0]

    @functools.wraps(function)
    def deadly(*given: Any, **options: Any) -> Any:
        calls[0] += kill["of"] in str(given[:1])
        now = calls[0] == kill["call"] and kill["of"] in str(given[:1])
        if now and kill["torn"]:
            os.truncate(given[0], os.path.getsize(given[0]) // 2)
        if now and kill["when"] == "before":
            os.kill(os.getpid(), signal.Signals[kill["signal"]])
        result = function(*given, **options)
        if now and kill["when"] == "after":
            os.kill(os.getpid(), signal.Signals[kill["signal"]])
        return result

    setattr(where, name, deadly)


def in_child(work: Callable[[], int]) -> int:
    """Return how a copy of this process ended that did the work: its exit code, or minus the signal's number."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def import_all() -> None:
    """Import once what every child would; what torch does before its first gradient starts no threads."""
    import sklearn.datasets  # noqa: F401
    import torch
    from ssrob.models.network import Architecture, build
    from ssrob.runtime import error_messages  # noqa: F401
    from ssrob.stages import (
        data,  # noqa: F401
    )

    torch.set_num_threads(1)
    os.fsync = lambda _: None  # a killed process leaves its writes to the kernel
    arguments = {"depth": 8, "width": 4}
    shape, grey, heads, classes = (1, 8, 8), (0.5,), {"class": 2}, ("a", "b")
    network = build(Architecture("resnet", arguments, shape, grey, grey, heads, classes), 0)
    torch.optim.SGD(network.parameters(), lr=0.1).state_dict()
    with torch.no_grad():
        network(torch.rand(2, 1, 8, 8))


def main() -> None:
    from ssrob.planning.stage import Stage
    from ssrob.runtime import job
    from ssrob.storage.store import Store

    import_all()
    for request in json.loads(sys.stdin.read()):
        store = Store(Path(request["results"]))
        for place, value in request["set"].items():
            setattr(*named(place), value)
        for stage in map(Stage.from_json, request["stages"]):

            def work(kill: dict[str, Any] | None, stage: Stage = stage, store: Store = store) -> int:
                if kill:
                    arm(kill)
                return job.run(stage, store, "cpu", lambda line: print(line, file=sys.stderr))

            for kill in [*request["kills"].get(stage.kind, []), None]:
                code = in_child(functools.partial(work, kill))
                print(json.dumps([request["results"], stage.kind, code]), flush=True)


if __name__ == "__main__":
    main()
