"""Pilots: with which training recipe a study detects most per core-hour. Spread and cost choose, never effects.

    python benchmarks/pilots.py config/digits.yaml --results pilots [--seeds 5] [--planned 20] [--jobs 2] [RECIPE ...]

Trains AT, the methods of C2 to C4 and AT after SSL pre-training with every recipe, with seeds from 1000 on, which no
study uses, and tests the best and the last checkpoint. Prints for each recipe and checkpoint the accuracy of plain AT
(so that a recipe that does not train is seen), the core-seconds of a model, and what each claim could detect with the
planned seeds. No effect is printed. Trained models are kept in the results folder and are not trained again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from ssrob.analysis.collect import collect
from ssrob.analysis.comparisons import comparisons_by_measure
from ssrob.analysis.power import outlook
from ssrob.cli.power import costs
from ssrob.config.loader import load_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.storage.store import Store

FIRST_SEED = 1000
RECIPES = {
    "8 epochs, rate 0.2": {},
    "8 epochs, rate 0.1": {"lr": 0.1},
    "8 epochs, rate 0.2, ema 0.95": {"ema": 0.95},
    "16 epochs, rate 0.1": {"epochs": 16, "lr": 0.1},
    "16 epochs, rate 0.1, ema 0.95": {"epochs": 16, "lr": 0.1, "ema": 0.95},
}
ARMS = "[{variant: [at, at_ssl_clean, at_ssl_adv, at_ssl_joint], norm: linf}, {variant: at, norm: linf, init: ssl}]"


def overrides(recipe: str, results: Path, seeds: int) -> list[str]:
    """Return the settings that make a study the pilot of a recipe."""
    of_recipe = [
        f"{part}.{name}={value}" for part in ("pretrain", "finetune") for name, value in RECIPES[recipe].items()
    ]
    return [
        f"results={results}",
        f"seeds={list(range(FIRST_SEED, FIRST_SEED + seeds))}",
        f"arms={ARMS}",
        "evaluate.checkpoints=[best, last]",
        "evaluate.audit_images=0",
        *(f"{stage}=off" for stage in ("probe", "diagnose")),
        "corrupt={names: [contrast], severities: [1], images: 50}",
        *of_recipe,
    ]


def report(recipe: str, plan: Plan, store: Store, planned: int) -> None:
    """Print what the pilot says of a recipe."""
    tables, spent = collect(plan, store), costs(plan, store)
    for checkpoint in ("best", "last"):
        primary = plan.study.findings.primary.model_copy(update={"checkpoint": checkpoint})
        settings = plan.study.findings.model_copy(update={"primary": primary})
        images = dict.fromkeys(settings.all_claims, int(tables["robustness"]["n"].max()))
        comparisons, *_ = comparisons_by_measure(tables, settings, plan.study.variants)
        rows = outlook(comparisons, planned, images, spent)
        at = tables["robustness"].query("variant == 'at' and init == 'random' and checkpoint == @checkpoint")
        at = at[at["eval_norm"] == at["norm"]].groupby("eps_multiple")["accuracy"].mean()
        of_checkpoint = [cost for cell, cost in spent.items() if cell.checkpoint == checkpoint]
        seconds = [
            sum(getattr(cost, part) for cost in of_checkpoint) / len(of_checkpoint) for part in ("training", "testing")
        ]
        detectable = ", ".join(f"{row.claim} {row.cell.split()[0]} {row.detectable:.1f}" for row in rows)
        print(
            f"{recipe:30} {checkpoint:5} AT {100 * at[0.0]:.1f} % clean, {100 * at[1.0]:.1f} % at eps;"
            f" training {seconds[0]:.1f}, testing {seconds[1]:.1f} core-s a model; detects: {detectable}",
            flush=True,
        )


def main() -> None:
    """Run the pilots and print a line per recipe and checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("recipes", nargs="*", default=list(RECIPES))
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--planned", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    for recipe in arguments.recipes:
        settings = overrides(recipe, arguments.results, arguments.seeds)
        command = [sys.executable, "-m", "ssrob", "portion", str(arguments.config), "--budget", "24h"]
        sets = [part for setting in settings for part in ("--set", setting)]
        subprocess.run(
            [*command, "--jobs", str(arguments.jobs), *sets],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        plan = make_plan(load_study(arguments.config, settings))
        report(recipe, plan, Store(plan.study.results), arguments.planned)


if __name__ == "__main__":
    main()
