"""The stages that test a model on images of no known class, and its calibration. Imports no torch."""

from collections.abc import Mapping
from dataclasses import replace

from ssrob.config.data import Data
from ssrob.config.fields import Checkpoint
from ssrob.config.ood import CalibrationTest, OodTest, name_of
from ssrob.config.study import Study
from ssrob.planning.specs import CalibrateSpec, OodSpec, TrainSpec
from ssrob.planning.stage import Stage, data_stage, make_stage
from ssrob.registry.ood import HELD_OUT, SCORES

SET = "set "  # before the name of an image set, in the roles of parents


def ood_stages(study: Study, data: Stage, model: Stage) -> list[Stage]:
    """Return the data sets that are asked for, and a test of each checkpoint."""
    if study.ood is None:
        return []
    sets = {name: data_stage(each, study.plugins) for name, each in image_sets(study).items()}
    parents = {"data": data.path, "model": model.path} | {SET + name: stage.path for name, stage in sets.items()}
    heads = {"", *TrainSpec.model_validate(model.spec).objective.heads}
    specs = [_ood_spec(study, study.ood, checkpoint, heads) for checkpoint in study.evaluate.checkpoints]
    settings = model_settings(model)
    tests = [
        make_stage("ood", f"{model.name}-{spec.checkpoint}", spec, parents, settings) for spec in specs if spec.scores
    ]
    return [*sets.values(), *tests]


def calibrate_stages(study: Study, data: Stage, model: Stage) -> list[Stage]:
    """Return a test of each checkpoint."""
    if study.calibrate is None:
        return []
    parents, settings = {"data": data.path, "model": model.path}, model_settings(model)
    settings |= {"frost": str(study.corrupt.frost)} if study.corrupt.frost else {}
    specs = [_calibrate_spec(study, study.calibrate, checkpoint) for checkpoint in study.evaluate.checkpoints]
    return [make_stage("calibrate", f"{model.name}-{spec.checkpoint}", spec, parents, settings) for spec in specs]


def image_sets(study: Study) -> dict[str, Data]:
    """Return the image sets that are data sets, by name; held-out classes are a part of the study's own data."""
    held_out = study.data.model_copy(
        update={
            "only": study.data.hold_out,
            "hold_out": [],
            "train_images": None,
            "test_images": None,
            "fingerprint": None,
        }
    )
    sets = study.ood.sets if study.ood else []
    named = {HELD_OUT: held_out} if HELD_OUT in sets else {}
    return named | {each.name: each for each in sets if isinstance(each, Data)}


def compared_first(study: Study, stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """Return the stages of a study with image sets that have to know of these, by path.

    Image sets must have no images in common with data that is trained on. So the settings of every data stage list
    both, and every training waits for all data stages.
    """
    sets = [data_stage(each).path for each in image_sets(study).values()]
    if not sets:
        return {}
    training = [stage for stage in stages.values() if stage.kind in ("pretrain", "finetune")]
    trained = sorted({stage.parents["data"] for stage in training})
    apart = {"apart": {"image_sets": sets, "trained": trained, "images": study.ood.images if study.ood else 0}}
    every = [*trained, *sets]
    added = dict.fromkeys(every, apart) | {stage.path: {"after": every} for stage in training}
    return {path: replace(stages[path], settings=stages[path].settings | more) for path, more in added.items()}


def model_settings(model: Stage) -> dict[str, object]:
    """Return a training's settings that its tests have, too."""
    return {name: value for name, value in model.settings.items() if name != "weights"}


def _ood_spec(study: Study, test: OodTest, checkpoint: Checkpoint, heads: set[str]) -> OodSpec:
    """Resolve a test: the scores of a model's heads, and the budget of the attack."""
    scores, attacked = (
        [name for name in names if SCORES[name].head in heads] for names in (test.scores, test.attacked_scores)
    )
    reference = study.threat["linf"].eps if "linf" in study.threat else 0.0
    eps = reference if test.eps is None else test.eps
    attack = {"attacked_scores": attacked, "attacked_images": test.attacked_images, "eps": eps, "steps": test.steps}
    return OodSpec(
        sets=[name_of(each) for each in test.sets],
        scores=scores,
        checkpoint=checkpoint,
        threads=study.finetune.threads,
        **test.model_dump(include={"images", "neighbours", "train_images"}),
        **(attack if test.attacked_images and eps and attacked else {}),
    )


def _calibrate_spec(study: Study, test: CalibrationTest, checkpoint: Checkpoint) -> CalibrateSpec:
    """Resolve a test: corruptions are made as in the corruption test."""
    return CalibrateSpec(
        reference={norm: threat.eps for norm, threat in study.threat.items()} if test.steps else {},
        frost_photographs=study.corrupt.frost is not None and "frost" in test.corruptions,
        table=study.corrupt.table,
        checkpoint=checkpoint,
        threads=study.finetune.threads,
        **test.model_dump(),
    )
