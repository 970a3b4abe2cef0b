"""`ssrob plan` and what `ssrob portion` says at its end: stages, work, time and order, for people. Imports no torch."""

import itertools
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.table import Table

from ssrob.config.fields import ConfigError
from ssrob.config.study import Study
from ssrob.formatting import duration
from ssrob.planning.cost import training_passes
from ssrob.planning.names import arm_label
from ssrob.planning.plan import Plan
from ssrob.planning.specs import TrainSpec
from ssrob.registry.lookup import check_choice
from ssrob.registry.stages import STAGES, pace
from ssrob.runtime.time_budget import Portion
from ssrob.scheduling.disk_usage import estimate
from ssrob.scheduling.priority import blocks, complete
from ssrob.scheduling.status import stage_status, work_of
from ssrob.scheduling.workload import as_text
from ssrob.storage.store import Store

Work = Mapping[str, float | None]  # passes by stage, None where that is not known
LISTED = 100  # arms
NEXT = 3  # stages that are named as the next ones


@dataclass(frozen=True)
class Speeds:
    """Passes per second by group of kinds (`registry.stages.pace`), and what they come from."""

    of: Mapping[str, float]
    source: str

    def seconds(self, kind: str, work: float | None) -> float | None:
        """Return how long so many passes of a stage of this kind take; None where nothing is known."""
        if not STAGES[kind].work:
            return 0.0
        speed = self.of.get(pace(kind))
        return None if work is None or speed is None else work / speed


def parse_speeds(texts: Iterable[str]) -> dict[str, float]:
    """Read speeds such as ``50000`` (networks, whatever the stage) or ``training=50000``; passes per second."""
    groups = {pace(kind): row.network for kind, row in STAGES.items() if row.work}
    speeds: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            speed = float(number)
        except ValueError:
            speed = 0.0
        if not speed > 0:
            raise ConfigError(f"speed: expected passes per second, as NUMBER or KIND=NUMBER, found {text!r}")
        all_networks = [each for each, network in groups.items() if network]
        chosen = [check_choice("kind of stage", name, groups)] if name else all_networks
        speeds |= dict.fromkeys(chosen, speed)
    return speeds


def measured_speeds(study: Study) -> dict[str, float]:
    """Return the speed of the study's network here, timed for half a second, for all kinds that run it."""
    import torch

    from ssrob.data.sources import image_shape
    from ssrob.models.network import CLASS_HEAD, Architecture
    from ssrob.models.speed import passes_per_second

    shape = image_shape(study.data)
    if shape is None:
        raise ConfigError("--measure: the size of the images is not known before the data is there")
    height, width, channels = shape
    model, grey, training = study.model, [0.5] * channels, study.finetune
    images = (channels, height, width)
    network = Architecture(model.name, model.arguments, images, grey, grey, heads={CLASS_HEAD: 2}, classes=("0", "1"))
    torch.set_num_threads(training.threads)
    speed = passes_per_second(network, device=study.device, batch_size=training.batch_size, kind=training.precision)
    return parse_speeds([str(speed)])


def speeds(plan: Plan, store: Store, work: Work, given: Mapping[str, float]) -> Speeds:
    """Return the speeds that are given and, for other kinds, the median of a study's finished stages.

    Stages are slower on some devices than on others: those on the device of the latest one count.
    """
    facts = {path: store.provenance(path) for path in plan.stages if store.done(path) and work[path]}
    timed = {path: fact for path, fact in facts.items() if fact["seconds"]}
    device = max(timed.values(), key=lambda fact: fact["started"])["device"] if timed else ""
    measured: dict[str, list[float]] = {}
    for path, fact in timed.items():
        if fact["device"] == device:
            measured.setdefault(pace(plan.stages[path].kind), []).append((work[path] or 0.0) / fact["seconds"])
    sources = ["the speeds that were given or measured"] if given else []
    if set(measured) - set(given):
        sources.append(f"{sum(map(len, measured.values()))} finished stages on {device}")
    medians = {group: statistics.median(each) for group, each in measured.items()}
    return Speeds(medians | dict(given), " and ".join(sources))


def plan_text(plan: Plan, store: Store, given: Mapping[str, float]) -> str:
    """Say what a study consists of, how much of it is done, how long the rest takes, in which order, and its arms.

    given: passes per second by group of kinds, as `parse_speeds` returns them.
    """
    work = work_of(plan, store)
    speed = speeds(plan, store, work, given)
    left = sum(not store.done(arm.finetune) for arm in plan.arms)
    models = f"{len(plan.arms)} models ({_seeds(plan)}), {left or 'none'} still to train"
    head = f"{plan.study.study}: {models}, results in {plan.folder}"
    foot = _foot(speed)
    if _left(store, plan.stages):
        foot += f"\nThe remaining work needs {estimate(plan, store)}."
    if warning := emulation(plan, store):
        foot += f"\nSlow: {warning}."
    arms = as_text(_arms(plan, store))
    if (more := len(plan.arms) - LISTED) > 0:
        arms += f"\n... and {more} more arms; ssrob ls CONFIG lists every stage"
    kinds, blocks = as_text(_kinds(plan, store, work, speed)), as_text(_blocks(plan, store, work, speed))
    return "\n\n".join([head, kinds, foot, blocks, arms])


def emulation(plan: Plan, store: Store) -> str:
    """Return a line about bfloat16 that this machine emulates; empty where it does not, or where none is to do.

    Imports torch only where a stage that is to do asks for bfloat16.
    """
    left = (plan.stages[path].in_bfloat16 for path in _left(store, plan.stages))
    settings = list(dict.fromkeys(itertools.chain.from_iterable(left)))
    if not settings:
        return ""
    from ssrob.hardware.device import device_of
    from ssrob.hardware.emulation import emulation_warning

    return emulation_warning(settings, device_of("auto"))


def portion_text(plan: Plan, store: Store, portion: Portion) -> str:
    """Say what a portion did, what is half done, what failed, and what comes next."""
    left = _left(store, (path for block in blocks(plan) for path in block.stages))
    done = len(plan.stages) - len(left)
    counts = f"{len(portion.done)} stages finished, {done} of {len(plan.stages)} in all"
    lines = [f"Portion of {duration(portion.seconds)}: {counts}"]
    statuses = [stage_status(plan.stages[path], store, None, 0.0) for path in left]
    half = [each for each in statuses if each.state == "stopped"]
    lines += [f"Half done:  {each.path}" + (f"  {100 * each.fraction:.0f} %" if each.fraction else "") for each in half]
    if half and not portion.done:
        lines += ["            If nothing ever finishes, raise the budget; a sweep goes on from its last block."]
    lines += [f"Failed:     {why}" for why in portion.failed.values()]
    lines += [f"Next:       {path}" for path in left[:NEXT]]
    lines += [] if left else ["All stages are done: ssrob collect, ssrob report, or the workflow, which does both"]
    work = work_of(plan, store)
    table = as_text(_blocks(plan, store, work, speeds(plan, store, work, {})))
    return "\n".join([*lines, "", table])


def _seeds(plan: Plan) -> str:
    """Count the seeds that are due, and those that wait for a look."""
    seeds = len({arm.seed for arm in plan.arms})
    waiting = len(plan.study.seeds) - seeds if plan.study.findings.looks else 0
    return f"{seeds} seed{'s' * (seeds > 1)}" + (f"; {waiting} more wait for a look" if waiting > 0 else "")


def _kinds(plan: Plan, store: Store, work: Work, speed: Speeds) -> Table:
    """Lay out by kind: number, done, to do, passes and time to do."""
    table = _table("stage", "number", "done", "to do", "million passes to do", "passes a second", "time to do")
    kinds = dict.fromkeys(stage.kind for stage in plan.stages.values())
    for kind in [*kinds, "in all"]:
        paths = [path for path, stage in plan.stages.items() if kind in (stage.kind, "in all")]
        left = _left(store, paths)
        row = [kind, *map(str, (len(paths), len(paths) - len(left), len(left)))]
        if kind == "in all" or STAGES[kind].work:
            row += [_millions(work, left), _rate(speed, kind), _time(plan, work, left, speed)]
        table.add_row(*row)
    return table


def _rate(speed: Speeds, kind: str) -> str:
    if kind == "in all":
        return ""
    rate = speed.of.get(pace(kind))
    return f"{rate:,.0f}" if rate else "?"


def _foot(speed: Speeds) -> str:
    source = f"Time, one stage after the other: from {speed.source}." if speed.source else "Time: not measured yet."
    return (
        "A pass is one image forward through the network; an input gradient costs one more, a parameter gradient two."
        f"\nOf an attack sweep this is an upper bound: broken images are skipped. {source}"
        "\n'?': no such stage is finished here; --measure times the network, --speed KIND=NUMBER says how fast it is."
    )


def _blocks(plan: Plan, store: Store, work: Work, speed: Speeds) -> Table:
    """Lay out the order of a portion: every block with its models, and what is to do."""
    table = _table("in this order", "models", "complete", "stages to do", "million passes to do", "time to do")
    whole = {arm.finetune for arm in complete(plan, store, plan.arms)}
    for block in blocks(plan):
        left = _left(store, block.stages)
        models = [len(block.arms), sum(arm.finetune in whole for arm in block.arms)] if block.arms else ["", ""]
        row = [block.name, *map(str, models), str(len(left)), _millions(work, left), _time(plan, work, left, speed)]
        table.add_row(*row)
    return table


def _arms(plan: Plan, store: Store) -> Table:
    """List the first arms: what each is, what it costs with its pre-training, and whether it is trained."""
    table = Table("arm", "seed", "passes per image", "trained", box=None)
    for arm in plan.arms[:LISTED]:
        specs = [TrainSpec.model_validate(plan.stages[path].spec) for path in (arm.pretrain, arm.finetune) if path]
        label = arm_label(arm, plan.study, init_task=arm.init_task, eps=True)
        trained = "yes" if store.done(arm.finetune) else "no"
        table.add_row(label, str(arm.seed), f"{sum(map(training_passes, specs)):,.0f}", trained)
    return table


def _left(store: Store, paths: Iterable[str]) -> list[str]:
    return [path for path in paths if not store.done(path)]


def _table(first: str, *others: str) -> Table:
    table = Table(first, *others, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _millions(work: Work, paths: list[str]) -> str:
    passes = [work[path] for path in paths]
    return "?" if None in passes else f"{sum(each or 0.0 for each in passes) / 1e6:,.1f}"


def _time(plan: Plan, work: Work, paths: list[str], speed: Speeds) -> str:
    """Write how long stages take; with a part that is not known, "more than" the part that is."""
    seconds = [speed.seconds(plan.stages[path].kind, work[path]) for path in paths]
    known_part = sum(each for each in seconds if each is not None)
    if None not in seconds:
        return duration(known_part)
    return f"> {duration(known_part)}" if known_part else "?"
