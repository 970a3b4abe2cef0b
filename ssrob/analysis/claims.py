"""From a claim, which is a row of `Findings.all_claims`, to what it rests on: its comparisons and its controls.

Nothing here computes a statistic or a verdict. The same function makes the evidence of the paper's claims, of a study's
own, and of exploratory cells.
"""

from ssrob.analysis.comparisons import AT_EPS, Comparisons, Interval
from ssrob.analysis.controls import CONTROLS, Subject, is_method, plain_at
from ssrob.analysis.evidence import Comparison, Evidence
from ssrob.analysis.statistics import Alternative
from ssrob.analysis.sweeps import Cell
from ssrob.config.findings import Claim, Primary
from ssrob.formatting import with_interval

WORDS = {"below": "below eps_train", "above": "above eps_train", "at": "at eps_train"}


def evidence(comparisons: Comparisons, claim: Claim, ours: Cell) -> Evidence:
    """Gather what a claim about one cell rests on."""
    plain, interval = reference(comparisons, claim, ours), interval_of(claim, comparisons.settings.primary)
    subject = Subject(
        comparisons, claim, ours, plain, _rivals(comparisons, claim, ours), comparisons.kept(plain, interval)
    )
    parts = [
        comparisons.difference(_name(claim, ours, rival), claim.expect, (ours, rival), subject.at)
        for rival in subject.rivals
    ]
    remarks = []
    if claim.trend:
        trend, remark = _trend(comparisons, claim.expect, ours, interval)
        parts += trend
        remarks.append(remark)
    controls = [each for name in claim.controls for each in CONTROLS[name](subject)]
    if "frontier" in claim.controls and claim.where != "at":
        remarks.append(_position(next(each for each in controls if each.name == "AT's own frontier")))
    remarks.append(comparisons.remark(plain, interval))
    words = "; ".join(filter(None, remarks))
    return Evidence(str(ours), where(claim), parts, controls, words, weakest=len(subject.rivals) > 1)


def at_eps(comparisons: Comparisons, ours: Cell) -> Evidence:
    """Report the difference to plain AT exactly at eps_train, whose sign the paper's claims leave open."""
    plain = plain_at(ours)
    parts = [comparisons.difference("plain AT", "two_sided", (ours, plain), comparisons.kept(plain, AT_EPS))]
    return Evidence(str(ours), "exactly at eps_train (sign left open)", parts, [])


def primary_cells(comparisons: Comparisons, claim: Claim) -> list[Cell]:
    """Return the cells that a claim's verdicts are about, as the config fixes them."""
    fixed = comparisons.settings.primary
    init = named_init(claim.init, fixed)
    plain = Cell("at", init, None, None, fixed.norm, 1.0, None, fixed.checkpoint)
    if init != "random" and any(cell.init == init and cell.init_task for cell in comparisons.sweeps.cells):
        plain = plain._replace(init_task=fixed.task)
    with_ssl = plain._replace(task=fixed.task, weight=fixed.weight)
    return [plain if name == "at" else comparisons.find(with_ssl._replace(variant=name)) for name in claim.compare]


def exploratory_cells(comparisons: Comparisons, claim: Claim) -> list[Cell]:
    """Return every other cell of the study that a claim could be asked about, in a fixed order."""
    cells = [cell for cell in comparisons.sweeps.cells if cell.eps_scale == 1 and cell.budget is None]
    if claim.init == "pretrained":
        cells = [cell for cell in cells if cell.init != "random"]
    if claim.explore == "methods":
        cells = [cell for cell in cells if is_method(cell, comparisons.variants)]
    else:
        cells = [cell for cell in cells if cell.variant in claim.compare]
    primary = primary_cells(comparisons, claim)
    return sorted((cell for cell in cells if cell not in primary), key=lambda cell: tuple(map(str, cell)))


def tested(comparisons: Comparisons, claim: Claim) -> bool:
    """Say whether a study has trained what a claim compares, with at least one of those that it is compared with."""
    cells = comparisons.sweeps.cells.keys() | comparisons.sweeps.ambiguous
    return claim.measure == comparisons.sweeps.measure and any(
        ours in cells and any(rival in cells for rival in _rivals(comparisons, claim, ours))
        for ours in primary_cells(comparisons, claim)
    )


def reference(comparisons: Comparisons, claim: Claim, ours: Cell) -> Cell:
    """Return plain AT as the floor and the frontier take it: with the init of what it is compared with.

    A claim about pre-trained cells alone takes that from random weights, of which there is a whole frontier.
    """
    plain = plain_at(ours)
    if claim.init == "pretrained":
        return plain._replace(init=comparisons.settings.primary.init, init_task=None)
    return plain


def interval_of(claim: Claim, primary: Primary) -> Interval:
    """Return a claim's interval of eps, in multiples of the reference."""
    if isinstance(claim.where, tuple):
        return claim.where
    return {"below": primary.below, "above": primary.above, "at": AT_EPS}[claim.where]


def where(claim: Claim) -> str:
    """Say where a claim looks."""
    if claim.measure == "auroc":
        return f"of AUROC on {'clean' if claim.where == (0, 0) else 'attacked'} images"
    if isinstance(claim.where, tuple):
        return f"at {claim.where[0]:g} to {claim.where[1]:g} × eps"
    return WORDS[claim.where]


def named_init(name: str, primary: Primary) -> str:
    """Return the init that a claim means."""
    return {"primary": primary.init, "pretrained": primary.pretrained}.get(name, name)


def _rivals(comparisons: Comparisons, claim: Claim, ours: Cell) -> list[Cell]:
    """Return what a cell is compared with, in the claim's order."""
    like = ours
    if claim.against_init is not None:
        init = named_init(claim.against_init, comparisons.settings.primary)
        like = ours._replace(init=init, init_task=None if init == "random" else ours.init_task)
    names = list(claim.against)
    if claim.every_method:
        alike = [ours._replace(weight=weight) for weight in {ours.weight, None}]
        cells = [cell for cell in comparisons.sweeps.cells if is_method(cell, comparisons.variants)]
        names += sorted({cell.variant for cell in cells if cell._replace(variant=ours.variant) in alike} - {*names})
    if ours.task is None:
        fixed = comparisons.settings.primary
        like = like._replace(task=fixed.task, weight=fixed.weight)
    return [
        plain_at(like) if name == "at" else comparisons.find(like._replace(variant=name))
        for name in names
        if name != ours.variant or like.init != ours.init
    ]


def _name(claim: Claim, ours: Cell, rival: Cell) -> str:
    """Name what a cell is compared with, for people."""
    if rival != plain_at(rival):
        return str(rival)
    if rival.init != ours.init:
        return "random weights" if rival.init == "random" else str(rival)
    return "AT alone" if claim.expect == "equivalent" else "plain AT"


def _trend(
    comparisons: Comparisons, expect: Alternative, ours: Cell, interval: Interval
) -> tuple[list[Comparison], str]:
    """Return the slope in the SSL weight over the cells that have all of a cell's seeds, or why there is none.

    In a study with looks all arms have the same seeds, so a weight with fewer is not left out: a look waits for it.
    """
    cells, seeds = comparisons.sweeps.cells, set(comparisons.sweeps.cells.get(ours, {}))
    seeds = set() if comparisons.settings.looks else seeds
    weights = [cell for cell in cells if cell.weight and cell._replace(weight=ours.weight) == ours]
    weights = sorted((cell for cell in weights if seeds <= set(cells[cell])), key=lambda cell: cell.weight or 0.0)
    if len(weights) > 1:
        words = f"{ours.variant} ({ours.task}), w {', '.join(f'{cell.weight:g}' for cell in weights)}"
        return [comparisons.slope(expect, weights, comparisons.kept(plain_at(ours), interval), words)], ""
    return [], f"one weight: that a larger one has more of a {expect} was not tested" if weights else ""


def _position(frontier: Comparison) -> str:
    """Say where a cell lies with respect to AT's own frontier; empty if that cannot be said."""
    estimate = frontier.estimate
    if estimate is None or not frontier.tested:
        return ""
    side = "beyond" if estimate.low > 0 else "under" if estimate.high < 0 else "along"
    return (
        f"it lies {side} AT's own frontier ({with_interval(estimate.effect, estimate.low, estimate.high, sign=True)})"
    )
