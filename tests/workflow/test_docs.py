"""The documentation: its examples run, its tables say what the code does, its links lead somewhere."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from ssrob import cli
from ssrob.config.data import Data
from ssrob.config.fields import ConfigError
from ssrob.config.loader import load_study, parse_study
from ssrob.config.plugins import import_plugins
from ssrob.config.variants import family
from ssrob.corruptions.draws import Draws
from ssrob.data.prepared import Prepared
from ssrob.data.sources import SOURCES
from ssrob.models.network import Architecture, build
from ssrob.models.serialization import load_network, save_weights
from ssrob.planning.cost import step_passes
from ssrob.planning.objectives import resolve_objective
from ssrob.planning.plan import Plan, make_plan
from ssrob.planning.stage import Stage
from ssrob.registry.attacks import ATTACKS
from ssrob.registry.backbones import BACKBONES
from ssrob.registry.corruptions import BENCHMARK, CORRUPTIONS, families
from ssrob.registry.losses import LOSSES
from ssrob.registry.presets import PRESETS
from ssrob.registry.schedules import SCHEDULES
from ssrob.registry.stages import STAGES
from ssrob.reporting.verdicts import VERDICTS
from ssrob.runtime import runner
from ssrob.stages.evaluate import attack_sweep
from ssrob.storage.store import Store
from ssrob.storage.tables import read_table
from tests.conftest import ROOT, tiny_config
from typer.main import get_command

EXAMPLE = re.compile(r"<!-- example: ([\w. ]+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md"]
PAGES += [
    str(page.relative_to(ROOT)) for folder in ("docs", "docs/method") for page in sorted((ROOT / folder).glob("*.md"))
]


def examples(page: str) -> dict[str, str]:
    """Return a page's examples by name; those of one name follow each other."""
    found: dict[str, str] = {}
    for name, code in EXAMPLE.findall((ROOT / page).read_text()):
        found[name] = found.get(name, "") + code
    return found


README, EXTENDING = examples("README.md"), examples("docs/extending.md")
TUTORIAL = yaml.safe_load(examples("docs/tutorial.md")["study mine"])


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the module path with the modules of docs/extending.md; what they register is taken back."""
    modules = {name.removeprefix("file "): code for name, code in EXTENDING.items() if name.startswith("file ")}
    for name, code in modules.items():
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    registries: list[dict[str, Any]] = [LOSSES, BACKBONES, SCHEDULES, PRESETS, ATTACKS, CORRUPTIONS, SOURCES, STAGES]
    before = [dict(registry) for registry in registries]
    yield tmp_path
    for registry, rows in zip(registries, before, strict=True):
        registry.clear()
        registry.update(rows)
    for name in modules:
        sys.modules.pop(Path(name).stem, None)


def planned(folder: Path, example: str) -> tuple[Plan, Store]:
    """Plan the tiny study with an example put over it."""
    plan = make_plan(parse_study(tiny_config(folder / "results", **yaml.safe_load(example))))
    return plan, Store(plan.study.results)


def train(plan: Plan, store: Store, *variants: str) -> dict[str, Stage]:
    """Run the data stages and all trainings, or those of some variants alone; return them by variant and init."""
    trained = {}
    for stage in plan.stages.values():
        chosen = not variants or stage.spec.get("variant") in variants
        if stage.kind == "data" or (stage.kind in ("pretrain", "finetune") and chosen):
            runner.run(stage, store, device="cpu")
        if stage.kind == "finetune" and chosen:
            trained[f"{stage.spec['variant']} {stage.spec.get('init', 'random')}"] = stage
    return trained


def metrics(store: Store, stage: Stage) -> set[str]:
    return set(read_table(store.output(stage.path, "training.parquet"))["metric"])


def test_the_parts_in_the_readme_can_be_used_alone() -> None:
    names: dict[str, Any] = {}
    torch.manual_seed(0)  # an untrained model may misclassify every image, and then nothing is attacked
    exec(README["run"], names)
    result = names["result"]
    assert result.robust.shape == (3, 100)
    assert torch.equal(result.accuracy, result.robust.double().mean(1))
    assert result.gradients > 0
    assert names["foggy"].shape == names["pixels"].shape == (100, 8, 8, 1)
    assert (names["foggy"] != names["pixels"]).any()


def test_the_variant_in_the_readme_trains(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, README["study variant"])
    assert sorted((arm.variant, arm.norm) for arm in plan.arms) == [
        ("at", "l2"),
        ("at", "linf"),
        ("mine", "l2"),
        ("mine", "linf"),
    ]
    stage = train(plan, store, "mine")["mine random"]
    assert {"loss/adv/xent", "loss/clean/rotation"} <= metrics(store, stage)


def test_the_variants_of_the_guide_train(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, EXTENDING["study variant"])
    trained = train(plan, store, "at_ssl_half", "at_ssl_gentle")
    half = trained["at_ssl_half random"].spec["objective"]
    assert half["perturb"]["adv"]["climb"] == {"rotation": 0.25, "xent": 1.0}
    assert half["train"]["adv"] == {"rotation": 0.5, "xent": 1.0}
    soft = trained["at_ssl_gentle random"].spec["objective"]["perturb"]["soft"]
    assert (soft["norm"], soft["eps"], soft["steps"]) == ("l2", 0.25, 3)  # half of the tiny study's 0.5
    assert "loss/soft/rotation" in metrics(store, trained["at_ssl_gentle random"])


def test_the_options_of_the_guide_train(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, EXTENDING["study options"])
    stage = train(plan, store)["at_ssl_streams random"]
    objective = stage.spec["objective"]
    assert objective["perturb"]["adv"]["step_size"] == 0.05
    assert objective["arguments"] == {"jigsaw": {"grid": 3, "permutations": 24}}
    network = load_network(store.output(stage.path, "last.safetensors"))
    assert (network.architecture.heads["jigsaw"], network.architecture.branches) == (24, ["clean"])
    assert {"loss/adv/jigsaw", "loss/clean/jigsaw"} <= metrics(store, stage)


def test_weights_of_ones_own_are_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = build(Architecture("resnet", {"depth": 8, "width": 4}, (1, 8, 8), [0.5], [0.5], {}), seed=7)
    (tmp_path / "weights").mkdir()
    save_weights(network.backbone.state_dict(), tmp_path / "weights/backbone.safetensors")
    plan, store = planned(tmp_path, EXTENDING["study weights"])
    trained = train(plan, store)
    assert "init: backbone taken from weights/" in (store.folder(trained["at mine"].path) / "log.txt").read_text()
    (tmp_path / "weights/backbone.safetensors").write_bytes(b"others")
    store.remove(trained["at mine"].path)
    with pytest.raises(ValueError, match=r"backbone.safetensors: its content has changed since the study was planned"):
        train(plan, store)
    assert "init:" not in (store.folder(trained["at random"].path) / "log.txt").read_text()


def test_the_task_of_the_guide_is_attacked_trained_and_pretrained(plugins: Path) -> None:
    plan, store = planned(plugins, EXTENDING["study task"])
    trained = train(plan, store)
    assert set(trained) == {"at random", "at ssl", "at_ssl_joint random"}
    joint = trained["at_ssl_joint random"]
    assert joint.spec["objective"]["perturb"]["adv"]["climb"] == {"mirror": 0.5, "xent": 1.0}
    assert {"loss/adv/mirror", "validation/robust_mirror_accuracy"} <= metrics(store, joint)
    pretrain = next(iter(plan.of_kind("pretrain").values()))
    assert "validation/clean_mirror_accuracy" in metrics(store, pretrain)
    assert plan.study.findings.primary.task == "mirror"


def test_perturbations_can_live_on_the_view_of_the_guide_s_task(plugins: Path) -> None:
    config = yaml.safe_load(EXTENDING["study task"])
    config["arms"] = [{"variant": ["at_ssl_copies", "at_ssl_single", "at_ssl_clean_views"], "norm": "linf"}]
    plan, store = planned(plugins, yaml.safe_dump(config))
    copies = train(plan, store)["at_ssl_copies random"]
    assert {"loss/adv/mirror", "loss/adv/xent"} <= metrics(store, copies)


def test_a_stage_of_its_own_process_knows_the_plugins(plugins: Path) -> None:
    plan, store = planned(plugins, EXTENDING["study task"])
    pretrain = next(iter(plan.of_kind("pretrain").values()))
    runner.run(plan.stages[pretrain.parents["data"]], store, device="cpu")
    command = [sys.executable, "-m", "ssrob", "run", "--results", store.root, "--stage", pretrain.to_json()]
    environment = os.environ | {"PYTHONPATH": f"{plugins}:{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_backbone_of_the_guide_trains(plugins: Path) -> None:
    plan, store = planned(plugins, EXTENDING["study backbone"])
    trained = train(plan, store)
    weights = store.output(trained["at random"].path, "best.safetensors")
    assert weights.stat().st_size < 10_000  # 8 filters: 0.7 thousand numbers of the backbone, 90 of the head


def test_the_network_of_timm_of_the_guide_trains(plugins: Path) -> None:
    plan, store = planned(plugins, EXTENDING["study timm"])
    stage = train(plan, store, "at")["at random"]
    network = load_network(store.output(stage.path, "best.safetensors"))
    assert type(network.backbone.model).__name__ == "VisionTransformer"


def test_the_schedule_of_the_guide_gives_the_learning_rates(plugins: Path) -> None:
    plan, store = planned(plugins, EXTENDING["study schedule"])
    stage = train(plan, store)["at random"]
    records = read_table(store.output(stage.path, "training.parquet"))
    rates = records[records["metric"] == "lr"].sort_values("step")["value"].tolist()
    peak = plan.study.finetune.lr
    assert rates == pytest.approx([peak * min(k / 6 / 0.25, (1 - k / 6) / 0.75) for k in range(1, 7)])
    with pytest.raises(ConfigError, match=r"unknown schedule 'liner' \(did you mean 'linear'\?\)"):
        planned(plugins, EXTENDING["study schedule"].replace("schedule: linear", "schedule: liner"))


def test_the_data_sets_of_the_guide_are_understood() -> None:
    folder = Data.model_validate(yaml.safe_load(EXTENDING["data folder"])["data"])
    parquet = Data.model_validate(yaml.safe_load(EXTENDING["data parquet"])["data"])
    assert (folder.source, folder.size) == ("folder", 32)
    assert (parquet.source, parquet.train, parquet.test) == ("parquet", ["train*.parquet"], ["test*.parquet"])


def test_the_corruption_of_the_guide_darkens_its_share(plugins: Path) -> None:
    import_plugins(["dust_corruption"])
    x = torch.full((50, 3, 16, 16), 0.8, dtype=torch.float64)
    draws = Draws(seed=0, name="dust", severity=1, index=torch.arange(50))
    out = sys.modules["dust_corruption"].dust(x, (0.25, 0.5), draws)
    darkened = out == 0.4
    assert torch.equal(darkened | (out == 0.8), torch.ones_like(darkened))
    assert torch.equal(darkened[:, :1].expand_as(darkened), darkened)
    assert darkened.double().mean().item() == pytest.approx(0.25, abs=0.02)  # 12,800 pixels: 5 standard errors


def run_kind(plan: Plan, store: Store, kind: str) -> Path:
    """Run the data stage, one training and its test; return the folder of the test."""
    train(plan, store)
    stage = next(iter(plan.of_kind(kind).values()))
    runner.run(stage, store, device="cpu")
    return store.folder(stage.path)


def test_the_corruption_of_the_guide_is_tested_and_belongs_to_its_family(plugins: Path) -> None:
    plan, store = planned(plugins, EXTENDING["study corruption"])
    table = read_table(run_kind(plan, store, "corrupt") / "corruptions.parquet")
    assert set(zip(table["corruption"], table["severity"], strict=True)) == {
        (name, severity) for name in ("fog", "dust") for severity in (1, 5)
    }
    assert families()["weather"][-1] == "dust"
    assert "dust" not in BENCHMARK
    with pytest.raises(ConfigError, match=r"unknown corruption 'dusty' \(did you mean 'dust'\?\); known: brightness"):
        planned(plugins, EXTENDING["study corruption"].replace("[fog, dust]", "[dusty]"))


def test_the_attack_of_the_guide_is_a_preset_and_stays_in_its_budget(plugins: Path) -> None:
    small = EXTENDING["study attack"].replace("{preset", "{images: 20, audit_images: 0, preset")
    plan, store = planned(plugins, small)
    table = read_table(run_kind(plan, store, "evaluate") / "robustness.parquet")
    assert set(table["attack"]) <= {"momentum10-cross_entropy", "clean", "none"}
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    broken = attack_sweep(linear, x, linear(x).argmax(1), norm="linf", eps=[0.5], preset="momentum")
    assert set(broken.attack) == {"momentum10-cross_entropy"}
    assert table.loc[table["distance"] < float("inf"), "distance"].max() <= 0.5 + 1e-5
    with pytest.raises(ConfigError, match=r"unknown preset 'momentun' \(did you mean 'momentum'\?\)"):
        planned(plugins, EXTENDING["study attack"].replace("preset: momentum", "preset: momentun"))


def test_the_data_source_of_the_guide_is_prepared(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plugins)
    folder = plugins / "squares"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name, count in (("train", 60), ("test", 20)):
        images = draw.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        np.savez(folder / f"{name}.npz", images=images, labels=np.arange(count) % 3)
    plan, store = planned(plugins, EXTENDING["study data"])
    (stage,) = plan.of_kind("data").values()
    environment = os.environ | {"PYTHONPATH": f"{plugins}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ssrob", "run", "--results", store.root, "--stage", stage.to_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    prepared = Prepared(store.folder(stage.path))
    assert (prepared.classes, prepared.shape, prepared.counts["test"]) == (("0", "1", "2"), (1, 8, 8), 20)
    with pytest.raises(ConfigError, match=r"unknown data source 'npy'.*known: cifar10"):
        planned(plugins, EXTENDING["study data"].replace("source: npz", "source: npy"))


def test_the_kind_of_stage_of_the_guide_runs(plugins: Path) -> None:
    plan, store = planned(plugins, EXTENDING["study stage"])
    folder = run_kind(plan, store, "weight_norm")
    weights = load_file(next(iter((plugins / "results/stages/finetune").glob("*/best.safetensors"))))
    flat = torch.cat([each.double().flatten() for each in weights.values()])
    assert json.loads((folder / "weight_norm.json").read_text())["norm"] == pytest.approx(flat.norm().item(), rel=1e-12)


def test_the_attack_plan_of_the_guide_runs() -> None:
    names: dict[str, Any] = {}
    exec(EXTENDING["attack"], names)
    assert names["result"].robust.shape == (3, 20)
    assert names["result"].attacks == tuple(attack.name for attack in names["plan"].attacks)


def test_the_study_of_the_tutorial_is_what_it_says_and_its_jobs_are_planned(tmp_path: Path) -> None:
    """Its models, its stages, and those that the quickstart study has run already; Snakemake takes its label."""
    quickstart = yaml.safe_load((ROOT / "config/quickstart.yaml").read_text())
    config = quickstart | TUTORIAL | {"study": "mine"}
    plan, before = make_plan(parse_study(config)), make_plan(parse_study(quickstart))
    said = re.search(r"(\d+) models in (\d+) stages.*?(\d+) of the \2 are done", tutorial_text(), re.DOTALL)
    assert said is not None
    counts = (len(plan.arms), len(plan.stages), len(set(plan.stages) & set(before.stages)))
    assert tuple(map(int, said.groups())) == counts
    assert f"trains {len(before.arms)} small networks" in tutorial_text()
    assert list(plan.study.findings.claims) == ["mine", "mine_below"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "ssrob", "study", "mine.yaml", "--dry-run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def tutorial_text() -> str:
    return (ROOT / "docs/tutorial.md").read_text()


def test_the_glossary_is_alphabetical_and_has_every_verdict() -> None:
    words = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)[1:]
    assert words == sorted(words, key=str.casefold)
    assert set(VERDICTS) < set(words)


WAYS = re.compile(r"^\| `(\w+)`[^|]*\|[^|]*\|[^|]*\| (\S+?n \+ )?(\d+) \| (\d+) \|$", re.MULTILINE)


def test_the_table_of_ways_counts_as_the_code_does() -> None:
    """The column of passes, as a formula in the attack's steps n and for n = 10."""
    rows = {row[0]: row[1:] for row in WAYS.findall((ROOT / "docs/method/methods.md").read_text())}
    assert set(rows) == set(family()["variants"])
    study = load_study(ROOT / "config/cifar10.yaml")
    assert study.threat["linf"].steps == 10
    longer = study.model_copy(update={"threat": {"linf": study.threat["linf"].model_copy(update={"steps": 17})}})
    for name, (slope, constant, at_ten) in rows.items():
        for steps, of in ((10, study), (17, longer)):
            objective = resolve_objective(of, of.variants[name], norm="linf", task="rotation", weight=0.5)
            per_step = int(slope.removesuffix("n + ")) if slope else 0
            assert step_passes(objective).equivalent == per_step * steps + int(constant), name
        assert int(at_ten) == (int(slope.removesuffix("n + ")) if slope else 0) * 10 + int(constant), name


def test_the_table_of_presets_names_them_all() -> None:
    method = (ROOT / "docs/method/evaluation.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| [A-Z]", method, re.MULTILINE)) == set(PRESETS)


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page: str) -> None:
    text = re.sub(r"<!--.*?-->", "", (ROOT / page).read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    paths = re.findall(r"`((?:ssrob|config|docs|tests|benchmarks|workflow|envs)/[\w./-]*)`", text)
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_quoted_commands_exist() -> None:
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, re.MULTILINE)) <= targets
    commands = set(get_command(cli.app).commands)
    assert set(re.findall(r"(?:^|`)ssrob ([a-z]+)", text, re.MULTILINE)) <= commands
    configs = set(re.findall(r"(?<!ssrob/)config/[\w-]+\.yaml", text))
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("config/*.yaml")} == configs


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


def test_the_cluster_s_profile_keeps_what_the_other_relies_on_and_knows_every_kind() -> None:
    shipped, cluster = (
        yaml.safe_load((ROOT / f"workflow/profiles/{name}/config.yaml").read_text()) for name in ("default", "slurm")
    )
    for name in ("rerun-triggers", "rerun-incomplete", "keep-going"):
        assert cluster[name] == shipped[name]
    assert set(cluster["set-resources"]) == set(STAGES)


def test_citation_and_changelog_name_the_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == version[1]
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()
    assert "2112.04367" in citation["references"][0]["url"]
