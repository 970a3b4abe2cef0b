rule report:
    # Figures, tables and one self-contained page; `snakemake --report` shows them all.
    input:
        ancient(study_file("collected.json")),
    output:
        report(study_file("report.html"), category="Report"),
        report(
            directory(study_file("figures")),
            patterns=["{figure}.svg", "{figure}.png"],
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        report(
            study_file("tables/main.csv"), category="Tables", labels={"table": "main"}
        ),
    log:
        study_file("report.log"),
    conda:
        "../../envs/environment.yaml"
    params:
        python=PYTHON,
        config=lambda _: CONFIG,  # a function, since labels may hold "{task}"
    shell:
        "{params.python:q} -m ssrob report {params.config:q} 2> >(tee {log:q} >&2)"
