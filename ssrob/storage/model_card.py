"""The card of an exported model: what it is, how to load it, how good it is and how that was measured."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml
from statsmodels.stats.proportion import proportion_confint

from ssrob.formatting import NORMS, eps_text, with_interval
from ssrob.planning.names import arm_label
from ssrob.planning.specs import TrainSpec
from ssrob.registry.corruptions import BENCHMARK
from ssrob.registry.lookup import load
from ssrob.registry.stages import STAGES
from ssrob.storage.store import Store, prepared_facts
from ssrob.storage.tables import read_table, shares


@dataclass(frozen=True)
class Tested:
    """A finished stage that tested a model."""

    kind: str
    key: str
    spec: dict[str, Any]

    @property
    def path(self) -> str:
        """The stage's place below ``results/stages``."""
        return f"{self.kind}/{self.key}"

    @property
    def checkpoint(self) -> str:
        """Which of the model's weights were tested."""
        return str(self.spec.get("checkpoint", "best"))


def card(path: str, store: Store, tested: Iterable[Tested]) -> str:
    """Write the card of the model that the stage `path` trained, in Markdown."""
    stage, architecture = store.manifest(path), json.loads(store.output(path, "model.json").read_text())
    spec, facts = TrainSpec.model_validate(stage["spec"]), store.provenance(path)
    name = _name(stage, store)
    parts = [_front_matter(architecture, name), f"# {name}", _sentence(stage, architecture, facts)]
    parts += _usage(stage, architecture)
    for test in tested:
        if section := STAGES[test.kind].card:
            parts += load(section)(test, store)
    return "\n\n".join([*parts, *_training(stage, spec, facts, store)]) + "\n"


def _front_matter(architecture: dict[str, Any], name: str) -> str:
    """Return what model hubs read: the model's name and library, and what it is for."""
    about: dict[str, Any] = {"model_name": name, "library_name": "ssrob"}
    about |= {"pipeline_tag": "image-classification"} if "class" in architecture["heads"] else {}
    about["tags"] = ["pytorch", "safetensors", "adversarial-robustness", "self-supervised-learning"]
    return f"---\n{yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=1000)}---"


def _name(stage: dict[str, Any], store: Store) -> str:
    """Return the model's name for people, as in reports and in MLflow."""
    spec, init = TrainSpec.model_validate(stage["spec"]), stage["parents"].get("init")
    init_task = store.manifest(init)["spec"].get("task") if init and store.done(init) else None
    return f"{arm_label(spec, init_task=init_task, eps=True)}, seed {spec.seed}"


def _sentence(stage: dict[str, Any], architecture: dict[str, Any], facts: dict[str, Any]) -> str:
    spec = TrainSpec.model_validate(stage["spec"])
    settings = ", ".join(f"{name} {value}" for name, value in architecture["arguments"].items())
    network = f"{architecture['backbone']} ({settings})" if settings else architecture["backbone"]
    size = f" of {facts['parameters']:,} parameters" if "parameters" in facts else ""
    start = "random weights" if spec.init == "random" else f"the pre-training `{spec.init}`"
    return f"A {network} network{size}, trained on `{spec.data}` by the variant `{spec.variant}` from {start}."


def _usage(stage: dict[str, Any], architecture: dict[str, Any]) -> Iterator[str]:
    channels, height, width = architecture["shape"]
    images = f"images (N, {channels}, {height}, {width}), float in [0, 1]"
    use = "logits = network(images)" if "class" in architecture["heads"] else "features = network.features(images)"
    plugins = "".join(f"import {name}\n" for name in stage["settings"].get("plugins", []))
    yield "## Use"
    yield (
        f"```python\n{plugins}from ssrob.models.serialization import load_network\n"
        f'network = load_network("best.safetensors")  # in eval mode; normalises by itself\n{use}  # {images}\n```'
    )
    yield "`best` was chosen on validation images, `last` is the end of training; `model.json` rebuilds the network."
    if classes := architecture.get("classes"):
        shown = ", ".join(map(str, classes)) if len(classes) <= 20 else f"{len(classes)}, listed in `model.json`"
        yield f"Classes, in the order of the logits: {shown}."


def robustness(test: Tested, store: Store) -> Iterator[str]:
    """Say how many test images stay right under perturbations."""
    examples = read_table(store.output(test.path, "robustness.parquet"))
    rows = []
    for norm, grid in test.spec["eps"].items():
        failed = examples[examples["eval_norm"] == norm]["first_failed"]
        rows += [
            f"| {NORMS[norm]} | {eps_text(eps) if eps else '0 (clean)'} | {_share(failed > eps)} |" for eps in grid
        ]
    n = len(examples) // max(1, len(test.spec["eps"]))
    yield f"## Accuracy under perturbations, `{test.checkpoint}`"
    yield "\n".join(["| norm | eps | % correct (95 % interval) |", "|---|---|---|", *rows])
    yield (
        f"Of {n} test images, with the attacks of preset `{test.spec['preset']}`: upper bounds, as any attack's are. "
        f"{_checked(test, store)} Per image: `evaluate-{test.checkpoint}/robustness.parquet`."
    )


def _checked(test: Tested, store: Store) -> str:
    checks = read_table(store.output(test.path, "checks.parquet"))
    if checks.empty:
        return "The sweep was not checked for signs of a weak attack."
    failed = checks[~checks["passed"]]
    signs = "; ".join(f"{row.check} ({row.eval_norm}): {row.detail}" for row in failed.itertuples())
    return f"Signs of a weak attack: {signs or 'none'}."


def corruptions(test: Tested, store: Store) -> Iterator[str]:
    """Say how many corrupted test images are right."""
    table = read_table(store.output(test.path, "corruptions.parquet"))
    means = table.assign(accuracy=shares(table)).groupby("corruption", sort=False)["accuracy"].mean()
    shared = means[means.index.isin(BENCHMARK)]
    severities = ", ".join(map(str, test.spec["severities"]))
    yield f"## Accuracy under natural corruptions, `{test.checkpoint}`"
    rows = [f"| {name} | {100 * share:.1f} |" for name, share in means.items()]
    yield "\n".join([f"| corruption | % correct, mean over severities {severities} |", "|---|---|", *rows])
    if len(shared):
        mean, n = 100 * shared.mean(), int(table.n.max())
        yield f"Mean of the {len(shared)} benchmark corruptions: {mean:.1f} %, of {n} test images."


def _training(stage: dict[str, Any], spec: TrainSpec, facts: dict[str, Any], store: Store) -> Iterator[str]:
    data = stage["parents"]["data"]
    trained = f"`{spec.data}`"
    if store.done(data):
        about = prepared_facts(store, data)
        counts = ", ".join(f"{count} {split}" for split, count in about["counts"].items())
        trained += f" ({about['source']}; images: {counts}; fingerprint `{about['fingerprint']}`)"
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("python", "torch", "ssrob"))
    rows = {
        "data": trained,
        "epochs": f"{spec.training.epochs:g}, best at {facts['best_epoch']:g}",
        "stage": f"`{stage['kind']}/{stage['key']}`",
        "code": f"`{facts['commit'] or 'not in a checkout'}`; {versions}",
        "ran on": f"{facts['device']}, {facts['started'][:10]}, {facts['seconds']:.0f} s",
    }
    yield "## Training"
    yield "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    yield "All settings are in `spec.json`, what it ran on in `provenance.json`, its curves in `training.parquet`."


def _share(hits: "pd.Series[bool]") -> str:
    low, high = proportion_confint(int(hits.sum()), len(hits), method="wilson")
    return with_interval(100 * float(hits.mean()), 100 * low, 100 * high)
