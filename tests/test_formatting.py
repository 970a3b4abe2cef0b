"""Numbers for people: one way of writing each, for every reader."""

import math

import pytest
from ssrob.formatting import eps_text, file_size, interval, number, percent, points, signed, with_interval


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (0.5, "0.5"), (0.15, "0.15"), (128 / 255, "128/255"), (1.0, "1"), (0.6, "0.6"), (0.0, "0")],
)
def test_eps_is_a_short_decimal_or_a_fraction_of_255(eps: float, text: str) -> None:
    assert eps_text(eps) == text


def test_signs_and_missing_numbers() -> None:
    assert [number(1234.56), number(-0.6), number(-0.04), number(math.nan), number(None)] == [
        "1,234.6",
        "\u22120.6",
        "0.0",
        "\u2013",
        "\u2013",
    ]
    assert [signed(0.5), signed(-0.5), signed(0.01), signed(math.inf)] == ["+0.5", "\u22120.5", "0.0", "\u2013"]
    assert points(-2.4) == "\u22122.4 points"
    assert [percent(0.473), percent(0.5, 0), percent(None)] == ["47.3 %", "50 %", "\u2013"]


def test_an_interval_is_low_to_high_with_signs_where_it_is_of_a_difference() -> None:
    assert interval(46.1, 48.5) == "46.1 to 48.5"
    assert with_interval(-0.6, -8.5, 7.3, sign=True) == "\u22120.6 (\u22128.5 to +7.3)"
    assert with_interval(47.3, math.nan, math.nan) == "47.3"
    assert with_interval(None, 1.0, 2.0) == "\u2013"
    assert interval(None, 2.0) == ""


def test_sizes_for_people() -> None:
    assert [file_size(count) for count in (12, 1.5e3, 2e6, 34.2e9)] == ["12 bytes", "1.5 kB", "2.0 MB", "34.2 GB"]
