"""The answer that a report opens with: a sentence on what was found and how sure it is, and the verdicts as a list."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssrob.analysis.verdicts import DECIDED
from ssrob.config.findings import Findings
from ssrob.formatting import NORMS, eps_text, interval, number, signed
from ssrob.reporting.data import ReportData
from ssrob.reporting.verdicts import compared


@dataclass(frozen=True)
class Line:
    """One verdict: the claim in words, what was compared, the effect with its interval, seeds and images."""

    claim: str
    sentence: str
    compared: str
    verdict: str
    effect: str
    interval: str
    sizes: str

    @property
    def effect_text(self) -> str:
        """The effect with its interval, where there is one."""
        return f"{self.effect} ({self.interval})" if self.interval else self.effect


def claim_sentence(claim: str, settings: Findings) -> str:
    """Return a claim as a sentence."""
    known = settings.all_claims
    text = known[claim].words() if claim in known else claim
    return text[:1].upper() + text[1:]


def verdict_lines(data: ReportData) -> list[Line]:
    """Return the verdicts of the primary comparisons that have a result, decided ones first."""
    rows = data.primary[data.primary["effect"].notna()]
    order = rows["verdict"].map(lambda word: word not in DECIDED).sort_values(kind="stable").index
    return [_line(row, data.study.findings) for row in rows.loc[order].to_dict("records")]


def _line(row: dict[Any, Any], settings: Findings) -> Line:
    arms, _ = compared(str(row["cell"]))
    limits = interval(row["low"], row["high"], sign=True)
    sizes = f"{row['seeds']} × {row['n']}"
    sentence = claim_sentence(row["claim"], settings)
    return Line(row["claim"], sentence, arms, row["verdict"], signed(row["effect"]), limits, sizes)


def untested(data: ReportData) -> list[str]:
    """Return the claims that the study has no result on."""
    tested = set(data.primary.loc[data.primary["effect"].notna(), "claim"])
    return [claim for claim in data.study.findings.all_claims if claim not in tested]


def untested_text(data: ReportData) -> str:
    """Name the claims that the study has no result on; empty where there are none."""
    claims = untested(data)
    return f"Not tested here: {', '.join(claims)}." if claims else ""


def headline(data: ReportData) -> str:
    """Say in one sentence what was found and how sure it is."""
    rows = data.primary[data.primary["effect"].notna()]
    if rows.empty:
        return "No claim was tested: the arms that the claims compare were not trained."
    claims = list(dict.fromkeys(rows["claim"]))
    decided = rows[rows["verdict"].isin(DECIDED)]
    if decided.empty:
        only, one = f"The one claim tested ({claims[0]}) is not", len(claims) == 1
        which = only if one else f"None of the {len(claims)} claims tested is"
        return f"{which} supported or contradicted{_because(rows)}."
    open_claims = [claim for claim in claims if claim not in set(decided["claim"])]
    rest = f" Open: {', '.join(open_claims)}." if open_claims else ""
    if len(decided) > 2:
        return _in_short(decided, data.study.findings) + rest
    sentences = [_decided(row, data.study.findings) for row in decided.to_dict("records")]
    return f"{'; '.join(sentences)}.{rest}"


def too_small(data: ReportData) -> str:
    """Say that a study is too small to answer, and for what; empty where no comparison is underpowered."""
    rows = data.primary[data.primary["effect"].notna()]
    weak = rows[rows["verdict"] == "underpowered"]
    if weak.empty:
        return ""
    sizes = weak["detectable"].dropna()
    if sizes.empty:
        could = "with so few seeds it is not known which effects could have been found"
    else:
        span = " to ".join(dict.fromkeys((number(sizes.min()), number(sizes.max()))))
        could = f"only effects of {span} points could have been found (asked for: {data.study.findings.detectable:g})"
    which = f"all {len(rows)} comparisons" if len(weak) == len(rows) else f"{len(weak)} of {len(rows)} comparisons"
    return f"Too small to answer {which if len(rows) > 1 else 'its one comparison'}: {could}."


def what_was_run(data: ReportData) -> str:
    """Say in one line what was trained and tested."""
    study, arms = data.study, data.arms
    seeds, images = arms["seed"].nunique(), sorted(set(data.robustness["n"]))
    threats = " and ".join(f"{NORMS[norm]} {eps_text(threat.eps)}" for norm, threat in study.threat.items())
    text = f"{_count(len(arms), 'network')} ({study.model.name}) on {study.data.name}: "
    text += f"{_count(arms['name'].nunique(), 'arm')}, {_count(seeds, 'seed')}; eps {threats}"
    text += f"; {' to '.join(f'{n:,}' for n in images)} test images" if images else ""
    kinds = data.corruptions["corruption"].nunique()
    return text + (f"; {_count(kinds, 'corruption')}" if kinds else "")


def _decided(row: dict[Any, Any], settings: Findings) -> str:
    """Write a decided comparison: claim, verdict, effect, interval, sizes."""
    limits = interval(row["low"], row["high"], sign=True)
    sizes = f"{_count(row['seeds'], 'seed')} × {row['n']:,} images"
    effect = f"{signed(row['effect'])} points, {settings.level} interval {limits}, {sizes}"
    return f"{claim_sentence(row['claim'], settings)} ({row['claim']}): {row['verdict']} ({effect})"


def _in_short(decided: pd.DataFrame, settings: Findings) -> str:
    """Name the claims of many decided comparisons by verdict, each with the span of its effects."""
    parts = []
    for verdict, rows in decided.groupby("verdict", sort=False):
        texts = [_claim_in_short(str(claim), part, settings) for claim, part in rows.groupby("claim", sort=False)]
        parts.append(f"{str(verdict).capitalize()}: {'; '.join(texts)}.")
    return " ".join(parts)


def _claim_in_short(claim: str, rows: pd.DataFrame, settings: Findings) -> str:
    span = " to ".join(dict.fromkeys((signed(rows["effect"].min()), signed(rows["effect"].max()))))
    sentence = claim_sentence(claim, settings)
    return f"{sentence} ({claim}, {span} points)"


def _because(rows: pd.DataFrame) -> str:
    weak = int((rows["verdict"] == "underpowered").sum())
    largest = rows.sort_values("effect", key=abs).iloc[-1]
    limits = interval(largest["low"], largest["high"], sign=True)
    seen = f"the largest difference is {signed(largest['effect'])} points" + (f" ({limits})" if limits else "")
    return f"; {seen}" + (", and the study is too small to tell it from chance" if weak == len(rows) else "")


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
