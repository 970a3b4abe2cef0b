"""Batches are a function of (seed, step), and augmenting a batch is augmenting every image by itself."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ssrob.data.loader import Batches, augment
from ssrob.seeding import generator


def batches(count=23, size=4, seed=0, channels=3):
    images = np.random.default_rng(5).integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)
    return Batches(images, np.arange(count) % 7, size, seed), images


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_holds_the_images_of_its_index(channels):
    made, images = batches(channels=channels)
    x, y, index = made.at(7)
    assert x.dtype == torch.float32
    assert x.shape == (4, channels, 6, 5)
    assert np.array_equal((x.numpy() * 255).round().astype(np.uint8), images.transpose(0, 3, 1, 2)[index])
    assert torch.equal(y, index % 7)
    assert x.is_contiguous()


def test_bytes_map_to_the_unit_interval_exactly():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    x, _, _ = Batches(images, np.zeros(1), 1, 0).at(0)
    assert torch.equal(x.flatten(), torch.arange(256) / 255)


def test_an_epoch_takes_every_image_once_and_leaves_out_the_rest():
    made, _ = batches(count=23, size=4)
    assert made.steps_per_epoch == 5
    for epoch in range(3):
        taken = torch.cat([made.at(5 * epoch + i)[2] for i in range(5)])
        assert len(set(taken.tolist())) == 20
    left_out = {
        frozenset(range(23)) - {*torch.cat([made.at(5 * e + i)[2] for i in range(5)]).tolist()} for e in range(4)
    }
    assert len(left_out) > 1  # not the same images every time


def test_the_order_depends_on_seed_and_epoch_alone():
    made, _ = batches()
    forward = [made.at(step)[2] for step in range(12)]
    other, _ = batches()
    for step in (11, 3, 7, 0):  # any order, as after resuming
        assert torch.equal(other.at(step)[2], forward[step])
    assert not torch.equal(torch.cat(forward[:5]), torch.cat(forward[5:10]))
    assert not torch.equal(batches(seed=1)[0].at(0)[2], forward[0])


def test_the_order_ignores_global_randomness():
    torch.manual_seed(1)
    one = batches()[0].at(3)[2]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(batches()[0].at(3)[2], one)
    assert torch.equal(torch.get_rng_state(), state)


def test_fewer_images_than_a_batch_make_one_batch_of_all():
    made, _ = batches(count=3, size=8)
    assert made.steps_per_epoch == 1
    assert sorted(made.at(4)[2].tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "labels", "size", "message"),
    [
        (3, 2, 1, "expected as many labels as images, at least 1; found 2 and 3"),
        (0, 0, 1, "found 0 and 0"),
        (3, 3, 0, "batch_size must be at least 1, found 0"),
    ],
)
def test_bad_arguments(count, labels, size, message):
    with pytest.raises(ValueError, match=message):
        Batches(np.zeros((count, 2, 2, 1), np.uint8), np.zeros(labels), size, 0)


def naive(x, names, padding, rng):
    """Augment image by image with slices, from the same draws."""
    batch, _, height, width = x.shape
    room = padding if "crop" in names else 0
    top, left = torch.randint(2 * room + 1, (2, batch, 1), generator=rng)
    flip = torch.randint(2, (batch, 1), generator=rng)
    out = []
    for i in range(batch):
        padded = F.pad(x[i], (room,) * 4)
        image = padded[:, top[i] : top[i] + height, left[i] : left[i] + width]
        out.append(image.flip(-1) if "flip" in names and flip[i] else image)
    return torch.stack(out)


@pytest.mark.parametrize("shape", [(9, 3, 8, 8), (9, 1, 6, 11), (1, 3, 5, 4)])
@pytest.mark.parametrize("names", [(), ("crop",), ("flip",), ("crop", "flip"), ("flip", "crop")])
def test_augmenting_a_batch_is_augmenting_each_image(shape, names):
    x = torch.rand(shape, generator=generator(0, "x"))
    before = x.clone()
    found = augment(x, names, 3, generator(0, "augment", 1))
    assert torch.equal(found, naive(x, names, 3, generator(0, "augment", 1)))
    assert torch.equal(x, before)
    assert found.is_contiguous()


def test_flips_and_shifts_are_uniform():
    """3,600 images that are zero but for one pixel: its place tells shift and flip."""
    x = torch.zeros(3600, 1, 7, 7)
    x[:, :, 3, 2] = 1
    found = augment(x, ["crop", "flip"], 1, generator(0, "uniform")).flatten(1).argmax(1)
    rows, columns = np.bincount(found // 7, minlength=7), np.bincount(found % 7, minlength=7)
    # 5 standard deviations of a binomial with n = 3,600 and p = 1/3 are 141; p = 1/6: 112
    assert np.abs(rows[2:5] - 1200).max() < 141
    assert rows[2:5].sum() == 3600
    # places 1..3, or 3..5 after a flip (6 - place): 3 is reached both ways
    expected = np.array([600, 600, 1200, 600, 600])
    assert np.abs(columns[1:6] - expected).max() < 141


def test_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match=r"unknown augmentation 'crpo' \(did you mean 'crop'\?\); known: crop, flip"):
        augment(torch.zeros(1, 1, 2, 2), ["crpo"], 1, generator(0))
