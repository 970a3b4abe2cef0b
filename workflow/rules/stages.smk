# One rule per kind of stage, all alike: `ssrob run` knows what each of them does. Profiles name them.
for kind in KINDS:

    rule:
        name:
            kind
        input:
            ancient(before(kind)),
        output:
            stage_file(kind),
        log:
            log_file(kind),
        conda:
            "../../envs/environment.yaml"
        threads: of_stage(kind, "cores")
        resources:
            gpu=of_stage(kind, "gpus"),
        params:
            python=PYTHON,
            results=lambda _: RESULTS,
            stage=stage_json(kind),
            # A training on several nodes: a profile sets `mpi: srun ...`, which starts this on each of them.
            launch=lambda _, resources: resources.get("mpi", ""),
        shell:
            "{params.launch} {params.python:q} -m ssrob run --results {params.results:q} --stage {params.stage:q} 2>&1 | tee -i {log:q} >&2"
