"""The search for the largest eps that an image withstands: right, cheaper than walking up to it, and checked."""

import itertools
from math import inf

import pytest
import torch
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.run_order import NEAR, RunOrder, SweepSettings
from ssrob.attacks.sanity_checks import check
from ssrob.attacks.sweep import attack_sweep
from ssrob.registry.attacks import SEARCHES
from ssrob.registry.presets import PRESETS, AttackConfig, AttackPlan
from tests.attack_models import digits_test, linear_distance, linear_problem, robust_cnn
from torch import Tensor, nn

EPS = (0.0, 0.1, 0.2, 0.3, 0.4)
FAST = PRESETS["fast"].attacks  # a random start, then a warm one


def settings(search: str = "bracket", attacks: tuple[AttackConfig, ...] = FAST) -> SweepSettings:
    return SweepSettings(GEOMETRIES["linf"], EPS, attacks, 0, 8, torch.float32, search)


def walk(order: RunOrder, distance: float, left: float = 1.0) -> list[tuple[float, str]]:
    """Attack image 0, which breaks by perturbations as large as their ball; return eps and start of each run."""
    seen, found, run = [], inf, order.begin(0)
    while run is not None:
        seen.append((run.eps, order.attacks[run.attack].start))
        if run.eps >= distance:
            found = min(found, distance if run.eps == inf else run.eps)
        run = order.after(0, found, left)
    return seen


@pytest.mark.parametrize("guess", [0.0, 0.15, 0.3, 9.0])
@pytest.mark.parametrize("distance", [0.05, 0.15, 0.25, 0.35, 9.0])
@pytest.mark.parametrize("search", SEARCHES)
def test_both_ends_of_the_bracket_are_attacked(search: str, distance: float, guess: float):
    """Whatever the guess, the largest eps withstood and the smallest that breaks are attacked, the former by all."""
    seen = walk(RunOrder(settings(search), [guess if search == "bracket" else 0.0]), distance)
    withstood = [eps for eps in EPS[1:] if eps < distance]
    breaking = [eps for eps in EPS[1:] if eps >= distance]
    if withstood:
        assert seen.count((withstood[-1], "random")) == seen.count((withstood[-1], "warm")) == 1
    if breaking:
        assert sum(eps == breaking[0] for eps, _ in seen) == 1
    if search == "ascending":
        assert [eps for eps, _ in seen] == sorted(eps for eps, _ in seen)
        assert {eps for eps, _ in seen} == set(withstood + breaking[:1])


def test_it_walks_up_while_the_image_withstands_and_down_while_it_breaks():
    up = walk(RunOrder(settings(), [0.15]), 0.35)
    assert up == [(0.2, "random"), (0.2, "warm"), (0.3, "random"), (0.3, "warm"), (0.4, "random")]
    down = walk(RunOrder(settings(), [9.0]), 0.15)  # the perturbation that was found is where warm starts begin
    assert down == [(0.4, "random"), (0.3, "warm"), (0.2, "warm"), (0.1, "warm"), (0.1, "random")]


def test_a_margin_that_is_nearly_gone_is_attacked_again_by_new_draws():
    order = RunOrder(settings(), [9.0])
    first, codes, run = [], [], order.begin(0)
    while run is not None:
        first.append((run.eps, run.attack))
        codes.append(run.code)
        run = order.after(0, inf, 0.9 * NEAR)
    assert first == [(0.4, 0), (0.4, 1)] * 2
    assert len(set(codes)) == 4
    assert len(walk(RunOrder(settings(), [9.0]), 9.0, left=1.1 * NEAR)) == 2
    assert len(walk(RunOrder(settings("ascending"), [0.0]), 9.0, left=0.0)) == 8


def test_what_breaks_the_second_time_opens_what_lies_below():
    order, run, seen = RunOrder(settings(), [9.0]), None, []
    run = order.begin(0)
    for distance, left in [(inf, 0.0), (inf, 0.0), (0.4, 1.0), (0.3, 1.0)] + [(0.3, 1.0)] * 2:
        seen.append(run.eps)
        run = order.after(0, distance, left)
    assert seen == [0.4, 0.4, 0.4, 0.3, 0.2, 0.2]
    assert run is None


def test_a_nearest_point_is_looked_for_first_and_the_search_begins_below_it():
    fmn = AttackConfig("fmn", "margin", 10, start="clean")
    seen = walk(RunOrder(settings(attacks=(fmn, *FAST)), [inf]), 0.25)
    assert seen == [(inf, "clean"), (0.2, "warm"), (0.2, "random")]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("preset", ["fast", "standard"])
def test_at_most_half_of_the_gradients_and_not_weaker(norm: str, preset: str):
    model, (x, y) = robust_cnn(), digits_test(200)
    eps = [0.04 * k for k in range(9)] if norm == "linf" else [0.15 * k for k in range(9)]
    found = {name: attack_sweep(model, x, y, norm=norm, eps=eps, preset=preset, search=name) for name in SEARCHES}
    assert found["bracket"].gradients < 0.5 * found["ascending"].gradients
    assert (found["bracket"].accuracy - found["ascending"].accuracy).max() <= 0.011  # two images of 200
    assert found["bracket"].confirmed.all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [[0.0], [0.0, 0.02], [0.01, 0.02, 0.04, 0.08]])
def test_both_searches_find_the_closed_form(norm: str, eps: list[float]):
    model, x, y = linear_problem(2)
    eps = [value * (1 if norm == "linf" else 6) for value in eps]
    distance = linear_distance(model, x, y, GEOMETRIES[norm])
    known = distance[None] > torch.tensor(eps)[:, None]
    clear = (distance[None] - torch.tensor(eps)[:, None]).abs() > 2e-3 * distance[None]  # PGD's last step
    for search in SEARCHES:
        result = attack_sweep(model, x, y, norm=norm, eps=eps, preset="fast", search=search)
        assert result.robust[clear].equal(known[clear])


class Shell(nn.Module):
    """Misclassifies in a shell around dark images alone, beyond which the larger ones lie: large steps miss it."""

    def forward(self, x: Tensor) -> Tensor:
        brightness = x.flatten(1).mean(1)
        margin = torch.where((brightness > 0.06) & (brightness < 0.12), -1.0, 1.0) - 0.1 * brightness
        return torch.stack([margin, -margin], dim=1)


def test_the_checks_see_what_the_search_skipped():
    x, y = torch.zeros(40, 1, 4, 4), torch.zeros(40, dtype=torch.int64)
    one_step = AttackPlan((AttackConfig("pgd", "margin", 1, start="clean", step_ratio=1.0),))
    eps = [0.1, 0.2, 0.3]
    walked, searched = (
        attack_sweep(Shell().eval(), x, y, eps=eps, preset=one_step, search=name) for name in ("ascending", "bracket")
    )
    assert walked.accuracy.tolist() == [0, 0, 0]
    assert searched.accuracy.tolist() == [1, 1, 1]  # attacked at 0.3 alone
    flags = check(Shell().eval(), x, y, searched, preset=one_step, queries=1)
    weaker = [flag.message for flag in flags if flag.name == "sweep_weaker"]
    assert "an attack at eps 0.1 alone breaks 40 images more" in weaker


def test_neither_search_depends_on_the_batch_or_the_block():
    model, x, y = linear_problem(5)
    eps = torch.linspace(0.01, 0.1, 6).tolist()
    for search in SEARCHES:
        whole = attack_sweep(model, x, y, eps=eps, preset="fast", search=search)
        for size, block in itertools.product((7, 64), (16, 1024)):
            other = attack_sweep(model, x, y, eps=eps, preset="fast", search=search, batch_size=size, block=block)
            assert other.distance.equal(whole.distance)
            assert other.attack == whole.attack
            assert other.gradients == whole.gradients
        rows = torch.tensor([50, 3, 20])
        part = attack_sweep(model, x[rows], y[rows], eps=eps, preset="fast", search=search, index=rows)
        assert part.distance.equal(whole.distance[rows])
