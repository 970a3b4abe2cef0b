"""A grid of pictures: clean images, what was added to them, and what came out, for several arms."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssrob.formatting import NORMS, eps_text
from ssrob.reporting.data import ReportData
from ssrob.reporting.figures.arms import is_frontier, main_arms, short_names
from ssrob.reporting.figures.style import INK, MUTED, fold, new_figure, styled

MOST_IMAGES = 4
RIGHT, WRONG = "#00795a", "#b84600"  # the palette's green and vermilion, darkened for small text
Sample = Mapping[str, Any]


def in_norm(arrays: Mapping[str, Any], norm: str) -> dict[str, Any] | None:
    """Return the arrays of one norm's attack, as `adversarial_examples` wants them; None where there was none.

    An evaluation keeps adversarial images of several norms in one file, with keys such as ``adversarial_linf``.
    """
    suffix = f"_{norm}"
    of_norm = {key.removesuffix(suffix): arrays[key] for key in arrays if key.endswith(suffix)}
    if not of_norm and str(arrays.get("norm")) != norm:
        return None
    shared = {key: arrays[key] for key in ("clean", "label", "predicted_clean")}
    return {key: arrays[key] for key in arrays} | shared | of_norm | {"norm": norm}


@styled
def adversarial_examples(data: ReportData) -> Figure | None:
    """Draw a few images: a row of clean ones, then per main arm perturbations and adversarial images.

    `data.samples`: arm label -> clean, adversarial (M, C, H, W) in [0, 1], C in {1, 3}; label, predicted_clean,
    predicted_adversarial (M,); eps ([0, 1] pixel units), norm. classes: their names, if known.
    Perturbations are drawn as 0.5 + d / (2 max |d|).
    """
    arms = data.arms[~is_frontier(data.arms) & data.arms["budget"].isna()]
    arms = arms[((arms["norm"] == data.norm) | arms["norm"].isna()) & arms["label"].isin(set(data.samples))]
    labels = dict(zip(arms["name"], arms["label"], strict=True))
    by_name = {name: in_norm(data.samples[labels[name]], data.norm) for name in main_arms(arms)} if len(arms) else {}
    samples, classes = {name: each for name, each in by_name.items() if each is not None}, data.classes
    if not samples:
        return None
    first = next(iter(samples.values()))
    count = min(MOST_IMAGES, len(first["label"]))
    note = "Perturbations are scaled to be seen: grey is no change, and each is stretched to its own largest change."
    note += " Grey all over: no perturbation within eps changed the class, or it was wrong without one. Below each:"
    note += " ✓ still right, → the class it is taken for, or ✗ wrong even without a perturbation."
    note += " The attacks are those of the preset `fast`, whatever the sweeps were made with."
    figure = new_figure(_title(samples), note, 0.78 * (len(samples) + 1))
    short = short_names(list(samples))
    pairs = figure.subplots(len(samples) + 1, 3 * count - 1, squeeze=False, width_ratios=([1, 1, 0.12] * count)[:-1])
    for gap in pairs[:, 2::3].ravel():
        gap.axis("off")
    grid = pairs[:, [column for column in range(3 * count - 1) if column % 3 != 2]]
    for i in range(count):
        grid[0][2 * i].axis("off")
        _picture(grid[0][2 * i + 1], first["clean"][i], _class(first["label"][i], classes), INK)
    _name_row(grid[0][0], "clean image", "")
    for (name, sample), axes in zip(samples.items(), grid[1:], strict=True):
        if not np.array_equal(sample["label"][:count], first["label"][:count]):
            raise ValueError(f"example images of {name!r} are not those of {next(iter(samples))!r}")
        _arm_row(axes, short[name], sample, classes, count)
    return figure


def _title(samples: Mapping[str, Sample]) -> str:
    """Count the images that are still recognised under attack."""
    right = [int(np.sum(each["predicted_adversarial"] == each["label"])) for each in samples.values()]
    total = len(next(iter(samples.values()))["label"])
    return f"What the attack adds: of {total} images, {min(right)} to {max(right)} are still recognised"


def _class(label: Any, classes: Sequence[str]) -> str:
    """Name a class, in no more letters than fit below a picture."""
    number = int(label)
    return classes[number][:10] if number < len(classes) else f"class {number}"


def _arm_row(axes: NDArray[Any], name: str, sample: Sample, classes: Sequence[str], count: int) -> None:
    for i in range(count):
        change = np.asarray(sample["adversarial"][i]) - np.asarray(sample["clean"][i])
        _picture(axes[2 * i], 0.5 + change / (2 * max(float(np.abs(change).max()), 1e-12)), "", MUTED)
        label, before = int(sample["label"][i]), int(sample["predicted_clean"][i])
        after = int(sample["predicted_adversarial"][i])
        caption = "✓" if after == label else f"→ {_class(after, classes)}"
        caption = caption if before == label else f"✗ {_class(before, classes)}"
        _picture(axes[2 * i + 1], sample["adversarial"][i], caption, RIGHT if after == label else WRONG)
    _name_row(axes[0], name, f"{NORMS[str(sample['norm'])]}, eps = {eps_text(float(sample['eps']))}")


def _name_row(ax: Axes, name: str, detail: str) -> None:
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    text = "\n".join([fold(name, 20), *([detail] if detail else [])])
    ax.annotate(text, (0, 0.5), (-6, 0), ha="right", va="center", fontsize=8, **place)


def _picture(ax: Axes, image: NDArray[Any], below: str, colour: str) -> None:
    """Show an image (C, H, W) in [0, 1] with a line of text below."""
    pixels = np.clip(np.moveaxis(np.asarray(image, dtype=float), 0, -1), 0, 1)
    grey = pixels.shape[-1] == 1
    shown = pixels[..., 0] if grey else pixels
    ax.imshow(shown, cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.grid(False)
    ax.set_xlabel(below, fontsize=8, color=colour, labelpad=2)
