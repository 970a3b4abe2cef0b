"""What each claim rests on: its comparisons and its controls. Nothing here computes a statistic or a verdict.

The primary cells come from the config; the same functions make the evidence of exploratory cells.

| claim | metric: mean robust accuracy at | parts, all needed | frontier control |
|---|---|---|---|
| C2 | `primary.below` | way - AT > 0 | beyond it |
| C3 | `primary.above` | way - AT < 0; slope in the weight < 0 if there are weights | off it, on either side |
| C4 | 1 x eps | joint - every other way > 0 | beyond it |
| C5a | 1 x eps | AT from SSL - AT from random > 0 | beyond it |
| C5b | 1 x eps | AT + SSL - AT, both from SSL: within the margin | not further beyond it by the margin |

Every claim is also held against AT with as many passes and, where SSL takes part in adversarial training,
against the same forwards without a gradient (BatchNorm statistics alone); C4 against plain AT, too. C3 on the
frontier is what AT with a smaller eps_train shows as well; off it on either side it is not.
"""

from collections.abc import Callable

from ssrob.analysis.comparisons import AT_EPS, Comparisons
from ssrob.analysis.statistics import Alternative
from ssrob.analysis.sweeps import Cell
from ssrob.analysis.verdicts import Comparison, Evidence
from ssrob.formatting import with_interval
from ssrob.planning.names import budget_label

JOINT = "at_ssl_joint"
READINGS = ("at_ssl_clean", "at_ssl_adv")  # "in tandem": the SSL loss on clean, or on adversarial images
WAYS = (
    *READINGS,
    "at_ssl_attack_only",
    "at_ssl_joint_clean",
    JOINT,
    "at_ssl_separate",
    "at_ssl_ensemble",
)
TWO = "at_two"  # two supervised perturbations per image: an ensemble effect without SSL
NO_GRADIENT = "_nograd"  # suffix of a way's BatchNorm control
VIEWS = "_views"  # suffix of a way's control that learns the classes at its views, without an SSL loss
CHEAPER = 0.98  # a way with less than this share of the joint way's passes is also compared at equal passes
EQUAL = 0.01  # arms whose passes differ by less than this share have equal passes, whatever they were named for


def c2(comparisons: Comparisons, way: Cell) -> Evidence:
    """Weigh that a way gains on plain AT below eps_train."""
    plain, interval = plain_at(way), comparisons.settings.primary.below
    at = comparisons.kept(plain, interval)
    parts = [comparisons.difference("plain AT", "gain", (way, plain), at)]
    frontier = comparisons.frontier("gain", way, plain)
    controls = [frontier, *_controls(comparisons, way, "gain", interval)]
    remarks = [_position(frontier), comparisons.remark(plain, interval)]
    return Evidence(str(way), "below eps_train", parts, controls, "; ".join(filter(None, remarks)))


def c3(comparisons: Comparisons, way: Cell) -> Evidence:
    """Weigh that a way loses to plain AT above eps_train, and more so with a larger weight."""
    plain, interval = plain_at(way), comparisons.settings.primary.above
    at = comparisons.kept(plain, interval)
    parts = [comparisons.difference("plain AT", "loss", (way, plain), at)]
    remarks = [comparisons.remark(plain, interval)]
    weights = _weights(comparisons, way)
    if len(weights) > 1:
        subject = f"{way.variant} ({way.task}), w {', '.join(f'{cell.weight:g}' for cell in weights)}"
        parts.append(comparisons.slope("loss", weights, at, subject))
    elif weights:
        remarks.append("one weight: that a larger one loses more was not tested")
    frontier = comparisons.frontier("two_sided", way, plain)
    remarks.append(_position(frontier))
    controls = [frontier, *_controls(comparisons, way, "loss", interval)]
    return Evidence(str(way), "above eps_train", parts, controls, "; ".join(filter(None, remarks)))


def at_eps(comparisons: Comparisons, way: Cell) -> Evidence:
    """Report the difference to plain AT exactly at eps_train, whose sign the claims leave open."""
    plain = plain_at(way)
    parts = [comparisons.difference("plain AT", "two_sided", (way, plain), comparisons.kept(plain, AT_EPS))]
    return Evidence(str(way), "exactly at eps_train (sign left open)", parts, [])


def c4(comparisons: Comparisons, joint: Cell) -> Evidence:
    """Weigh that the joint way beats every other way of using SSL in adversarial training, at eps_train."""
    plain = plain_at(joint)
    at = comparisons.kept(plain, AT_EPS)
    rivals = [
        comparisons.find(joint._replace(variant=name)) for name in _ways(comparisons, joint) if name != joint.variant
    ]
    parts = [comparisons.difference(str(rival), "gain", (joint, rival), at) for rival in rivals]
    controls = [
        comparisons.difference("plain AT", "gain", (joint, plain), at),
        comparisons.frontier("gain", joint, plain),
    ]
    controls += _controls(comparisons, joint, "gain", AT_EPS)
    two = plain._replace(variant=TWO)
    controls.append(comparisons.difference("two supervised perturbations", "gain", (joint, two), at))
    passes = comparisons.sweeps.passes(joint)
    for rival in rivals:
        if rival in comparisons.sweeps.cells and not comparisons.sweeps.passes(rival) >= CHEAPER * passes:
            longer = at_equal_passes(comparisons, rival, joint)
            name = f"{rival.variant} at equal passes"
            controls.append(comparisons.difference(name, "gain", (joint, longer), at))
    remark = comparisons.remark(plain, AT_EPS)
    return Evidence(str(joint), "at eps_train", parts, controls, remark, weakest=True)


def c5a(comparisons: Comparisons, pretrained: Cell) -> Evidence:
    """Weigh that AT from SSL pre-training beats AT from random weights, at eps_train."""
    plain = pretrained._replace(init="random", init_task=None)
    at = comparisons.kept(plain, AT_EPS)
    task = pretrained.init_task or comparisons.settings.primary.task
    longer = at_equal_passes(comparisons, plain, pretrained, task)
    parts = [comparisons.difference("random weights", "gain", (pretrained, plain), at)]
    controls = [
        comparisons.frontier("gain", pretrained, plain),
        comparisons.difference("AT at equal passes", "gain", (pretrained, longer), at),
    ]
    return Evidence(str(pretrained), "at eps_train", parts, controls, comparisons.remark(plain, AT_EPS))


def c5b(comparisons: Comparisons, way: Cell) -> Evidence:
    """Weigh that, from SSL pre-training, SSL inside AT changes nothing at eps_train, by equivalence.

    A benefit that eps_train alone would not show is looked for by the controls: against each, and relative to
    the frontier, the gain must be shown to be below the margin.
    """
    plain, random = plain_at(way), plain_at(way)._replace(init="random", init_task=None)
    parts = [comparisons.difference("AT alone", "equivalent", (way, plain), comparisons.kept(random, AT_EPS))]
    controls = [
        comparisons.frontier("not_greater", way, random, than=plain),
        *_controls(comparisons, way, "not_greater", AT_EPS),
    ]
    return Evidence(str(way), "at eps_train", parts, controls, comparisons.remark(random, AT_EPS))


CLAIMS: dict[str, Callable[[Comparisons, Cell], Evidence]] = {
    "C2": c2,
    "C3": c3,
    "C4": c4,
    "C5a": c5a,
    "C5b": c5b,
}


def primary_cells(comparisons: Comparisons, claim: str) -> list[Cell]:
    """Return the cells that a claim's verdicts are about, as the config fixes them."""
    fixed = comparisons.settings.primary
    init = fixed.pretrained if claim in ("C5a", "C5b") else fixed.init
    plain = Cell("at", init, None, None, fixed.norm, 1.0, None, fixed.checkpoint)
    if init != "random" and any(cell.init == init and cell.init_task for cell in comparisons.sweeps.cells):
        plain = plain._replace(init_task=fixed.task)
    if claim == "C5a":
        return [plain]
    names = (JOINT,) if claim == "C4" else READINGS
    return [comparisons.find(plain._replace(variant=name, task=fixed.task, weight=fixed.weight)) for name in names]


def exploratory_cells(comparisons: Comparisons, claim: str) -> list[Cell]:
    """Return every other cell of the study that a claim could be asked about, in a fixed order."""
    cells = [cell for cell in comparisons.sweeps.cells if cell.eps_scale == 1 and cell.budget is None]
    chosen = {
        "C4": [cell for cell in cells if cell.variant == JOINT],
        "C5a": [cell for cell in cells if cell.variant == "at" and cell.init != "random"],
        "C5b": [cell for cell in cells if is_way(cell) and cell.init != "random"],
    }.get(claim, [cell for cell in cells if is_way(cell)])
    primary = primary_cells(comparisons, claim)
    return sorted((cell for cell in chosen if cell not in primary), key=lambda cell: tuple(map(str, cell)))


def is_way(cell: Cell) -> bool:
    """Say whether SSL takes part in a cell's PGD adversarial training; its controls and TRADES are no ways."""
    control = cell.variant.endswith((NO_GRADIENT, VIEWS))
    return cell.task is not None and not control and not cell.variant.startswith("trades")


def plain_at(way: Cell) -> Cell:
    """Return plain AT with a way's init, norm and checkpoint."""
    return way._replace(variant="at", task=None, weight=None, eps_scale=1.0, budget=None)


def passes_of(cell: Cell, task: str | None = None) -> str:
    """Name the budget of an arm that was given as many passes as a cell, as `plan` names it.

    Of an init other than random only the fine-tuning counts for a way, as both sides share it; a task given
    here adds the pre-training on that task.
    """
    return budget_label(cell.variant, task or cell.task, cell.init if task else "random")


def at_equal_passes(comparisons: Comparisons, arm: Cell, like: Cell, task: str | None = None) -> Cell:
    """Return the cell that was trained as `arm` for as many passes as `like`; of several the one with most seeds.

    It is known by its label (see `passes_of`) or by its passes: ways that cost the same share one. If there is
    none, the cell with the label.
    """
    cells, passes = comparisons.sweeps.cells, comparisons.sweeps.passes
    named, seeds = arm._replace(budget=passes_of(like, task)), cells.get(like, {}).keys()
    same = [each for each in cells if each.budget and each._replace(budget=None) == arm]
    equal = [each for each in same if each == named or abs(passes(each) - passes(like)) < EQUAL * passes(like)]
    return max(equal, key=lambda each: (len(seeds & cells[each]), each == named, str(each)), default=named)


def _controls(
    comparisons: Comparisons, way: Cell, alternative: Alternative, interval: tuple[float, float]
) -> list[Comparison]:
    plain = plain_at(way)
    at = comparisons.kept(plain, interval)
    longer = at_equal_passes(comparisons, plain, way)
    silent = comparisons.find(way._replace(variant=way.variant + NO_GRADIENT))
    return [
        comparisons.difference("AT at equal passes", alternative, (way, longer), at),
        comparisons.difference("BatchNorm statistics alone", alternative, (way, silent), at),
    ]


def _position(frontier: Comparison) -> str:
    """Say where a cell lies with respect to AT's own frontier; empty if that cannot be said."""
    found = frontier.estimate
    if found is None or not frontier.tested:
        return ""
    side = "beyond" if found.low > 0 else "under" if found.high < 0 else "along"
    return f"it lies {side} AT's own frontier ({with_interval(found.effect, found.low, found.high, sign=True)})"


def _weights(comparisons: Comparisons, way: Cell) -> list[Cell]:
    """Return the cells of a way over its weights w > 0 that have all of its seeds, in ascending order."""
    cells = comparisons.sweeps.cells
    seeds = set(cells.get(way, {}))
    others = [cell for cell in cells if cell.weight and cell._replace(weight=way.weight) == way]
    return sorted((cell for cell in others if seeds <= set(cells[cell])), key=lambda cell: cell.weight or 0.0)


def _ways(comparisons: Comparisons, joint: Cell) -> list[str]:
    """Return the ways of the family, and those that a study adds at the joint way's weight or without one."""
    like = [joint._replace(weight=weight) for weight in {joint.weight, None}]
    added = {cell.variant for cell in comparisons.sweeps.cells if is_way(cell) and cell._replace(variant=JOINT) in like}
    return [*WAYS, *sorted(added - set(WAYS))]
