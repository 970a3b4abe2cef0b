"""Batches of what fits: halved when memory runs out, with the same verdicts."""

import logging

import pytest
import torch
from ssrob.attacks.auto_batch import CPU_BATCH, MOST, Parts, batch_for, fitting
from ssrob.attacks.sweep import attack_sweep
from ssrob.seeding import generator
from torch import Tensor, nn


class Small(nn.Module):
    """A linear model on a device that holds so many images at once."""

    def __init__(self, room: int):
        super().__init__()
        self.layer, self.room, self.seen = nn.Linear(16, 4), room, [0]
        draws = generator(0, "weights")
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draws))

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("no memory left")
        self.seen.append(len(x))
        return self.layer(x.flatten(1))


def test_an_attack_goes_on_in_smaller_parts_to_the_same_verdicts(caplog: pytest.LogCaptureFixture) -> None:
    draws = generator(0, "data")
    x = torch.rand(50, 1, 4, 4, generator=draws)
    labels = Small(50)(x).argmax(1)
    large, small = Small(50).eval(), Small(7).eval()
    settings = {"eps": [0.0, 0.05, 0.1], "preset": "fast", "batch_size": 32}
    expected = attack_sweep(large, x, labels, **settings)
    with caplog.at_level(logging.WARNING, "ssrob.attacks.auto_batch"):
        found = attack_sweep(small, x, labels, **settings)
    message = "out of memory: going on with {} images at a time"
    assert [record.getMessage() for record in caplog.records] == [message.format(size) for size in (16, 8, 4)]
    assert max(small.seen) == 4
    assert max(large.seen) == 32
    assert torch.equal(found.robust, expected.robust)
    assert (found.gradients, found.forwards) == (expected.gradients, expected.forwards), "failed tries do not count"
    torch.testing.assert_close(found.distance, expected.distance, rtol=1e-5, atol=1e-6)  # float32, other batches


def test_parts_cover_every_row_once_whatever_fails() -> None:
    parts, calls = Parts(8), []

    def function(rows: slice) -> list[int]:
        calls.append(rows.stop - rows.start)
        if len(calls) in (2, 3):
            raise torch.OutOfMemoryError
        return list(range(*rows.indices(100)))

    assert sum(parts(function, 21), []) == list(range(21))  # noqa: RUF017
    assert calls == [8, 8, 4, 2, 2, 2, 2, 2, 2, 1]
    assert parts.size == 2


def test_too_little_memory_for_one_image_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        attack_sweep(Small(0), torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64), eps=[0.1], batch_size=2)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def wrong(rows: slice) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        Parts(4)(wrong, 8)


def test_the_batch_is_the_largest_power_of_two_that_fits() -> None:
    assert fitting(100, 10) == 8
    assert fitting(80, 10) == 8
    assert fitting(79, 10) == 4
    assert fitting(1, 10) == 1
    assert fitting(1e12, 10) == MOST
    assert batch_for(nn.Identity(), torch.rand(1, 1, 4, 4)) == CPU_BATCH
