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
from ssrob.analysis.evidence import Comparison
from ssrob.analysis.statistics import Alternative
from ssrob.analysis.sweeps import Cell, IntArray
from ssrob.config.findings import Claim, Control, Expectation
from ssrob.config.variants import Variant, base_of, control_of
from ssrob.planning.names import budget_label

TWO = "at_two"
CHEAPER = 0.98  # a method with less than this share of another's passes is also compared at equal passes
FRONTIER: dict[Expectation, Alternative] = {"gain": "gain", "loss": "two_sided", "equivalent": "not_greater"}
EQUAL = 0.01  # arms whose passes differ by less than this share have equal passes, whatever they were named for


@dataclass(frozen=True)
class Subject:
    """A cell that a claim is about: plain AT as its floor and frontier take it, its rivals, and the grid points."""

    comparisons: Comparisons
    claim: Claim
    cell: Cell
    plain: Cell
    rivals: list[Cell]
    at: IntArray

    def against(self, name: str, other: Cell) -> Comparison:
        """Ask of the difference to another cell what a control asks: of an equivalence that there is no gain."""
        expected: Alternative = "not_greater" if self.claim.expect == "equivalent" else self.claim.expect
        return self.comparisons.difference(name, expected, (self.cell, other), self.at)


def _plain_at(subject: Subject) -> list[Comparison]:
    return [subject.against("plain AT", subject.plain)]


def _frontier(subject: Subject) -> list[Comparison]:
    """A gain must lie beyond it, a loss off it: on it is what AT with a smaller eps_train loses, too."""
    expect = subject.claim.expect
    than = subject.rivals[0] if expect == "equivalent" else None
    return [subject.comparisons.frontier(FRONTIER[expect], subject.cell, subject.plain, than=than)]


def _equal_passes(subject: Subject) -> list[Comparison]:
    ours, comparisons = subject.cell, subject.comparisons
    if ours.init != "random" and all(rival.init != ours.init for rival in subject.rivals):  # it alone is pre-trained
        task = ours.init_task or comparisons.settings.primary.task
        longer = at_equal_passes(comparisons, subject.plain, ours, task)
    else:
        longer = at_equal_passes(comparisons, plain_at(ours), ours)
    return [subject.against("AT at equal passes", longer)]


def _no_gradient(subject: Subject) -> list[Comparison]:
    method, comparisons = subject.cell.variant, subject.comparisons
    control = control_of(method, "no_gradient", comparisons.variants) or f"a control of {method} (role: no_gradient)"
    return [subject.against("BatchNorm statistics alone", comparisons.find(subject.cell._replace(variant=control)))]


def _two_attacks(subject: Subject) -> list[Comparison]:
    return [subject.against("two supervised perturbations", subject.plain._replace(variant=TWO))]


def _cheaper_methods(subject: Subject) -> list[Comparison]:
    comparisons, sweeps, ours = subject.comparisons, subject.comparisons.sweeps, subject.cell
    trained = [rival for rival in subject.rivals if rival in sweeps.cells]
    cheaper = [rival for rival in trained if not sweeps.passes(rival) >= CHEAPER * sweeps.passes(ours)]
    return [
        subject.against(f"{rival.variant} at equal passes", at_equal_passes(comparisons, rival, ours))
        for rival in cheaper
    ]


CONTROLS: dict[Control, Callable[[Subject], list[Comparison]]] = {
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
