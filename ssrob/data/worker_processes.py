"""Results of a function at 0, 1, 2, ... made ahead of time by worker processes, in order, whatever happens to these."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from torch.utils.data import DataLoader

from ssrob.data.types import DataError

AHEAD = 2  # results that each worker makes before they are asked for
ATTEMPTS = 3  # at one result, before workers that are killed are an error
Result = TypeVar("Result")


class WorkersKilled(RuntimeError):
    """Worker processes were killed again and again."""


def workers_here() -> int:
    """Return how many worker processes this process may keep busy: its share of the cores, 16 at most."""
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(cores, 16))


def ahead(
    function: Callable[[int], Result], numbers: range, workers: int | None = None, *, pin: bool = False
) -> Iterator[Result]:
    """Yield ``function(n)`` of ascending numbers, which several processes compute ahead.

    A killed worker is replaced, and what it was at is computed again; raises WorkersKilled after the third in a row,
    and the DataError that `function` meets. pin: tensors lie in memory from which a GPU copies while it computes.
    """
    step, attempts = numbers.start, 0
    while step < numbers.stop:
        try:
            for result in _started(function, range(step, numbers.stop), workers or workers_here(), pin):
                if isinstance(result, DataError):
                    raise result
                yield result
                step, attempts = step + 1, 0
        except (RuntimeError, EOFError, OSError) as error:
            if str(error).startswith("Caught"):  # by a worker, in `function`
                raise
            attempts += 1  # it ended before or while it returned a result
            if attempts == ATTEMPTS:
                advice = "the machine may have too little memory; run it again to go on from the last checkpoint"
                raise WorkersKilled(f"processes that decode images were killed {attempts} times; {advice}") from error


class _Guarded(Generic[Result]):
    """A function as a data set; data that cannot be used is returned, to be raised where it is waited for."""

    def __init__(self, function: Callable[[int], Result]):
        self._function = function

    def __getitem__(self, number: int) -> Result | DataError:
        try:
            return self._function(number)
        except DataError as error:
            return error


def _started(
    function: Callable[[int], Result], numbers: range, workers: int, pin: bool
) -> Iterator[Result | DataError]:
    """Start the workers and iterate over what they return."""
    loader: DataLoader[Result | DataError] = DataLoader(
        _Guarded(function),  # type: ignore[arg-type]  # has no length
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",  # what has been read of the source is shared
    )
    before = signal.getsignal(signal.SIGCHLD)
    iterator: Iterator[Result | DataError] = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)  # torch's handler raises anywhere, even in the middle of a step
    return iterator


def _unchanged(result: Result) -> Result:
    return result
