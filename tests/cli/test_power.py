"""`ssrob power` and `ssrob look` in a study whose claims are on detection, too; its results are fabricated."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ssrob import cli
from ssrob.analysis.collect import arm_columns
from ssrob.cli.power import _sizes_of, planned_images, take_look
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.scheduling.due import due_part
from ssrob.storage.tables import ALL_EXAMPLES, ARMS, OOD_SCORES, ROBUSTNESS
from tests.conftest import tiny_config
from typer.testing import CliRunner

DETECTION = {"measure": "auroc", "where": [0, 0]}


class Finished:
    """A store in which everything is finished."""

    root = Path()

    def done(self, path: str) -> bool:
        return True

    def provenance(self, path: str, *names: str) -> dict[str, float]:
        return {"seconds": 7200.0 if path.startswith("ood/") else 3600.0}


def planned(folder: Path, **changes: Any) -> Plan:
    """Plan a study in which `at_ssl_clean` detects better, and `at_ssl_adv` as well as plain AT."""
    claims = {"better": DETECTION | {"compare": "at_ssl_clean"}, "same": DETECTION | {"compare": "at_ssl_adv"}}
    claims["OOD"] = DETECTION | {"compare": "at_ssl_joint", "against": "at_ssl_joint_clean"}
    study = {"ood": {"sets": ["blobs"], "images": 80}, "seeds": [0, 1, 2, 3], "findings": {"claims": claims}}
    study["arms"] = [
        {"variant": ["at", "at_ssl_clean", "at_ssl_adv", "at_ssl_joint", "at_ssl_joint_clean"], "norm": "linf"}
    ]
    study["findings"] |= changes.pop("findings", {})
    return make_plan(parse_study(tiny_config(folder, **study | changes)))


def tables(plan: Plan, _: object = None) -> dict[str, pd.DataFrame]:
    """Fabricate scores of the arms that are due; those of `at_ssl_joint` are missing."""
    gains, scores = {"at_ssl_clean": 2.0}, []
    for arm in plan.arms:
        draws = np.random.default_rng([arm.seed, len(arm.variant)])
        for name, shift in (("test", 1.0 + gains.get(arm.variant, 0.0)), ("blobs", 0.0)):
            about = {"arm": arm.finetune, "checkpoint": "best", "image_set": name, "score": "max_softmax", "eps": 0.0}
            scores.append(pd.DataFrame({"example": np.arange(60), "value": draws.normal(shift, 1, 60), **about}))
            if arm.variant.startswith("at_ssl_joint"):
                scores.pop()
    arms = pd.DataFrame([arm_columns(arm) | {"passes": 1.0} for arm in plan.arms]).reindex(columns=list(ARMS))
    empty = {"robustness": ROBUSTNESS, "examples": ALL_EXAMPLES}
    found = {name: pd.DataFrame(columns=list(columns)) for name, columns in empty.items()}
    return found | {"arms": arms, "ood_scores": pd.concat(scores)[list(OOD_SCORES)]}


@pytest.fixture(autouse=True)
def _fabricated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssrob.analysis.collect.collect", tables)


def test_a_look_goes_on_with_what_an_open_claim_on_detection_needs(tmp_path: Path) -> None:
    plan = due_part(planned(tmp_path, findings={"looks": [3, 4]}))
    assert {arm.seed for arm in plan.arms} == {0, 1, 2}
    going_on = take_look(plan, Finished())  # type: ignore[arg-type]
    assert going_on is not None
    later = {arm.variant for arm in going_on.arms if arm.seed == 3}
    assert later == {"at", "at_ssl_adv"}, "better is decided, of OOD nothing is known"
    tested = {stage.parents["model"] for stage in going_on.of_kind("ood").values()}
    assert tested == {arm.finetune for arm in going_on.arms}
    assert take_look(going_on, Finished()) is None  # type: ignore[arg-type]


def test_power_says_what_claims_on_detection_could_detect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path)
    monkeypatch.setattr("ssrob.cli.power.plan_and_store", lambda *_: (plan, Finished()))
    monkeypatch.setattr("ssrob.cli.power.prepared_facts", lambda *_: {"counts": {"test": 60}})
    done = CliRunner().invoke(cli.app, ["power", "study.yaml"])
    assert done.exit_code == 0, done.exception
    head, *lines = done.output.splitlines()
    assert head == "4 seeds and 60 test images are planned; with 80 % power:"
    assert any(line.startswith("better: AT + rotation") for line in lines)
    hours = 4 * 2 * (1 + 2)  # seeds, arms, training and test of detection, on as many images as it has
    detects = [line for line in lines if "points now" in line]
    assert len(detects) == 2
    assert all(f"({hours:.1f} core-hours)" in line for line in detects)
    assert lines[-1] == "not compared by two finished seeds: C2, C3, C4, C5a, C5b, OOD"


def test_a_plan_counts_the_images_of_each_claim(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    attacked = plan.study.findings.claims["same"].model_copy(update={"where": "at"})
    settings = plan.study.findings.model_copy(
        update={"claims": {"clean": plan.study.findings.claims["same"], "under": attacked}}
    )
    images = planned_images(plan.study, settings, 70)
    assert (images["C2"], images["clean"], images["under"]) == (40, 70, 50)
    assert _sizes_of(images, ["C2", "C3", "clean"]) == "40 test images (C2, C3), 70 test images (clean)"
