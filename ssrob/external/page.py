"""The one page on an evaluation."""

import base64
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ssrob.corruptions import BENCHMARK
from ssrob.external.evaluation import Evaluation
from ssrob.external.screen import versions_text
from ssrob.formatting import NORMS, eps_text, interval, percent
from ssrob.registry.attacks import CHECKS
from ssrob.reporting.figures.saving import save
from ssrob.reporting.figures.style import INK, new_figure, per_cent, styled
from ssrob.reporting.layout import Table, plain_table, render


def write_page(result: Evaluation, out: Path) -> Path:
    """Write report.html and its figure to `out`; returns the page's path."""
    picture = save(_draw(result), out / "figures", "robust_accuracy").path.read_bytes()
    names = list(result.checks["check"])
    signs = pd.DataFrame({"check": names, "what it would find": [CHECKS[name] for name in names]})
    text = render(
        "evaluation.html.j2",
        result=result,
        request=result.request,
        facts=result.facts,
        curve=_curve(result),
        corruptions=_corruptions(result.corruptions),
        checks=plain_table(signs),
        failed=plain_table(result.failed[["check", "detail"]].rename(columns={"detail": "what was measured"})),
        versions=versions_text(result),
        picture=f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}",
    )
    page = out / "report.html"
    page.write_text(text, encoding="utf-8")
    return page


@styled
def _draw(result: Evaluation) -> Figure:
    request, curve = result.request, result.curve
    note = f"{request.preset} attacks on {result.facts['n']} test images; the band is the 95 % binomial interval."
    last = curve.iloc[-1]
    title = f"{percent(last['accuracy'])} robust at {NORMS[request.norm]} eps {eps_text(last['eps'])}"
    figure = new_figure(title, note, 3.2)
    axes = figure.add_subplot()
    axes.plot(curve["eps"], curve["accuracy"], color=INK, marker="o")
    axes.fill_between(curve["eps"], curve["low"], curve["high"], color=INK, alpha=0.13, linewidth=0)
    axes.set_xticks(curve["eps"], [eps_text(eps) for eps in curve["eps"]])
    axes.set_xlabel(f"{NORMS[request.norm]} perturbation eps ([0, 1] pixel units)")
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    per_cent(axes.yaxis)
    return figure


def _curve(result: Evaluation) -> Table | None:
    rows = result.curve
    columns = {
        "eps": [eps_text(eps) if eps else "0 (clean)" for eps in rows["eps"]],
        "accuracy (%)": 100 * rows["accuracy"],
        "95 % interval": [interval(100 * low, 100 * high) for low, high in zip(rows["low"], rows["high"], strict=True)],
    }
    return plain_table(pd.DataFrame(columns))


def _corruptions(table: pd.DataFrame | None) -> Table | None:
    """Lay out a row per corruption with its mean over severities; at the end the means of the 15 and of all."""
    if table is None:
        return None
    rows = 100 * table.set_index("corruption")
    means = {f"mean of {len(BENCHMARK)}": rows.loc[list(BENCHMARK)].mean(), "mean of all": rows.mean()}
    rows = pd.concat([rows, pd.DataFrame(means).T])
    rows.insert(0, "mean", rows.mean(axis=1))
    return plain_table(rows.rename_axis("corruption").reset_index())
