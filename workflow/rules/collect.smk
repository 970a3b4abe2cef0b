rule collect:
    # All results of the study as tidy tables, and the verdicts on the claims.
    input:
        ancient([f"{STORE.folder(path)}/stage.json" for path in PLAN.stages]),
    output:
        study_file("collected.json"),
    log:
        study_file("collect.log"),
    conda:
        "../../envs/environment.yaml"
    params:
        python=PYTHON,
        config=lambda _: CONFIG,  # a function, since labels may hold "{task}"
    shell:
        "{params.python:q} -m ssrob collect {params.config:q} 2> >(tee {log:q} >&2)"
