rule corrupt:
    # Accuracy under natural corruptions of one trained model.
    input:
        ancient(parents("corrupt")),
    output:
        stage_file("corrupt"),
    log:
        log_file("corrupt"),
    conda:
        "../../envs/environment.yaml"
    threads: of_stage("corrupt", "threads")
    resources:
        gpu=of_stage("corrupt", "gpus"),
    params:
        python=PYTHON,
        results=lambda _: RESULTS,
        stage=stage_json("corrupt"),
    shell:
        "{params.python:q} -m ssrob run --results {params.results:q} --stage {params.stage:q} 2>&1 | tee -i {log:q} >&2"
