"""Decoding training images by worker processes, beside torchvision's own reference pipeline; no network.

    python benchmarks/loader.py [--images 400] [--rounds 5] [--workers 1]

Both decode the same JPEG files of 500 x 375 pixels (made here, in a temporary folder), take random resized crops of 224
pixels, flip them, and hand batches of 64 to the process that would train. Seconds are those of the processor, of all
processes together, so images per second are per core. The batches of both come from a DataLoader with as many workers.
"""

import argparse
import os
import resource
import tempfile
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from ssrob.config.data import Data
from ssrob.data.decoding_loader import DecodedBatches
from ssrob.data.loader import augment
from ssrob.data.sources import open_source
from ssrob.data.stored_images import StoredImages
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


def open_ours(folder: Path, workers: int) -> DecodedBatches:
    """Open the images for training, as a stage does."""
    split = open_source(Data(name="bench", source="folder", path=folder, test=[], size=SIZE, storage="files")).train
    stored = StoredImages(split, np.arange(len(split)), (3, SIZE, SIZE), None)
    return DecodedBatches(stored, split.labels, BATCH, 0, random_crops=True, workers=workers)


def ours(batches: DecodedBatches, epoch: int) -> int:
    """Pass over all images once with the decoding loader, whose workers go on to the next epoch."""
    per_epoch, seen = batches.steps_per_epoch, 0
    for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
        x = augment(batches.at(step)[0], ["flip"], 0, generator(0, "augment", step))
        seen += len(x)
    return seen


def reference(folder: Path, workers: int) -> int:
    """Pass over all images once with ImageFolder and torchvision's transforms, as its training reference does."""
    steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    images = datasets.ImageFolder(str(folder / "train"), transforms.Compose(steps))
    loader = DataLoader(images, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    return sum(len(x) for x, _ in loader)


def seconds() -> float:
    """Processor seconds of this process and of its workers, those that have ended included."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    running = [Path(f"/proc/{each.pid}/stat").read_text().rpartition(")")[2].split() for each in active_children()]
    ticks = sum(int(each[11]) + int(each[12]) for each in running)  # user and system time
    return sum(each.ru_utime + each.ru_stime for each in used) + ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Time both in turn and print images per second and core, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, given.images)
        batches = open_ours(folder, given.workers)
        rates: dict[str, list[float]] = {"ssrob": [], "torchvision": []}
        for turn in range(given.rounds + 1):
            for who, found in rates.items():
                began = seconds()
                seen = ours(batches, turn) if who == "ssrob" else reference(folder, given.workers)
                if turn:
                    found.append(seen / (seconds() - began))
    for who, found in rates.items():
        print(f"{who:12s}{np.median(found):8.1f} images per second and core ({min(found):.1f} to {max(found):.1f})")
    ratios = np.array(rates["ssrob"]) / np.array(rates["torchvision"])
    print(f"{'ratio':12s}{np.median(ratios):8.2f} ({ratios.min():.2f} to {ratios.max():.2f}), n = {given.rounds}")
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"largest process {largest / 1024:.0f} MB")


if __name__ == "__main__":
    main()
