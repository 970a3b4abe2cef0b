# The plan is made once, here; rules look stages up in it by key. Stages write to stderr through a pipe, because the
# progress bars of jobs that run side by side would spoil each other on one terminal.
import json
import sys

from snakemake.exceptions import WorkflowError

from ssrob.door import open_study
from ssrob.store import Store

try:
    PLAN = open_study(config)
except ValueError as error:
    raise WorkflowError(str(error)) from None

PYTHON = sys.executable
RESULTS = str(PLAN.study.results)
STORE = Store(PLAN.study.results)
CONFIG = json.dumps(config)


wildcard_constraints:
    key="[A-Za-z0-9_.-]+",


def stage_file(kind):
    """The file that means a stage of this kind is done, with {key} to fill in."""
    return f"{STORE.folder(kind)}/{{key}}/stage.json"


def log_file(kind):
    return f"{STORE.folder(kind)}/{{key}}/log.txt"


def parents(kind):
    """The done-files of the stages that a stage reads."""
    return lambda wildcards: [
        f"{STORE.folder(path)}/stage.json"
        for path in PLAN.stages[f"{kind}/{wildcards.key}"].parents.values()
    ]


def stage_json(kind):
    """All that a stage is, for its command line: what is not in there cannot change the result."""
    return lambda wildcards: PLAN.stages[f"{kind}/{wildcards.key}"].to_json()


def study_file(name):
    return f"{PLAN.folder}/{name}"
