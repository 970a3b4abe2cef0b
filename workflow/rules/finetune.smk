rule finetune:
    # Training on the labels: one arm of the study.
    input:
        ancient(parents("finetune")),
    output:
        stage_file("finetune"),
    log:
        log_file("finetune"),
    params:
        stage=stage_json("finetune"),
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        gpu=1,
    shell:
        "{PYTHON:q} -m ssrob run --results {RESULTS:q} --stage {params.stage:q}"
