"""Recipes for containers and conda, as far as they can be checked without building them."""

import fnmatch
import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from tests.conftest import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
APPTAINER = (ROOT / "envs/apptainer.def").read_text()
CONDA: dict[str, Any] = yaml.safe_load((ROOT / "envs/environment.yaml").read_text())
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKED = dict(re.findall(r"^([\w.-]+)==([\w.+]+)", (ROOT / "envs/lock.txt").read_text(), re.MULTILINE))


def sources(recipe: str) -> set[str]:
    """What a recipe copies into the image."""
    if recipe is DOCKERFILE:
        copied = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
        return {name for line in copied for name in line.split()}
    section = APPTAINER.partition("%files\n")[2].partition("\n\n")[0]
    return {line.split()[0] for line in section.splitlines()}


def test_all_take_the_same_python_which_the_package_allows() -> None:
    found = re.findall(r"^F(?:ROM|rom:) python:([\d.]+)-slim-\w+$", DOCKERFILE + "\n" + APPTAINER, re.MULTILINE)
    found += [name.partition("=")[2] for name in CONDA["dependencies"] if str(name).startswith("python =")]
    assert len(found) == 3
    (version,) = set(found)
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(f"{version}.0")


def test_all_install_the_lock() -> None:
    for recipe in (DOCKERFILE, APPTAINER):
        assert re.search(r"pip install .*--requirement envs/lock\.txt", recipe)
        assert re.search(r"pip install .*--no-deps \.", recipe)
    (pip,) = (each["pip"] for each in CONDA["dependencies"] if isinstance(each, dict))
    assert [(ROOT / "envs" / line.removeprefix("-r ")).name for line in pip] == ["lock.txt"]


@pytest.mark.parametrize("name", [Requirement(text).name for text in PROJECT["project"]["dependencies"]])
def test_the_lock_has_what_the_package_allows(name: str) -> None:
    (wanted,) = (each for each in map(Requirement, PROJECT["project"]["dependencies"]) if each.name == name)
    assert wanted.specifier.contains(LOCKED[name])


@pytest.mark.parametrize("recipe", [DOCKERFILE, APPTAINER], ids=["docker", "apptainer"])
def test_what_is_copied_exists_and_is_all_that_the_wheel_is_made_of(recipe: str) -> None:
    copied = sources(recipe)
    assert all((ROOT / name).exists() for name in copied)
    project = PROJECT["project"]
    build = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml",
        project["readme"],
        *project["license-files"],
        *build["packages"],
        *build["force-include"],
    }
    assert needed <= copied
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert not [name for name in copied for pattern in ignored if fnmatch.fnmatch(name, pattern)]


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users
    assert users[-1] not in ("root", "0")
    assert DOCKERFILE.index("USER ") < DOCKERFILE.index("ENTRYPOINT")
    assert f"useradd --uid 1000 --no-create-home {users[-1]}" in DOCKERFILE


def test_the_catalogue_finds_what_it_looks_for() -> None:
    """https://snakemake.github.io/snakemake-workflow-catalog, "standardized usage"."""
    about = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert about["report"] is True
    assert about["software-stack-deployment"] == {"conda": True}
    assert (ROOT / "workflow/Snakefile").is_file()
    assert "| field |" in (ROOT / "config/README.md").read_text()
    captions = re.findall(r'caption="([^"]+)"', (ROOT / "workflow/rules/report.smk").read_text())
    assert len(captions) == 3
    assert all((ROOT / "workflow/rules" / caption).is_file() for caption in captions)
