"""How often the findings' 95 % intervals hold the truth, over seeds, test images and the spread of seeds.

    python benchmarks/coverage.py [--studies 300] [--seed 0]

A study has twelve arms and plain AT, which all are compared with, and no effect. An arm's accuracy moves with its seed
(`spread`: the standard deviation of a difference, points), and each image adds an effect of its own and one of image
and seed (together 39 points for a difference on one image, half of the variance each). Arms scatter alike, or differ
eightfold (0.375 to 3 times the spread); of the seeds none or 5 % are outliers (five times their deviation).
Prints per case the coverage and the half-width relative to the rule of 2025 (every comparison by itself, S - 1
degrees of freedom for seeds and images).
"""

import argparse
import itertools

import numpy as np
from scipy.special import stdtrit
from ssrob.analysis.moderation import NO_PRIOR, Prior, fit_prior
from ssrob.analysis.standard_error import FloatArray, image_variances
from ssrob.analysis.statistics import paired_t
from ssrob.analysis.sweeps import GROUPS

ARMS, IMAGE_SD = 12, 39.0
SEEDS, IMAGES, SPREADS = (2, 3, 5, 10, 20), (100, 1000, 10_000), (0.1, 0.3, 1.0, 3.0)
KINDS = {"alike": (False, 0.0), "arms differ": (True, 0.0), "outliers": (False, 0.05), "both": (True, 0.05)}


def draw(generator: np.random.Generator, seeds: int, images: int, spread: float, kind: str) -> FloatArray:
    """Draw the differences of a study from AT: (ARMS, 1 + GROUPS, S), as `paired_t` takes them; the truth is 0."""
    differ, outliers = KINDS[kind]
    sd = spread / np.sqrt(2) * np.exp(generator.uniform(np.log(0.375), np.log(3), ARMS + 1) if differ else 0.0)
    moved = generator.standard_normal((ARMS + 1, seeds)) * np.broadcast_to(sd, ARMS + 1)[:, None]
    moved[generator.random(moved.shape) < outliers] *= 5
    of_group = IMAGE_SD / 2 * np.sqrt(GROUPS / images)  # half of a difference's variance is an arm's, half of that each
    accuracy = moved[:, None] + of_group * generator.standard_normal((ARMS + 1, GROUPS, 1))
    accuracy = accuracy + of_group * generator.standard_normal((ARMS + 1, GROUPS, seeds))
    differences = accuracy[1:] - accuracy[:1]
    mean = differences.mean(axis=1, keepdims=True)
    found: FloatArray = np.concatenate([mean, mean + (mean - differences) / (GROUPS - 1)], axis=1)
    return found


def old_half_width(values: FloatArray) -> float:
    seeds, images = values.shape[1], image_variances(values)
    assert images is not None
    variance = values[0].var(ddof=1) / seeds + max(0.0, images[0] - images[1] / seeds)
    return float(-stdtrit(seeds - 1, 0.025) * np.sqrt(variance))


def measure(generator: np.random.Generator, case: tuple[int, int, float, str], studies: int) -> tuple[float, ...]:
    """Return coverage in per cent: today's, with every comparison by itself, of the old rule; and relative widths."""
    held, widths = np.zeros(3), np.zeros(3)
    for _ in range(studies):
        values = draw(generator, *case)
        variances = values[:, 0].var(axis=1, ddof=1)
        prior = fit_prior(list(map(float, variances)), [case[0] - 1] * ARMS)
        for each in values:
            effect = each[0].mean()
            halves = [_half(each, prior), _half(each, NO_PRIOR), old_half_width(each)]
            held += np.abs(effect) <= np.array(halves)
            widths += halves
    return (*(100 * held / (studies * ARMS)), widths[0] / widths[2], widths[1] / widths[2])


def _half(values: FloatArray, prior: Prior) -> float:
    found = paired_t(values, 0.05, prior)
    return found.high - found.effect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300, help="simulated studies of twelve comparisons, per case")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print("| arms | seeds | images | spread | coverage, % | alone | old rule | half-width / old | alone / old |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, seeds, images, spread in itertools.product(KINDS, SEEDS, IMAGES, SPREADS):
        generator = np.random.default_rng([asked.seed, seeds, images, int(10 * spread), list(KINDS).index(kind)])
        now, alone, old, ratio, single = measure(generator, (seeds, images, spread, kind), asked.studies)
        row = f"{now:.1f} | {alone:.1f} | {old:.1f} | {ratio:.2f} | {single:.2f}"
        print(f"| {kind} | {seeds} | {images} | {spread:g} | {row} |", flush=True)


if __name__ == "__main__":
    main()
