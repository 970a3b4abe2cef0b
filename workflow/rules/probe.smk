rule probe:
    # kNN and linear probe of one pre-trained model.
    input:
        ancient(parents("probe")),
    output:
        stage_file("probe"),
    log:
        log_file("probe"),
    conda:
        "../../envs/environment.yaml"
    threads: of_stage("probe", "threads")
    resources:
        gpu=of_stage("probe", "gpus"),
    params:
        python=PYTHON,
        results=lambda _: RESULTS,
        stage=stage_json("probe"),
    shell:
        "{params.python:q} -m ssrob run --results {params.results:q} --stage {params.stage:q} 2>&1 | tee -i {log:q} >&2"
