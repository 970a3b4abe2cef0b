"""Which machine of several this is: by torchrun's variables, by those of srun, or alone."""

import pytest
from ssrob.hardware.nodes import Nodes, nodes

VARIABLES = ("PET_NNODES", "PET_NODE_RANK", "PET_RDZV_ENDPOINT", "SLURM_STEP_NUM_NODES", "SLURM_NODEID", "SLURM_JOB_ID")
SLURM = {"SLURM_STEP_NUM_NODES": 2, "SLURM_NODEID": 1, "SLURM_JOB_ID": 30_007, "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"}
TORCHRUN = {"PET_NNODES": 2, "PET_NODE_RANK": 1, "PET_RDZV_ENDPOINT": "first:29500"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Nodes()),
        ({"SLURM_JOB_ID": 7, "SLURM_STEP_NUM_NODES": 1}, Nodes()),  # every job of a study is such a step
        (SLURM, Nodes(1, 2, "10.0.0.1:20007")),
        (TORCHRUN, Nodes(1, 2, "first:29500")),
        (SLURM | TORCHRUN, Nodes(1, 2, "first:29500")),
    ],
)
def test_the_place_among_nodes(
    environment: dict[str, object], expected: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    assert nodes() == expected


@pytest.mark.parametrize("wrong", [{"PET_NODE_RANK": 2}, {"PET_RDZV_ENDPOINT": "first"}])
def test_an_impossible_place_is_refused(wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TORCHRUN | wrong).items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match="expected PET_NODE_RANK from 0"):
        nodes()


def test_several_tasks_on_a_node_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SLURM | {"SLURM_STEP_NUM_TASKS": 4}).items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match="expected one task on each node, found 4 on 2"):
        nodes()
