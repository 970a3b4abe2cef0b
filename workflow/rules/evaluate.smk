rule evaluate:
    # Accuracy over eps, for both norms, of one trained model.
    input:
        ancient(parents("evaluate")),
    output:
        stage_file("evaluate"),
    log:
        log_file("evaluate"),
    params:
        stage=stage_json("evaluate"),
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        gpu=1,
    shell:
        "{PYTHON:q} -m ssrob run --results {RESULTS:q} --stage {params.stage:q}"
