"""Every source opens to the images and labels that were written, and bad input is refused in one line."""

import json
import pickle
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from ssrob.config.data import Data
from ssrob.data.decode import decode
from ssrob.data.sources import SOURCES, check_source, count_images, open_source, opened_once
from ssrob.data.types import DataError
from tests.image_files import CLASSES, encoded, folder_data, parquet_data, pixels, write_parquet
from torchvision import datasets


def images_of(split, crop=None):
    rows = np.arange(len(split))
    return np.stack([decode(content, where, crop)[0] for where, content in split.read(rows)])


def test_registry_agrees_with_the_config():
    with pytest.raises(ValueError, match=r"unknown data source 'cifar'.*did you mean 'cifar10'.*known: .*parquet"):
        Data(name="x", source="cifar")


def test_every_field_of_the_config_is_read_by_a_source_or_by_all():
    general = {
        "name",
        "source",
        "size",
        "resize",
        "hold_out",
        "only",
        "train_images",
        "test_images",
        "validation",
        "split_seed",
        "fingerprint",
    }
    assert set(Data.model_fields) == general.union(*(source.reads for source in SOURCES.values()))


def test_the_check_before_a_run_imports_no_torch():
    code = "import sys, ssrob.data.sources as s; from ssrob.config.data import Data\n"
    code += "s.check_source(Data(name='d', source='digits')); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits_are_scaled_to_bytes():
    opened = open_source(Data(name="digits", source="digits"))
    expected = np.round(load_digits().images * 255 / 16)
    assert np.array_equal(images_of(opened.train)[..., 0], expected)
    assert np.array_equal(opened.train.labels, load_digits().target)
    assert opened.test is None
    known = SOURCES["digits"].known
    assert (known.train, known.classes) == (len(opened.train), len(opened.classes))


def test_parquet_holds_what_was_written(tmp_path):
    opened = open_source(parquet_data(tmp_path))
    assert opened.classes == CLASSES
    assert np.array_equal(images_of(opened.train), pixels(60, 0))
    assert np.array_equal(images_of(opened.test), pixels(30, 1))
    assert opened.train.labels.tolist() == [i % 3 for i in range(60)]


def test_parquet_of_several_files_reads_chosen_rows(tmp_path):
    images = pixels(50)
    for i, part in enumerate(np.array_split(np.arange(50), 3)):
        write_parquet(tmp_path / f"train-{i}.parquet", [encoded(images[j]) for j in part], (part % 3).tolist())
    data = Data(name="d", source="parquet", path=tmp_path, test=[])
    rows = np.array([0, 16, 17, 33, 34, 49])
    read = list(open_source(data).train.read(rows))
    assert [content for _, content in read] == [encoded(images[j]) for j in rows]
    assert read[2][0].endswith("train-1.parquet: row 0")


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"classes": "x, y,z"}, ("x", "y", "z")),
        ({"classes": '["x", "y", "z"]'}, ("x", "y", "z")),
        ({"huggingface": json.dumps({"info": {"features": {"label": {"names": ["x", "y", "z"]}}}})}, ("x", "y", "z")),
        ({"huggingface": json.dumps({"info": {"features": {"label": {"dtype": "int64"}}}})}, ("0", "1", "2")),
        ({"other": "1"}, ("0", "1", "2")),
    ],
)
def test_class_names_of_parquet(tmp_path, stated, expected):
    images = [encoded(image) for image in pixels(12)]
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", images, [0, 1, 2] * 4, metadata=stated, struct=name == "train")
    data = Data(name="d", source="parquet", path=tmp_path)
    assert open_source(data).classes == expected
    named = data.model_copy(update={"classes": ["p", "q", "r"]})
    assert open_source(named).classes == ("p", "q", "r")


def test_unlabelled_parquet_has_no_classes_and_no_test_split(tmp_path):
    data = parquet_data(tmp_path, label_column=None)
    opened = open_source(data)
    assert (opened.classes, opened.test, set(opened.train.labels.tolist())) == ((), None, {-1})
    assert count_images(data) == (54, 0)


def test_folder_with_a_test_split(tmp_path):
    counts = {"train/bee": 4, "train/ant": 6, "test/ant": 2, "test/bee": 3}
    opened = open_source(folder_data(tmp_path, counts))
    (tmp_path / "train/ant/notes.txt").write_text("not an image")
    assert opened.classes == ("ant", "bee")
    assert opened.train.labels.tolist() == [0] * 6 + [1] * 4
    assert np.array_equal(images_of(opened.train), np.concatenate([pixels(6, 1), pixels(4, 0)]))
    assert np.array_equal(images_of(opened.test), np.concatenate([pixels(2, 2), pixels(3, 3)]))


@pytest.mark.parametrize("base", ["", "train/"])
def test_folder_without_a_test_split(tmp_path, base):
    data = folder_data(tmp_path, {base + "ant": 8, base + "bee": 12}, classes=["bee", "ant"])
    opened = open_source(data)
    assert opened.test is None
    assert opened.train.labels.tolist() == [0] * 12 + [1] * 8
    assert count_images(data) == (13, 5)  # 20 = 5 test + 2 validation (1.5 rounds to even) + 13


def test_unlabelled_folder_takes_every_image_at_any_depth(tmp_path):
    data = folder_data(tmp_path, {"a": 3, "b/c": 4, "d/e/f": 5}, label_column=None)
    opened = open_source(data)
    assert np.array_equal(images_of(opened.train), np.concatenate([pixels(n, s) for s, n in enumerate((3, 4, 5))]))


def fake_cifar(root: Path, monkeypatch) -> None:
    """Write CIFAR-10's python files with 20 images a batch, and their checksums where torchvision looks."""
    folder = root / datasets.CIFAR10.base_folder
    folder.mkdir(parents=True)
    md5 = datasets.utils.calculate_md5
    for attribute in ("train_list", "test_list"):
        listed = []
        for seed, (name, _) in enumerate(getattr(datasets.CIFAR10, attribute)):
            rows = pixels(20, seed).reshape(20, -1)
            full = np.tile(rows, (1, 16))  # 8x8 noise repeated to 32x32x3
            (folder / name).write_bytes(pickle.dumps({"data": full, "labels": [i % 10 for i in range(20)]}))
            listed.append([name, md5(folder / name)])
        monkeypatch.setattr(datasets.CIFAR10, attribute, listed)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{i}" for i in range(10)]}))
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(folder / "batches.meta")}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)


def refuse_network(*_, **__):
    raise urllib.error.URLError("Name or service not known")


def test_cifar_is_read_from_where_it_was_downloaded(tmp_path, monkeypatch):
    fake_cifar(tmp_path, monkeypatch)
    monkeypatch.setattr(urllib.request, "urlopen", refuse_network)
    opened = open_source(Data(name="c", source="cifar10", path=tmp_path))
    expected = np.tile(pixels(20, 0).reshape(20, -1), (1, 16)).reshape(20, 3, 32, 32).transpose(0, 2, 3, 1)
    assert np.array_equal(images_of(opened.train)[:20], expected)
    assert (len(opened.train), len(opened.test), opened.classes[3]) == (100, 20, "c3")


@pytest.mark.parametrize("source", ["cifar10", "cifar100"])
def test_cifar_offline_says_what_to_do(tmp_path, monkeypatch, source):
    monkeypatch.setattr(urllib.request, "urlopen", refuse_network)
    data = Data(name="c", source=source, path=tmp_path)
    check_source(data)
    with pytest.raises(DataError, match=r"'c': CIFAR10+ is not in .*not known.*where there is a network") as error:
        open_source(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({"source": "cifar10"}, (45_000, 10_000)),
        ({"source": "cifar100", "train_images": 2000, "test_images": 500}, (1800, 500)),
        ({"source": "digits"}, (1213, 449)),  # 449 = 1797 / 4, 135 = 1348 / 10
    ],
)
def test_counts_known_without_the_data(settings, counts):
    assert count_images(Data(name="d", **settings)) == counts


def test_counts_are_unknown_where_the_data_is_not(tmp_path):
    assert count_images(Data(name="d", source="parquet", path=tmp_path / "away")) is None


def bad_labels(labels):
    def build(path):
        data = parquet_data(path)
        write_parquet(path / "train.parquet", [encoded(image) for image in pixels(len(labels))], labels)
        return data

    return build


def changed(edit):
    def build(path):
        data = parquet_data(path)
        edit(path)
        return data

    return build


def config(**settings):
    return lambda path: parquet_data(path, **settings)


def cut(path):
    (path / "test.parquet").write_bytes((path / "test.parquet").read_bytes()[:-50])


def other_names(path):
    write_parquet(path / "test.parquet", [encoded(i) for i in pixels(30)], [0, 1, 2] * 10, classes=("x", "y", "z"))


def text_labels(path):
    images = [encoded(image) for image in pixels(30)]
    write_parquet(path / "test.parquet", images, [str(i % 3) for i in range(30)])


def folders(counts, **settings):
    return lambda path: folder_data(path, counts, **settings)


BAD = {
    "no folder": (
        lambda path: Data(name="tiny", source="parquet", path=path / "away"),
        r"'tiny': path: expected a folder, found no folder at .*away",
    ),
    "no match": (
        lambda path: parquet_data(path).model_copy(update={"train": ["tain*"]}),
        r"train: no file matches 'tain\*' in .*which holds: test.parquet, train.parquet",
    ),
    "no test": (changed(lambda path: (path / "test.parquet").unlink()), r"test: no file .*write 'test: \[\]'"),
    "absolute pattern": (
        lambda path: parquet_data(path).model_copy(update={"test": ["/etc/*"]}),
        r"test: '/etc/\*' is no file pattern relative to path",
    ),
    "same file twice": (
        lambda path: parquet_data(path).model_copy(update={"test": ["*.parquet"]}),
        r"test: train.parquet is matched by train as well",
    ),
    "truncated file": (changed(cut), r"test.parquet: not a whole parquet file"),
    "not parquet": (
        changed(lambda path: (path / "test.parquet").write_text("hello")),
        r"test.parquet: not a whole parquet file",
    ),
    "unknown column": (
        config(image_column="img"),
        r"image_column: .*train.parquet has no column 'img'; it has: image, label",
    ),
    "image column is a number": (
        config(image_column="label"),
        r"image_column: expected binary or struct.* found int64",
    ),
    "labels are text": (changed(text_labels), r"label_column: .*train.parquet holds integers and .*test.parquet names"),
    "label out of range": (bad_labels([0, 1, 2, 3] * 5), r"labels must be 0..2, found 3 in train row 3"),
    "label negative": (bad_labels([0, 1, 2, -1] * 5), r"labels must be 0..2, found -1 in train row 3"),
    "label missing": (bad_labels([0, 1, None, 2] * 5), r"expected a label in every row of .*found none in row 2"),
    "class without images": (bad_labels([0, 2] * 10), r"train: class 'bee' has no images"),
    "class names differ": (changed(other_names), r"classes: .*train.parquet and .*test.parquet state different"),
    "class twice": (config(classes=["a", "b", "a"]), r"classes: .*found 'a' twice"),
    "one class": (config(classes=["a"]), r"classes: expected at least 2 classes, found \['a'\]"),
    "too many train images": (config(train_images=61), r"train_images: must be 3..60 .*found 61"),
    "too many test images": (config(test_images=31), r"test_images: must be 3..30 .*found 31"),
    "fewer images than classes": (config(train_images=2), r"train_images: must be 3..60 .*found 2"),
    "useless test share": (config(test_share=0.5), r"test_share: the data has a test split"),
    "unlabelled with classes": (
        config(label_column=None, classes=["a", "b"]),
        r"classes: not allowed for unlabelled data",
    ),
    "field of another source": (
        lambda path: Data(name="tiny", source="digits", path=path),
        r"path: source 'digits' does not read it",
    ),
    "digits: too many": (
        lambda path: Data(name="tiny", source="digits", train_images=1500),
        r"train_images: must be 10..1348 .*found 1500",
    ),
    "cifar into a file": (
        lambda path: Data(name="tiny", source="cifar10", path=Path(__file__)),
        r"path: expected a folder to download into, found the file",
    ),
    "folder without classes": (folders({"train": 3}), r"path: expected a folder of images per class in .*train"),
    "empty class folder": (folders({"train/ant": 3, "train/bee": 0}), r"expected .png/.* files in .*bee, found none"),
    "class only in test": (
        folders({"train/ant": 3, "train/bee": 3, "test/ant": 1, "test/bee": 1, "test/cow": 1}),
        r"test/cow is no class of train; known: ant, bee",
    ),
    "class missing in test": (
        folders({"train/ant": 3, "train/bee": 3, "test/ant": 1}),
        r"expected .png/.* files in .*test/bee, found none",
    ),
    "test without train": (folders({"test/ant": 3}), r"holds test/ and no train/"),
    "classes are not the folders": (
        folders({"ant": 3, "bee": 3}, classes=["ant", "cow"]),
        r"classes: expected the folders of .*\['ant', 'bee'\]; found \['ant', 'cow'\]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name, tmp_path):
    build, message = BAD[name]
    with pytest.raises(DataError, match=message) as error:
        check_source(build(tmp_path))
    assert "\n" not in str(error.value)


def test_good_input_passes_the_check(tmp_path):
    check_source(parquet_data(tmp_path, train_images=60, test_images=30))
    shutil.rmtree(tmp_path)
    check_source(folder_data(tmp_path, {"ant": 3, "bee": 3}))


def test_a_source_is_opened_once_within_the_context_and_anew_outside(tmp_path):
    data = folder_data(tmp_path, {"ant": 3, "bee": 3})
    with opened_once():
        first = open_source(data)
        with opened_once():
            assert open_source(data.model_copy()) is first
        assert open_source(data) is first
        assert open_source(data.model_copy(update={"test_share": 0.5})) is not first
    (tmp_path / "ant/003.png").write_bytes(encoded(pixels(1)[0]))
    assert len(open_source(data).train) == 7
    with opened_once(), pytest.raises(DataError, match="found no folder"):
        open_source(data.model_copy(update={"path": tmp_path / "away"}))
