"""Time and faithfulness of the 19 corruptions against their definitions, one image at a time.

    python benchmarks/corruptions.py [--images 1000] [--reference-images 100] [--table cifar] [--size 32]

For each corruption: processor seconds per 1,000 images, mean of the five severities, for the package and for the
per-image definitions in tests/reference_corruptions.py (scikit-image, OpenCV, SciPy, Pillow), one thread each; then,
per severity, the mean absolute change in grey levels and its ratio to the definition's with numbers drawn afresh,
with the standard error of the ratio. Frost uses two photographs; the definition reads and shrinks one for every
image, as the original does.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ssrob.corruptions import NAMES, SEVERITIES, corrupt, parameters

import reference_corruptions as reference


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    images = reference.crops(options.images, options.size)
    print(f"{len(images)} images of {options.size} x {options.size}, {options.reference_images} by definition")
    print(f"{'':18} s/1000  by def.  faster   mean |change| and its ratio to the definition's, severities 1..5")
    totals = np.zeros(2)
    with tempfile.TemporaryDirectory() as folder:
        for i, photograph in enumerate(load_sample_images().images):
            Image.fromarray(photograph).save(Path(folder) / f"frost{i + 1}.jpg")
        for name in options.names:
            rows = [row(name, severity, images, Path(folder), options) for severity in SEVERITIES]
            ours, theirs = np.mean([seconds for seconds, _ in rows], axis=0)
            totals += ours, theirs
            cells = "  ".join(cell for _, cell in rows)
            print(f"{name:18} {ours:6.3f} {theirs:8.2f} {theirs / ours:6.1f}x   {cells}", flush=True)
    print(f"{'all':18} {totals[0]:6.3f} {totals[1]:8.2f} {totals[1] / totals[0]:6.1f}x")


def row(
    name: str, severity: int, images: np.ndarray, folder: Path, options: argparse.Namespace
) -> tuple[tuple[float, float], str]:
    """Return seconds per 1,000 images (package, definition), and the mean changes as text."""
    corrupt(images[:8], name, severity, table=options.table, frost=folder)  # builds the cached tables
    start = time.process_time()
    found = corrupt(images, name, severity, table=options.table, frost=folder)
    ours = 1000 * (time.process_time() - start) / len(images)

    some = images[: options.reference_images]
    params = parameters(name, severity, options.table)
    source = reference.FreshDraws(np.random.default_rng(severity))
    start = time.process_time()
    expected = np.array([reference.stored(define(name, image, params, source, folder)) for image in some])
    theirs = 1000 * (time.process_time() - start) / len(some)

    changes = [np.abs(result.astype(float) - some).mean((1, 2, 3)) for result in (found[: len(some)], expected)]
    ratio = changes[0].mean() / changes[1].mean()
    error = (changes[0] - ratio * changes[1]).std() / len(some) ** 0.5 / changes[1].mean()
    return (ours, theirs), f"{changes[0].mean():5.2f} {ratio:.3f}±{error:.3f}"


def define(name, image, params, source, folder):
    if name != "frost":
        return reference.REFERENCES[name](image, params, source)
    path = sorted(folder.iterdir())[int(source.uniform("file") * 2)]
    photograph = cv2.imread(str(path))[..., ::-1]
    plate = cv2.resize(photograph, (0, 0), fx=params[2], fy=params[2])
    return reference.frost(image, params, source, [plate])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--reference-images", type=int, default=100)
    parser.add_argument("--table", choices=["cifar", "imagenet"], default="cifar")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    return parser.parse_args()


if __name__ == "__main__":
    main()
