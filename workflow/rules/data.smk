rule data:
    # Source images to memory-mapped arrays with a validation split.
    input:
        ancient(parents("data")),
    output:
        stage_file("data"),
    log:
        log_file("data"),
    conda:
        "../../envs/environment.yaml"
    threads: of_stage("data", "threads")
    params:
        python=PYTHON,
        results=lambda _: RESULTS,
        stage=stage_json("data"),
    shell:
        "{params.python:q} -m ssrob run --results {params.results:q} --stage {params.stage:q} 2>&1 | tee -i {log:q} >&2"
