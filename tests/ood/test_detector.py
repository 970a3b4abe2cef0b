"""Scores of a model on images: one pass for all, clean and attacked."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from ssrob.losses.rotation import all_views
from ssrob.models.network import Architecture, build
from ssrob.ood import scores
from ssrob.ood.detector import Detector, detection_table
from ssrob.ood.image_sets import synthetic
from torch import nn

INSIDE, OUTSIDE = synthetic("textures", 12, (3, 8, 8)), synthetic("uniform", 10, (3, 8, 8))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    heads = {"class": 5, "rotation": 4}
    shape = (3, 8, 8)
    about = Architecture("resnet", {"width": 4, "depth": 8}, shape, mean=[0.5] * 3, std=[0.25] * 3, heads=heads)
    return build(about, seed=0).train()


def test_all_scores_are_the_functions_of_the_outputs(network, monkeypatch):
    monkeypatch.setattr("ssrob.attacks.frozen.BATCH_PIXELS", 64 * 5)  # batches of 5, 5 and 2
    detector = Detector(network, training=OUTSIDE, k=3)
    found = detector.scores(INSIDE)
    assert network.training
    assert list(found) == ["max_softmax", "max_logit", "energy", "nearest_neighbour", "rotation_loss", "rotation"]
    network.eval()
    x, bank = (torch.from_numpy(images.transpose(0, 3, 1, 2) / 255).float() for images in (INSIDE, OUTSIDE))
    with torch.no_grad():
        logits, turned = network(x), torch.stack([network(view, head="rotation") for view in all_views(x)])
        near = scores.nearest_neighbour(network.features(x), network.features(bank), 3)
    network.train()
    expected = {
        "max_softmax": scores.max_softmax(logits),
        "max_logit": scores.max_logit(logits),
        "energy": scores.energy(logits),
        "nearest_neighbour": near,
        "rotation_loss": scores.rotation_loss(turned),
        "rotation": scores.rotation(logits, turned),
    }
    for name, values in expected.items():
        assert found[name].to_numpy() == pytest.approx(values.numpy(), abs=1e-4)  # float32 in other batches


def test_any_module_has_the_scores_of_its_logits():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    detector = Detector(model, training=INSIDE)
    assert detector.names == ["max_softmax", "max_logit", "energy"]
    assert detector.scores(OUTSIDE, ["energy"]).shape == (10, 1)
    with pytest.raises(ValueError, match=r"unknown score 'rotation' \(this model has: max_softmax, max"):
        detector.scores(OUTSIDE, ["rotation"])


def test_an_attack_from_a_training_image_has_a_gradient(network):
    found = Detector(network, training=INSIDE, k=1).scores(INSIDE, ["nearest_neighbour"], eps=8 / 255, steps=2)
    assert found.notna().all(axis=None)
    assert found["nearest_neighbour"].mean() < -1e-4


def test_an_attack_is_the_same_in_any_batches(network, monkeypatch):
    detector, keywords = Detector(network), {"names": ["energy"], "eps": 8 / 255, "steps": 1}
    once = detector.scores(INSIDE, **keywords)
    monkeypatch.setattr("ssrob.attacks.frozen.BATCH_PIXELS", 64 * 5)
    assert detector.scores(INSIDE, **keywords).to_numpy() == pytest.approx(once.to_numpy(), abs=1e-5)


@pytest.mark.parametrize("k", [0, 13])
def test_more_neighbours_than_training_images_are_refused(network, k):
    with pytest.raises(ValueError, match=r"k must be 1\.\.12 \(the training images given\)"):
        Detector(network, training=INSIDE, k=k)


def test_attacks_move_every_score_the_wrong_way_and_leave_the_model(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    detector = Detector(network, training=INSIDE, k=2)
    for images, inside, sign in ((INSIDE, True, -1), (OUTSIDE, False, 1)):
        clean = detector.scores(images)
        attacked = detector.scores(images, inside=inside, eps=8 / 255, steps=3)
        gain = sign * (attacked - clean)
        assert (gain >= -1e-5).all(axis=None)
        assert (gain.mean() > 0).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_the_table_has_a_row_per_set_and_score(network):
    detector = Detector(network)
    inside = detector.scores(INSIDE)
    outside = detector.scores(OUTSIDE)
    table = detection_table(inside, {"uniform": outside, "itself": inside})
    uniform = table[table["image_set"] == "uniform"].set_index("score")["auroc"]
    labels = np.repeat([1, 0], [len(inside), len(outside)])
    for name in detector.names:
        area = roc_auc_score(labels, np.concatenate([inside[name], outside[name]]))
        assert uniform[name] == pytest.approx(area), name
    assert len(table) == 2 * len(detector.names)
    assert (table[table["image_set"] == "itself"]["auroc"] == 0.5).all()
    assert set(table["outside"]) == {10, 12}
    assert ((table["auroc_low"] <= table["auroc"]) & (table["auroc"] <= table["auroc_high"])).all()
    assert np.isfinite(table.select_dtypes("number")).all(axis=None)
