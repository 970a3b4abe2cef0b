"""In which order a study is worth running when time may end at any point. Imports no torch.

A study stage by stage has nothing to compare before nearly all of it is done. Here it falls into blocks: all arms of
one part of the study (``part`` of a block of arms), one training norm and one seed. Blocks are run one after the
other and, within each, arm after arm, a training followed by its tests; so whatever is finished is a paired comparison.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ssrob.plan import Arm, Plan
from ssrob.store import Store, StoreError

TRAININGS = ("data", "pretrain", "finetune")


@dataclass(frozen=True)
class Block:
    """Arms to be compared with each other, and their stages that no earlier block has, in the order to run them."""

    part: str
    norm: str  # that arms are trained on; those trained on none belong to the first
    seed: int
    arms: tuple[Arm, ...]
    stages: tuple[str, ...]

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.part}, {self.norm}, seed {self.seed}"


def blocks(plan: Plan) -> list[Block]:
    """Return a study's blocks: parts as the config first names them, then norms and seeds in the config's order.

    Stages that belong to no arm come with the last block.
    """
    members: dict[tuple[int, int, int], list[Arm]] = defaultdict(list)
    parts, norms = list(dict.fromkeys(plan.parts.values())), list(plan.study.threat)
    seeds = list(dict.fromkeys([*plan.study.seeds, *(arm.seed for arm in plan.arms)]))
    for arm in plan.arms:
        norm = norms.index(arm.norm) if arm.norm else 0
        members[parts.index(plan.parts[arm.finetune]), norm, seeds.index(arm.seed)].append(arm)
    tests, taken, found = _tests(plan), set[str](), []
    for n, (key, arms) in enumerate(sorted(members.items())):
        order = [path for arm in arms for path in stages_of(plan, arm, tests)]
        order += plan.stages if n + 1 == len(members) else []
        new = [path for path in dict.fromkeys(order) if path not in taken]
        taken |= set(new)
        found.append(Block(parts[key[0]], norms[key[1]], seeds[key[2]], tuple(arms), tuple(new)))
    return found


def stages_of(plan: Plan, arm: Arm, tests: dict[str, list[str]] | None = None) -> list[str]:
    """Return all stages of an arm in an order in which they can run: what it is trained from, itself, its tests.

    tests: by model, the stages that test it, for a caller who asks about many arms.
    """
    tests = _tests(plan) if tests is None else tests
    return [stage for path in [*_ancestors(plan, arm.finetune), arm.finetune] for stage in [path, *tests[path]]]


def complete(plan: Plan, store: Store, arms: Iterable[Arm]) -> list[Arm]:
    """Return the arms all of whose stages are finished: those that can be compared."""
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
    left = [(arm, stages_of(whole, arm, tests)) for arm in whole.arms if arm.finetune not in here]
    return [(arm, sum(map(store.done, stages)), len(stages)) for arm, stages in left]


def _tests(plan: Plan) -> dict[str, list[str]]:
    """Return for each training the stages that test it, each once: with the last of the trainings that it reads."""
    found: dict[str, list[str]] = {path: [] for path in plan.stages}
    place = {path: i for i, path in enumerate(plan.stages)}
    for path, stage in plan.stages.items():
        read = [parent for parent in stage.parents.values() if plan.stages[parent].kind != "data"]
        if stage.kind not in TRAININGS and read:
            found[max(read, key=place.__getitem__)].append(path)
    return found


def _ancestors(plan: Plan, path: str) -> Iterable[str]:
    parents = plan.stages[path].parents.values()
    return dict.fromkeys(each for parent in parents for each in [*_ancestors(plan, parent), parent])
