# The workflow is workflow/Snakefile, where the Snakemake workflow catalogue looks for it; this file is for `snakemake -s`.
include: "workflow/Snakefile"


workflow.default_target = "all"  # which an included file cannot set
