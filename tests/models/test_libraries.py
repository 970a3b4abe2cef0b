"""Networks of torchvision and timm as backbones: the libraries' own outputs, features for heads, seeds, weights."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from PIL import Image
from ssrob.config.fields import ConfigError
from ssrob.config.loader import parse_study
from ssrob.models.dry_run import check_features, look
from ssrob.models.library_backbone import LibraryBackbone
from ssrob.models.network import Architecture, Network, build
from ssrob.models.serialization import load_backbone, load_network, save_architecture, save_weights
from ssrob.models.weights import read_weights
from ssrob.planning.plan import make_plan
from ssrob.planning.stage import canonical
from ssrob.registry import architectures, optional
from ssrob.registry.backbones import BACKBONES, Backbone
from ssrob.scheduling.preflight import open_study
from tests.conftest import tiny_config
from tests.image_files import folder_data
from torch import nn

VIT = {"arch": "vit_tiny_patch16_224", "img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
SWIN = {"arch": "swin_tiny_patch4_window7_224", "img_size": 32, "window_size": 4, "embed_dim": 24, "depths": [2, 2]}
SWIN |= {"num_heads": [2, 2]}
SMALL: list[tuple[str, dict[str, Any], tuple[int, int, int], int]] = [
    ("torchvision", {"arch": "resnet18"}, (3, 32, 32), 512),
    ("torchvision", {"arch": "resnet18"}, (1, 8, 8), 512),
    ("torchvision", {"arch": "shufflenet_v2_x0_5"}, (3, 224, 224), 1024),
    ("torchvision", {"arch": "squeezenet1_1"}, (3, 64, 64), 512),
    ("torchvision", {"arch": "mobilenet_v3_small"}, (3, 33, 57), 1024),
    ("timm", VIT, (1, 8, 8), 16),
    ("timm", {"arch": "vit_tiny_patch16_224", "embed_dim": 24, "depth": 1}, (3, 224, 224), 24),
    ("timm", {"arch": "convnext_atto", "depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}, (3, 32, 32), 16),
    ("timm", SWIN, (3, 32, 32), 48),
    ("timm", {"arch": "mobilenetv3_small_050"}, (3, 32, 32), 1024),
]


def network_of(library: str, arguments: dict[str, Any], shape: tuple[int, int, int], **more: Any) -> Network:
    mean, std = [0.4] * shape[0], [0.3] * shape[0]
    return build(Architecture(library, arguments, shape, mean, std, {"class": 7}, **more), seed=3)


@pytest.mark.parametrize(("library", "arguments", "shape", "features"), SMALL)
def test_a_network_of_a_library_has_features_for_heads_at_any_size(
    library: str, arguments: dict[str, Any], shape: tuple[int, int, int], features: int
) -> None:
    network = network_of(library, arguments, shape)
    check_features(network)
    assert network.backbone.features == features
    generator_before = torch.get_rng_state()
    network.train()(torch.full((2, *shape), 0.5)).sum().backward()
    assert torch.equal(torch.get_rng_state(), generator_before), "no dropout: a step draws from its seed alone"
    assert all(each.grad is not None for each in network.heads.parameters())
    assert any(each.grad is not None for each in network.backbone.parameters())


@pytest.mark.parametrize("arguments", [VIT, SWIN, {"arch": "resnet10t"}])
def test_features_are_those_that_timm_gives_to_its_own_classifier(arguments: dict[str, Any]) -> None:
    theirs = timm.create_model(arguments["arch"], num_classes=7, **{k: v for k, v in arguments.items() if k != "arch"})
    size = arguments.get("img_size", 32)
    network = network_of("timm", arguments, (3, size, size)).eval()
    load_backbone(network, theirs.state_dict())
    x = torch.rand(2, 3, size, size)
    before_the_classifier = theirs.eval().forward_head(theirs.forward_features((x - 0.4) / 0.3), pre_logits=True)
    assert torch.allclose(network.features(x), before_the_classifier, atol=1e-5)  # float32
    assert before_the_classifier.std() > 1e-3


def test_features_are_those_that_torchvision_gives_to_its_own_classifier() -> None:
    theirs = torchvision.models.resnet18(num_classes=7)
    network = network_of("torchvision", {"arch": "resnet18"}, (3, 32, 32)).eval()
    notes = load_backbone(network, theirs.state_dict())
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(theirs.eval().fc(network.features(x)), theirs((x - 0.4) / 0.3), atol=1e-5)  # float32
    assert "weights: 2 tensors of the file are not used (fc.weight, fc.bias)" in notes


def test_grey_images_are_three_equal_channels_to_torchvision() -> None:
    grey, colour = (network_of("torchvision", {"arch": "resnet18"}, (count, 8, 8)).eval() for count in (1, 3))
    x = torch.rand(2, 1, 8, 8)
    load_backbone(colour, {name.replace("network.", ""): each for name, each in grey.state_dict().items()})
    assert torch.equal(grey.features(x), colour.features(x.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize(("library", "arguments", "shape"), [("timm", SWIN, (3, 32, 32)), ("timm", VIT, (1, 8, 8))])
def test_the_start_is_the_librarys_own_and_a_function_of_the_seed(
    library: str, arguments: dict[str, Any], shape: tuple[int, int, int], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    one = network_of(library, arguments, shape)
    torch.manual_seed(2)
    with_branch = network_of(library, arguments, shape).eval()
    x = torch.rand(2, *shape)
    assert torch.equal(one.eval()(x), with_branch(x))
    assert not torch.equal(one(x), build(one.architecture, seed=4).eval()(x))
    backbone = one.backbone
    assert isinstance(backbone, LibraryBackbone)
    fresh, _ = backbone._seeded_model(seed=5)
    buffers = dict(backbone.model.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in fresh.named_buffers()), "tables of positions"
    assert all(module.weight.eq(1).all() for module in one.backbone.modules() if isinstance(module, nn.LayerNorm))
    save_weights(one.state_dict(), tmp_path / "best.safetensors")
    save_architecture(one.architecture, tmp_path / "model.json")
    assert torch.equal(load_network(tmp_path / "best.safetensors")(x), one(x))


def test_branches_of_batchnorm_also_of_a_librarys_own_layers() -> None:
    plain = network_of("timm", {"arch": "resnet10t"}, (3, 32, 32))
    branched = network_of("timm", {"arch": "resnet10t"}, (3, 32, 32), branches=("clean",))
    state = branched.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    norms = [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(".branches.clean." in name and name.endswith("running_var") for name in state) == len(norms)
    own = network_of("timm", {"arch": "efficientnet_lite0"}, (3, 32, 32), branches=("clean",))
    layer = next(m for m in own.modules() if "BatchNormAct2d" in type(m).__name__)
    x = torch.rand(4, 3, 32, 32)
    with own.in_branch("clean"):
        own.train()(x)
    assert layer.running_mean.abs().sum() == 0
    assert layer.branches["clean"].running_mean.abs().sum() > 0
    with pytest.raises(ValueError, match=r"no BatchNorm that could have branches, found clean"):
        network_of("timm", VIT, (1, 8, 8), branches=("clean",))


def test_weights_from_a_file_fit_or_say_why(tmp_path: Path) -> None:
    given = {key: value for key, value in VIT.items() if key != "arch"}
    source = timm.create_model("vit_tiny_patch16_224", num_classes=10, in_chans=1, **given)
    torch.save({"model": source.state_dict()}, tmp_path / "vit.pt")
    network = network_of("timm", VIT, (1, 8, 8))
    notes = load_backbone(network, read_weights(tmp_path / "vit.pt"))
    assert torch.equal(network.backbone.model.pos_embed, source.pos_embed)
    assert any("2 tensors of the file are not used" in note for note in notes)
    larger = network_of("timm", VIT | {"img_size": 16}, (1, 16, 16))
    wrong = r"pos_embed: expected shape \(1, 17, 16\), found \(1, 5, 16\); positions belong to a size of images and pat"
    with pytest.raises(ValueError, match=wrong):
        load_backbone(larger, read_weights(tmp_path / "vit.pt"))


def test_heads_that_a_file_has_are_kept_and_named() -> None:
    source, target = network_of("timm", VIT, (1, 8, 8)), network_of("timm", VIT, (1, 8, 8))
    with torch.no_grad():
        source.heads["class"].weight.fill_(2)
    notes = load_backbone(target, source.state_dict())
    assert torch.equal(target.heads["class"].weight, source.heads["class"].weight)
    assert "weights: the head 'class' is the file's" in notes
    assert not any("not used" in note for note in notes)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_names_are_those_that_the_library_lists(library: str) -> None:
    theirs = timm.list_models() if library == "timm" else torchvision.models.list_models(torchvision.models)
    assert architectures.architectures(library) == set(theirs)


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"name": "torchvision", "arch": "resnt18"}, r"unknown arch 'resnt18' \(did you mean 'resnet18'"),
    ({"name": "timm", "arch": "vit_tiny_patch16_224.augreg_in21k"}, r"did you mean 'vit_tiny_patch16_224' or"),
    ({"name": "timm"}, r"timm needs the name of a network, such as arch: resnet50; found None"),
    (
        {"name": "timm", "arch": "resnet18", "pretrained": True},
        r"pretrained is not an argument here: weights come from",
    ),
    ({"name": "timm", "arch": "resnet18", "drop_path_rate": 0.1}, r"dropout and stochastic depth are off"),
    (
        {"name": "timm", "arch": "resnet18", "layers": {"a": 1}},
        r"layers must be a number, a word, true, false or a list",
    ),
]


@pytest.mark.parametrize(("model", "message"), MISTAKES)
def test_a_mistake_in_a_config_is_one_clear_line(model: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^config: model: .*{message}"):
        parse_study(tiny_config(tmp_path, model=model))


FITS: list[tuple[str, dict[str, Any], str]] = [
    ("timm", {"arch": "vit_tiny_patch16_224"}, r"timm does not take images of 8 x 8 pixels: .*224"),
    ("timm", {"arch": "resnet18", "wings": 2}, r"timm's resnet18 cannot be made: .*wings"),
    ("torchvision", {"arch": "resnet18", "wings": 2}, r"torchvision's resnet18 cannot be made: .*wings"),
    ("torchvision", {"arch": "googlenet", "init_weights": False}, r"no features for heads: .*found a GoogLeNetOutputs"),
]


@pytest.mark.parametrize(("library", "arguments", "message"), FITS)
def test_what_cannot_be_a_backbone_is_refused_before_work(
    library: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        look(library, canonical(arguments), (1, 8, 8) if "googlenet" not in str(arguments) else (3, 64, 64))


def test_weights_that_do_not_fit_are_refused_before_work(tmp_path: Path) -> None:
    given = {key: value for key, value in VIT.items() if key not in ("arch", "img_size")}
    other = timm.create_model("vit_tiny_patch16_224", num_classes=0, in_chans=1, img_size=16, **given)
    torch.save(other.state_dict(), tmp_path / "vit.pt")
    changes = {"pretraining": {"mine": {"weights": str(tmp_path / "vit.pt")}}, "model": {"name": "timm"} | VIT}
    config = tiny_config(tmp_path / "r", arms=[{"variant": "at", "norm": "linf", "init": "mine"}], **changes)
    with pytest.raises(ValueError, match=r"vit\.pt: .*pos_embed: expected shape .*positions belong to"):
        open_study(config)
    assert open_study(config, starts=False), "a job does not ask again"


class NoFeatures(nn.Linear):
    """A network that does not say how many features it has."""


class Wordy(nn.Linear):
    """A network that returns a class, not features."""

    features = 64

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, 8, 8) -> (B,)."""
        return super().forward(x.flatten(1)).argmax(1)


def no_features(channels: int) -> nn.Module:
    return NoFeatures(64 * channels, 4)


def wordy(channels: int) -> nn.Module:
    return Wordy(64 * channels, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        ("no_features", "model: mine must have `features`, their number; found None"),
        ("wordy", r"model: mine has no features for heads: expected a tensor of shape \(2, 64\), found shape \(2,\)"),
    ],
)
def test_a_plugins_backbone_without_features_is_refused_before_work(
    make: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES, "mine", Backbone(f"{__name__}:{make}"))
    with pytest.raises(ValueError, match=message):
        open_study(tiny_config(tmp_path / "r", model={"name": "mine"}))


def test_images_for_pre_training_that_the_network_does_not_take_are_refused(tmp_path: Path) -> None:
    arms = [{"variant": "at", "norm": "linf", "init": "ssl"}]
    more = folder_data(tmp_path / "more", dict.fromkeys(("ant", "bee"), 20), size=16)
    for image in (tmp_path / "more").rglob("*.png"):
        Image.open(image).convert("L").save(image)
    extra = more.model_dump(mode="json", exclude_unset=True)
    changes = {"pretrain_data": extra, "model": {"name": "timm"} | VIT, "arms": arms}
    with pytest.raises(ValueError, match="timm does not take images of 16 x 16 pixels"):
        open_study(tiny_config(tmp_path / "r", **changes))


def test_a_library_that_is_missing_is_named_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (architectures, optional):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    architectures.architectures.cache_clear()
    config = tiny_config(tmp_path / "r", model={"name": "timm"} | VIT)
    assert make_plan(parse_study(config)), "what is finished can be read without it"
    with pytest.raises(ConfigError, match=r"model\.name: timm is not installed: pip install 'ssrob\[timm\]'"):
        open_study(config)
    architectures.architectures.cache_clear()


def test_names_are_checked_without_importing_a_library() -> None:
    import subprocess

    code = "from ssrob.registry.architectures import check_architecture as c; import sys; c('timm', 'resnet18'); "
    code += "c('torchvision', 'resnet18'); assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    assert importlib.util.find_spec("timm")
    subprocess.run([sys.executable, "-c", code], check=True)
