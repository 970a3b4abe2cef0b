"""One progress bar for everything that a user waits for: on a terminal and in a notebook, not in a log file."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Report = Callable[[int, int], None]  # of (done, total)


@contextmanager
def shown(progress: bool | Report | None, total: int, unit: str, title: str = "") -> Iterator[Report]:
    """Give a function that takes (done, total) and shows a bar, or the caller's own.

    progress: None shows a bar where somebody is looking, a terminal or a notebook; True always, False never (nor does
    any if TQDM_DISABLE=1 is set); a function is called instead.
    """
    if callable(progress):
        yield progress
        return
    if not (is_interactive() if progress is None else progress):
        yield lambda done, total: None
        return
    with _bars()(total=total, unit=unit, desc=title, leave=False) as bar:

        def report(done: int, _: int) -> None:
            bar.update(done - bar.n)

        yield report


def _bars() -> Any:
    """Return the class of bars for here: of a notebook, where ipywidgets draw them, or of text."""
    from tqdm import TqdmWarning

    with warnings.catch_warnings():  # a notebook without ipywidgets has bars of text, which is no news
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm
    return tqdm


def is_interactive() -> bool:
    """Return whether somebody is looking: standard error is a terminal, or this is a cell of a notebook."""
    return sys.stderr.isatty() or in_notebook()


def in_notebook() -> bool:
    """Return whether the code runs in a Jupyter kernel."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
