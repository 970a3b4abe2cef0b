"""Networks: shapes, seeds, normalisation, saving and loading."""

import doctest
from pathlib import Path

import pytest
import torch
from ssrob.models.feature_cache import FeatureCache
from ssrob.models.network import Architecture, Network, build
from ssrob.models.serialization import load_backbone, load_network, save_architecture, save_weights
from ssrob.models.weights import read_weights
from ssrob.registry.backbones import BACKBONES, Backbone
from ssrob.registry.losses import Widths
from torch import Tensor, nn


def architecture(backbone: str = "resnet", shape: tuple[int, int, int] = (1, 8, 8), **heads: Widths) -> Architecture:
    arguments = {
        "resnet": {"depth": 8, "width": 4},
        "preactresnet18": {"width": 4},
        "wideresnet": {"depth": 10, "width": 1},
    }
    mean, std = [0.4] * shape[0], [0.3] * shape[0]
    return Architecture(backbone, arguments[backbone], shape, mean, std, heads or {"class": 10})


@pytest.mark.parametrize("backbone", ["resnet", "preactresnet18", "wideresnet"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 17, 23)])
def test_every_backbone_takes_images_of_any_size(backbone: str, shape: tuple[int, int, int]) -> None:
    network = build(architecture(backbone, shape), seed=0).eval()
    assert network(torch.rand(2, *shape)).shape == (2, 10)


def test_known_sizes_of_known_networks() -> None:
    def parameters(name: str, arguments: dict[str, int]) -> int:
        made = build(Architecture(name, arguments, (3, 32, 32), [0.5] * 3, [0.25] * 3, {"class": 10}), seed=0)
        return sum(parameter.numel() for parameter in made.parameters())

    # Published: PreActResNet-18 11.17 M; WRN-34-10 46.2 M (46.16 M); ResNet-20 0.27 M.
    assert parameters("preactresnet18", {}) == pytest.approx(11.17e6, rel=0.005)
    assert parameters("wideresnet", {"depth": 34, "width": 10}) == pytest.approx(46.2e6, rel=0.005)
    assert parameters("resnet", {"depth": 20, "width": 16}) == pytest.approx(0.27e6, rel=0.02)


def test_initialisation_is_a_function_of_seed_and_name() -> None:
    torch.manual_seed(1)
    one = build(architecture(), seed=0).state_dict()
    torch.manual_seed(2)
    with_head = build(architecture(rotation=4, **{"class": 10}), seed=0).state_dict()
    other = build(architecture(), seed=1).state_dict()
    assert all(torch.equal(tensor, with_head[name]) for name, tensor in one.items())
    assert not torch.equal(one["backbone.stem.weight"], other["backbone.stem.weight"])


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build(architecture(), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_normalisation_is_inside() -> None:
    network = build(architecture(), seed=0).eval()
    x = torch.rand(4, 1, 8, 8)
    assert torch.allclose(network.features(x), network.backbone((x - 0.4) / 0.3))


def test_a_projector_is_a_perceptron_that_seed_and_name_decide(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build(architecture(contrastive=(6, 5, 3)), seed=0).eval()
    kinds = [type(layer).__name__ for layer in network.heads["contrastive"].children()]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    x = torch.rand(4, 1, 8, 8)
    assert network(x, head="contrastive").shape == (4, 3)
    torch.manual_seed(2)
    other = build(architecture(contrastive=(6, 5, 3), rotation=4), seed=0).state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in network.state_dict().items())
    first = network.heads["contrastive"].get_submodule("0").weight
    assert first.abs().max() <= 1 / 16**0.5  # 16 features
    assert not torch.equal(first, build(architecture(contrastive=(6, 5, 3)), seed=1).heads["contrastive"][0].weight)
    save_weights(network.state_dict(), tmp_path / "last.safetensors")
    save_architecture(network.architecture, tmp_path / "model.json")
    rebuilt = load_network(tmp_path / "last.safetensors")
    assert torch.equal(rebuilt(x, head="contrastive"), network(x, head="contrastive"))


def test_a_model_written_before_there_were_projectors_still_loads(tmp_path: Path) -> None:
    network = build(architecture(), seed=3).eval()
    save_weights(network.state_dict(), tmp_path / "last.safetensors")
    (tmp_path / "model.json").write_text(
        '{"arguments": {"depth": 8, "width": 4}, "backbone": "resnet", "classes": [], "heads": {"class": 10}, '
        '"mean": [0.4], "shape": [1, 8, 8], "std": [0.3]}'
    )
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(load_network(tmp_path / "last.safetensors")(x), network(x))


def test_a_backbone_starts_from_other_weights() -> None:
    source, target = build(architecture(), seed=0), build(architecture(), seed=1)
    plain = {name.removeprefix("backbone."): value for name, value in source.state_dict().items() if "backbone" in name}
    load_backbone(target, {f"module.{name}": value for name, value in plain.items()})
    assert torch.equal(target.backbone.stem.weight, source.backbone.stem.weight)


def test_an_ssl_head_is_carried_over_and_a_class_head_of_another_size_is_not() -> None:
    source = build(architecture(rotation=4, **{"class": 3}), seed=0)
    target = build(architecture(rotation=4, **{"class": 10}), seed=1)
    fresh = target.heads["class"].weight.clone()
    load_backbone(target, source.state_dict())
    assert torch.equal(target.heads["rotation"].weight, source.heads["rotation"].weight)
    assert torch.equal(target.heads["class"].weight, fresh)


def test_weights_that_fit_nowhere_are_refused() -> None:
    target = build(architecture(), seed=0)
    with pytest.raises(ValueError, match=r"no tensor matched.*found conv9"):
        load_backbone(target, {"conv9.weight": torch.zeros(1)})
    with pytest.raises(
        ValueError, match=r"backbone\.stem\.weight: expected shape \(4, 1, 3, 3\), found \(8, 1, 3, 3\)"
    ):
        load_backbone(target, {"backbone.stem.weight": torch.zeros(8, 1, 3, 3)})
    with pytest.raises(ValueError, match=r"\d+ missing \(such as 'backbone.*of \d+ tensors"):
        load_backbone(target, {"backbone.stem.weight": torch.zeros(4, 1, 3, 3)})


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("hacked-by-a-checkpoint", "w")


def test_a_hostile_checkpoint_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _Payload()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt: not a file of weights .*pickled code is never run"):
        read_weights(tmp_path / "evil.pt")
    assert not Path("hacked-by-a-checkpoint").exists()


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors"])
def test_a_file_of_weights_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{name}: no such file"):
        read_weights(tmp_path / name)


def test_images_that_terms_share_go_through_the_network_once() -> None:
    network = build(architecture(rotation=4, **{"class": 10}), seed=0).eval()
    calls: list[int] = []
    network.backbone.register_forward_hook(lambda *_: calls.append(1))
    model, x = FeatureCache(network), torch.rand(2, 1, 8, 8)
    outputs = model(x), model(x), model(x, head="rotation")
    assert len(calls) == 1
    assert torch.equal(outputs[0], outputs[1])
    model(x.clone())
    assert len(calls) == 2


def test_the_example_of_the_feature_cache_makes_the_passes_it_says() -> None:
    network = build(architecture(rotation=4, **{"class": 10}), seed=0).eval()
    calls: list[int] = []
    network.backbone.register_forward_hook(lambda *_: calls.append(1))
    x = torch.rand(2, 1, 8, 8)
    names = {"FeatureCache": FeatureCache, "network": network, "x": x, "d": torch.full_like(x, 0.1)}
    (example,) = doctest.DocTestFinder(recurse=False).find(FeatureCache, "FeatureCache", globs=names)
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0
    assert len(calls) == 1 + 1 + 1
    assert torch.allclose(example.globs["gap"], network(x + 0.1) - network(x), atol=1e-6)  # float32
    assert example.globs["gap"].requires_grad


def test_a_layer_without_initialisation_is_an_error() -> None:
    class Odd(Network):
        def __init__(self, given: Architecture):
            super().__init__(given)
            self.extra = nn.Embedding(2, 2)

    import ssrob.models.network as module

    with pytest.raises(TypeError, match="extra: no initialisation for a Embedding"):
        module._initialise(Odd(architecture()).extra, 0, "extra")


def test_a_layer_may_bring_its_own_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tokens(nn.Module):
        def __init__(self, features: int):
            super().__init__()
            self.tokens, self.features = nn.Parameter(torch.empty(features)), features
            self.norm, self.group = nn.LayerNorm(features), nn.GroupNorm(2, features)

        def initialise(self, generator: torch.Generator) -> None:
            nn.init.normal_(self.tokens, generator=generator)

        def forward(self, x: Tensor) -> Tensor:
            flat: Tensor = self.norm(x.flatten(1)[:, : self.features] + self.tokens)
            grouped: Tensor = self.group(flat)
            return grouped

    monkeypatch.setitem(BACKBONES, "tokens", Backbone("tokens:tokens", {"features": 8}))
    monkeypatch.setattr("ssrob.models.network.load", lambda _: lambda channels, features: Tokens(features))
    given = Architecture("tokens", {}, (1, 8, 8), [0.4], [0.3], {"class": 10})
    first, second, other = (build(given, seed) for seed in (3, 3, 4))
    states = [network.state_dict() for network in (first, second, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["backbone.tokens"], states[2]["backbone.tokens"])
    assert torch.equal(states[0]["backbone.norm.weight"], torch.ones(8))
    assert torch.equal(states[0]["backbone.group.bias"], torch.zeros(8))
