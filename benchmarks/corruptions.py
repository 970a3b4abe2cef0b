"""Time and faithfulness of the 19 corruptions against their definitions, one image at a time.

    python benchmarks/corruptions.py [--images 1000] [--reference-images 100] [--table cifar] [--size 32]
    pip install --no-deps --target FOLDER imagecorruptions && python benchmarks/corruptions.py --peer FOLDER

For each corruption: processor seconds per 1,000 images, mean of the five severities, for the package and for the
per-image definitions in tests/reference_corruptions.py (scikit-image, OpenCV, SciPy, Pillow), one thread each; then,
per severity, the mean absolute change in grey levels and its ratio to the definition's with numbers drawn afresh,
with the standard error of the ratio. Frost uses two photographs; the definition reads and shrinks one for every
image, as the original does.

With --peer: the same crops at 224 pixels through the package imagecorruptions, in turn with ours, severities 1, 3 and
5: processor milliseconds per image, the median ratio of `--rounds` rounds with its range, and the mean change of ours
over theirs at each severity, where they define the corruption alike (not elastic_transform).
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import scipy.ndimage
import skimage.filters
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ssrob.corruptions import NAMES, SEVERITIES, corrupt, parameters

import reference_corruptions as reference
import timing


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if options.peer:
        compare_with_peer(options)
        return
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


def compare_with_peer(options: argparse.Namespace) -> None:
    theirs = imagecorruptions(options.peer)
    images, frost = reference.crops(options.peer_images, 224), options.peer / "imagecorruptions" / "frost"
    print(f"{len(images)} images of 224 x 224\n{'':18}   ours  theirs  ours / theirs          mean |change| / theirs")
    medians = []
    for name in options.names:
        runs = {
            "ours": lambda name=name: [corrupt(images, name, severity, frost=frost) for severity in (1, 3, 5)],
            "theirs": lambda name=name: [[theirs(image, severity, name) for image in images] for severity in (1, 3, 5)],
        }
        changes = [np.abs(np.float64(run()) - images).mean((1, 2, 3, 4)) for run in runs.values()]
        seconds = timing.interleaved(runs, options.rounds)
        ours, peer = (1000 * np.median(seconds[who]) / (3 * len(images)) for who in runs)
        medians.append((ours, peer))
        cells = " ".join(f"{change:.3f}" for change in changes[0] / changes[1])
        print(f"{name:18} {ours:6.2f} {peer:7.2f}  {timing.ratio(seconds, 'ours', 'theirs')}   {cells}", flush=True)
    print(f"{'all':18} {sum(m[0] for m in medians):6.2f} {sum(m[1] for m in medians):7.2f}")


def imagecorruptions(folder: Path) -> Callable[[np.ndarray, int, str], np.ndarray]:
    """Import the package, which was written for older libraries, and return its `corrupt`."""
    stand_ins = {"scipy.ndimage.interpolation": {"map_coordinates": scipy.ndimage.map_coordinates}}
    stand_ins["pkg_resources"] = {"resource_filename": lambda name, file: str(folder / "imagecorruptions" / file)}
    for module, content in stand_ins.items():
        sys.modules[module] = ModuleType(module)
        vars(sys.modules[module]).update(content)
    setattr(np, "float_", np.float64)  # noqa: B010 (numpy 2 has no such name, which ruff would replace)
    blur = skimage.filters.gaussian

    def gaussian(*arguments, multichannel=False, **keywords):
        return blur(*arguments, **keywords, channel_axis=-1 if multichannel else None)

    sys.path.append(str(folder))
    skimage.filters.gaussian = gaussian  # while it is imported
    import imagecorruptions as peer

    skimage.filters.gaussian = blur
    return peer.corrupt


def define(name, image, params, source, folder):
    if name != "frost":
        return reference.REFERENCES[name](image, params, source)
    path = sorted(folder.iterdir())[int(source.uniform("file") * 2)]
    photograph = cv2.imread(str(path))[..., ::-1]
    plate = cv2.resize(photograph, (0, 0), fx=params[2], fy=params[2])
    return reference.frost(image, params, source, [plate])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, metavar="FOLDER")
    parser.add_argument("--peer-images", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--reference-images", type=int, default=100)
    parser.add_argument("--table", choices=["cifar", "imagenet"], default="cifar")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--names", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    return parser.parse_args()


if __name__ == "__main__":
    main()
