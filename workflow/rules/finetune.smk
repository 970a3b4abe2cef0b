rule finetune:
    # Training on the labels: one arm of the study.
    input:
        ancient(parents("finetune")),
    output:
        stage_file("finetune"),
    log:
        log_file("finetune"),
    conda:
        "../../envs/environment.yaml"
    threads: of_stage("finetune", "cores")
    resources:
        gpu=of_stage("finetune", "gpus"),
    params:
        python=PYTHON,
        results=lambda _: RESULTS,
        stage=stage_json("finetune"),
    shell:
        "{params.python:q} -m ssrob run --results {params.results:q} --stage {params.stage:q} 2>&1 | tee -i {log:q} >&2"
