"""How numbers are written for people: the same on pages, in figures, on the command line and in Markdown and LaTeX.

A minus sign is ``−``, an interval is ``low to high``, a missing number is an en dash; the size of a perturbation is
called eps, in [0, 1] pixel units. Files for machines hold plain numbers.
"""

import html
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.filesize import decimal

if TYPE_CHECKING:
    import pandas as pd

MISSING = "–"
NORMS = {"linf": "l-inf", "l2": "l2"}
"""The norms of perturbations, as people read them."""


def number(value: float | None, digits: int = 1) -> str:
    """Write a number: ``1,234.5``, ``−0.6``."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero


def signed(value: float | None, digits: int = 1) -> str:
    """Write a difference with its sign: ``+0.5``, ``−0.6``, ``0.0``."""
    text = number(value, digits)
    return f"+{text}" if value is not None and math.isfinite(value) and round(value, digits) > 0 else text


def points(difference: float | None) -> str:
    """Write a difference of percentages: ``−0.6 points``."""
    return f"{signed(difference)} points"


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share 0..1 in per cent: ``47.3 %``."""
    return MISSING if share is None or not math.isfinite(share) else f"{number(100 * share, digits)} %"


def interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Write an interval: ``46.1 to 48.5``, of a difference (`sign`) ``−8.5 to +7.3``; empty where an end is missing."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    write = signed if sign else number
    return f"{write(low)} to {write(high)}"


def with_interval(value: float | None, low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Write a value with its interval: ``47.3 (46.1 to 48.5)``; the value alone where there is no interval."""
    inside = interval(low, high, sign=sign)
    text = signed(value) if sign else number(value)
    return f"{text} ({inside})" if inside and text != MISSING else text


def eps_text(eps: float) -> str:
    """Write an eps ([0, 1] pixel units) as people do: ``0.5``, or ``8/255`` where no short decimal says it exactly."""
    short, levels = f"{eps:.4g}", 255 * eps
    whole = abs(levels - round(levels)) < 1e-4 and abs(float(short) - eps) > 1e-7
    return f"{round(levels)}/255" if whole else short


def curve_text(curve: "pd.DataFrame") -> str:
    """Write a curve in two rows: each `eps` as people do, and below it `accuracy` (0..1) in per cent."""
    import pandas as pd

    columns = {"eps": curve["eps"].map(eps_text), "accuracy %": [f"{100 * share:.1f}" for share in curve["accuracy"]]}
    return str(pd.DataFrame(columns).T.to_string(header=False))


def notebook_html(above: Iterable[str], table: "pd.DataFrame", below: Iterable[str]) -> str:
    """Write a result for a notebook: sentences with the first in bold, a table, and sentences below it."""
    first, *rest = map(html.escape, above)
    sentences = "<br>".join([f"<b>{first}</b>", *rest])
    table_html = table.to_html(index=False, float_format="{:.3f}".format)
    return f"<p>{sentences}</p>{table_html}<p>{'<br>'.join(map(html.escape, below))}</p>"


def duration(seconds: float) -> str:
    """Write a time with two units: 42 s, 3 min 5 s, 2 h 10 min, 4 d 3 h."""
    whole = round(seconds)
    for unit, size, below, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small} {below}"
    return f"{whole} s"


def file_size(count: float) -> str:
    """Write a number of bytes: 60 bytes, 1.5 kB, 3.0 MB."""
    return decimal(round(count))


def one_line(error: BaseException) -> str:
    """Write an error's message in one line of at most 200 characters; the error's name where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def first_line(error: BaseException) -> str:
    """Write the first line of an error's message, of at most 200 characters; the error's name where it has none."""
    return "".join(str(error).splitlines()[:1])[:200] or type(error).__name__
