"""Handling signals for a while. Only the standard library is imported: every job of a workflow starts with this."""

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)  # what a cluster or a person sends to end a process


@contextlib.contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Let `handler` answer these signals, and put the handlers that were there back at the end."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
