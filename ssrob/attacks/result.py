"""What a sweep has found: to compute with, to print, as a table, as a figure, and in a notebook."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ssrob.formatting import NORMS, eps_text

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
        import pandas as pd
        from statsmodels.stats.proportion import proportion_confint

        counts = self.robust.sum(1).numpy()
        low, high = proportion_confint(counts, len(self.distance), method="wilson")
        return pd.DataFrame({"eps": self.eps.numpy(), "accuracy": self.accuracy.numpy(), "low": low, "high": high})

    def plot(self, axes: Any = None) -> Any:
        """Draw accuracy over eps with its 95 % interval onto matplotlib axes (default: new ones); return the axes."""
        return draw_curve(self.to_frame(), self.norm, axes)

    def __str__(self) -> str:
        """Five lines: what was attacked by what, the clean accuracy and the curve."""
        clean, shares = float(self.clean_correct.double().mean()), self.accuracy.tolist()
        odd = int((~self.confirmed).sum())
        lines = [
            f"{NORMS[self.norm]} sweep of {len(self.distance)} images, {100 * clean:.1f} % of them classified right",
            "eps        " + " ".join(f"{eps_text(eps) if eps else '0':>7}" for eps in self.eps.tolist()),
            "accuracy % " + " ".join(f"{100 * share:7.1f}" for share in shares),
            f"attacks: {', '.join(self.attacks)}",
            f"{self.gradients} gradients, {self.forwards} forwards; "
            + (f"{odd} perturbations NOT confirmed" if odd else "all perturbations confirmed"),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head, *_, attacks, spent = map(html.escape, str(self).splitlines())
        frame = self.to_frame()
        frame["eps"] = [eps_text(eps) if eps else "0" for eps in frame["eps"]]
        table = frame.to_html(index=False, float_format="{:.3f}".format)
        return f"<p>{head}</p>{table}<p>{attacks}<br>{spent}</p>"


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
