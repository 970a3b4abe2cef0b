"""One identity of an arm: its columns, its folder's name and its words."""

from pathlib import Path

import pytest
from ssrob.analysis.sweeps import Cell
from ssrob.config.fields import ConfigError
from ssrob.config.loader import load_study, parse_study
from ssrob.config.variants import base_of, control_of, family
from ssrob.planning.names import SHARED, ArmColumns, arm_id, arm_label
from ssrob.planning.plan import Arm, make_plan
from ssrob.planning.specs import TrainSpec
from ssrob.storage.tables import ARM
from tests.conftest import ROOT, tiny_config

VARIANTS = load_study(ROOT / "config/quickstart.yaml").variants


def arm(variant: str, **columns: object) -> ArmColumns:
    return ArmColumns.model_validate({"variant": variant, "norm": "linf", "eps_train": 8 / 255, "seed": 0} | columns)


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({"variant": "standard", "norm": None, "eps_train": None}, "standard training"),
        ({"variant": "at", "eps_scale": 0.5}, "AT, l-inf, 0.5 × eps"),
        ({"variant": "at_ssl_clean", "task": "rotation", "weight": 0.5}, "AT + rotation on clean images, w 0.5, l-inf"),
        (
            {"variant": "at_ssl_adv_nograd", "task": "jigsaw"},
            "AT + jigsaw on adversarial images, no SSL gradient, l-inf",
        ),
        ({"variant": "at", "init": "ssl", "tune": "head"}, "AT, l-inf, from SSL pre-training, linear fine-tuning"),
        (
            {"variant": "at", "budget": "passes of ssl + at (rotation)"},
            "AT, l-inf (passes of rotation pre-training and AT)",
        ),
        ({"variant": "mine", "task": "rotation"}, "mine rotation, l-inf"),
        ({"variant": "adversarial_ssl", "task": "jigsaw"}, "adversarial jigsaw pre-training, l-inf"),
    ],
)
def test_an_arm_in_words(columns: dict[str, object], label: str) -> None:
    assert arm_label(arm(**columns)) == label  # type: ignore[arg-type]


def test_the_words_of_an_own_variant_and_of_a_reader_without_the_study(tmp_path: Path) -> None:
    mine = {"label": "mine with {task}", "perturb": {"adv": {"xent": 1}}, "train": {"adv": {"xent": 1, "ssl": 1}}}
    study = parse_study(tiny_config(tmp_path, variants={"mine": mine}))
    assert arm_label(arm("mine", task="rotation"), study) == "mine with rotation, l-inf"
    assert arm_label(arm("at", init="ssl"), init_task="jigsaw", eps=True) == "AT, l-inf 8/255, from jigsaw pre-training"


@pytest.mark.parametrize("config", ["cifar10", "cifar10-small", "quickstart"])
def test_no_two_arms_of_a_study_share_a_name(config: str) -> None:
    study = load_study(ROOT / f"config/{config}.yaml")
    arms = [each for each in make_plan(study).arms if each.seed == 0]
    assert len({arm_label(each, study, init_task=each.init_task) for each in arms}) == len(arms)


def test_the_name_for_machines_begins_the_key() -> None:
    plan = make_plan(load_study(ROOT / "config/quickstart.yaml"))
    for each in plan.arms:
        assert each.finetune.startswith(f"finetune/digits-{arm_id(each)}-")


def test_specs_arms_and_tables_take_the_columns_from_one_place() -> None:
    columns = set(ArmColumns.model_fields)
    assert columns < set(TrainSpec.model_fields)
    assert columns < set(Arm.model_fields)
    assert set(ARM) == columns | {"arm", "init_task"}


def test_controls_are_known_by_their_rows() -> None:
    assert control_of("at_ssl_adv", "no_gradient", VARIANTS) == "at_ssl_adv_nograd"
    assert control_of("at_ssl_adv", "views", VARIANTS) == "at_ssl_adv_views"
    assert control_of("at", "views", VARIANTS) is None
    assert {base_of(name, VARIANTS) for name in VARIANTS} == {"standard", "at", "trades"}
    assert base_of("trades_ssl_adv_nograd", VARIANTS) == "trades"
    assert [name for name, row in VARIANTS.items() if row.role == "two_attacks"] == ["at_two"]


@pytest.mark.parametrize(("row", "message"), [({"role": "views"}, "control_of"), ({"control_of": "at"}, "role")])
def test_a_control_says_of_what(tmp_path: Path, row: dict[str, str], message: str) -> None:
    variant = family()["variants"]["at"] | row
    with pytest.raises(ConfigError, match=message):
        parse_study(tiny_config(tmp_path, variants={"mine": variant}))


def test_a_control_of_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    variant = family()["variants"]["at"] | {"role": "views", "control_of": "at_ssl_ad"}
    with pytest.raises(ConfigError, match=r"variants.mine.control_of 'at_ssl_ad' \(did you mean 'at_ssl_adv'"):
        parse_study(tiny_config(tmp_path, variants={"mine": variant}))


def test_findings_compare_arms_by_every_column_that_their_seeds_share() -> None:
    assert set(SHARED) == set(Cell._fields) - {"checkpoint", "init_task"}
