"""The ood and calibrate stages: what they store is what independent libraries find, and bad input is refused early."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score, roc_curve
from ssrob.calibration import fit_temperature
from ssrob.config.data import Data
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.data.prepare import prepare
from ssrob.data.prepared import Prepared
from ssrob.data.test_split import open_test
from ssrob.data.types import DataError
from ssrob.models.serialization import load_network
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.specs import CalibrateSpec, OodSpec
from ssrob.runtime import runner
from ssrob.scheduling.disk_usage import estimate
from ssrob.scheduling.due import due_part
from ssrob.scheduling.preflight import check
from ssrob.scheduling.priority import blocks
from ssrob.scheduling.workload import passes
from ssrob.stages.calibrate import attacked_logits, logits_of
from ssrob.stages.ood import detector_of, image_sets
from ssrob.storage.store import Store
from ssrob.storage.tables import read_table
from ssrob.tracking.points import measured_points
from tests.conftest import jobs, snakemake, tiny_config
from tests.image_files import folder_data, pixels

DATA = {"name": "digits", "source": "digits", "train_images": 300, "test_images": 60, "hold_out": [8, 9]}
OOD: dict[str, Any] = {"sets": ["held_out", "blobs"], "images": 50, "neighbours": 5, "attacked_images": 12, "steps": 3}
OOD |= {"attacked_scores": ["max_softmax", "rotation"]}
CALIBRATE = {"images": 40, "bins": 5, "corruptions": ["contrast"], "steps": 3}
ARMS = [{"variant": "at_ssl_joint", "norm": "linf"}]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of unlabelled colour photographs, larger than digits."""
    folder, draws = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(draws.integers(0, 256, (24, 24, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def study_of(folder: Path, **changes: Any) -> dict[str, Any]:
    sections = {"data": DATA, "ood": OOD, "calibrate": CALIBRATE, "arms": ARMS}
    return tiny_config(folder, **sections | changes)


def planned(folder: Path, **changes: Any) -> Plan:
    return make_plan(parse_study(study_of(folder, **changes)))


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> tuple[Plan, Store]:
    torch.set_num_threads(1)
    other = {"name": "photographs", "source": "folder", "path": str(photographs), "label_column": None}
    ood = OOD | {"sets": [*OOD["sets"], other]}
    plan = planned(tmp_path_factory.mktemp("results"), ood=ood)
    store = Store(plan.study.results)
    for stage in plan.stages.values():
        if stage.kind in ("data", "finetune", "ood", "calibrate"):
            runner.run(stage, store, device="cpu")
    return plan, store


def output(tested: tuple[Plan, Store], kind: str, name: str) -> pd.DataFrame:
    plan, store = tested
    (stage,) = plan.of_kind(kind).values()
    return read_table(store.output(stage.path, f"{name}.parquet"))


def test_held_out_classes_are_never_seen(tested: tuple[Plan, Store]) -> None:
    plan, store = tested
    own, held_out, _ = [Prepared(store.folder(path)) for path in plan.stages if path.startswith("data/")]
    assert own.classes == tuple("01234567")
    assert held_out.classes == ("8", "9")
    everything = [open_test(each.folder)[2] for each in (own, held_out)]
    everything += [np.load(each.folder / "train_rows.npy") for each in (own, held_out)]
    from sklearn.datasets import load_digits

    names = load_digits().target
    assert set(names[everything[0]]) == set(names[everything[2]]) == set(range(8))
    assert set(names[everything[1]]) == set(names[everything[3]]) == {8, 9}
    assert sum(map(len, (everything[1], everything[3]))) == 354, "all images of both classes"
    images, labels = own.train()
    assert (names[everything[2]][: len(images)] == labels).all()


def test_every_image_has_its_scores(tested: tuple[Plan, Store]) -> None:
    rows = output(tested, "ood", "ood_scores")
    counts = rows.groupby(["eps", "image_set"]).size()
    assert counts[0.0].to_dict() == {"blobs": 300, "held_out": 300, "photographs": 120, "test": 300}, "six scores"
    assert counts[0.1].to_dict() == dict.fromkeys(("blobs", "held_out", "photographs", "test"), 24), "of two scores"
    assert not rows.duplicated(["image_set", "example", "score", "eps"]).any()
    values = rows.pivot_table(index=["image_set", "example", "score"], columns="eps", values="value").dropna()
    inside = values.index.get_level_values("image_set") == "test"
    assert (values[0.1] <= values[0.0] + 1e-5)[inside].all(), "an attack hides what is inside"
    assert (values[0.1] >= values[0.0] - 1e-5)[~inside].all(), "and lets in what is outside"
    assert (values[0.1] - values[0.0]).abs().mean() > 1e-3


def test_detection_is_what_scikit_learn_finds(tested: tuple[Plan, Store]) -> None:
    rows = output(tested, "ood", "ood_scores")
    for found in output(tested, "ood", "detection").to_dict("records"):
        chosen = rows[(rows["score"] == found["score"]) & (rows["eps"] == found["eps"])]
        chosen = chosen[chosen["image_set"].isin(["test", found["image_set"]])]
        inside, value = chosen["image_set"] == "test", chosen["value"]
        assert found["auroc"] == pytest.approx(roc_auc_score(inside, value), abs=1e-9)
        assert found["aupr"] == pytest.approx(average_precision_score(inside, value), abs=1e-9)
        rate, passed, _ = roc_curve(inside, value, drop_intermediate=False)
        assert found["fpr"] == pytest.approx(rate[np.argmax(passed >= 0.95)], abs=1e-9)
        assert found["auroc_low"] <= found["auroc"] <= found["auroc_high"]
        assert (found["inside"], found["outside"]) == (inside.sum(), (~inside).sum())


def test_calibration_is_what_scikit_learn_finds(tested: tuple[Plan, Store]) -> None:
    plan, store = tested
    (stage,) = plan.of_kind("calibrate").values()
    model = load_network(store.output(stage.parents["model"], "best.safetensors")).eval()
    images, labels, rows = open_test(store.folder(stage.parents["data"]), 40)
    with torch.no_grad():
        logits = model(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255).double()
    per_image, table = output(tested, "calibrate", "confidences"), output(tested, "calibrate", "calibration")
    assert list(table["images"].unique()) == ["clean", "contrast", "l2", "linf"]
    assert len(per_image) == 40 * len(table) == 40 * 8
    for found in table[table["images"] == "clean"].to_dict("records"):
        chances = (logits / found["temperature"]).softmax(1).numpy()
        assert found["nll"] == pytest.approx(log_loss(labels, chances, labels=range(8)), abs=1e-5)
        assert found["brier"] == pytest.approx(
            brier_score_loss(labels, chances, labels=range(8), scale_by_half=False), abs=1e-5
        )
        mine = per_image[(per_image["images"] == "clean") & (per_image["scaled"] == found["scaled"])]
        assert (mine["example"] == rows).all()
        by_bin = mine.sort_values("confidence")[["correct", "confidence"]].to_numpy(float).reshape(5, 8, 2).mean(1)
        assert found["ece"] == pytest.approx(np.abs(by_bin[:, 0] - by_bin[:, 1]).mean(), abs=1e-5)
    means = per_image.groupby(["images", "scaled"])[["nll", "brier", "correct"]].mean()
    whole = table.set_index(["images", "scaled"]).rename(columns={"accuracy": "correct"})
    assert np.allclose(means, whole.loc[means.index, means.columns], atol=1e-5), "float32 in the table of images"
    seen = table.set_index(["images", "scaled"])["nll"]
    assert seen["linf", False] > seen["clean", False]


def test_mlflow_has_what_the_tables_have(tested: tuple[Plan, Store]) -> None:
    plan, store = tested
    points = {
        name: value
        for kind in ("ood", "calibrate")
        for stage in plan.of_kind(kind).values()
        for name, _, value in measured_points(store, stage)
    }
    detection = output(tested, "ood", "detection").set_index(["score", "image_set", "eps"])["auroc"]
    assert points["ood_auroc/energy/blobs"] == pytest.approx(detection["energy", "blobs", 0.0], abs=1e-6)
    attacked = detection.xs("max_softmax").xs(0.1, level="eps")
    assert points["ood_attacked_auroc/max_softmax/mean"] == pytest.approx(attacked.mean(), abs=1e-6)
    table = output(tested, "calibrate", "calibration").set_index(["images", "scaled"])
    assert points["calibration_scaled/nll_linf"] == pytest.approx(table.loc[("linf", True), "nll"], abs=1e-6)
    assert points["calibration/ece_clean"] == pytest.approx(table.loc[("clean", False), "ece"], abs=1e-6)


def test_it_is_planned_counted_and_run_with_its_arm(tmp_path: Path, tested: tuple[Plan, Store]) -> None:
    plan, _ = tested
    first = list(blocks(plan)[0].stages)
    assert {path.partition("/")[0] for path in first} == {"data", "finetune", "evaluate", "corrupt", "ood", "calibrate"}
    at = {path: place for place, path in enumerate(first)}
    assert all(at[parent] < at[path] for path in first for parent in plan.stages[path].parents.values())
    assert set(due_part(plan).stages) == set(plan.stages)
    (ood,), (calibrate,) = (plan.of_kind(kind).values() for kind in ("ood", "calibrate"))
    assert passes(ood, (270, 60)) == 270 + 4 * (50 + 3 * 50) + 12 * 4 * 9 * (1 + 4)
    assert passes(calibrate, (270, 60)) == 40 * (1 + 1 + 2 * 7 + 1)
    assert estimate(planned(tmp_path), Store(tmp_path)).by_kind["ood"] > 20_000


def test_without_them_nothing_changes(tmp_path: Path) -> None:
    off = planned(tmp_path, ood="off", calibrate=False)
    assert not off.of_kind("ood")
    assert not off.of_kind("calibrate")
    none = make_plan(parse_study(tiny_config(tmp_path, data=DATA, arms=ARMS)))
    assert off.stages.keys() == none.stages.keys()
    assert off.digest == none.digest != planned(tmp_path).digest


def test_a_model_without_a_rotation_head_has_no_scores_of_it(tmp_path: Path) -> None:
    (stage,) = planned(tmp_path, arms=[{"variant": "at", "norm": "linf"}]).of_kind("ood").values()
    assert stage.spec["scores"] == ["max_softmax", "max_logit", "energy", "nearest_neighbour"]
    assert stage.spec["attacked_scores"] == ["max_softmax"]


DIGITS = {"name": "others", "source": "digits"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": DATA | {"hold_out": ["8", "ten"]}}, "hold_out: expected some of 0, 1, .* found ten"),
        ({"data": DATA | {"hold_out": []}}, "ood.sets: held_out needs classes under data.hold_out, found none"),
        ({"data": DATA | {"only": [1]}, "ood": "off"}, "data.only: a study needs at least 2 classes, found 1"),
        ({"data": DATA | {"only": [8]}}, "hold_out: a class is given here or in only, found 8 in both"),
        (
            {"ood": OOD | {"sets": [DIGITS]}},
            "'others': classes: classes must not be among those of 'digits', found 0, 1",
        ),
        ({"ood": OOD | {"sets": ["blob"]}}, "unknown image set 'blob'"),
        ({"ood": OOD | {"sets": ["blobs", "blobs"]}}, "every entry once"),
        ({"ood": OOD | {"sets": [DIGITS | {"name": "held_out"}]}}, "held_out means another image set here"),
        ({"ood": OOD | {"scores": ["msp"]}}, "unknown score 'msp'"),
        ({"ood": OOD | {"neighbours": 271}}, r"ood.neighbours: must be 1..270 \(training images\), found 271"),
        ({"ood": OOD | {"neighbours": 9, "train_images": 8}}, r"neighbours: must be 1..8 \(train_images\), found 9"),
        ({"calibrate": CALIBRATE | {"bins": 41}}, r"calibrate.bins: must be 1..40 \(test images\), found 41"),
        ({"threat": {"l2": {"eps": 0.5}}, "arms": [{"variant": "at"}]}, "ood.eps: without threat.linf give the eps"),
        ({"pretrain_data": DIGITS}, "'others': hold_out: must have what 'digits' holds out, 8, 9 missing"),
    ],
)
def test_bad_input_is_refused_before_work_starts(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        check(planned(tmp_path, **changes))


def grey_images(folder: Path, count: int = 20) -> None:
    folder.mkdir()
    for number, image in enumerate(pixels(count, channels=1)):
        Image.fromarray(image).save(folder / f"{number}.png")


def test_a_folder_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    other = {"name": "photographs", "source": "folder", "path": str(tmp_path / "grey"), "label_column": None, "size": 8}
    grey_images(tmp_path / "grey")
    plan = planned(tmp_path, ood=OOD | {"sets": [other]}, pretrain_data=other | {"name": "again"})
    with pytest.raises(ValueError, match=r"'photographs': path: .* holds images that 'again' is trained on"):
        check(plan)


def test_the_temperature_is_that_of_validation_images(tested: tuple[Plan, Store]) -> None:
    plan, store = tested
    (stage,) = plan.of_kind("calibrate").values()
    model = load_network(store.output(stage.parents["model"], "best.safetensors"))
    images, labels = Prepared(store.folder(stage.parents["data"])).validation()
    found = output(tested, "calibrate", "calibration").groupby("scaled")["temperature"].unique()
    assert found[False] == [1.0]
    assert found[True] == pytest.approx([fit_temperature(logits_of(model, images), labels)], rel=1e-3)


class Blind(torch.nn.Module):
    """Its logits are the pixels, and its gradients are 0: an attack stays where it starts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.detach() + 0 * x).flatten(1)


def test_an_attack_starts_at_a_random_point_of_each_image(tested: tuple[Plan, Store]) -> None:
    (stage,) = tested[0].of_kind("calibrate").values()
    spec = CalibrateSpec.model_validate(stage.spec)
    images, labels, numbers = np.full((5, 8, 8, 1), 128, np.uint8), np.zeros(5, np.int64), np.arange(5) + 7

    def starts(part: slice) -> np.ndarray:
        given = images[part], labels[part], numbers[part]
        return attacked_logits(Blind(), *given, norm="linf", eps=0.1, spec=spec) - 128 / 255

    found = starts(slice(5))
    assert 0.09 < np.abs(found).max() <= 0.1 + 1e-6
    assert len(np.unique(found[:, 0])) == 5
    assert np.array_equal(starts(slice(2, 4)), found[2:4]), "whatever the company"


def test_the_bank_has_as_many_training_images_as_asked(tested: tuple[Plan, Store]) -> None:
    plan, store = tested
    (stage,) = plan.of_kind("ood").values()
    context: Any = SimpleNamespace(device="cpu", data_source=plan.study.data)
    context.parent = lambda name: store.folder(stage.parents[name])
    spec = OodSpec.model_validate(stage.spec).model_copy(update={"train_images": 100})
    assert len(detector_of(context, spec).bank) == 100
    without = spec.model_copy(update={"scores": ["energy"]})
    assert not len(detector_of(context, without).bank), "nothing is computed that no score takes"


def with_copies(folder: Path, *, of: str, **ood: Any) -> dict[str, Any]:
    """A study on grey folders that pre-trains on other data, with an image set that has two images of one of them."""
    for number, name in enumerate(("mine", "more")):
        for label in ("ant", "bee"):
            for split, count in (("train", 40), ("test", 6)):
                (folder / name / split / label).mkdir(parents=True)
                for i, image in enumerate(pixels(count, 10 * number + count + (label == "bee"), channels=1)):
                    Image.fromarray(image).save(folder / name / split / label / f"{i}.png")
    grey_images(folder / "other")
    for i in range(2):
        image = Image.open(folder / of / f"train/bee/{i}.png")
        image.save(folder / f"other/copy{i}.png", compress_level=i)  # the same pixels, and perhaps the same bytes
    mine, more, other = (
        {"name": name, "source": "folder", "path": str(folder / name)} for name in ("mine", "more", "other")
    )
    small = {"images": 6, "neighbours": 2, "attacked_images": 0} | ood
    training = {"epochs": 1, "batch_size": 20, "validation_steps": 1}
    return study_of(
        folder / "results",
        data=mine,
        pretrain_data=more,
        ood=small | {"sets": [other | {"label_column": None}], "images": 30},
        arms=[{"variant": "at", "norm": "linf", "init": "ssl"}],
        calibrate="off",
        pretrain=training,
        finetune=training,
        evaluate={"preset": "fast", "eps": [0, 1], "images": 6, "audit_images": 0},
        corrupt={"names": ["contrast"], "severities": [1], "images": 6},
        probe="off",
        diagnose="off",
    )


COPIES = "ood set 'other': 2 of its 22 images, the first at .*, are among the training images of '{}'; take them out"


@pytest.mark.parametrize("of", ["mine", "more"])
@pytest.mark.parametrize("last", ["other", "its own"])
def test_copies_of_training_images_are_refused_by_the_data_stage(tmp_path: Path, of: str, last: str) -> None:
    plan = make_plan(parse_study(with_copies(tmp_path, of=of)))
    check(plan)  # their bytes are others
    store, stages = Store(plan.study.results), {stage.name: stage for stage in plan.of_kind("data").values()}
    refused = stages.pop("other" if last == "other" else of)
    for stage in stages.values():
        runner.run(stage, store, device="cpu")
    with pytest.raises(DataError, match=COPIES.format(of)):
        runner.run(refused, store, device="cpu")


def test_a_training_waits_for_all_data_sets(tmp_path: Path) -> None:
    plan = make_plan(parse_study(with_copies(tmp_path, of="mine")))
    (before,) = plan.of_kind("pretrain").values()
    assert {path.partition("-")[0] for path in before.before} == {"data/mine", "data/more", "data/other"}
    order = [path.partition("-")[0] for path in blocks(plan)[0].stages]
    assert order.index("data/other") < order.index(before.path.partition("-")[0])
    without = with_copies(tmp_path / "without", of="mine") | {"ood": "off"}
    assert not any("after" in stage.settings for stage in make_plan(parse_study(without)).stages.values())


def test_the_test_itself_refuses_images_that_its_model_was_pre_trained_on(tmp_path: Path) -> None:
    plan = make_plan(parse_study(with_copies(tmp_path, of="more")))
    store = Store(plan.study.results)
    for stage in plan.stages.values():
        earlier = {name: value for name, value in stage.settings.items() if name != "apart"}  # as an older version did
        if stage.kind in ("data", "pretrain", "finetune"):
            runner.run(replace(stage, settings=earlier), store, device="cpu")
    (test,) = plan.of_kind("ood").values()
    with pytest.raises(DataError, match=COPIES.format("more")):
        runner.run(test, store, device="cpu")


def test_copies_of_the_same_bytes_are_refused_before_work_starts(tmp_path: Path) -> None:
    config = with_copies(tmp_path, of="more")
    shutil.copy(tmp_path / "more/train/ant/7.png", tmp_path / "other/copy1.png")
    with pytest.raises(DataError, match=r"'other': path: \S*copy1.png is the same image as \S*ant/7.png, of 'more'"):
        check(make_plan(parse_study(config)))


@pytest.mark.study
def test_the_workflow_trains_nothing_where_an_image_set_has_training_images(tmp_path: Path) -> None:
    config = with_copies(tmp_path / "study", of="mine")
    done = snakemake(tmp_path / "run", config, "--keep-going", "--cores", "1")
    assert done.returncode != 0
    log = "".join(file.read_text() for file in (tmp_path / "study/results/stages/data").glob("*/log.txt"))
    assert re.search(COPIES.format("mine"), log)
    assert {each.name for each in (tmp_path / "study/results/stages").iterdir()} == {"data"}


@pytest.mark.study
def test_an_image_set_that_is_added_to_a_finished_study_trains_nothing(tmp_path: Path) -> None:
    config = with_copies(tmp_path / "study", of="mine")
    finished = make_plan(parse_study(config | {"ood": "off"}))
    store = Store(finished.study.results)
    for stage in finished.stages.values():
        if stage.kind == "data":
            runner.run(stage, store, device="cpu")
        else:
            (store.work(stage.path) / "out").mkdir(parents=True)
            store.publish(stage, store.work(stage.path) / "out", {})
    expected = {"data": 1, "ood": 1, "collect": 1, "report": 1, "track": 1}
    assert jobs(tmp_path / "run", config) == expected


@pytest.mark.parametrize("storage", ["pixels", "files"])
def test_a_copy_of_a_training_image_is_refused(tmp_path: Path, storage: str) -> None:
    trained = folder_data(tmp_path / "images", {"train/ant": 9, "train/bee": 9, "test/ant": 2, "test/bee": 2}, size=8)
    trained = trained.model_copy(update={"storage": storage})
    prepare(trained, tmp_path / "data")
    copied = trained.path / "train/bee/004.png"
    for number in range(2):
        other = tmp_path / f"other{number}"
        other.mkdir()
        for image in range(4):
            Image.fromarray(np.full((9, 9, 3), 40 * image + number, np.uint8)).save(other / f"{image}.png")
        if number == 1:
            shutil.copy(copied, other / "2.png")
    spec = OodSpec(sets=["other"], scores=["energy"], checkpoint="best", images=4, neighbours=1, train_images=1)

    def images_of(number: int) -> dict[str, Any]:
        where = {"data": tmp_path / "data", "set other": tmp_path / f"prepared{number}"}
        unlabelled = Data(name="other", source="folder", path=tmp_path / f"other{number}", label_column=None, size=8)
        prepare(unlabelled, where["set other"])
        return image_sets(SimpleNamespace(parent=where.__getitem__, data_source=trained), spec)  # type: ignore[arg-type]

    assert len(images_of(0)["other"][0]) == 4
    with pytest.raises(ValueError, match="ood set 'other': 1 of its 4 images, the first at"):
        images_of(1)
