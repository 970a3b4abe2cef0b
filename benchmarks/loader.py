"""Decoding training images by worker processes, beside torchvision's own reference pipeline; no network.

    python benchmarks/loader.py [--images 400] [--rounds 5] [--workers 1] [--entries 1300000]

Both decode the same JPEG files of 500 x 375 pixels (made here, in a temporary folder), take random resized crops of 224
pixels, flip them, and hand batches of 64 to the process that would train. Seconds are those of the processor, of all
processes together, so images per second are per core. The batches of both come from a DataLoader with as many workers.
Memory is that of the process that would train, torch included, and of its workers, as proportional set size: pages that
processes share are counted once. `--entries`: with an index of so many images, which are these again and again.
"""

import argparse
import os
import re
import resource
import tempfile
import time
from itertools import cycle, islice
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from ssrob.config.data import Data
from ssrob.data.decoding_loader import DecodedBatches
from ssrob.data.loader import augment
from ssrob.data.source_files import source_files
from ssrob.data.sources import open_source
from ssrob.data.stored_images import StoredImages
from ssrob.data.types import split_of_files
from ssrob.runtime.runner import keep_memory
from ssrob.seeding import generator, normal
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

SIZE, STORED, BATCH, CLASSES = 224, (375, 500), 64, 4


def write_images(folder: Path, count: int) -> None:
    """Write smooth random pictures, which compress about as photographs do."""
    for number in range(count):
        coarse = normal(torch.tensor([number]), (3, 24, 32))
        fine = torch.nn.functional.interpolate(coarse, STORED, mode="bicubic")
        grain = 0.06 * normal(torch.tensor([number + count]), (3, *STORED))
        pixels = (((fine + grain) * 0.2 + 0.5).clamp(0, 1) * 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()
        file = folder / f"train/{number % CLASSES}/{number:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file, quality=90)


def open_ours(folder: Path, workers: int, entries: int | None) -> DecodedBatches:
    """Open the images for training, as a stage does; `entries`: as if there were so many."""
    split = open_source(Data(name="bench", source="folder", path=folder, test=[], size=SIZE, storage="files")).train
    if entries is not None:
        files = sorted(str(file) for file in folder.rglob("*.jpg"))
        split = split_of_files(list(islice(cycle(files), entries)), list(islice(cycle(split.labels.tolist()), entries)))
    stored = StoredImages(split, np.arange(len(split)), (3, SIZE, SIZE), None)
    return DecodedBatches(stored, split.labels, BATCH, 0, random_crops=True, workers=workers)


def ours(batches: DecodedBatches, turn: int, images: int) -> int:
    """Take as many images as there are files from the decoding loader, whose workers go on to the next turn."""
    per_turn, seen = images // BATCH, 0
    for step in range(turn * per_turn, (turn + 1) * per_turn):
        x = augment(batches.at(step)[0], ["flip"], 0, generator(0, "augment", step))
        seen += len(x)
    return seen


def open_reference(folder: Path, workers: int) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Open ImageFolder with torchvision's transforms, as its training reference does; workers stay, as ours do."""
    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    images = datasets.ImageFolder(str(folder / "train"), transforms.Compose(steps))
    return DataLoader(images, BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True)


def settle() -> None:
    """Wait until all workers wait, too: what they make ahead counts for the loader that it is made for."""
    calm = 0
    while calm < 5:
        time.sleep(0.05)
        states = [
            Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split()[0] for each in active_children()
        ]
        calm = calm + 1 if set(states) <= {"S"} else 0


def seconds() -> float:
    """Processor seconds of this process and of its workers, those that have ended included."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    running = [Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split() for each in active_children()]
    ticks = sum(int(each[11]) + int(each[12]) for each in running)  # user and system time
    return sum(each.ru_utime + each.ru_stime for each in used) + ticks / os.sysconf("SC_CLK_TCK")


def memory() -> list[float]:
    """Proportional set sizes in MB, of this process and then of its workers."""
    pids = [os.getpid(), *(each.pid for each in active_children())]
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return [int(re.search(r"^Pss: +(\d+)", each, re.M)[1]) / 1024 for each in rollups]


def list_folder(count: int) -> None:
    """Write so many empty files, a thousand to a class, and print what it takes to list them."""
    with tempfile.TemporaryDirectory() as name:
        for number in range(count):
            file = Path(name, f"train/n{number // 1000:08}/n{number // 1000:08}_{number:07}.JPEG")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        data = Data(name="bench", source="folder", path=Path(name), test=[], size=SIZE)
        for what, function in (("opening", open_source), ("names, sizes and times", source_files)):
            began = time.process_time()
            function(data)
            print(f"{count:,} files, {what}: {time.process_time() - began:.2f} s")


def main() -> None:
    """Time both in turn and print images per second and core, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--entries", type=int, default=None)
    parser.add_argument("--files", type=int, default=None, help="only list a folder of so many files")
    given = parser.parse_args()
    if given.files:
        return list_folder(given.files)
    torch.set_num_threads(1)
    keep_memory()  # as a stage does
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, given.images)
        batches, peer = open_ours(folder, given.workers, given.entries), open_reference(folder, given.workers)
        used: list[float] = []
        rates: dict[str, list[float]] = {"ssrob": [], "torchvision": []}
        for turn in range(given.rounds + 1):
            for who, found in rates.items():
                began = seconds()
                ssrob = who == "ssrob"
                seen = ours(batches, turn, given.images) if ssrob else sum(len(x) for x, _ in peer)
                settle()
                if turn:
                    found.append(seen / (seconds() - began))
                elif ssrob:  # before the other's workers are there
                    used = memory()
    for who, found in rates.items():
        print(f"{who:12s}{np.median(found):8.1f} images per second and core ({min(found):.1f} to {max(found):.1f})")
    ratios = np.array(rates["ssrob"]) / np.array(rates["torchvision"])
    print(f"{'ratio':12s}{np.median(ratios):8.2f} ({ratios.min():.2f} to {ratios.max():.2f}), n = {given.rounds}")
    print(f"memory      {used[0]:.0f} MB, workers {' and '.join(f'{each:.0f}' for each in used[1:])} MB")


if __name__ == "__main__":
    main()
