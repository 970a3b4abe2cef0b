# Self-supervision and robustness: data -> pre-training -> fine-tuning -> attacks and corruptions -> tables -> report.
# `snakemake` runs config/quickstart.yaml; `snakemake --configfile config/....yaml` any other study.
from snakemake.utils import min_version

min_version("9.10")

if "study" not in config:

    configfile: "config/quickstart.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/stages.smk"
include: "workflow/rules/collect.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/track.smk"


rule all:
    default_target: True
    input:
        study_file("report.html"),
        study_file("tracked.json"),
