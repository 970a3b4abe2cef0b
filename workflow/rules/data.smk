rule data:
    # Source images to memory-mapped arrays with a validation split.
    input:
        ancient(parents("data")),
    output:
        stage_file("data"),
    log:
        log_file("data"),
    params:
        stage=stage_json("data"),
    conda:
        "../../envs/environment.yaml"
    threads: 1
    shell:
        "{PYTHON:q} -m ssrob run --results {RESULTS:q} --stage {params.stage:q}"
