"""The natural-corruption test of a trained model."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ssrob.corruptions import NAMES, corrupt, table_for
from ssrob.corruptions.fingerprint import fingerprint
from ssrob.corruptions.published import Published
from ssrob.data.prepared import Prepared
from ssrob.data.test_split import open_test
from ssrob.models.serialization import load_network
from ssrob.planning.specs import CorruptSpec
from ssrob.runtime.runner import Context
from ssrob.storage.tables import CORRUPTED, shares, write_table

AHEAD = 8  # tests at most whose images are made while a GPU classifies those of another
BATCH = 1000  # images of 32x32, fewer of larger ones


@dataclass(frozen=True)
class Corrupted:
    """Test images (N, H, W, C) uint8 and their numbers (N,), and where corrupted versions of them come from."""

    images: np.ndarray
    index: np.ndarray
    seed: int = 0
    frost: Path | None = None  # folder of photographs
    official: Path | None = None  # folder of the published files
    table: str | None = None  # name of the severity table; by default by the images' size
    classes: tuple[str, ...] = ()  # names of folders in published files that are folders

    def at(self, name: str, severity: int) -> np.ndarray:
        """Return the corrupted images, (N, H, W, C) uint8."""
        if self.published is not None:
            return self.published.at(name, severity, self.index)
        draws: dict[str, Any] = {"seed": self.seed, "index": self.index}
        return corrupt(self.images, name, severity, **draws, table=self.table, frost=self.frost)

    @cached_property
    def published(self) -> Published | None:
        """The published images, if they are to be used."""
        return Published(self.official, self.classes) if self.official else None

    @property
    def names(self) -> tuple[str, ...]:
        """The corruptions that there are: not all of ImageNet-C's archives need have been unpacked."""
        return self.published.folders.names if self.published and self.published.folders else NAMES

    def check(self, labels: np.ndarray) -> None:
        """Refuse published files that are not of these images; labels (N,) are those of the images."""
        if self.published is not None:
            self.published.check_shape(self.images.shape[1:])
            self.published.check_order(labels, self.index)

    @property
    def provenance(self) -> dict[str, str]:
        """What the images were made with."""
        folder = self.official or self.frost
        files = {"files": fingerprint(folder)} if folder else {}
        if self.published is not None:
            severities = "imagenet" if self.published.folders else "cifar"
            return {"images": "official files", "severities": severities, "frost": "official files"} | files
        severities = self.table or table_for(max(self.images.shape[1:3]))
        frost = "photographs" if self.frost else "procedural texture"
        return {"images": "made here", "severities": severities, "frost": frost} | files


def stage(context: Context) -> None:
    """Run a corrupt stage: every corruption at every severity on one checkpoint."""
    spec, settings = CorruptSpec.model_validate(context.stage.spec), context.stage.settings
    model = load_network(context.parent("model") / f"{spec.checkpoint}.safetensors").to(context.device)
    images, labels, index = open_test(context.parent("data"), spec.images)
    frost = Path(settings["frost"]) if spec.frost_photographs else None
    published = Path(settings["official"]) if spec.official else None
    classes = Prepared(context.parent("data")).classes
    source = Corrupted(images, index, spec.seed, frost, published, spec.table, classes)
    source.check(labels)
    with context.progress(total=len(spec.names) * len(spec.severities), unit="test") as bar:

        def after_test() -> None:
            bar.update()
            context.stop_if_asked()

        table = run_tests(model, source, labels, itertools.product(spec.names, spec.severities), after_test)
    write_table(table, CORRUPTED, context.out / "corruptions.parquet")
    context.provenance["corruptions"] = source.provenance
    context.summary = f"mean accuracy {100 * shares(table).mean():.1f} % over {len(spec.names)} corruptions"


def run_tests(
    model: nn.Module,
    source: Corrupted,
    labels: np.ndarray,
    tests: Iterable[tuple[str, int]],
    after_test: Callable[[], object] = lambda: None,
) -> pd.DataFrame:
    """Test a model at (corruption, severity) pairs; one row of `tables.CORRUPTED` per pair."""
    device, rows = next(model.parameters(), torch.empty(0)).device, []
    workers = min(AHEAD, len(os.sched_getaffinity(0))) if device.type == "cuda" else 1
    for (name, severity), images in corrupted_images(source, tests, workers):
        hits = predict(model, images, device) == labels
        rows.append((name, severity, len(hits), np.packbits(hits).tobytes()))
        after_test()
    return pd.DataFrame(rows, columns=list(CORRUPTED))


def corrupted_images(
    source: Corrupted, tests: Iterable[tuple[str, int]], workers: int
) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
    """Make the images of each test in turn, with several workers as many tests ahead; the same images either way."""
    waiting = iter(tests)
    if workers == 1:
        yield from ((test, source.at(*test)) for test in waiting)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        ahead = deque((test, pool.submit(source.at, *test)) for test in itertools.islice(waiting, workers))
        while ahead:
            test, images = ahead.popleft()
            yield test, images.result()
            ahead.extend((following, pool.submit(source.at, *following)) for following in itertools.islice(waiting, 1))
    finally:
        pool.shutdown(cancel_futures=True)


@torch.no_grad()
def predict(model: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Classify uint8 images (N, H, W, C); returns (N,) classes. The model takes (B, C, H, W) in [0, 1]."""
    classes, batch = [], max(1, BATCH * 32 * 32 // max(32 * 32, images.shape[1] * images.shape[2]))
    for chunk in np.array_split(images, max(1, len(images) // batch)):
        x = torch.from_numpy(np.ascontiguousarray(chunk)).to(device).permute(0, 3, 1, 2).float() / 255
        classes.append(model(x).argmax(dim=1).cpu().numpy())
    return np.concatenate(classes)
