"""The machines that share one stage: which of them this is, by the variables of torchrun or of SLURM. No torch."""

import os
from dataclasses import dataclass

REPLICA_LINES = "SSROB_REPLICA_LINES"  # set in each replica of a stage: the folder where it leaves its last line
_FIRST_PORT, _PORTS = 20_000, 10_000  # below those that Linux hands out by itself


@dataclass(frozen=True)
class Nodes:
    """Machine number `rank` of `count`; the default is one by itself. meet_at: ``host:port`` on the first of them."""

    rank: int = 0
    count: int = 1
    meet_at: str = ""


def nodes() -> Nodes:
    """Return this process's place among the machines that run the same command; raises ValueError if it is unclear.

    By torchrun's variables PET_NNODES, PET_NODE_RANK and PET_RDZV_ENDPOINT, or as `srun` starts one process on each
    node of a job: the first node is the one that called it.
    """
    given = os.environ
    if "PET_NNODES" in given:
        count, rank = int(given["PET_NNODES"]), int(given.get("PET_NODE_RANK", 0))
        meet_at = given.get("PET_RDZV_ENDPOINT", "")
    elif int(given.get("SLURM_STEP_NUM_NODES", 1)) > 1:
        count, rank = int(given["SLURM_STEP_NUM_NODES"]), int(given["SLURM_NODEID"])
        job = int(given["SLURM_JOB_ID"])  # jobs that share a first node meet at ports of their own
        meet_at = f"{given['SLURM_LAUNCH_NODE_IPADDR']}:{_FIRST_PORT + job % _PORTS}"
        if int(given.get("SLURM_STEP_NUM_TASKS", count)) != count:
            raise ValueError(f"srun: expected one task on each node, found {given['SLURM_STEP_NUM_TASKS']} on {count}")
    else:
        return Nodes()
    if not 0 <= rank < count or (count > 1 and ":" not in meet_at):
        expected = "PET_NODE_RANK from 0 to PET_NNODES - 1 and PET_RDZV_ENDPOINT as host:port"
        raise ValueError(f"nodes: expected {expected}, found {rank}, {count} and {meet_at!r}")
    return Nodes(rank, count, meet_at)
