"""A portion of a study: what fits into a time budget, most valuable first. Imports no torch.

`ssrob portion` may be called again and again, on any machine that has the results so far: stages that a budget cut
short go on from their checkpoints, to the same bits as without a stop.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait

from ssrob.config.fields import ConfigError
from ssrob.planning.plan import Plan
from ssrob.planning.stage import Stage
from ssrob.runtime import job
from ssrob.runtime.process_pool import Running, Workers
from ssrob.runtime.signals import ENDING, handled
from ssrob.scheduling.priority import blocks
from ssrob.storage import heartbeat
from ssrob.storage.lock import only_process
from ssrob.storage.store import Store, StoreError

GRACE_SECONDS = 120.0  # seconds that a stage has to write its checkpoint before it is killed
POLL_SECONDS = 0.2  # seconds between two looks at signals and the clock
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


@dataclass
class Portion:
    """What came of a portion. failed: path -> why; signal: what ended it early, 0 for the clock or the end."""

    done: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    signal: int = 0
    seconds: float = 0.0

    def followed_by(self, other: "Portion") -> "Portion":
        """Return what came of this portion and of the one that was run after it."""
        done, failed = [*self.done, *other.done], {**self.failed, **other.failed}
        return Portion(done, other.stopped, failed, other.signal, self.seconds + other.seconds)


def parse_budget(text: str) -> float:
    """Read a time such as ``8m``, ``90s``, ``1h30m``; returns seconds."""
    match = re.fullmatch(r"(?=.)(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", text.strip())
    if re.fullmatch(r"[\d.]+", text.strip()):
        raise ConfigError(f"budget: a time needs its unit, such as {text.strip()}m or {text.strip()}s; found {text!r}")
    try:
        given = zip(match.groups() if match else (), UNITS.values(), strict=False)
        seconds = sum(float(number) * unit for number, unit in given if number)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ConfigError(f"budget: expected a time such as 8m, 90s or 1h30m, found {text!r}")
    return seconds


def run_portion(
    plan: Plan, store: Store, workers: Workers, *, budget: float, jobs: int = 1, say: Callable[[str], object] = print
) -> Portion:
    """Run stages until `budget` seconds are over or nothing is left; then ask those at work to stop, and wait.

    jobs: stages at a time. Of a stage that fails, what depends on it is skipped. SIGTERM and Ctrl-C end the
    portion early, in the same way.
    """
    began = time.monotonic()
    received: list[int] = []
    with _alone(plan), handled(ENDING, lambda number, _: received.append(number)):
        order = [plan.stages[path] for block in blocks(plan) for path in block.stages if not store.done(path)]
        queue = _Queue(store, order, say)
        while not received and time.monotonic() - began < budget:
            while len(queue.running) < jobs and (stage := queue.next()):
                queue.running.append(workers.start(stage))
            if not queue.running and not queue.waits:
                break
            wait([each.process.sentinel for each in queue.running], timeout=POLL_SECONDS)
            queue.collect()
        queue.stop()
    queue.portion.signal, queue.portion.seconds = received[0] if received else 0, time.monotonic() - began
    return queue.portion


@dataclass
class _Queue:
    """Stages that wait in their order, those at work, and what came of the others."""

    store: Store
    waiting: list[Stage]
    say: Callable[[str], object]
    running: list[Running] = field(default_factory=list)
    portion: Portion = field(default_factory=Portion)

    @property
    def waits(self) -> bool:
        """Whether a stage could run now, or when another process on this results folder has finished with it."""
        return any(map(self._possible, self.waiting))

    def next(self) -> Stage | None:
        """Take the first stage out that can run now."""
        for stage in self.waiting:
            sign = self.store.work(stage.path) / heartbeat.FILE
            if self._possible(stage) and heartbeat.read(sign, time.time()) is None:
                self.waiting.remove(stage)
                return stage
        return None

    def collect(self) -> None:
        """Take note of the stages that have ended."""
        for each in [each for each in self.running if not each.process.is_alive()]:
            self.running.remove(each)
            self._ended(each)

    def stop(self) -> None:
        """Ask the stages at work to stop, and kill those that do not."""
        until = time.monotonic() + GRACE_SECONDS
        for each in self.running:
            each.stop()
        for each in self.running:
            each.process.join(max(0.0, until - time.monotonic()))
            each.process.kill()
            self._ended(each)
        self.running.clear()

    def _possible(self, stage: Stage) -> bool:
        return all(map(self.store.done, stage.before)) and not self.store.done(stage.path)

    def _ended(self, each: Running) -> None:
        code, line = each.ended()
        path = each.stage.path
        if self.store.done(path):
            self.portion.done.append(path)
        elif code == job.STOPPED:
            self.portion.stopped.append(path)
        else:
            self.portion.failed[path] = line
        self.say(line)


@contextlib.contextmanager
def _alone(plan: Plan) -> Iterator[None]:
    """Refuse a second portion of the same study at the same time."""
    file = plan.folder.parent / "portion.lock"

    def refuse() -> None:
        raise StoreError(f"{file}: another portion of this study is running")

    with only_process(file, refuse):
        yield
