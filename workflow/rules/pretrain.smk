rule pretrain:
    # Self-supervised pre-training, standard or adversarial.
    input:
        ancient(parents("pretrain")),
    output:
        stage_file("pretrain"),
    log:
        log_file("pretrain"),
    params:
        stage=stage_json("pretrain"),
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        gpu=1,
    shell:
        "{PYTHON:q} -m ssrob run --results {RESULTS:q} --stage {params.stage:q}"
