"""Images decoded by worker processes: the same batches whatever the workers do, and crops as torchvision's."""

import itertools
import math
import os
import signal
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from PIL import Image
from ssrob.config.data import Data
from ssrob.data import resized_crop, worker_processes
from ssrob.data.decoding_loader import DecodedBatches
from ssrob.data.loader import Batches
from ssrob.data.prepare import prepare
from ssrob.data.prepared import Prepared
from ssrob.data.test_split import open_test
from ssrob.data.types import DataError
from ssrob.data.worker_processes import WorkersKilled, ahead
from tests.image_files import folder_data, parquet_data, pixels
from torchvision.transforms import RandomResizedCrop

SIZE = 6
ALL = {f"{split}/{name}": count for split, count in (("train", 14), ("test", 4)) for name in ("ant", "bee", "cow")}


def prepared(folder: Path, data: Data, storage: str | None) -> Prepared:
    data = data.model_copy(update={"storage": storage})
    prepare(data, folder)
    return Prepared(folder, data)


@pytest.fixture(params=["folder", "parquet"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    if request.param == "folder":
        return folder_data(tmp_path / "images", ALL, size=SIZE)
    return parquet_data(tmp_path, 42, 12, size=SIZE)


@pytest.fixture
def stored(data: Data, tmp_path: Path) -> Prepared:
    return prepared(tmp_path / "stored", data, "files")


def batches(stored: Prepared, workers: int = 1, **settings) -> DecodedBatches:
    return DecodedBatches(stored.stored_images(), stored.train_labels, 8, 3, workers=workers, **settings)


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_images_in_files_are_those_of_an_array(data, stored, tmp_path):
    array = prepared(tmp_path / "array", data, "pixels")
    assert stored.in_files
    assert not array.in_files
    assert not prepared(tmp_path / "default", data, None).in_files  # a few kilobytes
    for name in ("classes", "shape", "mean", "std", "counts", "source_fingerprint"):
        assert getattr(stored, name) == getattr(array, name), name
    pairs = [(stored.validation(), array.validation()), (open_test(stored.folder), open_test(array.folder))]
    kept = np.array([5, 2, 30])
    pairs.append((stored.train(kept), array.train(kept)))
    for one, other in pairs:
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert sorted(stored.digests()) == sorted(array.digests())
    assert len(set(array.digests())) == 42
    (stored.folder / "train_digests.npy").unlink()  # as prepared by an older version
    assert sorted(stored.digests()) == sorted(array.digests())
    one, other = batches(stored), Batches(*array.train(), 8, 3)
    assert one.steps_per_epoch == other.steps_per_epoch
    assert all(equal(one.at(step), other.at(step)) for step in range(9))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3")  # than there may be cores
@pytest.mark.parametrize("random_crops", [False, True])
def test_batches_depend_on_seed_and_step_alone(stored, random_crops):
    one = batches(stored, 1, random_crops=random_crops)
    expected = [one.at(step) for step in range(9)]
    for workers, start in ((2, 0), (3, 5), (1, 8)):
        other = batches(stored, workers, random_crops=random_crops)
        assert all(equal(other.at(step), expected[step]) for step in range(start, 9))
    assert equal(one.at(2), expected[2])  # back again
    epochs = [dict(zip(index.tolist(), x, strict=True)) for x, _, index in (expected[0], expected[4])]
    both = epochs[0].keys() & epochs[1].keys()
    assert both
    assert random_crops != all(torch.equal(epochs[0][i], epochs[1][i]) for i in both)


def test_a_replica_decodes_its_part_of_each_batch(stored):
    whole, parts = batches(stored).at(1), [batches(stored, part=(rank, 2)).at(1) for rank in range(2)]
    assert torch.equal(whole[0], parts[0][0] + parts[1][0])
    assert not parts[0][0][4:].any()
    assert all(torch.equal(part[k], whole[k]) for part in parts for k in (1, 2))


def test_killed_workers_lose_nothing(tmp_path):
    stored = prepared(tmp_path / "stored", folder_data(tmp_path / "images", ALL, size=SIZE), "files")
    expected = [batches(stored, 1, random_crops=True).at(step)[0] for step in range(8)]
    running = batches(stored, 2, random_crops=True)
    for step in range(8):
        if step in (2, 5):
            victim = active_children()[step % 2]
            os.kill(victim.pid, signal.SIGKILL)
        assert torch.equal(running.at(step)[0], expected[step])


def test_workers_that_are_always_killed_are_one_error(monkeypatch):
    monkeypatch.setattr(worker_processes, "ATTEMPTS", 2)  # torch looks for dead workers every 5 seconds

    def die(_: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with pytest.raises(WorkersKilled, match="killed 2 times; the machine may have too little memory"):
        list(ahead(die, range(1), 1))


def test_results_come_in_order_and_errors_where_they_are_waited_for():
    def result(number: int) -> int:
        if number == 5:
            raise DataError("row 5: cannot be decoded")
        return number * number

    results = ahead(result, range(1, 9), 2)
    assert list(itertools.islice(results, 4)) == [1, 4, 9, 16]
    with pytest.raises(DataError, match=r"^row 5: cannot be decoded$"):
        next(results)


def test_a_file_that_is_gone_is_one_line(tmp_path):
    data = folder_data(tmp_path / "images", ALL, size=SIZE)
    stored = prepared(tmp_path / "stored", data, "files")
    running = batches(stored)
    (tmp_path / "images/train/bee/003.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^\S*bee/003\.png: cannot be decoded \(it is empty: 0 bytes\)$"):
        [running.at(step) for step in range(6)]


def test_a_source_that_has_changed_is_refused(tmp_path):
    data = folder_data(tmp_path / "images", ALL, size=SIZE)
    stored = prepared(tmp_path / "stored", data, "files")
    (tmp_path / "images/train/bee/003.png").unlink()
    with pytest.raises(DataError, match="path: has other images or labels than when it was prepared"):
        batches(stored)


def test_a_crop_is_resized_as_torchvision_does(tmp_path):
    picture = Image.fromarray(pixels(1, size=40)[0])
    numbers = resized_crop.draw(torch.arange(30), 0, 0)
    for each in numbers:
        left, top, right, bottom = resized_crop.box(each, *picture.size)
        place = (top, left, bottom - top, right - left)
        expected = np.asarray(TF.resized_crop(picture, *place, [16, 16], TF.InterpolationMode.BILINEAR))
        found = picture.crop((left, top, right, bottom)).resize((16, 16), Image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (64, 64), (400, 100)])
def test_crops_are_drawn_as_torchvision_draws_them(size):
    wide, high = size
    mine = [resized_crop.box(each, wide, high) for each in resized_crop.draw(torch.arange(2000), 1, 2)]
    torch.manual_seed(0)
    blank = torch.empty(1, high, wide)
    theirs = [RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(2000)]
    boxes = [(left, top, left + w, top + h) for top, left, h, w in theirs]
    for measure in (_area, _ratio, _middle):
        a, b = (np.array([measure(box, wide, high) for box in found]) for found in (mine, boxes))
        assert abs(a.mean() - b.mean()) < 5 * math.hypot(a.std(), b.std()) / math.sqrt(2000)
        assert np.isclose(a.std(), b.std(), rtol=0.15)
    assert all(0 <= left < right <= wide and 0 <= top < bottom <= high for left, top, right, bottom in mine)


def _area(box, wide, high):
    return (box[2] - box[0]) * (box[3] - box[1]) / (wide * high)


def _ratio(box, *_):
    return math.log((box[2] - box[0]) / (box[3] - box[1]))


def _middle(box, wide, _):
    return (box[0] + box[2]) / 2 / wide


@pytest.mark.parametrize("size", [(300, 10), (10, 300)])
def test_where_no_crop_fits_it_is_the_centre_as_torchvisions(size):
    wide, high = size
    torch.manual_seed(0)
    found = RandomResizedCrop.get_params(torch.empty(1, high, wide), [0.9, 1.0], [3 / 4, 4 / 3])
    top, left, h, w = found
    never = torch.ones(10, 4) * 0.999
    assert resized_crop.box(never, wide, high) == (left, top, left + w, top + h)


def test_crops_differ_between_images_epochs_and_seeds():
    index = torch.arange(3)
    drawn = [resized_crop.draw(index, seed, epoch) for seed, epoch in itertools.product((0, 1), (0, 1))]
    assert len({tuple(row.flatten().tolist()) for each in drawn for row in each}) == 12
    assert torch.equal(resized_crop.draw(index.flip(0), 0, 0), drawn[0].flip(0))
