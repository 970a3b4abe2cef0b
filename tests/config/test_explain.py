"""A mistake in a config file is answered with its file, its line, and what the field means."""

from pathlib import Path

import pytest
from ssrob.config.explain import description, line_of
from ssrob.config.fields import ConfigError
from ssrob.config.loader import load_study
from ssrob.config.study import Study

TEXT = """\
study: mine
data: {name: digits, source: digits}
model: {name: resnet}
threat:
  linf: {eps: 0.1}
finetune:
  lr: 0.1
  epochs: eight
arms:
  - variant: at
  - variant: [at, standard]
    weight: -1
"""


def refused(folder: Path, text: str) -> str:
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_study(folder / "mine.yaml")
    return str(caught.value)


def test_every_mistake_has_its_line_and_meaning(tmp_path: Path) -> None:
    epochs, weight = refused(tmp_path, TEXT).splitlines()
    assert epochs.startswith(f"{tmp_path}/mine.yaml:8: finetune.epochs: expected a valid number")
    assert "found 'eight'" in epochs
    assert epochs.endswith("(Passes over the training images: a number such as `8`; fractions are possible)")
    assert weight.startswith(f"{tmp_path}/mine.yaml:12: arms.1.weight.0: ")


def test_a_key_that_is_missing_is_named_where_its_section_begins(tmp_path: Path) -> None:
    text = TEXT.replace("eight", "8").replace("    weight: -1\n", "").replace("{eps: 0.1}", "{steps: 2}")
    line = refused(tmp_path, text)
    assert line.startswith(f"{tmp_path}/mine.yaml:5: threat.linf.eps: Field required")
    assert "Radius of the ball" in line


def test_a_misspelt_file_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text(TEXT)
    with pytest.raises(ConfigError, match=r"quickstrt.yaml: no such config file \(did you mean .*/quickstart.yaml\?\)"):
        load_study(tmp_path / "quickstrt.yaml")
    with pytest.raises(ConfigError, match=r"no such config file$"):
        load_study(tmp_path / "other.txt")


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (["finetune", "epochs"], 8),
        (["finetune", "momentum"], 6),
        (["arms", 1, "weight", 0], 12),
        (["arms", 0, "variant", 0], 10),
        ([], None),
    ],
)
def test_lines(location: list[int | str], line: int | None) -> None:
    assert line_of(TEXT, location) == line


def test_every_field_says_what_it_is() -> None:
    schema = Study.model_json_schema()
    models = {"Study": schema} | schema["$defs"]
    silent = [
        f"{name}.{field}"
        for name, model in models.items()
        if name not in ("Perturb", "Variant", "Pretraining", "Ssl", "Ramp")
        for field, row in model.get("properties", {}).items()
        if not row.get("description", "").endswith((".", "`"))
    ]
    assert silent == []
    assert description(["threat", "linf", "eps"]).startswith("Radius of the ball")
    assert description(["arms", 3, "seeds"]).startswith("Seeds. Default")
    assert description(["nothing"]) == ""
