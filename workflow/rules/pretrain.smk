rule pretrain:
    # Self-supervised pre-training, standard or adversarial.
    input:
        ancient(parents("pretrain")),
    output:
        stage_file("pretrain"),
    log:
        log_file("pretrain"),
    conda:
        "../../envs/environment.yaml"
    threads: of_stage("pretrain", "cores")
    resources:
        gpu=of_stage("pretrain", "gpus"),
    params:
        python=PYTHON,
        results=lambda _: RESULTS,
        stage=stage_json("pretrain"),
    shell:
        "{params.python:q} -m ssrob run --results {params.results:q} --stage {params.stage:q} 2>&1 | tee -i {log:q} >&2"
