"""What a sweep has found: to compute with, to print, as a table, as a figure, and in a notebook."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ssrob.formatting import NORMS, curve_text, eps_text, notebook_html
from ssrob.storage.tables import accuracy_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found, on the CPU; N examples, E budgets."""

    norm: str
    eps: Tensor  # (E,) float64, ascending, [0, 1] pixel units
    distance: Tensor  # (N,) float32: smallest perturbation norm found; 0 if misclassified, inf if none was found
    attack: tuple[str, ...]  # (N,): which attack found it; "clean" if misclassified, "none" if none found
    attacks: tuple[str, ...]  # all attacks that were run, in the plan's order
    clean_correct: Tensor  # (N,) bool
    confirmed: Tensor  # (N,) bool: a fresh forward of what was found agrees, and it lies in its ball and the box
    gradients: int  # input gradients spent, counted per image
    forwards: int  # forward passes without a gradient, counted per image
    adversarial: Tensor | None  # (N, C, H, W): found within the largest eps, else the clean image

    @property
    def robust(self) -> Tensor:
        """Whether each example withstands each eps, (E, N) bool: distance > eps, in float32 as in float64."""
        return self.distance.double()[None, :] > self.eps[:, None]

    @property
    def accuracy(self) -> Tensor:
        """Robust accuracy at each eps, (E,) float64 in [0, 1]."""
        return self.robust.double().mean(1)

    def to_frame(self) -> "pd.DataFrame":
        """Return eps, accuracy and its 95 % interval (Wilson 1927), one row per eps; shares 0..1."""
        return accuracy_table(self.eps.numpy(), self.robust.numpy())

    def plot(self, axes: Any = None) -> Any:
        """Draw accuracy over eps with its 95 % interval onto matplotlib axes (default: new ones); return the axes."""
        return draw_curve(self.to_frame(), self.norm, axes)

    def __str__(self) -> str:
        """Five lines: what was attacked by what, the clean accuracy and the curve."""
        return "\n".join([self._headline, curve_text(self.to_frame()), *self._spent()])

    def _repr_html_(self) -> str:
        table = self.to_frame()
        return notebook_html([self._headline], table.assign(eps=table["eps"].map(eps_text)), self._spent())

    @property
    def _headline(self) -> str:
        clean = float(self.clean_correct.double().mean())
        return f"{NORMS[self.norm]} sweep of {len(self.distance)} images, {100 * clean:.1f} % of them classified right"

    def _spent(self) -> list[str]:
        odd = int((~self.confirmed).sum())
        confirmed = f"{odd} perturbations NOT confirmed" if odd else "all perturbations confirmed"
        spent = f"{self.gradients} gradients, {self.forwards} forwards; {confirmed}"
        return [f"attacks: {', '.join(self.attacks)}", spent]


def draw_curve(frame: "pd.DataFrame", norm: str, axes: Any = None, label: str | None = None) -> Any:
    """Draw accuracy over eps with its interval onto matplotlib axes (default: new ones); return the axes.

    frame: eps, accuracy, low, high; shares 0..1.
    """
    import matplotlib.pyplot as plt

    axes, shares = axes or plt.subplots()[1], 100 * frame[["accuracy", "low", "high"]]
    axes.plot(frame["eps"], shares["accuracy"], marker="o", label=label)
    axes.fill_between(frame["eps"], shares["low"], shares["high"], alpha=0.2)
    axes.set(xlabel=f"{NORMS[norm]} eps", ylabel="accuracy (%)" if label else "robust accuracy (%)", ylim=(0, 100))
    return axes
