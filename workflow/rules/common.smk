# The plan is made once, here; rules look stages up in it by key. Stages write to stderr through a pipe, because the
# progress bars of jobs that run side by side would spoil each other on one terminal.
import json
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from ssrob.config.loader import load_config, restore_nulls
from ssrob.config.plugins import find_plugins_beside
from ssrob.runtime import fork_server
from ssrob.scheduling.preflight import open_study
from ssrob.registry.stages import STAGES
from ssrob.storage.store import Store, StoreError

try:
    # Refuses a key that is given twice and numbers such as 1:30; Snakemake's own reader takes the last, and 90.
    for file in workflow.configfiles:
        find_plugins_beside(Path(file), load_config(file).get("plugins") or [])
    restore_nulls(config, workflow.config_settings.config)
    PLAN = open_study(config, starts=workflow.is_main_process)
except (ValueError, StoreError) as error:
    raise WorkflowError(str(error)) from None

KINDS = list(STAGES)
PYTHON = sys.executable
RESULTS = str(PLAN.study.results)
STORE = Store(PLAN.study.results)
CONFIG = json.dumps(config)


onstart:
    if workflow.local_exec:  # jobs of a cluster are on other machines
        fork_server.start()
    # Snakemake's limit of 100 starts a second looks again a second later, after every look: with hundreds of finished
    # stages that is most of a core (snakemake 9.27).
    workflow.scheduler.job_rate_limiter = None


wildcard_constraints:
    key="[A-Za-z0-9_.-]+",


def stage_of(kind, key):
    try:
        return PLAN.stages[f"{kind}/{key}"]
    except KeyError:
        raise WorkflowError(
            f"{kind}/{key}: no such stage in the study {PLAN.study.study}. If its config was changed while the "
            "workflow ran (the jobs of a cluster read it anew), start the workflow again: what is finished stays."
        ) from None


def stage_file(kind):
    """The file that means a stage of this kind is done, with {key} to fill in."""
    return f"{STORE.folder(kind)}/{{key}}/stage.json"


def log_file(kind):
    """What a job printed. Snakemake empties it when it starts the job again; the stage's own log.txt goes on."""
    return f"{STORE.folder(kind)}/{{key}}/job.log"


def before(kind):
    """The done-files of the stages that a stage waits for; of a finished one, of those that it was made from."""

    def files(wildcards):
        stage = stage_of(kind, wildcards.key)
        waits_for = stage.parents.values() if STORE.done(stage.path) else stage.before
        return [f"{STORE.folder(path)}/stage.json" for path in waits_for]

    return files


def stage_json(kind):
    """All that a stage is, for its command line: what is not in there cannot change the result."""
    return lambda wildcards: stage_of(kind, wildcards.key).to_json()


def of_stage(kind, what):
    """What a stage asks of the machine: cores, threads or gpus."""
    return lambda wildcards: getattr(stage_of(kind, wildcards.key), what)


def study_file(name):
    return f"{PLAN.folder}/{name}"
