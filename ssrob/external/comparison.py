"""Two results on the same images compared: which is better, by how much, and how sure that is."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ssrob.analysis.arm_outcomes import arm_outcomes, find_arms
from ssrob.analysis.collect import labels
from ssrob.analysis.paired import paired_table
from ssrob.config.fields import Checkpoint
from ssrob.external.comparability import corruptions_alike, refuse_unlike, remarks
from ssrob.external.identity import SHORT
from ssrob.external.saved import Saved, read_saved
from ssrob.formatting import NORMS, eps_text, interval, notebook_html, number, points, signed
from ssrob.planning.plan import Plan
from ssrob.storage.store import Store


@dataclass(frozen=True)
class Comparison:
    """Paired differences, a - b in percentage points, with 95 % intervals. rows: `paired.COLUMNS`."""

    a: str
    b: str
    about: dict[str, Any]  # of either, what identifies it
    rows: pd.DataFrame
    notes: tuple[str, ...] = ()
    reference: Mapping[str, float] = field(default_factory=dict)  # norm -> eps that the answer is about

    @property
    def headline(self) -> str:
        """The answer, a line per norm: the comparison at the eps nearest `reference`, by default the largest."""
        robust = self.rows[self.rows["test"].isin(NORMS)]
        near = (robust["eps"] - robust["test"].map(dict(self.reference)).fillna(math.inf)).abs()
        chosen = robust[near == near.groupby(robust["test"]).transform("min")]
        last = chosen.drop_duplicates("test", keep="last")
        return "\n".join(map(_sentence, (last if len(last) else self.rows.iloc[:1]).to_dict("records")))

    def to_frame(self) -> pd.DataFrame:
        """Return the rows: accuracies of a and b in per cent, difference with its interval in points."""
        return self.rows.copy()

    def as_json(self) -> str:
        """Return it as JSON; what is not there is null."""
        rows = self.rows.astype(object).where(self.rows.notna(), None)
        document = {"a": self.a, "b": self.b, "about": self.about, "rows": rows.to_dict("records"), "notes": self.notes}
        return json.dumps(document, indent=2)

    def plot(self, axes: Any = None) -> Any:
        """Draw the differences over eps, a line per norm, onto matplotlib axes (default: new ones); return the axes."""
        import matplotlib.pyplot as plt

        axes = axes or plt.subplots()[1]
        robust = self.rows[self.rows["corruption"] == ""]
        for norm in (norm for norm in NORMS if norm in set(robust["test"])):
            rows = robust[robust["test"].isin(("clean", norm))]
            axes.plot(rows["eps"], rows["difference"], marker="o", label=NORMS[norm])
            axes.fill_between(rows["eps"], rows["low"], rows["high"], alpha=0.2)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set(xlabel="eps", ylabel="A - B (points of accuracy)")
        axes.legend()
        return axes

    def __str__(self) -> str:
        """The answer, which is which, a row per test, and what the intervals are."""
        return "\n".join(
            [self.headline, "", *self._sides(), "", *_lines(self.rows), "", _method(self.rows), *self.notes]
        )

    def _repr_html_(self) -> str:
        rows = self.rows.to_dict("records")
        columns = {
            "test": [_test(row) for row in rows],
            "A (%)": [number(row["a"]) for row in rows],
            "B (%)": [number(row["b"]) for row in rows],
            "A − B (points)": [signed(row["difference"]) for row in rows],
            "95 % interval": [interval(row["low"], row["high"], sign=True) for row in rows],
        }
        above = [*self.headline.splitlines(), *self._sides()]
        return notebook_html(above, pd.DataFrame(columns), [_method(self.rows), *self.notes])

    def _sides(self) -> list[str]:
        return [f"A: {self.a}", f"B: {self.b}"]


def compare(a: Path | str, b: Path | str) -> Comparison:
    """Compare two results of `ssrob evaluate` by their folders, image by image.

    Raises ValueError where they are not comparable: other images, labels, attacks or norms, or no eps in common.
    """
    first, second = read_saved(Path(a)), read_saved(Path(b))
    refuse_unlike(first, second)
    rows = paired_table(first.outcomes, second.outcomes)
    if not corruptions_alike(first, second):
        rows = rows[rows["test"] != "corruption"].reset_index(drop=True)
    about = {side: _identity(saved) for side, saved in (("a", first), ("b", second))}
    return Comparison(_name(first), _name(second), about, rows, tuple(remarks(first, second)))


def compare_arms(plan: Plan, store: Store, names: tuple[str, str], checkpoint: Checkpoint = "best") -> Comparison:
    """Compare two arms of a study, given by labels or keys, over the seeds that both have, image by image."""
    sides = [find_arms(plan, name) for name in names]
    seeds = sorted(sides[0].keys() & sides[1].keys())
    titles = labels(plan)
    shown = [titles[next(iter(side.values())).finetune] for side in sides]
    if not seeds:
        found = " and ".join(str(sorted(side)) for side in sides)
        raise ValueError(f"cannot compare: {shown[0]} and {shown[1]} share no seed, found {found}")
    chosen = [[side[seed] for seed in seeds] for side in sides]
    if chosen[0] == chosen[1]:
        raise ValueError(f"cannot compare: {names[0]!r} and {names[1]!r} are the same arm")
    rows = paired_table(*(arm_outcomes(plan, store, arms, checkpoint) for arms in chosen))
    about = {
        side: {"label": label, "checkpoint": checkpoint, "seeds": seeds, "models": [arm.finetune for arm in arms]}
        for side, label, arms in zip("ab", shown, chosen, strict=True)
    }
    of_seeds = f", {'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"
    reference = {str(norm): threat.eps for norm, threat in plan.study.threat.items()}
    return Comparison(shown[0] + of_seeds, shown[1] + of_seeds, about, rows, reference=reference)


def _name(saved: Saved) -> str:
    weights = saved.document["facts"]["model"]["weights_sha256"][:SHORT]
    return f"{saved.document['name']} ({saved.folder}, weights {weights})"


def _identity(saved: Saved) -> dict[str, Any]:
    facts = saved.document["facts"]
    return {"folder": str(saved.folder), "model": facts["model"], "versions": facts["versions"]}


def _sentence(row: dict[Any, Any]) -> str:
    where = f"at {NORMS[row['test']]} eps {eps_text(row['eps'])}" if row["eps"] else "on clean images"
    if not row["low"] <= row["high"]:
        return f"A − B = {points(row['difference'])} {where}; too few seeds for an interval"
    ends = interval(row["low"], row["high"], sign=True)
    if row["low"] <= 0 <= row["high"]:
        return f"No difference is shown {where}: A − B = {points(row['difference'])} ({ends})"
    better, worse = ("A", "B") if row["low"] > 0 else ("B", "A")
    quality = "more robust than" if row["eps"] else "more accurate than"
    return f"{better} is {quality} {worse} {where}: A − B = {points(row['difference'])} ({ends})"


def _test(row: dict[Any, Any]) -> str:
    if row["test"] == "corruption":
        return str(row["corruption"])
    return f"{NORMS[row['test']]} {eps_text(row['eps'])}" if row["eps"] else "clean"


def _lines(rows: pd.DataFrame) -> Iterator[str]:
    records = rows.to_dict("records")
    width = max(20, *(len(_test(row)) for row in records))
    yield f"{'':{width}} {'A %':>7} {'B %':>7}   A − B in points (95 % interval)"
    for row in records:
        ends = interval(row["low"], row["high"], sign=True)
        accuracies = f"{number(row['a']):>7} {number(row['b']):>7}"
        line = f"{_test(row):{width}} {accuracies}   {signed(row['difference']):>5}"
        yield f"{line} ({ends})" if ends else line


def _method(rows: pd.DataFrame) -> str:
    seeds, corrupted = int(rows["seeds"].iloc[0]), set(rows.loc[rows["test"] == "corruption", "n"])
    size, other = int(rows["n"].iloc[0]), "".join(f" (corruptions: {n:,})" for n in corrupted - {rows["n"].iloc[0]})
    shared = f"Paired on the same {size:,} images{other}; each interval is of its own row alone."
    if seeds == 1:
        return f"{shared}\nOne model of each: nothing is said about another training run of either."
    return f"{shared}\nMeans over {seeds} paired seeds; intervals are over seeds and images."
