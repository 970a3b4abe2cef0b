rule report:
    # Figures and one self-contained page.
    input:
        ancient(study_file("collected.json")),
    output:
        study_file("report.html"),
    log:
        study_file("report.log"),
    params:
        config=CONFIG,
    conda:
        "../../envs/environment.yaml"
    shell:
        "{PYTHON:q} -m ssrob report {params.config:q} 2> >(tee {log:q} >&2)"
