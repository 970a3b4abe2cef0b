"""Which seeds of a study with planned looks are due, by what was recorded at the looks before."""

import pytest
from ssrob.config.loader import parse_study
from ssrob.planning.plan import Plan, make_plan
from ssrob.scheduling.due import due_part, identity, write_record
from tests.conftest import tiny_config

ARMS = [{"variant": ["standard", "at", "at_ssl_clean"], "norm": "linf"}]


def plan(tmp_path, looks: list[int]) -> Plan:
    config = tiny_config(tmp_path / "results", seeds=[0, 1, 2, 3, 4, 5], arms=ARMS, findings={"looks": looks})
    return make_plan(parse_study(config))


def seeds(found: Plan) -> dict[str, list[int]]:
    names = dict.fromkeys(arm.variant for arm in found.arms)
    return {name: [arm.seed for arm in found.arms if arm.variant == name] for name in names}


def test_without_looks_everything_is_due(tmp_path) -> None:
    whole = plan(tmp_path, [])
    assert due_part(whole) is whole


def test_later_seeds_wait_for_the_look_before_them(tmp_path) -> None:
    whole = plan(tmp_path, [3, 5])
    due = due_part(whole)
    assert seeds(due) == {name: [0, 1, 2] for name in ("standard", "at", "at_ssl_clean")}
    assert {path for arm in due.arms for path in arm.evaluate.values()} <= set(due.stages)
    assert all(parent in due.stages for stage in due.stages.values() for parent in stage.parents.values())
    assert not {arm.finetune for arm in whole.arms if arm.seed > 2} & set(due.stages)
    assert due.folder != whole.folder, "tables and report of a look have a folder of their own"


def test_what_no_open_claim_needs_stops(tmp_path) -> None:
    whole = plan(tmp_path, [3, 5])
    needed = [identity(arm) for arm in whole.arms if arm.variant != "standard" and arm.seed == 0]
    write_record(whole, {3: needed})
    due = due_part(whole)
    assert seeds(due) == {"standard": [0, 1, 2], "at": [0, 1, 2, 3, 4], "at_ssl_clean": [0, 1, 2, 3, 4]}
    write_record(due, {3: needed, 5: needed[:1]})
    assert seeds(due_part(whole))["at"] == [0, 1, 2, 3, 4, 5]
    assert seeds(due_part(whole))["at_ssl_clean"] == [0, 1, 2, 3, 4]


def test_a_decided_study_is_finished(tmp_path) -> None:
    whole = plan(tmp_path, [3, 5])
    before = due_part(whole)
    write_record(whole, {3: [], 5: []})
    assert [arm.finetune for arm in due_part(whole).arms] == [arm.finetune for arm in before.arms]


@pytest.mark.parametrize("looks", [[3], [3, 6]])
def test_seeds_beyond_the_last_look_are_due_for_what_is_open(tmp_path, looks: list[int]) -> None:
    whole = plan(tmp_path, looks)
    write_record(whole, {3: map(identity, whole.arms)})
    assert len(due_part(whole).arms) == len(whole.arms)
