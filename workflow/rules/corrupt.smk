rule corrupt:
    # Accuracy under natural corruptions of one trained model.
    input:
        ancient(parents("corrupt")),
    output:
        stage_file("corrupt"),
    log:
        log_file("corrupt"),
    params:
        stage=stage_json("corrupt"),
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        gpu=1,
    shell:
        "{PYTHON:q} -m ssrob run --results {RESULTS:q} --stage {params.stage:q}"
