"""How well a trained model tells its own test images from images of no known class, clean and attacked."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ssrob.data.prepared import Prepared
from ssrob.data.test_split import open_test
from ssrob.data.types import Pixels
from ssrob.models.serialization import load_network
from ssrob.ood.data_sets import check_no_overlap, choose, scored_images
from ssrob.ood.detector import Detector, detection_table
from ssrob.ood.image_sets import check_outside, fitted, synthetic
from ssrob.planning.ood_specs import SET
from ssrob.planning.specs import OodSpec
from ssrob.registry.ood import SYNTHETIC, TEST_IMAGES
from ssrob.runtime.runner import Context
from ssrob.storage.tables import DETECTED, SCORED, write_table

Images = dict[str, tuple[Pixels, np.ndarray]]  # image set -> images (N, H, W, C) uint8, and their numbers (N,)


def stage(context: Context) -> None:
    """Run an ood stage: all scores of all image sets by one checkpoint."""
    spec = OodSpec.model_validate(context.stage.spec)
    images = image_sets(context, spec)
    _check_pretraining(context, spec)
    detector = detector_of(context, spec)
    scored, detected = [], []
    rounds = list(_rounds(spec, images))
    with context.progress(total=sum(len(sets) for _, _, sets in rounds), unit="image set") as bar:
        for eps, names, sets in rounds:
            found = {}
            for name, (pixels, _) in sets.items():
                found[name] = detector.scores(pixels, names, inside=name == TEST_IMAGES, eps=eps, steps=spec.steps)
                bar.update()
                context.stop_if_asked()
            scored += [score_rows(found[name], name, numbers, eps) for name, (_, numbers) in sets.items()]
            inside = found.pop(TEST_IMAGES)
            detected.append(detection_table(inside, found, seed=spec.seed).assign(eps=eps))
    write_table(pd.concat(scored, ignore_index=True), SCORED, context.out / "ood_scores.parquet")
    table = pd.concat(detected, ignore_index=True)[list(DETECTED)]
    write_table(table, DETECTED, context.out / "detection.parquet")
    means = table[table["eps"] == 0].groupby("score", sort=False)["auroc"].mean()
    context.summary = f"mean AUROC {100 * means.iloc[0]:.1f} % of {means.index[0]} over {len(spec.sets)} image sets"


def image_sets(context: Context, spec: OodSpec) -> Images:
    """Return the model's own test images and those of every set, which must not be among the training images."""
    data = Prepared(context.parent("data"), context.data_source)
    own, _, rows = open_test(data.folder, min(spec.images, data.counts["test"]))
    trained = data.digests() if {*spec.sets} - {*SYNTHETIC} else np.empty(0, np.uint64)
    found: Images = {TEST_IMAGES: (own, rows)}
    for name in spec.sets:
        if name in SYNTHETIC:
            pixels = synthetic(name, spec.images, data.shape, seed=spec.seed)
        else:
            pixels = fitted(scored_images(Prepared(context.parent(SET + name)), spec.images), data.shape)
            check_outside(name, pixels, trained, data.name)
        found[name] = (pixels, np.arange(len(pixels)))
    return found


def _check_pretraining(context: Context, spec: OodSpec) -> None:
    """Refuse image sets with images of the data that the model was pre-trained on, where that is here."""
    made = context.store.manifest(context.stage.parents["model"])["parents"]
    if "init" not in made:
        return
    path = context.store.manifest(made["init"])["parents"]["data"]
    if path == context.stage.parents["data"] or not context.store.done(path):
        return
    trained = Prepared(context.store.folder(path), context.source_of(path))
    for name in sorted({*spec.sets} - {*SYNTHETIC}):
        check_no_overlap(Prepared(context.parent(SET + name)), trained, spec.images)


def detector_of(context: Context, spec: OodSpec) -> Detector:
    """Return the model with the bank of training images that its scores take."""
    model = load_network(context.parent("model") / f"{spec.checkpoint}.safetensors").to(context.device)
    data = Prepared(context.parent("data"), context.data_source)
    near = "nearest_neighbour" in {*spec.scores, *spec.attacked_scores}
    kept = data.train(choose(len(data.train_labels), spec.train_images))[0] if near else None
    return Detector(model, training=kept, k=spec.neighbours)


def _rounds(spec: OodSpec, images: Images) -> Iterator[tuple[float, list[str], Images]]:
    """Yield eps, scores and images of the clean round, and of the attacked one if there is one."""
    yield 0.0, spec.scores, images
    if spec.attacked_images:
        kept = {name: choose(len(numbers), spec.attacked_images) for name, (_, numbers) in images.items()}
        yield (
            spec.eps,
            spec.attacked_scores,
            {name: (images[name][0][at], images[name][1][at]) for name, at in kept.items()},
        )


def score_rows(scores: pd.DataFrame, image_set: str, numbers: np.ndarray, eps: float) -> pd.DataFrame:
    """Return `Detector.scores` of images with their numbers (N,) as rows of `tables.SCORED`."""
    rows = scores.assign(image_set=image_set, example=numbers, eps=eps)
    rows = rows.melt(["image_set", "example", "eps"], var_name="score", value_name="value")
    return rows[list(SCORED)]
