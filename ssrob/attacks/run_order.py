"""In which order an image is attacked: at which eps next, by which attack."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import inf

import torch

from ssrob import seeding
from ssrob.attacks.lp_ball import Geometry
from ssrob.registry.presets import AttackConfig

NEAR = 0.07  # share of the clean margin: an image that the attacks left less of is attacked again


@dataclass(frozen=True)
class SweepSettings:
    """What a sweep does to every block."""

    geometry: Geometry
    eps: tuple[float, ...]  # ascending, each exactly a float32
    attacks: tuple[AttackConfig, ...]
    seed: int
    batch_size: int
    gradients_in: torch.dtype
    search: str  # of `SEARCHES`


@dataclass(frozen=True)
class Run:
    """One run of one attack inside a ball of radius `eps` (infinite if it minimises the norm)."""

    attack: int
    eps: float
    restart: int
    code: int  # folded into the random draws


@dataclass
class _Bracket:
    """What is known of one image; places in the list of eps, of which -1 and its length lie beyond the ends."""

    low: int  # the largest eps that it withstood
    high: int  # the smallest eps that breaks it
    first: int  # the eps where its search begins
    at: int = -1  # the eps under attack; -1 while its nearest misclassified point is looked for
    margin_left: float = 1.0  # share of the clean margin that the attacks at `low` left
    broke_last: bool = False  # whether a perturbation was found after `low` was withstood
    attacked_again: bool = False
    waiting: deque[Run] = field(default_factory=deque)  # the runs still to come at the eps under attack
    attempts: Counter[int] = field(default_factory=Counter)  # at each eps


class RunOrder:
    """For each image the run that comes next, until the largest eps that it withstands is known.

    Balls are nested: an image that withstands one eps is taken to withstand every smaller one, and the norm of a
    perturbation breaks every larger one. In the search "bracket" an image is attacked first at the eps where its
    margin would be gone if it were linear; then at larger ones while it withstands, at smaller ones while it breaks.
    Where its margin was nearly gone at the largest eps that it withstood, all attacks run there once more. In
    "ascending" it is attacked at every eps from the smallest on, until one breaks it.
    """

    def __init__(
        self, settings: SweepSettings, guesses: Sequence[float], only_eps: Sequence[float] | None = None
    ) -> None:
        """Take a guess of each image's distance (N,); only_eps: the one eps (N) at which each is attacked."""
        self.attacks, self.eps = settings.attacks, [eps for eps in settings.eps if eps > 0]
        self.bracketing = settings.search == "bracket" and only_eps is None
        last = len(self.eps) - 1
        first = [min(bisect_left(self.eps, guess), last) for guess in guesses]
        ends = [(-1, last + 1)] * len(first)
        if only_eps is not None:
            places = [bisect_left(self.eps, eps) for eps in only_eps]
            ends = [(at - 1, at + 1) if eps else (-1, 0) for at, eps in zip(places, only_eps, strict=True)]
        self.brackets = [_Bracket(low, high, at) for (low, high), at in zip(ends, first, strict=True)]

    def begin(self, row: int) -> Run | None:
        """Return the first run of an image, None if there is none."""
        bracket = self.brackets[row]
        if bracket.high - bracket.low > 1:
            bracket.waiting.extend(self._runs(inf, 0, minimise=True))
        return bracket.waiting.popleft() if bracket.waiting else self._at_next_eps(bracket)

    def after(self, row: int, distance: float, margin_left: float) -> Run | None:
        """Return the run that follows one that has ended, None if the image is done.

        distance: the smallest norm that was found so far; margin_left: share of the clean margin at the point that
        came nearest to being misclassified.
        """
        bracket = self.brackets[row]
        high = min(bracket.high, bisect_left(self.eps, distance))
        bracket.broke_last |= high < bracket.high
        bracket.high = high
        if bracket.waiting and bracket.at < high:
            return bracket.waiting.popleft()
        bracket.waiting.clear()
        if 0 <= bracket.at < high:
            bracket.low, bracket.margin_left, bracket.broke_last = bracket.at, margin_left, False
        elif self.bracketing and high <= bracket.low:  # found at last, so that what lies below is open again
            bracket.low = -1
        return self._at_next_eps(bracket)

    def _at_next_eps(self, bracket: _Bracket) -> Run | None:
        if bracket.high - bracket.low > 1:
            bracket.at = self._next_place(bracket)
        elif self.bracketing and bracket.low >= 0 and bracket.margin_left < NEAR and not bracket.attacked_again:
            bracket.at, bracket.attacked_again = bracket.low, True
        else:
            return None
        runs = self._runs(self.eps[bracket.at], bracket.attempts[bracket.at])
        bracket.attempts[bracket.at] += 1
        if self.bracketing and bracket.broke_last:  # the perturbation that was found is the best point to start from
            runs.sort(key=lambda run: self.attacks[run.attack].start != "warm")
        bracket.waiting.extend(runs)
        return bracket.waiting.popleft() if runs else None

    def _next_place(self, bracket: _Bracket) -> int:
        if not self.bracketing or bracket.low >= 0:
            return bracket.low + 1
        return bracket.first if bracket.high == len(self.eps) else bracket.high - 1

    def _runs(self, eps: float, attempt: int, *, minimise: bool = False) -> list[Run]:
        numbers = [number for number, attack in enumerate(self.attacks) if attack.row.minimises_norm == minimise]
        return [
            Run(number, eps, restart, _code(self.attacks[number].name, eps, restart, attempt))
            for number in numbers
            for restart in range(self.attacks[number].restarts)
        ]


@cache
def _code(name: str, eps: float, restart: int, attempt: int) -> int:
    return seeding.fold_in(0, name, eps, restart, *([attempt] if attempt else []))
