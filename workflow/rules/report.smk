rule report:
    # Figures, tables and one self-contained page; `snakemake --report` shows them all.
    input:
        ancient(study_file("collected.json")),
    output:
        report(
            study_file("report.html"),
            caption="../report/report.rst",
            category="Report",
            labels={"page": "the whole study"},
        ),
        report(
            directory(study_file("figures")),
            patterns=["{figure}.svg", "{figure}.png"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        report(
            study_file("tables/main.csv"),
            caption="../report/main.rst",
            category="Tables",
            labels={"table": "main"},
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
