"""In which order a study is worth running when time may end at any point. Imports no torch.

A study stage by stage has nothing to compare before nearly all of it is done. Here it falls into blocks: all arms of
one part of the study (``part`` of a block of arms), one training norm and one seed. Blocks are run one after the
other and, within each, arm after arm, a training followed by its tests; so whatever is finished is a paired comparison.
What explains a comparison and is none itself, probes and diagnoses, comes last.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ssrob.planning.plan import Arm, Plan
from ssrob.registry.stages import STAGES
from ssrob.storage.store import Store, StoreError


@dataclass(frozen=True)
class Block:
    """Arms to be compared with each other, and their stages that no earlier block has, in the order to run them."""

    name: str  # for people
    arms: tuple[Arm, ...]  # none: stages that explain what earlier blocks have compared
    stages: tuple[str, ...]


def blocks(plan: Plan) -> list[Block]:
    """Return a study's blocks: parts as the config first names them, then norms and seeds in the config's order.

    Arms that are trained on no norm belong to the first. Stages that belong to no arm come with the last block of arms.
    """
    members: dict[tuple[int, int, int], list[Arm]] = defaultdict(list)
    parts, norms = list(dict.fromkeys(plan.parts.values())), list(plan.study.threat)
    seeds = list(dict.fromkeys([*plan.study.seeds, *(arm.seed for arm in plan.arms)]))
    for arm in plan.arms:
        norm = norms.index(arm.norm) if arm.norm else 0
        members[parts.index(plan.parts[arm.finetune]), norm, seeds.index(arm.seed)].append(arm)
    explain = [path for path, stage in plan.stages.items() if STAGES[stage.kind].role == "explanation"]
    tests, taken, blocks = _tests(plan), set(explain), []
    for n, (key, arms) in enumerate(sorted(members.items())):
        order = [path for arm in arms for path in stages_of(plan, arm, tests)]
        order += plan.stages if n + 1 == len(members) else []
        new = [path for path in dict.fromkeys(order) if path not in taken]
        taken |= set(new)
        name = f"{parts[key[0]]}, {norms[key[1]]}, seed {seeds[key[2]]}"
        blocks.append(Block(name, tuple(arms), tuple(new)))
    return [*blocks, Block("probes, diagnoses", (), tuple(explain))] if explain else blocks


def stages_of(plan: Plan, arm: Arm, tests: dict[str, list[str]] | None = None) -> list[str]:
    """Return what a comparison needs of an arm, in an order in which it can run: trainings, each with its tests.

    tests: by model, the stages that test it, for a caller who asks about many arms.
    """
    tests = _tests(plan) if tests is None else tests
    order = [path for training in plan.with_ancestors(arm.finetune) for path in (training, *tests[training])]
    # A test's model stands before it anyway, but data sets may be its own.
    return list(dict.fromkeys(each for path in order for each in (*plan.stages[path].before, path)))


def complete(plan: Plan, store: Store, arms: Iterable[Arm]) -> list[Arm]:
    """Return the arms that are trained and tested: those that can be compared."""
    tests = _tests(plan)
    return [arm for arm in arms if all(map(store.done, stages_of(plan, arm, tests)))]


def finished_part(plan: Plan, store: Store) -> Plan:
    """Return a study's complete arms as a plan, with a folder of its own; the plan itself if nothing is left to run.

    Raises StoreError if no arm is complete.
    """
    if all(map(store.done, plan.stages)):
        return plan
    arms = complete(plan, store, plan.arms)
    if not arms:
        raise StoreError(f"{store.root}: no model of the study {plan.study.study} is trained and tested yet")
    stages = {path: stage for path, stage in plan.stages.items() if store.done(path)}
    return replace(plan, arms=arms, stages=stages, whole=plan)


def missing(plan: Plan, store: Store) -> list[tuple[Arm, int, int]]:
    """Return the arms of the study that a finished part leaves out: arm, stages finished, stages in all."""
    whole, here = plan.whole or plan, {arm.finetune for arm in plan.arms}
    tests = _tests(whole)
    untrained = [(arm, stages_of(whole, arm, tests)) for arm in whole.arms if arm.finetune not in here]
    return [(arm, sum(map(store.done, stages)), len(stages)) for arm, stages in untrained]


def _tests(plan: Plan) -> dict[str, list[str]]:
    """Return for each stage those that test the model of it."""
    tests: dict[str, list[str]] = {path: [] for path in plan.stages}
    for path, stage in plan.stages.items():
        if STAGES[stage.kind].role == "test":
            tests[stage.parents["model"]].append(path)
    return tests
