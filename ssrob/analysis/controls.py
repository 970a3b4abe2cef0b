"""What else could explain a difference, by the name under which a claim asks for it; each is a row of `CONTROLS`.

| control | the effect must also hold against |
|---|---|
| plain_at | plain AT, where a claim compares with others |
| frontier | what plain AT reaches by its eps_train alone (`contrasts.beyond_frontier`) |
| equal_passes | AT with as many passes through the network, pre-training included where only one side has it |
| no_gradient | the same forward passes without an SSL gradient: BatchNorm statistics alone |
| two_attacks | two supervised perturbations per image: an ensemble effect without SSL |
| cheaper_methods | each rival that costs less, at the passes of what is compared |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ssrob.analysis.comparisons import Comparisons
from ssrob.analysis.statistics import Alternative
from ssrob.analysis.sweeps import Cell, IntArray
from ssrob.analysis.verdicts import Comparison
from ssrob.config.findings import Claim, Control, Expectation
from ssrob.config.variants import Variant, base_of, control_of
from ssrob.planning.names import budget_label

TWO = "at_two"
CHEAPER = 0.98  # a method with less than this share of another's passes is also compared at equal passes
FRONTIER: dict[Expectation, Alternative] = {"gain": "gain", "loss": "two_sided", "equivalent": "not_greater"}
EQUAL = 0.01  # arms whose passes differ by less than this share have equal passes, whatever they were named for


@dataclass(frozen=True)
class Subject:
    """A cell that a claim is about, and plain AT as its floor and frontier take it."""

    claim: Claim
    cell: Cell
    plain: Cell

    @property
    def alternative(self) -> Alternative:
        """What a control asks of the difference: of an equivalence that there is no gain."""
        return "not_greater" if self.claim.expect == "equivalent" else self.claim.expect


def _plain_at(comparisons: Comparisons, subject: Subject, _: list[Cell], at: IntArray) -> list[Comparison]:
    return [comparisons.difference("plain AT", subject.alternative, (subject.cell, subject.plain), at)]


def _frontier(comparisons: Comparisons, subject: Subject, rivals: list[Cell], _: IntArray) -> list[Comparison]:
    """A gain must lie beyond it, a loss off it: on it is what AT with a smaller eps_train loses, too."""
    than = rivals[0] if subject.claim.expect == "equivalent" else None
    return [comparisons.frontier(FRONTIER[subject.claim.expect], subject.cell, subject.plain, than=than)]


def _equal_passes(comparisons: Comparisons, subject: Subject, rivals: list[Cell], at: IntArray) -> list[Comparison]:
    ours = subject.cell
    pretrained = ours.init != "random" and all(rival.init != ours.init for rival in rivals)
    if pretrained:
        task = ours.init_task or comparisons.settings.primary.task
        longer = at_equal_passes(comparisons, subject.plain, ours, task)
    else:
        longer = at_equal_passes(comparisons, plain_at(ours), ours)
    return [comparisons.difference("AT at equal passes", subject.alternative, (ours, longer), at)]


def _no_gradient(comparisons: Comparisons, subject: Subject, _: list[Cell], at: IntArray) -> list[Comparison]:
    method = subject.cell.variant
    control = control_of(method, "no_gradient", comparisons.variants) or f"a control of {method} (role: no_gradient)"
    silent = comparisons.find(subject.cell._replace(variant=control))
    return [comparisons.difference("BatchNorm statistics alone", subject.alternative, (subject.cell, silent), at)]


def _two_attacks(comparisons: Comparisons, subject: Subject, _: list[Cell], at: IntArray) -> list[Comparison]:
    two = subject.plain._replace(variant=TWO)
    return [comparisons.difference("two supervised perturbations", subject.alternative, (subject.cell, two), at)]


def _cheaper_methods(comparisons: Comparisons, subject: Subject, rivals: list[Cell], at: IntArray) -> list[Comparison]:
    sweeps, ours, differences = comparisons.sweeps, subject.cell, []
    for rival in rivals:
        if rival in sweeps.cells and not sweeps.passes(rival) >= CHEAPER * sweeps.passes(ours):
            longer = at_equal_passes(comparisons, rival, ours)
            name = f"{rival.variant} at equal passes"
            differences.append(comparisons.difference(name, subject.alternative, (ours, longer), at))
    return differences


CONTROLS: dict[Control, Callable[[Comparisons, Subject, list[Cell], IntArray], list[Comparison]]] = {
    "plain_at": _plain_at,
    "frontier": _frontier,
    "equal_passes": _equal_passes,
    "no_gradient": _no_gradient,
    "two_attacks": _two_attacks,
    "cheaper_methods": _cheaper_methods,
}


def is_method(cell: Cell, variants: Mapping[str, Variant]) -> bool:
    """Say whether SSL takes part in a cell's PGD adversarial training: no controls, nothing on TRADES."""
    row = variants.get(cell.variant)
    method = row is None or (row.role == "method" and base_of(cell.variant, variants) in ("at", cell.variant))
    return cell.task is not None and method


def plain_at(cell: Cell) -> Cell:
    """Return plain AT with a cell's init, norm and checkpoint."""
    return cell._replace(variant="at", task=None, weight=None, eps_scale=1.0, budget=None)


def passes_of(cell: Cell, task: str | None = None) -> str:
    """Name the budget of an arm that was given as many passes as a cell, as `plan` names it.

    Of an init other than random only the fine-tuning counts, as both sides share it; a task given here adds the
    pre-training on that task.
    """
    return budget_label(cell.variant, task or cell.task, cell.init if task else "random")


def at_equal_passes(comparisons: Comparisons, arm: Cell, like: Cell, task: str | None = None) -> Cell:
    """Return the cell that was trained as `arm` for as many passes as `like`; of several the one with most seeds.

    It is known by its label (see `passes_of`) or by its passes: methods that cost the same share one. If there is
    none, the cell with the label.
    """
    cells, passes = comparisons.sweeps.cells, comparisons.sweeps.passes
    named, seeds = arm._replace(budget=passes_of(like, task)), cells.get(like, {}).keys()
    same = [each for each in cells if each.budget and each._replace(budget=None) == arm]
    equal = [each for each in same if each == named or abs(passes(each) - passes(like)) < EQUAL * passes(like)]
    return max(equal, key=lambda each: (len(seeds & cells[each]), each == named, str(each)), default=named)
