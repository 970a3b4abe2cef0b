"""A command for the tests of the fork server: does what its arguments say, and is no test itself."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(what: str, *given: str) -> None:
    match what:
        case "tell":  # all that a process has from the one that started it
            umask = os.umask(0o22)
            print(json.dumps([os.getcwd(), given, dict(os.environ), umask, sys.path, sorted(os.sched_getaffinity(0))]))
            print(sys.stdin.read().upper(), file=sys.stderr)
        case "exit":
            sys.exit(int(given[0]))
        case "fail":
            raise ValueError("as it should")
        case "die":
            os.kill(os.getpid(), signal.Signals[given[0]])
        case "wait":  # a stage at work: it notes its process, and ends in its own time when it is asked to
            asked: list[int] = []
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda number, _: asked.append(number))
            Path(given[0]).write_text(str(os.getpid()))
            while not asked:
                time.sleep(0.01)
            print(f"asked {signal.Signals(asked[0]).name}")
            sys.exit(143)


main(*sys.argv[1:])
