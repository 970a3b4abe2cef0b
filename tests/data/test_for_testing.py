"""An evaluation tests what it was given, all of it, as it is now, and says what it left out."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ssrob.config.data import Data
from ssrob.data import for_testing
from ssrob.data.for_testing import prepare_for_testing
from ssrob.data.leakage import has_test_split
from ssrob.data.prepared import Prepared
from ssrob.data.sources import open_source
from ssrob.data.test_split import open_test
from ssrob.data.types import DataError
from ssrob.external.images import find_data, name_of
from tests.image_files import CLASSES, encoded, folder_data, parquet_data, pixels, write_parquet


def evaluated(data: Data, path: Path, images: int | None = None) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the tested images, their labels, and what was said."""
    found = prepare_for_testing(data, path / "cache", images)
    pictures, labels, _ = open_test(found.folder)
    return np.array(pictures), labels, "\n".join(found.notes)


@pytest.mark.parametrize("base", ["", "test/", "val/", "validation/", "valid/", "dev/", "Test/", "eval/", "train/"])
def test_images_of_one_split_alone_are_all_tested(tmp_path, base):
    data = folder_data(tmp_path / "d", {base + "ant": 3, base + "bee": 1})
    pictures, labels, said = evaluated(data, tmp_path)
    assert labels.tolist() == [0, 0, 0, 1]
    assert np.array_equal(pictures, np.concatenate([pixels(3, 0), pixels(1, 1)]))
    assert "test images: 4" in said
    assert ("was the model trained on these" in said) == (base == "train/")


@pytest.mark.parametrize("name", ["test", "val", "validation", "holdout", "Neue Fotos"])
def test_the_split_beside_train_is_tested_whatever_its_name(tmp_path, name):
    counts = {"train/ant": 5, "train/bee": 5, f"{name}/ant": 2, f"{name}/bee": 1}
    _, labels, said = evaluated(folder_data(tmp_path / "d", counts), tmp_path)
    assert labels.tolist() == [0, 0, 1]
    assert "left out: train/ (10 images)" in said


def test_test_comes_before_validation_and_a_config_may_say_another(tmp_path):
    counts = {"train/ant": 5, "train/bee": 5, "val/ant": 4, "val/bee": 4, "test/ant": 1, "test/bee": 1}
    data = folder_data(tmp_path / "d", counts)
    assert len(evaluated(data, tmp_path)[1]) == 2
    assert "left out: val/ (8 images)" in evaluated(data, tmp_path)[2]
    assert len(evaluated(data.model_copy(update={"test": ["val"]}), tmp_path)[1]) == 8


def test_of_two_splits_without_known_names_none_is_guessed(tmp_path):
    counts = {"train/ant": 2, "train/bee": 2, "a/ant": 1, "a/bee": 1, "b/ant": 1, "b/bee": 1}
    with pytest.raises(DataError, match="a/, b/ stand beside train/; say which is tested"):
        evaluated(folder_data(tmp_path / "d", counts), tmp_path)


def test_a_class_may_be_called_like_a_split(tmp_path):
    _, labels, _ = evaluated(folder_data(tmp_path / "d", {"car": 2, "plane": 1, "train": 3}), tmp_path)
    assert labels.tolist() == [0, 0, 1, 2, 2, 2]


def test_what_is_left_out_and_what_is_nested_is_counted(tmp_path):
    data = folder_data(tmp_path / "d", {"ant": 2, "ant/more/still": 2, "bee": 1})
    (tmp_path / "d/notes.txt").write_text("")
    (tmp_path / "d/bee/raw.heic").write_bytes(b"x")
    (tmp_path / "d/bee/.hidden.png").write_bytes(b"x")
    (tmp_path / "d/alone.png").write_bytes(encoded(pixels(1)[0]))
    (tmp_path / "d/bee/LOUD.PNG").write_bytes(encoded(pixels(1)[0]))
    (tmp_path / "d/bee/link.png").symlink_to(tmp_path / "d/bee/LOUD.PNG")
    (tmp_path / "d/ant/loop").symlink_to(tmp_path / "d/ant")
    _, labels, said = evaluated(data, tmp_path)
    assert labels.tolist() == [0] * 4 + [1] * 3
    assert "2 nested images" in said
    assert "1 images in" in said
    assert "3 files that are not images (1 .heic, 1 .txt, 1 hidden)" in said


def test_a_class_without_images_is_a_warning(tmp_path):
    counts = {"train/ant": 1, "train/bee": 1, "train/cow": 1, "test/ant": 2, "test/cow": 1}
    _, labels, said = evaluated(folder_data(tmp_path / "d", counts), tmp_path)
    assert labels.tolist() == [0, 0, 2]
    assert "warning: 1 of 3 classes have no images" in said


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", "lost+found", "__pycache__", ".ipynb_checkpoints"])
@pytest.mark.parametrize("base", ["", "test/", "train/"])
def test_folders_of_systems_are_no_classes(tmp_path, name, base):
    data = folder_data(tmp_path / "d", {f"{base}ant": 2, f"{base}bee": 3})
    for place in ("", base):
        (tmp_path / "d" / place / name / "bee").mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / place / name / "._0.png").write_bytes(b"no image")
    _, labels, said = evaluated(data, tmp_path)
    assert labels.tolist() == [0, 0, 1, 1, 1]
    assert "without" not in said
    assert "have no images" not in said
    if base != "test/":
        assert open_source(data).classes == ("ant", "bee")


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_accent_apart_from_its_letter_is_the_same_name(tmp_path, split):
    apart, whole = "cafe\N{COMBINING ACUTE ACCENT}", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    names = {each: apart if each == split else whole for each in ("train", "test")}
    counts = {f"train/{names['train']}": 4, "train/bee": 4, f"test/{names['test']}": 2, "test/bee": 3}
    data = folder_data(tmp_path / "d", counts, classes=["bee", whole])
    _, labels, said = evaluated(data, tmp_path)
    assert labels.tolist() == [0, 0, 0, 1, 1]
    assert "warning" not in said
    opened = open_source(data)
    assert (opened.classes, len(opened.train), len(opened.test)) == (("bee", whole), 8, 5)
    assert evaluated(folder_data(tmp_path / "e", {apart: 1, whole: 2}), tmp_path)[1].tolist() == [0, 1, 1]


def test_numbers_as_names_are_counted_as_text_and_it_is_said(tmp_path):
    data = folder_data(tmp_path / "d", {str(number): 1 for number in (0, 1, 2, 10)})
    _, labels, said = evaluated(data, tmp_path)
    assert labels.tolist() == [0, 1, 2, 3]
    assert "warning: labels count the folders in the order of their names as text: 0, 1, 10, 2" in said
    given = data.model_copy(update={"classes": ["0", "1", "2", "10"]})
    assert "order of their names" not in evaluated(given, tmp_path)[2]
    assert "order of their names" not in evaluated(folder_data(tmp_path / "e", {"0": 1, "1": 1, "2": 1}), tmp_path)[2]


def test_a_table_without_rows_is_refused(tmp_path):
    write_parquet(tmp_path / "test.parquet", [], np.array([], np.int64), classes=None)
    with pytest.raises(DataError, match="expected at least one row"):
        prepare_for_testing(find_data(str(tmp_path)), tmp_path / "cache")


def test_a_study_s_share_is_taken_where_it_is_asked_for(tmp_path):
    data = folder_data(tmp_path / "d", {"ant": 8, "bee": 8}, test_share=0.5)
    assert len(evaluated(data, tmp_path)[1]) == 8
    digits = evaluated(Data(name="digits", source="digits"), tmp_path)
    assert len(digits[1]) == 449
    assert "digits has no test split" in digits[2]


@pytest.mark.parametrize(
    "name",
    [
        "only.parquet",
        "test.parquet",
        "validation-00000-of-00001.parquet",
        "data/test-00000-of-00001-abc.parquet",
        "default/validation/0000.parquet",
    ],
)
def test_one_parquet_file_is_tested_whole(tmp_path, name):
    file = tmp_path / "d" / name
    file.parent.mkdir(parents=True)
    write_parquet(file, [encoded(image) for image in pixels(4)], [0, 2, 0, 2])
    for where in (tmp_path / "d", file):
        data = find_data(str(where))
        assert data.source == "parquet"
        pictures, labels, _ = evaluated(data, tmp_path)
        assert labels.tolist() == [0, 2, 0, 2]
        assert np.array_equal(pictures, pixels(4))
        assert Prepared(prepare_for_testing(data, tmp_path / "cache").folder).classes == CLASSES


def test_parquet_training_images_are_not_read(tmp_path):
    data = parquet_data(tmp_path, test=9)
    whole = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "train.parquet").write_bytes(whole[: len(whole) // 2])
    _, labels, said = evaluated(data, tmp_path)
    assert len(labels) == 9
    assert "left out: 1 other files (train.parquet)" in said


def test_images_named_by_path_labels_by_name_and_usual_columns(tmp_path):
    image = pixels(1)[0]
    (tmp_path / "one.png").write_bytes(encoded(image))
    stored = [{"bytes": None, "path": "one.png"}, {"bytes": encoded(image), "path": None}]
    table = pa.table({"img": stored, "labels": ["bee", "ant"], "id": [1, 2]})
    pq.write_table(table, tmp_path / "test.parquet")
    pictures, labels, _ = evaluated(Data(name="x", source="parquet", path=tmp_path), tmp_path)
    assert labels.tolist() == [1, 0]
    assert np.array_equal(pictures, np.stack([image, image]))


def test_names_of_classes_come_from_a_file_of_another_split(tmp_path):
    """Labels of a test split alone would count its own names."""
    for split, names in (("train", ["ant", "bee", "cow"]), ("test", ["cow", "ant"])):
        images = [encoded(image) for image in pixels(len(names))]
        pq.write_table(pa.table({"image": images, "label": names}), tmp_path / f"{split}.parquet")
    assert evaluated(Data(name="x", source="parquet", path=tmp_path), tmp_path)[1].tolist() == [2, 0]


def test_hugging_face_class_names_as_a_mapping(tmp_path):
    names = {"10": "c10"} | {str(i): f"c{i}" for i in range(10)}
    stated = {"huggingface": json.dumps({"info": {"features": {"label": {"names": names}}}})}
    write_parquet(tmp_path / "test.parquet", [encoded(i) for i in pixels(2)], [0, 10], metadata=stated)
    found = prepare_for_testing(Data(name="x", source="parquet", path=tmp_path), tmp_path / "cache")
    assert Prepared(found.folder).classes == tuple(f"c{i}" for i in range(11))


def overwrite(path: Path) -> None:
    file = path / "test/ant/000.png"
    before = file.stat()
    white = encoded(np.full((8, 8, 3), 255, np.uint8))
    file.write_bytes(white + b"\0" * (before.st_size - len(white)))  # as long, as old
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "overwritten": (overwrite, 6),
    "one more": (lambda path: (path / "test/bee/new.png").write_bytes(encoded(pixels(1, 5)[0])), 7),
    "one less": (lambda path: (path / "test/bee/000.png").unlink(), 5),
    "another class": (lambda path: (path / "test/bee/000.png").rename(path / "test/ant/x.png"), 6),
    "classes renamed": (
        lambda path: [(path / "test" / a).rename(path / "test" / b) for a, b in (("ant", "x"), ("bee", "a"))],
        6,
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_prepared_is_used_again_only_if_it_is_the_same(tmp_path, name, monkeypatch):
    data = folder_data(tmp_path / "d", {"test/ant": 3, "test/bee": 3})
    before = evaluated(data, tmp_path)
    made: list[int] = []
    write = for_testing._write
    monkeypatch.setattr(for_testing, "_write", lambda *arguments: (made.append(1), write(*arguments))[1])
    assert np.array_equal(evaluated(data, tmp_path)[0], before[0])
    assert not made
    change, count = CHANGES[name]
    change(tmp_path / "d")
    pictures, labels, _ = evaluated(data, tmp_path)
    assert (len(labels), made) == (count, [1])
    fresh = evaluated(data, tmp_path / "fresh")
    assert np.array_equal(pictures, fresh[0])
    assert np.array_equal(labels, fresh[1])
    assert len(list((tmp_path / "cache").iterdir())) == 1  # what was made from other files is gone


def test_other_settings_and_fewer_images_are_prepared_anew_and_what_is_the_user_s_stays(tmp_path):
    (tmp_path / "cache/mine").mkdir(parents=True)
    (tmp_path / "cache/mine/data.json").write_text("mine")
    data = folder_data(tmp_path / "d", {"ant": 4, "bee": 4})
    assert len(evaluated(data, tmp_path)[1]) == 8
    _, labels, _ = evaluated(data, tmp_path, images=4)
    assert labels.tolist() == [0, 0, 1, 1]
    assert evaluated(data.model_copy(update={"size": 4}), tmp_path)[0].shape == (8, 4, 4, 3)
    assert evaluated(data.model_copy(update={"test_images": 2}), tmp_path)[1].tolist() == [0, 1]
    assert (tmp_path / "cache/mine/data.json").read_text() == "mine"
    with pytest.raises(DataError, match=r"test images: must be 1\.\.8"):
        evaluated(data, tmp_path, images=9)
    with pytest.raises(DataError, match="fingerprint: expected abc, found"):
        evaluated(data.model_copy(update={"fingerprint": "abc"}), tmp_path)


def test_a_subset_is_that_of_the_whole(tmp_path):
    data = folder_data(tmp_path / "d", {"ant": 9, "bee": 9})
    whole = prepare_for_testing(data, tmp_path / "whole").folder
    some = prepare_for_testing(data, tmp_path / "some", 6).folder
    for expected, found in zip(open_test(whole, 6), open_test(some), strict=True):
        assert np.array_equal(expected, found)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Fotos für Müller", "Fotos-fur-Muller"), ("a b", "a-b"), ("写真", "data"), (".x", "x"), ("ok-1.2_3", "ok-1.2_3")],
)
def test_any_folder_name_may_be_given(tmp_path, folder, name, monkeypatch):
    folder_data(tmp_path / folder, {"ant": 1, "bee": 1})
    assert name_of(tmp_path / folder) == name
    monkeypatch.setenv("HERE", str(tmp_path))
    for where in (f"$HERE/{folder}", f"{{source: folder, path: '${{HERE}}/{folder}'}}"):
        data = find_data(where)
        assert (data.name, data.path) == (name, tmp_path / folder)


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder_data(tmp_path / "photos", {"ant": 1, "bee": 1})
    assert find_data("~/photos").path == tmp_path / "photos"
    assert Data(name="x", source="folder", path="~/photos").path == tmp_path / "photos"
    with pytest.raises(ValueError, match=r"no such home folder or environment variable, found .\$NOWHERE"):
        find_data("$NOWHERE/x")


def test_a_folder_of_results_is_not_taken_for_data(tmp_path):
    data = folder_data(tmp_path, {"test/ant": 2, "test/bee": 2})
    (tmp_path / "evaluation/data/x").mkdir(parents=True)
    write_parquet(tmp_path / "evaluation/robustness.parquet", [], [])
    assert find_data(str(tmp_path)).source == "folder"
    assert len(evaluated(data, tmp_path / "out")[1]) == 4


def test_whether_there_is_a_test_split_is_known(tmp_path):
    assert has_test_split(folder_data(tmp_path / "a", {"train/x": 1, "train/y": 1, "val/x": 1, "val/y": 1}))
    assert not has_test_split(folder_data(tmp_path / "b", {"train/x": 1, "train/y": 1}))
    assert not has_test_split(find_data("digits"))
