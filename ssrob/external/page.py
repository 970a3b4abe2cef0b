"""The one page on an evaluation."""

import base64
from importlib.resources import files
from pathlib import Path

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from ssrob.corruptions import BENCHMARK, SEVERITIES
from ssrob.external.evaluation import Evaluation, eps_label
from ssrob.external.screen import NAMED_VERSIONS
from ssrob.formatting import NORMS, interval, number, percent
from ssrob.registry.attacks import CHECKS
from ssrob.reporting.figures.saving import save
from ssrob.reporting.figures.style import INK, new_figure, per_cent, styled


def write_page(found: Evaluation, out: Path) -> Path:
    """Write report.html and its figure to `out`; returns the page's path."""
    picture = save(_draw(found), out / "figures", "robust_accuracy").path.read_bytes()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": lambda share: number(100 * share), "eps": eps_label}
    folder = files("ssrob.reporting") / "templates"
    environment.globals["css"] = (folder / "report.css").read_text(encoding="utf-8")
    template = environment.from_string((folder / "evaluation.html.j2").read_text(encoding="utf-8"))
    page = out / "report.html"
    page.write_text(
        template.render(
            found=found,
            request=found.request,
            facts=found.facts,
            norm=NORMS[found.request.norm],
            curve=found.curve.to_dict("records"),
            interval=interval,
            named=NAMED_VERSIONS,
            failed=found.failed.to_dict("records"),
            checks={name: CHECKS[name] for name in found.checks["check"]},
            corruptions=_rows(found.corruptions),
            severities=SEVERITIES,
            picture=f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}",
        ),
        encoding="utf-8",
    )
    return page


@styled
def _draw(found: Evaluation) -> Figure:
    request, curve = found.request, found.curve
    note = f"{request.preset} attacks on {found.facts['n']} test images; the band is the 95 % binomial interval."
    last = curve.iloc[-1]
    title = f"{percent(last['accuracy'])} robust at {NORMS[request.norm]} eps {eps_label(last['eps'])}"
    figure = new_figure(title, note, 3.2)
    axes = figure.add_subplot()
    axes.plot(curve["eps"], curve["accuracy"], color=INK, marker="o")
    axes.fill_between(curve["eps"], curve["low"], curve["high"], color=INK, alpha=0.13, linewidth=0)
    axes.set_xticks(curve["eps"], [eps_label(eps) for eps in curve["eps"]])
    axes.set_xlabel(f"{NORMS[request.norm]} perturbation eps ([0, 1] pixel units)")
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    per_cent(axes.yaxis)
    return figure


def _rows(corruptions: pd.DataFrame | None) -> list[dict[str, object]]:
    """Return a row per corruption with its accuracies and their mean; at the end the means of the 15 and of all."""
    if corruptions is None:
        return []
    columns = list(SEVERITIES)
    rows = [
        {"name": row["corruption"], "values": [row[s] for s in columns], "mean": sum(row[s] for s in columns) / 5}
        for row in corruptions.to_dict("records")
    ]
    benchmark = corruptions["corruption"].isin(BENCHMARK)
    for name, part in ((f"mean of {len(BENCHMARK)}", corruptions[benchmark]), ("mean of all", corruptions)):
        means = part[columns].mean()
        rows.append({"name": name, "values": means.tolist(), "mean": float(means.mean())})
    return rows
