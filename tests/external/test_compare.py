"""Two results on the same images: the numbers by hand, the simulated coverage, and what is refused."""

import json
import math
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from ssrob import cli, compare
from ssrob.analysis.paired import Outcomes, difference, paired_table
from ssrob.config.loader import load_study
from ssrob.external.run import evaluate
from ssrob.planning.plan import Plan, make_plan
from ssrob.registry.corruptions import BENCHMARK
from ssrob.storage.store import Store
from ssrob.storage.tables import EXAMPLES, read_table, write_table
from tests.conftest import ROOT
from tests.external.test_external import ask
from tests.tracking.test_tracking import fabricate
from tests.workflow.test_docs import examples
from typer.testing import CliRunner

MODEL = "tests.external.test_external:Digits"
Folders = tuple[Path, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A model with its preprocessing and without, both on the same 60 images."""
    root = tmp_path_factory.mktemp("compare")
    for name, changes in (("right", {}), ("wrong", {"preprocess": "none", "eps": (0.02, 0.05, 0.1), "name": "bare"})):
        request = ask(**{"model": MODEL, "images": 60, "corruptions": True, **changes})
        evaluate(request, root / name, lambda _: None)
    return root / "right", root / "wrong"


def bonett_price(ours: Any, theirs: Any) -> tuple[float, float]:
    """Bonett & Price (2012), with Laplace's correction, written out."""
    n = len(ours)
    n12, n21 = sum(o and not t for o, t in zip(ours, theirs)), sum(t and not o for o, t in zip(ours, theirs))  # noqa: B905
    p12, p21 = (n12 + 1) / (n + 2), (n21 + 1) / (n + 2)
    half = 1.959963985 * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (n + 2))
    return 100 * (p12 - p21 - half), 100 * (p12 - p21 + half)


def test_differences_and_intervals_are_those_by_hand(folders: Folders) -> None:
    found = compare(*folders)
    ours, theirs = (read_table(folder / "robustness.parquet") for folder in folders)
    assert ours["example"].equals(theirs["example"])
    rows = found.to_frame().set_index(["test", "eps"])
    assert rows.index[:3].tolist() == [("clean", 0.0), ("linf", 0.02), ("linf", 0.1)]
    for test, eps in rows.index[:3]:
        a, b = (table["clean_correct"] if not eps else table["distance"] > eps for table in (ours, theirs))
        row = rows.loc[(test, eps)]
        assert row["a"] == pytest.approx(100 * a.mean())
        assert row["b"] == pytest.approx(100 * b.mean())
        assert row["difference"] == pytest.approx(100 * (a.mean() - b.mean()))
        assert (row["low"], row["high"]) == pytest.approx(bonett_price(a, b))


def test_means_over_corruptions_have_the_paired_standard_error_by_hand(folders: Folders) -> None:
    rows = compare(*folders).to_frame().set_index("corruption")
    tables = [pd.read_parquet(folder / "corruptions.parquet") for folder in folders]
    groups = {name: [name] for name in BENCHMARK} | {"mean of 15": list(BENCHMARK)}
    groups["mean of all 19"] = list(tables[0]["corruption"].unique())
    for title, names in groups.items():
        means = []
        for table in tables:
            chosen = table[table["corruption"].isin(names)]
            means.append(np.mean([np.unpackbits(np.frombuffer(b, np.uint8))[:60] for b in chosen["correct"]], axis=0))
        d = 100 * (means[0] - means[1])
        half = stats.t.ppf(0.975, 59) * d.std(ddof=1) / math.sqrt(60)
        row = rows.loc[title]
        assert row["difference"] == pytest.approx(d.mean())
        assert (row["low"], row["high"]) == pytest.approx((d.mean() - half, d.mean() + half))


def test_the_other_way_round_is_the_same_with_the_other_sign(folders: Folders) -> None:
    there, back = compare(*folders).to_frame(), compare(*folders[::-1]).to_frame()
    assert there["difference"].tolist() == pytest.approx((-back["difference"]).tolist())
    assert there["low"].tolist() == pytest.approx((-back["high"]).tolist())
    assert there["p"].tolist() == pytest.approx(back["p"].tolist())


def draw(rng: np.random.Generator, seeds: int, images: int) -> tuple[Any, Any, float]:
    """Two ways of training; images differ in difficulty, and seeds and images in how the ways differ."""
    easy = rng.normal(0.3, 1.0, images)
    chances = []
    for way in range(2):
        level = rng.normal(0.3 * way, 0.15, (seeds, 1)) + rng.normal(0, 0.3, (1, images))
        chances.append(stats.norm.cdf(easy + level))
    a, b = (rng.random(chance.shape) < chance for chance in chances)
    truth = stats.norm.cdf(np.array([0.3, 0.6]) / math.sqrt(1 + 1 + 0.3**2 + 0.15**2))
    return a, b, 100 * float(truth[0] - truth[1])


@pytest.mark.parametrize(("seeds", "images", "allowed"), [(5, 400, (0.925, 0.985)), (1, 400, (0, 0.94))])
def test_simulated_coverage(seeds: int, images: int, allowed: tuple[float, float]) -> None:
    """95 % of the intervals over seeds and images hold the truth; those of one seed say nothing of others, and miss."""
    rng = np.random.default_rng(seeds)
    hits = 0
    for _ in range(400):
        a, b, truth = draw(rng, seeds, images)
        found = difference(a, b)
        hits += found.low <= truth <= found.high
    assert allowed[0] <= hits / 400 <= allowed[1]


@pytest.mark.parametrize("shares", [False, True])
def test_simulated_coverage_over_images(shares: bool) -> None:
    """One fixed model of each kind: 95 % of the intervals hold the difference over all images that there could be."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(600):
        easy = rng.normal(0, 1, (200, 1))
        tests = 5 if shares else 1
        a, b = (rng.random((200, tests)) < stats.norm.cdf(easy + level) for level in (0.2, 0.6))
        found = difference(a.mean(1)[None], b.mean(1)[None]) if shares else difference(a.T, b.T)
        truth = 100 * float(np.diff(stats.norm.cdf(np.array([0.6, 0.2]) / math.sqrt(2)))[0])
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 600 <= 0.97


def test_what_both_have_is_compared() -> None:
    right, wrong = np.ones((1, 4), bool), np.zeros((1, 4), bool)
    a = Outcomes(right, {"l2": {0.5: right}, "linf": {0.1: right, 0.2: right}}, {("fog", 1): right, ("fog", 2): right})
    b = Outcomes(wrong, {"linf": {0.2: wrong, 0.3: wrong}}, {("fog", 2): wrong, ("snow", 1): wrong})
    rows = paired_table(a, b)
    assert list(zip(rows["test"], rows["eps"], rows["corruption"], strict=True))[:2] == [
        ("clean", 0, ""),
        ("linf", 0.2, ""),
    ]
    assert rows["corruption"].tolist() == ["", "", "fog"]
    assert (rows["difference"] == 100).all()


def test_the_command_says_which_is_which(folders: Folders) -> None:
    done = CliRunner().invoke(cli.app, ["compare", *map(str, folders)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("No difference is shown at l-inf eps 0.1: A − B = +13.3 points (−0.9 to ")
    assert lines[2].startswith(f"A: {MODEL} ({folders[0]}, weights ")
    assert lines[3].startswith(f"B: bare ({folders[1]}, weights ")
    assert "Left out: B alone was attacked at eps 0.05." in lines
    assert "A and B have the same weights." in lines
    assert "One model of each: nothing is said about another training run of either." in lines
    assert max(len(line) for line in lines if "folder" not in line and str(folders[0].parent) not in line) <= 80
    done = CliRunner().invoke(cli.app, ["compare", *map(str, folders), "--json"])
    saved, rows = json.loads(done.stdout), compare(*folders).to_frame()
    assert saved["about"]["b"]["model"]["name"] == "bare"
    assert [row["difference"] for row in saved["rows"]] == rows["difference"].tolist()
    assert saved["rows"][-1]["eps"] is None


def test_it_is_drawn_and_has_a_form_for_notebooks(folders: Folders) -> None:
    found = compare(*folders)
    drawn = found.plot().lines[0]
    assert drawn.get_xdata().tolist() == [0, 0.02, 0.1]
    assert drawn.get_ydata().tolist() == found.rows["difference"][:3].tolist()
    assert found._repr_html_().count("<tr") == 1 + len(found.rows)


def change(what: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        file = folder / "evaluation.json"
        document = json.loads(file.read_text())
        what(document)
        file.write_text(json.dumps(document))

    return changed


def other_rows(**columns: Any) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        file = folder / "robustness.parquet"
        write_table(read_table(file).assign(**columns), EXAMPLES, file)

    return changed


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (change(lambda d: d["facts"].update(images_sha256="0" * 64)), "A was tested on 60 images of digits .*, B was"),
    (change(lambda d: d.update(attack="strong")), "A was attacked by preset fast .*, B was attacked by preset strong"),
    (change(lambda d: d["facts"].update(attacks=["square1000-margin"])), r"B was attacked by preset fast \(square1000"),
    (change(lambda d: d.update(gradients_in="bfloat16")), "A had its gradients in float32, B had its gradients in bfl"),
    (change(lambda d: d.update(curve=[{"eps": 0}, {"eps": 0.3}])), "no eps in common, found A 0.02, 0.1, B 0.3"),
    (other_rows(eval_norm="l2"), "A was attacked in l-inf, B was attacked in l2; give both the same --norm"),
    (other_rows(label=lambda table: table["label"] ^ 1), "labels differ for 60 of 60 images"),
    (change(lambda d: d.pop("facts")), "not of this version of ssrob, or damaged"),
    (lambda folder: (folder / "evaluation.json").write_text("{"), "not of this version of ssrob, or damaged"),
    (lambda folder: (folder / "robustness.parquet").unlink(), "robustness.parquet is missing"),
    (lambda folder: folder.rename(folder.with_name("othr")), "expected a folder that .*did you mean .*othr"),
]


@pytest.mark.parametrize(("damage", "message"), REFUSED)
def test_what_is_not_alike_is_refused(folders: Folders, tmp_path: Path, damage: Any, message: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(folders[0], other)
    damage(other)
    with pytest.raises(ValueError, match=message) as caught:
        compare(folders[0], other)
    assert "\n" not in str(caught.value)


def test_a_folder_is_not_compared_with_itself(folders: Folders) -> None:
    with pytest.raises(ValueError, match="are the same folder"):
        compare(folders[0], folders[0] / "evaluation.json")


@pytest.mark.parametrize(("changed", "note"), [({"seed": 1}, "made with other settings or another --seed"), ({}, None)])
def test_corruptions_are_compared_on_the_same_images_alone(
    folders: Folders, tmp_path: Path, changed: dict[str, Any], note: str | None
) -> None:
    shutil.copytree(folders[1], tmp_path / "other")
    change(lambda document: document.update(changed))(tmp_path / "other")
    found = compare(folders[0], tmp_path / "other")
    assert ("corruption" in set(found.rows["test"])) == (note is None)
    assert note is None or f"Left out: corruptions; {note}." in found.notes


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store, list[str]]:
    """Two arms of two seeds, as if they had run."""
    root = tmp_path_factory.mktemp("results")
    changes = ["seeds=[0, 1]", "arms=[{variant: [at, at_ssl_joint], norm: linf}]", f"results={root}"]
    plan = make_plan(load_study(ROOT / "config/quickstart.yaml", changes))
    store = Store(root)
    for seed, stage in enumerate(plan.stages.values()):
        fabricate(plan, store, stage, seed)
    command = ["--study", str(ROOT / "config/quickstart.yaml")]
    return plan, store, [*command, *(part for change in changes for part in ("--set", change))]


def test_arms_of_a_study_are_paired_by_seed_and_image(study: tuple[Plan, Store, list[str]]) -> None:
    plan, store, command = study
    done = CliRunner().invoke(cli.app, ["compare", "at, l-inf", "finetune/digits-at_ssl_joint", *command, "--json"])
    assert done.exit_code == 0, done.output + str(done.exception)
    saved = json.loads(done.stdout)
    arms = {arm.finetune: arm for arm in plan.arms}
    sides = [[arms[key] for key in saved["about"][side]["models"]] for side in "ab"]
    assert [[arm.seed for arm in side] for side in sides] == [[0, 1], [0, 1]]
    row = next(row for row in saved["rows"] if row["test"] == "linf" and row["eps"] == 0.15)
    robust = [
        [
            (table["first_failed"] > 0.15)[table["eval_norm"] == "linf"].mean()
            for table in (read_table(store.output(arm.evaluate["best"], "robustness.parquet")) for arm in side)
        ]
        for side in sides
    ]
    per_seed = 100 * (np.array(robust[0]) - np.array(robust[1]))
    assert row["difference"] == pytest.approx(per_seed.mean())
    assert row["seeds"] == 2
    assert "corruption" in {row["test"] for row in saved["rows"]}
    shown = CliRunner().invoke(cli.app, ["compare", "AT, l-inf", "at_ssl_joint", *command]).output
    assert " at l-inf eps 0.15" in shown.splitlines()[0]  # the study's own eps, not the largest of the grid
    assert "\nA: AT, l-inf, seeds 0, 1\n" in shown


def test_the_commands_of_the_guide(
    folders: Folders, study: tuple[Plan, Store, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = examples("docs/evaluate.md")
    monkeypatch.chdir(tmp_path)
    for folder, name in zip(folders, ("digits", "digits-other"), strict=True):
        shutil.copytree(folder, name)
    done = CliRunner().invoke(cli.app, shlex.split(guide["compare"])[1:])
    assert "\nA: " in done.output
    _, command, a, _, *options = shlex.split(guide["compare arms"])  # this study has another second arm
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(cli.app, [command, a, "at_ssl_joint", *options, *study[2][2:]])
    assert f"\nA: {a}, seeds 0, 1\n" in done.output


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("AT l-inf", "at_ssl_joint"), r"arm 'AT l-inf': not in this study \(did you mean 'AT, l-inf'\?\)"),
        (("at", "at_ssl_joint"), "arm 'at' is in the keys of several; give one of these names: AT, l-inf; AT [+]"),
        (("AT, l-inf", "at-linf"), "'AT, l-inf' and 'at-linf' are the same arm"),
        (("at-linf0.15-s0", "ssl_joint-rotation-w0.5-linf0.15-s1"), r"share no seed, found \[0\] and \[1\]"),
    ],
)
def test_arms_that_cannot_be_compared(
    study: tuple[Plan, Store, list[str]], names: tuple[str, str], message: str
) -> None:
    done = CliRunner().invoke(cli.app, ["compare", *names, *study[2]])
    with pytest.raises(ValueError, match=message):
        raise done.exception or AssertionError
