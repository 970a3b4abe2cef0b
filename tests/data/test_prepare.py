"""Preparation gives the same bytes, disjoint stratified splits, true statistics, and one-line errors."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ssrob.config.data import Data
from ssrob.data.arrays import count_levels, moments
from ssrob.data.content import source_fingerprint
from ssrob.data.decode import Crop, decode
from ssrob.data.prepare import check_same_name, prepare
from ssrob.data.prepared import Prepared
from ssrob.data.sources import count_images, open_source
from ssrob.data.splits import balanced, proportional
from ssrob.data.test_split import open_test
from ssrob.data.types import DataError
from tests.image_files import encoded, folder_data, parquet_data, pixels, write_parquet


def prepared(data: Data, out: Path) -> Prepared:
    prepare(data, out)
    return Prepared(out)


def rows_of(out: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    counts = Prepared(out).counts
    train = np.load(out / "train_rows.npy")
    return train[: counts["train"]], train[counts["train"] :], np.load(out / "test_rows.npy")


def test_images_and_labels_are_those_of_the_source(tmp_path):
    data = parquet_data(tmp_path)
    opened = prepared(data, tmp_path / "out")
    images, labels = pixels(60, 0), np.arange(60) % 3
    train, validation, _ = rows_of(tmp_path / "out")
    for rows, (found, found_labels) in ((train, opened.train()), (validation, opened.validation())):
        assert np.array_equal(found, images[rows])
        assert np.array_equal(found_labels, labels[rows])
    assert sorted([*train, *validation]) == list(range(60))
    test, test_labels, index = open_test(tmp_path / "out")
    assert np.array_equal(test, pixels(30, 1))
    assert test_labels.tolist() == [i % 3 for i in range(30)]
    assert index.tolist() == list(range(30))
    assert (opened.shape, opened.classes) == ((3, 8, 8), ("ant", "bee", "cow"))


@pytest.mark.parametrize("settings", [{}, {"train_images": 30, "test_images": 12, "size": 6}])
def test_same_source_gives_same_bytes(tmp_path, settings):
    data = parquet_data(tmp_path, **settings)
    for out in ("a", "b"):
        prepare(data, tmp_path / out)
    names = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert names == sorted(
        ["data.json", *(f"{s}_{what}.npy" for s in ("train", "test") for what in ("images", "labels", "rows"))]
    )
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_digits_splits_are_disjoint_stratified_and_complete(tmp_path):
    data = Data(name="digits", source="digits")
    opened = prepared(data, tmp_path)
    train, validation, test = rows_of(tmp_path)
    assert sorted([*train, *validation, *test]) == list(range(1797))
    assert (len(train), len(test)) == count_images(data)
    labels = open_source(data).train.labels
    everything = np.bincount(labels)
    rest = everything - np.bincount(labels[test])
    # proportional to within an image: rounding of one class moves at most one image to or from another
    assert np.abs(np.bincount(labels[test]) - 0.25 * everything).max() <= 1
    assert np.abs(np.bincount(labels[validation]) - 0.1 * rest).max() <= 1
    assert opened.shape == (1, 8, 8)


def test_every_prefix_of_validation_has_all_classes_in_proportion(tmp_path):
    labels = prepared(Data(name="digits", source="digits", validation=0.2), tmp_path).validation()[1]
    for count in (50, 100, 200):
        assert np.abs(np.bincount(labels[:count], minlength=10) - count / 10).max() <= 1.5


def test_split_depends_on_the_split_seed_alone(tmp_path):
    for seed in (0, 1):
        prepare(Data(name="digits", source="digits", split_seed=seed), tmp_path / str(seed))
    (_, one, test_one), (_, other, test_other) = rows_of(tmp_path / "0"), rows_of(tmp_path / "1")
    assert not np.array_equal(one, other)
    assert not np.array_equal(test_one, test_other)


def test_limits_keep_classes_balanced_and_are_nested(tmp_path):
    kept = {}
    for count in (30, 90):
        prepare(
            Data(name="digits", source="digits", train_images=count, test_images=count), out := tmp_path / str(count)
        )
        train, validation, test = rows_of(out)
        kept[count] = {*train, *validation}, set(test)
        labels = np.concatenate([np.load(out / "train_labels.npy"), np.load(out / "test_labels.npy")])
        assert np.bincount(labels).tolist() == [count // 5] * 10
    assert kept[30][0] < kept[90][0]
    assert kept[30][1] < kept[90][1]


def test_balanced_fills_up_from_large_classes():
    labels = np.array([0] * 2 + [1] * 10 + [2] * 10)
    keys = np.random.default_rng(0).permutation(22)
    assert np.bincount(labels[balanced(labels, keys, 12)]).tolist() == [2, 5, 5]
    assert np.bincount(labels[proportional(labels, keys, 11)]).tolist() == [1, 5, 5]
    assert sorted(balanced(labels, keys, 22)) == list(range(22))


def test_test_subset_is_balanced_nested_and_keeps_its_numbers(tmp_path):
    prepare(Data(name="digits", source="digits", test_images=200), tmp_path)
    images, labels, index = open_test(tmp_path)
    assert len(images) == 200
    before: set[int] = set()
    for count in (20, 50):
        some, some_labels, some_index = open_test(tmp_path, count)
        assert np.bincount(some_labels).tolist() == [count // 10] * 10
        at = np.searchsorted(index, some_index)
        assert np.array_equal(index[at], some_index)
        assert np.array_equal(images[at], some)
        assert np.array_equal(labels[at], some_labels)
        assert before < set(some_index.tolist())
        before = set(some_index.tolist())
    with pytest.raises(DataError, match=r"test images: must be 1..200 .*found 201"):
        open_test(tmp_path, 201)


def test_moments_are_those_of_the_training_split_alone(tmp_path):
    opened = prepared(parquet_data(tmp_path, validation=0.5), tmp_path / "out")
    images = np.asarray(opened.train()[0], dtype=np.float64) / 255
    # float64 sums of 1,920 values in [0, 1]
    np.testing.assert_allclose(opened.mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(opened.std, images.std(axis=(0, 1, 2)), rtol=1e-12)


def test_moments_of_more_images_than_a_chunk():
    images = pixels(5000, size=4)
    mean, std = moments(count_levels(images))
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(std, images.std(axis=(0, 1, 2)) / 255, rtol=1e-12)


def test_grey_images_have_one_channel_and_mixed_ones_three(tmp_path):
    grey, colour = pixels(12, 3, channels=1), pixels(12, 4)
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", [encoded(image) for image in grey], [0, 1, 2] * 4)
    data = Data(name="d", source="parquet", path=tmp_path)
    opened = prepared(data, tmp_path / "grey")
    assert opened.shape == (1, 8, 8)
    assert np.array_equal(opened.train()[0][..., 0], grey[rows_of(tmp_path / "grey")[0]])
    mixed = [encoded(image) for image in [*grey[:6], *colour[6:]]]
    write_parquet(tmp_path / "train.parquet", mixed, [0, 1, 2] * 4)
    assert prepared(data, tmp_path / "mixed").shape == (3, 8, 8)
    assert open_test(tmp_path / "mixed")[0].shape == (12, 8, 8, 3)


@pytest.mark.parametrize("turned", [False, True])
def test_size_takes_the_centred_square(turned):
    """A ramp between black margins: shrinking by 4 keeps a ramp, and nothing of the margins comes in."""
    wide = np.zeros((16, 48), dtype=np.uint8)
    wide[:, 16:32] = 40 + 10 * np.arange(16)
    found, grey = decode(encoded(wide.T if turned else wide), "here", Crop(4))
    assert grey
    assert found.shape == (4, 4, 3)
    across = (found.transpose(1, 0, 2) if turned else found)[..., 0]
    assert (across == across[0]).all()
    # averages of 4 columns are 55, 95, 135, 175; bicubic bends the outer two, where its window is cut, a little
    assert np.abs(across[0, 1:3].astype(int) - [95, 135]).max() <= 1
    assert np.abs(across[0, [0, 3]].astype(int) - [55, 175]).max() <= 6


def test_size_of_the_source_changes_nothing(tmp_path):
    data = parquet_data(tmp_path)
    plain = prepared(data, tmp_path / "plain").train()[0]
    assert np.array_equal(plain, prepared(data.model_copy(update={"size": 8}), tmp_path / "sized").train()[0])


def test_unlabelled_data_has_an_empty_test_split(tmp_path):
    opened = prepared(parquet_data(tmp_path, label_column=None), tmp_path / "out")
    assert opened.counts == {"train": 54, "validation": 6, "test": 0}
    assert set(opened.train()[1].tolist()) == {-1}
    assert open_test(tmp_path / "out")[0].shape == (0, 8, 8, 3)


def test_opened_arrays_go_into_torch_without_a_warning_and_cannot_change_the_file(tmp_path):
    opened = prepared(parquet_data(tmp_path), tmp_path / "out")
    before = (tmp_path / "out/train_images.npy").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for array in (*opened.train(), *opened.validation(), *open_test(tmp_path / "out")):
            torch.from_numpy(array).zero_()
    assert (tmp_path / "out/train_images.npy").read_bytes() == before


def test_source_fingerprint_sees_content_order_and_labels_but_not_files(tmp_path):
    images, labels = [encoded(image) for image in pixels(30)], [i % 3 for i in range(30)]

    def fingerprint(name, *parts):
        for i, (some, some_labels) in enumerate(parts):
            write_parquet(tmp_path / f"{name}-{i}.parquet", some, some_labels)
        data = Data(name="d", source="parquet", path=tmp_path, train=[f"{name}-*"], test=[])
        return source_fingerprint(open_source(data))

    whole = fingerprint("whole", (images, labels))
    assert fingerprint("parts", (images[:10], labels[:10]), (images[10:], labels[10:])) == whole
    changed = [*images[:-1], encoded(pixels(1, 9)[0])]
    others = {
        fingerprint("labels", (images, [1, *labels[1:]])),
        fingerprint("order", (images[::-1], labels[::-1])),
        fingerprint("content", (changed, labels)),
        fingerprint("fewer", (images[:-1], labels[:-1])),
    }
    assert len(others | {whole}) == 5


def test_either_fingerprint_can_be_pinned(tmp_path):
    data = parquet_data(tmp_path)
    opened = prepared(data, tmp_path / "out")
    for pin in (opened.fingerprint, opened.source_fingerprint):
        prepare(data.model_copy(update={"fingerprint": pin}), tmp_path / "pinned")
    limited = prepared(data.model_copy(update={"train_images": 30}), tmp_path / "limited")
    assert limited.source_fingerprint == opened.source_fingerprint
    assert limited.fingerprint != opened.fingerprint
    with pytest.raises(DataError, match=f"fingerprint: expected 1234, found {opened.source_fingerprint} "):
        prepare(data.model_copy(update={"fingerprint": "1234"}), tmp_path / "wrong")


def test_one_name_stands_for_one_source(tmp_path):
    (tmp_path / "source").mkdir()
    data = parquet_data(tmp_path / "source")
    stages = tmp_path / "stages"
    prepare(data, stages / "tiny-aaaa")
    prepare(data.model_copy(update={"train_images": 30}), stages / "tiny-bbbb")
    check_same_name(stages / "tiny-bbbb", stages)
    write_parquet(tmp_path / "source/train.parquet", [encoded(image) for image in pixels(60, 7)], [0, 1, 2] * 20)
    prepare(data.model_copy(update={"name": "tiny-other"}), stages / "tiny-other-cccc")
    check_same_name(stages / "tiny-bbbb", stages)  # another name, though its folder starts alike
    prepare(data, tmp_path / "new")
    with pytest.raises(DataError, match=r"'tiny': its source has fingerprint .*tiny-aaaa.*its own name"):
        check_same_name(tmp_path / "new", stages)


def damaged(path: Path, image: bytes | None, row: int = 4) -> Data:
    data = parquet_data(path)
    images: list = [encoded(each) for each in pixels(30)]
    images[row] = image
    write_parquet(path / "test.parquet", images, [0, 1, 2] * 10)
    return data


def flip_middle(path: Path) -> Data:
    data = parquet_data(path)
    content = bytearray((path / "train.parquet").read_bytes())
    for i in range(60, 600):
        content[i] ^= 0xFF
    (path / "train.parquet").write_bytes(bytes(content))
    return data


def constant(path: Path) -> Data:
    data = parquet_data(path)
    write_parquet(path / "train.parquet", [encoded(np.zeros((8, 8, 3), np.uint8))] * 30, [0, 1, 2] * 10)
    return data


BAD = {
    "truncated image": (lambda p: damaged(p, encoded(pixels(1)[0])[:-60]), r"test.parquet: row 4: cannot be decoded"),
    "no image": (lambda p: damaged(p, None), r"row 4: holds no image bytes"),
    "another size": (
        lambda p: damaged(p, encoded(pixels(1, size=9)[0])),
        r"row 4: an image of 9x9 pixels after others of 8x8; set size to resize",
    ),
    "damaged parquet": (flip_middle, r"train.parquet: not a whole parquet file|train.parquet: row \d+: cannot be dec"),
    "constant images": (constant, r"train: channel 0 has the same value in all images"),
    "class too small for a test split": (
        lambda p: folder_data(p, {"ant": 1, "bee": 20}),
        r"test: class 'ant' has too few images to be in train and test",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(name, tmp_path):
    build, message = BAD[name]
    data = build(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        prepare(data, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out/data.json").exists()


def test_damaged_preparations_are_refused(tmp_path):
    data = parquet_data(tmp_path)
    with pytest.raises(DataError, match=r"no prepared data .*run the data stage"):
        Prepared(tmp_path / "away")
    opened = prepared(data, out := tmp_path / "out")
    whole = (out / "train_images.npy").read_bytes()
    (out / "train_images.npy").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"train_images.npy: cannot be read"):
        opened.train()
    np.save(out / "train_images.npy", pixels(3))
    with pytest.raises(DataError, match=r"expected shape \(60, 8, 8, 3\), found \(3, 8, 8, 3\)"):
        opened.train()
    (out / "data.json").write_text(json.dumps({"name": "d"}))
    with pytest.raises(DataError, match=r"data.json: damaged"):
        Prepared(out)
    (out / "data.json").write_text("{")
    with pytest.raises(DataError, match=r"data.json: damaged"):
        Prepared(out)


@pytest.mark.skipif("SSROB_CIFAR10_JPEG" not in os.environ, reason="SSROB_CIFAR10_JPEG names no folder")
def test_cifar10_of_jpeg_files(tmp_path):
    data = Data(name="cifar10-jpeg", source="parquet", path=Path(os.environ["SSROB_CIFAR10_JPEG"]))
    opened = prepared(data, tmp_path)
    assert opened.counts == {"train": 45_000, "validation": 5000, "test": 10_000}
    assert opened.shape == (3, 32, 32)
    assert opened.classes[0] == "airplane"
    assert np.bincount(opened.train()[1]).tolist() == [4500] * 10
    # the known moments of CIFAR-10's 50,000 training images, here of 45,000 of them
    np.testing.assert_allclose(opened.mean, (0.4914, 0.4822, 0.4465), atol=1e-3)
    np.testing.assert_allclose(opened.std, (0.247, 0.2435, 0.2616), atol=3e-3)
