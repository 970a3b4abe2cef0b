"""Randomness as a function of its purpose."""

import math

import torch
from ssrob.seeding import example_keys, fold_in, generator, normal, uniform


def test_a_purpose_has_its_own_numbers() -> None:
    assert fold_in(0, "order", 1) == fold_in(0, "order", 1)
    purposes = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "ab"), (0, "a", 1), (0, "a", 11)]
    assert len({fold_in(*purpose) for purpose in purposes}) == len(purposes)
    assert all(0 <= fold_in(*purpose) < 2**63 for purpose in purposes)


def test_a_generator_repeats_itself_and_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    one, two = (torch.rand(5, generator=generator(3, "x")) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_example_s_draws_do_not_depend_on_its_batch() -> None:
    keys = example_keys(torch.arange(100), 0, "noise")
    whole = normal(keys, (3, 4, 4))
    some = normal(example_keys(torch.tensor([7, 93, 2]), 0, "noise"), (3, 4, 4))
    assert torch.equal(whole[[7, 93, 2]], some)


def test_uniform_draws_are_uniform_and_independent() -> None:
    draws = uniform(example_keys(torch.arange(2000), 0, "u"), (64,)).double()
    n = draws.numel()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)  # 5 standard errors
    counts = torch.histc(draws, bins=50, min=0, max=1)
    chi2 = ((counts - n / 50) ** 2 / (n / 50)).sum()
    assert chi2 < 49 + 5 * math.sqrt(2 * 49)
    for left, right in ((draws[:-1], draws[1:]), (draws[:, :-1], draws[:, 1:])):  # neighbours in either direction
        correlation = torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1]
        assert abs(correlation) < 5 / math.sqrt(n)


def test_normal_draws_have_the_moments_of_a_gaussian() -> None:
    draws = normal(example_keys(torch.arange(2000), 0, "n"), (65,)).double()
    n = draws.numel()
    assert abs(draws.mean()) < 5 / math.sqrt(n)
    assert abs(draws.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((draws**4).mean() - 3) < 5 * math.sqrt(96 / n)


def test_uniform_draws_are_splitmix64() -> None:
    """Against the generator's definition in Python's integers, over several blocks; numbers change with results."""
    keys = example_keys(torch.tensor([0, 5, -3]), 1, "u")
    draws = uniform(keys, (20_000,))  # 3 rows: two blocks
    mask = (1 << 64) - 1
    for row in range(3):
        for place in (0, 1, 10_921, 10_922, 10_923, 19_999):
            z = (int(keys[row]) + (place + 1) * 0x9E3779B97F4A7C15) & mask
            z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
            assert float(draws[row, place]) == ((z ^ z >> 31) >> 40) * 2.0**-24
    assert uniform(keys[:0], (3,)).shape == (0, 3)
    assert uniform(keys, ()).shape == (3,)
