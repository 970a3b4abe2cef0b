"""Finished stages are held against what they were made from: code of plugins, files of a data source."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.config.plugins import differs, plugin_sources, source_of
from ssrob.data.source_files import source_files
from ssrob.data.types import DataError
from ssrob.planning.plan import Plan, make_plan
from ssrob.runtime import job
from ssrob.scheduling import preflight
from ssrob.scheduling.explain import reasons_to_run
from ssrob.scheduling.staleness import check_alike
from ssrob.storage.store import Store
from tests.conftest import tiny_config
from tests.image_files import encoded, folder_data, parquet_data, pixels

CODE = '"""Mine."""\n\nimport helper_of_mine\n\n\ndef half(x):\n    """Halve."""\n    return x / helper_of_mine.TWO\n'
HELPER = "TWO = 2\n"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plugin with a module of helpers beside it."""
    (tmp_path / "plugin_of_mine.py").write_text(CODE)
    (tmp_path / "helper_of_mine.py").write_text(HELPER)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "plugin_of_mine.py"
    for name in ("plugin_of_mine", "helper_of_mine"):
        sys.modules.pop(name, None)


def prepared(folder: Path, **changes: Any) -> tuple[Plan, Store]:
    """Plan a study and run its data stages."""
    plan = make_plan(parse_study(tiny_config(folder / "results", **changes)))
    store, lines = Store(plan.study.results), list[str]()
    for stage in plan.of_kind("data").values():
        assert job.run(stage, store, "cpu", lines.append) == 0, lines
    return plan, store


def test_a_plugin_that_has_changed_is_refused_by_name_with_what_to_do(plugin: Path, tmp_path: Path) -> None:
    plan, store = prepared(tmp_path, plugins=["plugin_of_mine"])
    (data,) = plan.of_kind("data").values()
    preflight.check(plan)
    assert set(store.provenance(data.path)["plugins"]) == {"plugin_of_mine", "helper_of_mine"}
    plugin.write_text(CODE.replace("x / helper", "x * helper"))
    with pytest.raises(ConfigError, match=rf"^plugins: plugin_of_mine has changed since {data.path} was made\. Put it"):
        preflight.check(plan)
    assert reasons_to_run(data, plan, store) == ["the plugin plugin_of_mine has changed since it was made"]
    preflight.check(make_plan(plan.study.model_copy(update={"changed_plugins": "use"})))
    plugin.write_text(CODE)
    preflight.check(plan)
    (tmp_path / "helper_of_mine.py").write_text("TWO = 3\n")
    with pytest.raises(ConfigError, match="helper_of_mine has changed since"):
        preflight.check(plan)
    store.remove(data.path)
    preflight.check(plan)


def test_comments_docstrings_and_layout_of_a_plugin_may_change(plugin: Path, tmp_path: Path) -> None:
    plan, _ = prepared(tmp_path, plugins=["plugin_of_mine"])
    plugin.write_text(CODE.replace("Halve.", "Halve it.").replace("return x /", "# by two\n    return   x /"))
    preflight.check(plan)


def test_stages_made_with_two_versions_are_not_put_into_one_table(plugin: Path, tmp_path: Path) -> None:
    data = {"name": "more", "source": "digits", "test_share": 0.5}
    plan, store = prepared(
        tmp_path, plugins=["plugin_of_mine"], pretrain_data=data, arms=[{"variant": "at", "init": "ssl"}]
    )
    check_alike(plan, store)
    _, other = plan.of_kind("data").values()
    file = store.folder(other.path) / "provenance.json"
    facts = json.loads(file.read_text())
    facts["plugins"]["plugin_of_mine"] = source_of(b"x = 1")
    file.write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match=f"plugin_of_mine was another one when {other.path} was made"):
        check_alike(plan, store)


def test_stages_without_a_record_are_taken_as_they_are(plugin: Path, tmp_path: Path) -> None:
    plan, store = prepared(tmp_path)
    assert "plugins" not in store.provenance(next(iter(plan.stages)))
    preflight.check(make_plan(plan.study.model_copy(update={"plugins": ["plugin_of_mine"]})))


def test_modules_of_a_package_belong_to_a_plugin_and_those_of_others_do_not() -> None:
    found = plugin_sources(["tests.image_files"])
    assert {"tests.image_files", "tests.conftest"} <= set(found)
    assert not any(name.startswith("ssrob") for name in found)
    assert set(plugin_sources(["six"])) <= {"six"}


def test_another_python_may_write_code_in_another_way() -> None:
    here, same = source_of(b"x = 1"), source_of(b"x = 1  # one")
    assert not differs(here, same)
    assert not differs(here, {"text": here["text"], "code": "as another Python has it"})
    assert differs(here, source_of(b"x = 2"))
    assert differs(source_of(b"x = ("), source_of(b"x = (1"))


def of_folder(folder: Path) -> dict[str, Any]:
    return folder_data(folder, {f"{split}/{name}": 8 for split in ("train", "test") for name in "ab"}).model_dump()


def of_parquet(folder: Path) -> dict[str, Any]:
    folder.mkdir()
    return parquet_data(folder).model_dump()


@pytest.mark.parametrize("make", [of_folder, of_parquet])
def test_data_that_has_changed_since_it_was_prepared_is_refused(make: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    settings = {name: value for name, value in make(source).items() if value is not None and name != "test_share"}
    settings = {name: settings[name] for name in ("name", "source", "path")}
    plan, store = prepared(tmp_path, data=settings, evaluate={"images": 4}, corrupt={"images": 4})
    (data,) = plan.of_kind("data").values()
    preflight.check(plan)
    file = min(each for each in source.rglob("*") if each.is_file())
    content = file.read_bytes()
    file.write_bytes(content + (b"" if file.suffix == ".parquet" else b"\0"))
    if file.suffix == ".parquet":
        shutil.copy(source / "train.parquet", file)
    with pytest.raises(DataError, match=rf"path: {source} has other images than when {data.path} was made; give"):
        preflight.check(plan)
    file.write_bytes(content)
    os.utime(file, (1, 1))
    preflight.check(plan)
    assert store.provenance(data.path)["source_files"] == source_files(plan.study.data)
    file.unlink()
    with pytest.raises(DataError, match="has other images than when"):
        preflight.check(plan)
    shutil.rmtree(source)
    preflight.check(plan)


def test_files_that_are_no_images_and_a_copy_elsewhere_are_no_change(tmp_path: Path) -> None:
    settings = {"name": "tiny", "source": "folder", "path": tmp_path / "source"}
    of_folder(tmp_path / "source")
    plan, store = prepared(tmp_path, data=settings, evaluate={"images": 4}, corrupt={"images": 4})
    (data,) = plan.of_kind("data").values()
    before = store.provenance(data.path)
    (tmp_path / "source" / "notes.txt").write_text("mine")
    (tmp_path / "source" / ".hidden.png").write_bytes(encoded(pixels(1)[0]))
    preflight.check(plan)
    assert store.provenance(data.path) == before
    shutil.copytree(tmp_path / "source", tmp_path / "copy", copy_function=shutil.copyfile)
    moved = plan.study.data.model_copy(update={"path": tmp_path / "copy"})
    preflight.check(make_plan(plan.study.model_copy(update={"data": moved})))
    assert np.isclose(store.provenance(data.path)["source_files"]["bytes"], before["source_files"]["bytes"])
