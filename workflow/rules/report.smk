rule report:
    # Figures and one self-contained page.
    input:
        ancient(study_file("collected.json")),
    output:
        study_file("report.html"),
    log:
        study_file("report.log"),
    conda:
        "../../envs/environment.yaml"
    params:
        python=PYTHON,
        config=CONFIG,
    shell:
        "{params.python:q} -m ssrob report {params.config:q} 2> >(tee {log:q} >&2)"
