rule evaluate:
    # Accuracy over eps, for both norms, of one trained model.
    input:
        ancient(parents("evaluate")),
    output:
        stage_file("evaluate"),
    log:
        log_file("evaluate"),
    conda:
        "../../envs/environment.yaml"
    threads: of_stage("evaluate", "threads")
    resources:
        gpu=of_stage("evaluate", "gpus"),
    params:
        python=PYTHON,
        results=lambda _: RESULTS,
        stage=stage_json("evaluate"),
    shell:
        "{params.python:q} -m ssrob run --results {params.results:q} --stage {params.stage:q} 2>&1 | tee -i {log:q} >&2"
