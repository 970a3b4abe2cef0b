rule track:
    # Everything into MLflow, by one writer.
    input:
        ancient(study_file("report.html")),
    output:
        study_file("tracked.json"),
    log:
        study_file("track.log"),
    conda:
        "../../envs/environment.yaml"
    params:
        python=PYTHON,
        config=lambda _: CONFIG,  # a function, since labels may hold "{task}"
    shell:
        "{params.python:q} -m ssrob track {params.config:q} 2> >(tee {log:q} >&2)"
