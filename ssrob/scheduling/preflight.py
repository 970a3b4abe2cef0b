"""All that can be checked before the jobs of a workflow start. Imports no torch."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssrob.config.data import Data
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.config.study import Study
from ssrob.corruptions.fingerprint import fingerprint
from ssrob.corruptions.imagenetc import is_tree
from ssrob.corruptions.published import Published
from ssrob.data.leakage import check_no_overlap
from ssrob.data.sources import check_source, opened_once
from ssrob.data.types import refusal as refuse_data
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.stage import data_stage
from ssrob.registry.attacks import REFERENCE
from ssrob.registry.optional import missing
from ssrob.scheduling.disk_usage import check_disk
from ssrob.scheduling.due import due_part
from ssrob.scheduling.images import counts_of, shape_of, tested_of
from ssrob.scheduling.network_check import check_networks
from ssrob.scheduling.ood_check import check_ood
from ssrob.scheduling.staleness import check_plugins, check_sources
from ssrob.storage.files import check_writable
from ssrob.storage.store import Store


def open_study(config: Mapping[str, Any], where: str = "config", *, starts: bool = True) -> Plan:
    """Check a config and its data, and return the plan; raises a ValueError that says what to change.

    where: what the config is called in messages.
    starts: a study is about to start, and must fit on the disk; False within one of its jobs.
    Data that is already prepared is not asked for again: a finished study needs its source no more.
    """
    plan = due_part(make_plan(parse_study(config, where)))
    check(plan, starts=starts)
    return plan


@opened_once()
def check(plan: Plan, *, starts: bool = True) -> None:
    """Check that a plan can be carried out here; raises a ValueError that says what to change."""
    if plan.study.evaluate.preset == REFERENCE and (line := missing("pyautoattack")):
        raise ConfigError(f"evaluate.preset: {REFERENCE!r} needs AutoAttack's code: {line}")
    store = Store(plan.study.results)
    _check_results(plan, store)
    for data in (plan.study.data, plan.study.pretrain_data):
        if data is not None and not store.done(data_stage(data).path):
            check_source(data)
    check_plugins(plan, store)
    if starts:
        check_sources(plan, store)
    _check_images(plan.study, store)
    _check_corruptions(plan, store, starts=starts)
    check_ood(plan, store)
    check_networks(plan, store, starts=starts)
    if starts:
        check_disk(plan, store)


def refusal(plan: Plan) -> str | None:
    """Return what keeps a plan from being carried out here, or None."""
    try:
        check(plan)
    except ValueError as error:
        return str(error)
    return None


def _check_results(plan: Plan, store: Store) -> None:
    """Refuse a results folder that Snakemake cannot name, or that cannot be written to while there is work to do."""
    if found := re.search(r"[{}\n]", str(store.root)):
        raise ConfigError(f"results: braces and line breaks are not allowed, found {found.group()!r} in {store.root}")
    if plan.study.tracking_uri is None and "?" in str(store.root.resolve()):
        remedy = "rename the folder or set tracking_uri"
        raise ConfigError(f"results: MLflow cannot keep its store below a '?'; {remedy}, found {store.root.resolve()}")
    if not all(store.done(path) for path in plan.stages):
        remedy = "make it writable or set `results` to another folder"
        try:
            check_writable(store.root, "results", remedy)
        except ValueError as error:
            raise ConfigError(str(error)) from None


def _check_images(study: Study, store: Store) -> None:
    """Refuse tests on more images than there are, and pre-training on images that the study tests on."""
    if study.pretrain_data is not None:
        check_no_overlap(study.data, study.pretrain_data)
        _check_channels(study.data, study.pretrain_data, store)
    counts = counts_of(data_stage(study.data), store)
    for section in ("evaluate", "corrupt"):
        images = getattr(study, section).images
        by_norm = images.items() if isinstance(images, dict) else [("", images)]
        for norm, count in by_norm:
            if counts is not None and count is not None and count > counts[1]:
                field = f"{section}.images.{norm}".rstrip(".")
                raise ConfigError(f"{field}: must be 1..{counts[1]} (the test images there are), found {count}")


def _check_channels(data: Data, extra: Data, store: Store) -> None:
    """Refuse pre-training on grey images for colour ones, or the other way round: its weights would not fit."""
    shapes = [shape_of(data_stage(each), store) for each in (data, extra)]
    mine, theirs = ({1: "grey", 3: "colour"}[shape[2]] if shape else None for shape in shapes)
    if mine and theirs and mine != theirs:
        raise refuse_data(extra, "source", f"must have {mine} images, as {data.name!r} has; found {theirs} images")


def _check_unchanged(plan: Plan, store: Store, where: str, folder: Path) -> None:
    now = fingerprint(folder)
    for path in (stage.path for stage in plan.of_kind("corrupt").values() if store.done(stage.path)):
        if store.provenance(path).get("corruptions", {}).get("files", now) != now:
            problem = f"{folder} has other files than when {path} was made"
            raise ConfigError(f"{where}: {problem}; remove {store.folder(path)} to have it made anew")


def _check_corruptions(plan: Plan, store: Store, *, starts: bool) -> None:
    """Refuse folders of corruptions that are not there or lack files, while there are models to test with them.

    Nor may they have changed since other models of the study were tested: no stage's key tells them apart.
    """
    if all(store.done(stage.path) for stage in plan.of_kind("corrupt").values()):
        return
    asked = plan.study.corrupt
    for name in ("frost", "official"):
        folder = getattr(asked, name)
        if folder is not None and not os.path.isdir(folder):  # False for a name too long, too
            raise ConfigError(f"corrupt.{name}: no such folder: {folder}")
        if folder is not None:
            _check_unchanged(plan, store, f"corrupt.{name}", folder)
    if asked.official is not None:
        if is_tree(asked.official):
            rule, wanted = "a folder", [f"{name}/{severity}" for name in asked.names for severity in asked.severities]
        else:
            rule, wanted = "labels.npy and a file", [f"{name}.npy" for name in ("labels", *asked.names)]
        if missing := [name for name in wanted if not os.path.exists(asked.official / name)]:
            rule = f"{asked.official} must hold {rule} for each of `names`"
            raise ConfigError(f"corrupt.official: {rule}, found no {', '.join(missing)}")
        if starts:
            _check_published(asked.official, plan, store)


def _check_published(folder: Path, plan: Plan, store: Store) -> None:
    """Refuse published files that are not whole or not of the test images, where these are known by now."""
    asked, stage = plan.study.corrupt, data_stage(plan.study.data)
    tested, shape = tested_of(stage, store), shape_of(stage, store)
    published = Published(folder, tested.classes if tested else ())
    try:
        if tested or not is_tree(folder):  # its folders are classes, whose names have to be known
            published.check_whole(asked.names, asked.severities)
            if shape:
                published.check_shape(shape)
        if tested:
            published.check_order(tested.labels, tested.rows)
    except (OSError, ValueError) as error:
        raise ConfigError(f"corrupt.official: {error}") from None
