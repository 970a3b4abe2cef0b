"""False support and power of the findings on simulated studies with a known truth.

    python benchmarks/power.py [--studies 2000] [--power-studies 100] [--claims C4] [--why margin] [--sizes 2 3]

Prints two Markdown tables, and draws the second (--figure power.svg). False support: of studies whose claim is false,
the share with a `supported` verdict, and its upper 95 % bound (Clopper-Pearson). Verdicts are at level 5 %; 6.5 % is
allowed, which 2,000 studies at exactly that level exceed less than twice in 1,000 times. Of a study with looks the
whole procedure counts: supported at any of them. All but the part under test is made easy: effects of 8 points, for C5b
a margin of 4. Power: of studies whose claim is true, the share that finds it, over effect and seeds. `--studies 0`
leaves the first table out, `--power-studies 0` the second.
The simulated world is described in `tests/simulated.py`.
"""

import argparse
import itertools
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from statsmodels.stats.proportion import proportion_confint

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.simulated import Size, World, nulls, supported, truths

FALSE_EFFECT, FALSE_MARGIN = 8.0, 4.0
LOOKS = (3, 5, 10)
FALSE_SIZES = {
    "5 seeds": Size(seeds=5, images=1000),
    "3 seeds, arms differ, outliers": Size(seeds=3, images=10_000, seed_sd=1.0, differ=True, outliers=0.05),
    "10 seeds, 3 looks": Size(seeds=10, images=1000, looks=LOOKS),
    "10 seeds, 3 looks, arms differ, outliers": Size(10, 1000, seed_sd=1.0, differ=True, outliers=0.05, looks=LOOKS),
}
POWER_IMAGES, POWER_SD = 10_000, 0.3
EFFECTS, SEEDS = (0.5, 1.0, 2.0, 3.0), (3, 5, 10)
Job = tuple[str, World, Size, float, int]  # claim, world, size, margin, number of the study


def one(job: Job) -> bool:
    claim, world, size, margin, number = job
    return supported(claim, world, size, np.random.default_rng([2024, number]), margin=margin)


def count(pool: ProcessPoolExecutor, job: tuple[str, World, Size, float], studies: int) -> int:
    return sum(pool.map(one, ((*job, number) for number in range(studies)), chunksize=20))


def false_support(
    pool: ProcessPoolExecutor, studies: int, cases: dict[tuple[str, str], World], sizes: dict[str, Size]
) -> None:
    print(f"\n{studies} studies per case; falsely supported, % (upper 95 % bound)\n")
    print(f"| claim | why it is false | {' | '.join(sizes)} |\n|---|---|{'---|' * len(sizes)}")
    for (claim, name), world in cases.items():
        cells = []
        for size in sizes.values():
            found = count(pool, (claim, world, size, FALSE_MARGIN), studies)
            upper = proportion_confint(found, studies, alpha=0.1, method="beta")[1]  # one-sided 95 %
            cells.append(f"{100 * found / studies:.2f} ({100 * upper:.2f})")
        print(f"| {claim} | {name} | {' | '.join(cells)} |", flush=True)


def power(pool: ProcessPoolExecutor, studies: int, claims: list[str]) -> pd.DataFrame:
    print(f"\n{studies} studies per cell, {POWER_IMAGES} images, seed s.d. {POWER_SD} points; supported, %\n")
    print("| claim | seeds | " + " | ".join(f"{effect:g} points" for effect in EFFECTS) + " |")
    print("|---|---|" + "---|" * len(EFFECTS))
    rows = []
    for claim, seeds in itertools.product(claims, SEEDS):
        worlds = [truths(0.0 if claim == "C5b" else effect)[claim] for effect in EFFECTS]
        # For C5b, whose truth is no effect, the effect is the margin within which it is to be shown.
        margins = EFFECTS if claim == "C5b" else (1.0,) * len(EFFECTS)
        cells = [
            count(pool, (claim, world, Size(seeds, POWER_IMAGES, POWER_SD), margin), studies)
            for world, margin in zip(worlds, margins, strict=True)
        ]
        print(
            f"| {claim} | {seeds} | " + " | ".join(f"{100 * each / studies:.0f}" for each in cells) + " |", flush=True
        )
        rows += [(claim, seeds, *pair) for pair in zip(EFFECTS, cells, strict=True)]
    return pd.DataFrame(rows, columns=["claim", "seeds", "effect", "found"])


def draw(table: pd.DataFrame, studies: int, path: Path) -> None:
    """Draw power over the effect, a panel per claim and a line per number of seeds, with 95 % intervals (Wilson)."""
    low, high = proportion_confint(table["found"], studies, method="wilson")
    table = table.assign(power=100 * table["found"] / studies, low=100 * low, high=100 * high)
    sns.set_theme(style="whitegrid")
    grid = sns.FacetGrid(table, col="claim", hue="seeds", palette="colorblind", height=2.6, aspect=0.85)
    grid.map(plt.fill_between, "effect", "low", "high", alpha=0.2)
    grid.map(plt.plot, "effect", "power", marker="o")
    grid.set_titles("{col_name}").set(ylim=(-3, 103), xticks=[0, 1, 2, 3])
    grid.set_axis_labels("", "").add_legend(title="seeds")
    grid.axes.flat[0].set_ylabel("supported, % of studies")
    grid.figure.supxlabel("true effect in points (C5b: margin of equivalence)", y=0.02, fontsize=11)
    grid.figure.savefig(path, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies per case of false support")
    parser.add_argument("--power-studies", type=int, default=100, help="simulated studies per cell of power")
    parser.add_argument("--claims", nargs="+", choices=list(truths(0.0)), default=list(truths(0.0)))
    parser.add_argument("--why", default="", help="cases of the first table whose reason contains this")
    names = list(FALSE_SIZES)
    known = "; ".join(f"{i}: {name}" for i, name in enumerate(names))
    parser.add_argument("--sizes", nargs="+", type=int, choices=range(len(names)), help=f"of the first table: {known}")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--figure", type=Path, help="draw the power there")
    asked = parser.parse_args()
    with ProcessPoolExecutor(asked.processes) as pool:
        if asked.studies:
            worlds = nulls(FALSE_EFFECT, FALSE_MARGIN).items()
            cases = {case: world for case, world in worlds if case[0] in asked.claims and asked.why in case[1]}
            sizes = {name: FALSE_SIZES[name] for i, name in enumerate(names) if not asked.sizes or i in asked.sizes}
            false_support(pool, asked.studies, cases, sizes)
        found = power(pool, asked.power_studies, asked.claims) if asked.power_studies else None
    if asked.figure and found is not None:
        draw(found, asked.power_studies, asked.figure)


if __name__ == "__main__":
    main()
