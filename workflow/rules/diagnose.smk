rule diagnose:
    # Input gradients of both losses and transfer of perturbations, of one trained model and one SSL task.
    input:
        ancient(parents("diagnose")),
    output:
        stage_file("diagnose"),
    log:
        log_file("diagnose"),
    conda:
        "../../envs/environment.yaml"
    threads: of_stage("diagnose", "threads")
    resources:
        gpu=of_stage("diagnose", "gpus"),
    params:
        python=PYTHON,
        results=lambda _: RESULTS,
        stage=stage_json("diagnose"),
    shell:
        "{params.python:q} -m ssrob run --results {params.results:q} --stage {params.stage:q} 2>&1 | tee -i {log:q} >&2"
