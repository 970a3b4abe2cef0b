"""The sweep over budgets, against closed forms, another library and its own promises."""

import copy
import warnings
from itertools import pairwise

import foolbox
import numpy as np
import pandas as pd
import pytest
import torch
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.sweep import attack_sweep
from ssrob.registry.attacks import NORMS
from ssrob.registry.presets import PRESETS, AttackConfig, AttackPlan
from tests.attack_models import digits_test, linear_distance, linear_problem, robust_cnn
from torch import Tensor, nn

EPS = {"linf": [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3], "l2": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]}
WHITE_BOX = AttackPlan(PRESETS["strong"].attacks[:3])  # without Square, which takes its time
SHORT = AttackPlan((AttackConfig("pgd", "margin", 8, start="warm"), AttackConfig("pgd", "cross_entropy", 8)))


def grid(distance: Tensor, count: int = 10) -> list[float]:
    """Budgets over the whole range of distances."""
    return [0.0, *torch.linspace(float(distance.min()) * 0.9, float(distance.max()) * 1.05, count).tolist()]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("classes", "preset"),
    [
        (2, "fast"),
        (2, "standard"),
        (5, AttackPlan((AttackConfig("pgd", "targeted_margin", 20, restarts=4),))),
        (5, AttackPlan((AttackConfig("apgd", "targeted_margin", 20, restarts=4),))),
        (5, AttackPlan((AttackConfig("apgd", "targeted_dlr", 50, restarts=4),))),
    ],
)
def test_whole_curve_of_a_linear_classifier(norm: str, classes: int, preset: str | AttackPlan):
    model, x, y = linear_problem(classes)
    distance = linear_distance(model, x, y, GEOMETRIES[norm])
    eps = grid(distance)
    result = attack_sweep(model, x, y, norm=norm, eps=eps, preset=preset, batch_size=24)
    known = distance[None] > torch.tensor(eps)[:, None]
    clear = (distance[None] - torch.tensor(eps)[:, None]).abs() > 2e-3 * distance[None]  # PGD's last step
    assert clear.double().mean() > 0.9
    assert result.robust[clear].equal(known[clear])
    assert (result.distance >= distance * (1 - 1e-5)).all()  # float32: nothing lies nearer than the boundary
    assert result.distance.isfinite().all()


@pytest.mark.parametrize("norm", NORMS)
def test_never_below_the_closed_form_with_many_classes(norm: str):
    """An untargeted attack may miss the nearest class, but must never claim a break that cannot exist."""
    model, x, y = linear_problem(10)
    distance = linear_distance(model, x, y, GEOMETRIES[norm])
    result = attack_sweep(model, x, y, norm=norm, eps=grid(distance))
    assert (result.distance >= distance * (1 - 1e-5)).all()
    known = (distance[None] > result.eps[:, None]).double().mean(1)
    assert (result.accuracy - known).max() < 0.1


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("gradients_in", ["float32", "bfloat16"])
def test_what_is_stored_is_inside_and_misclassified(norm: str, gradients_in: str):
    model, (x, y) = robust_cnn(), digits_test(150)
    before = x.clone()
    result = attack_sweep(
        model, x, y, norm=norm, eps=EPS[norm], preset="fast", keep_adversarial=True, gradients_in=gradients_in
    )
    assert x.equal(before)
    adv, geometry = result.adversarial, GEOMETRIES[norm]
    assert adv.dtype == torch.float32
    assert adv.min() >= 0
    assert adv.max() <= 1
    broken = ~result.robust[-1]
    assert 0.3 < broken.double().mean() < 1
    assert (geometry.norm(adv - before) <= EPS[norm][-1] + 1e-6).all()  # float32 rounding of x + delta
    norms = geometry.norm(adv - before)[broken]
    torch.testing.assert_close(norms, result.distance[broken], atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        assert (model(adv[broken]).argmax(1) != y[broken]).all()
    assert adv[~broken].equal(before[~broken])
    assert result.distance[~broken].isinf().all()


@pytest.mark.parametrize("norm", NORMS)
def test_eps_zero_is_clean_and_the_curve_falls(norm: str):
    model, (x, y) = robust_cnn(), digits_test(200)
    with torch.no_grad():
        clean = model(x).argmax(1) == y
    assert 0 < (~clean).sum() < 40
    result = attack_sweep(model, x, y, norm=norm, eps=EPS[norm], preset="fast")
    assert result.robust[0].equal(clean)
    assert result.clean_correct.equal(clean)
    assert not result.robust[:, ~clean].any()
    assert (result.distance[~clean] == 0).all()
    assert (result.distance[clean] > 0).all()
    assert {result.attack[i] for i in (~clean).nonzero().squeeze(1)} == {"clean"}
    assert (result.robust[:-1] | ~result.robust[1:]).all()
    assert result.accuracy[-1] < result.accuracy[0] - 0.3


def test_exactly_eps_counts_as_broken_in_both_precisions():
    model, x, y = linear_problem(2)
    distance = linear_distance(model, x, y, GEOMETRIES["linf"])
    eps = sorted({round(float(d) * 255 + 0.5) / 255 for d in distance})
    result = attack_sweep(model, x, y, eps=eps, preset="fast")
    at = torch.searchsorted(result.eps, result.distance.double())
    # Every image is broken at an eps of the list, by a perturbation that uses all of it.
    torch.testing.assert_close(result.distance.double(), result.eps[at], atol=1e-7, rtol=1e-6)
    assert not result.robust[at, torch.arange(len(x))].any()
    again = result.distance.numpy()[None, :] > result.eps.numpy().astype("float32")[:, None]
    assert result.robust.equal(torch.from_numpy(again))


def test_large_budget_breaks_everything_and_a_constant_model_nothing():
    model, (x, y) = robust_cnn(), digits_test(60)
    assert attack_sweep(model, x, y, eps=[1.0]).accuracy.item() == 0.0

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 10)

    result = attack_sweep(Constant().eval(), x, y, eps=[0.0, 1.0], preset="fast")
    assert result.accuracy.tolist() == [(y == 0).double().mean().item()] * 2


@pytest.mark.parametrize("norm", NORMS)
def test_more_work_never_raises_accuracy(norm: str):
    """A plan's runs come before those appended to it, and a worst case over more runs can only be lower."""
    model, (x, y) = robust_cnn(), digits_test(120)

    def accuracy(*attacks: AttackConfig) -> Tensor:
        return attack_sweep(model, x, y, norm=norm, eps=EPS[norm], preset=AttackPlan(attacks)).accuracy

    once = accuracy(AttackConfig("pgd", "margin", 3))
    restarts = accuracy(AttackConfig("pgd", "margin", 3, restarts=4))
    second = accuracy(AttackConfig("pgd", "margin", 3), AttackConfig("pgd", "cross_entropy", 3))
    single = accuracy(AttackConfig("pgd", "margin", 1))
    more = accuracy(AttackConfig("pgd", "margin", 3), AttackConfig("pgd", "margin", 20))
    assert (restarts <= once).all()
    assert (second <= once).all()
    assert (more <= once).all()
    assert (more <= single).all()


def test_verdicts_hardly_depend_on_the_batch_size():
    """Another batch size rounds a float32 network's logits otherwise, which may move one verdict in a thousand."""
    model, (x, y) = robust_cnn(), digits_test(200)
    eps = [0.05 * k for k in range(1, 9)]
    whole = attack_sweep(model, x, y, eps=eps, preset="fast")
    assert attack_sweep(model, x, y, eps=eps, preset="fast").distance.equal(whole.distance)
    for size in (64, 17):
        other = attack_sweep(model, x, y, eps=eps, preset="fast", batch_size=size)
        assert (other.robust != whole.robust).double().mean() <= 0.001


def test_the_layout_is_used_and_given_back():
    """Channels last during a sweep, unless a model's `view` cannot take that; the very storage afterwards."""
    seen = []

    class Viewing(nn.Module):
        def __init__(self, view: bool) -> None:
            super().__init__()
            self.conv, self.linear, self.view = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, 4), view

        def forward(self, x: Tensor) -> Tensor:
            seen.append(self.conv.weight.is_contiguous())
            features = self.conv(x)
            return self.linear(features.view(len(x), -1) if self.view else features.reshape(len(x), -1))

    x, y = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(6, dtype=torch.int64)
    for view, layout, stays in ((False, "channels_last", False), (True, "channels_last", True), (False, "model", True)):
        model = Viewing(view).eval()
        before, data = model.conv.weight.data_ptr(), model.conv.weight.detach().clone()
        attack_sweep(model, x, y, eps=[0.1], preset="fast", layout=layout)
        assert seen[-1] == stays
        assert model.conv.weight.data_ptr() == before
        assert model.conv.weight.equal(data)
        assert model.conv.weight.is_contiguous()
    with pytest.raises(ValueError, match="unknown layout 'first'"):
        attack_sweep(model, x, y, eps=[0.1], layout="first")


def test_draws_depend_on_seed_and_example_number():
    model, (x, y) = robust_cnn(), digits_test(60)
    plan = AttackPlan((AttackConfig("pgd", "margin", 2),))

    def distance(**options) -> Tensor:
        return attack_sweep(model, x, y, norm="l2", eps=EPS["l2"], preset=plan, **options).distance

    assert distance().equal(distance())
    assert not distance().equal(distance(seed=1))
    assert not distance().equal(distance(index=torch.arange(100, 160)))


def test_spends_less_than_independent_runs_without_being_weaker():
    model, (x, y) = robust_cnn(), digits_test(100)
    eps = EPS["linf"][1:]
    together = attack_sweep(model, x, y, eps=eps, preset=SHORT)
    apart = [attack_sweep(model, x, y, eps=[value], preset=SHORT) for value in eps]
    assert together.gradients <= sum(result.gradients for result in apart)
    whole_attacks = sum(attack.steps for attack in SHORT.attacks) * len(eps) * int(together.clean_correct.sum())
    assert together.gradients < 0.6 * whole_attacks
    alone = torch.cat([result.accuracy for result in apart])
    assert ((together.accuracy - alone).max() * 100).round() <= 1  # image of 100: the random starts are the same


@pytest.mark.parametrize("norm", NORMS)
def test_not_weaker_than_foolbox(norm: str):
    model, (x, y) = robust_cnn(), digits_test(100)
    budgets = EPS[norm][2:5:2]
    ours = attack_sweep(model, x, y, norm=norm, eps=budgets)
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    with torch.random.fork_rng():
        torch.manual_seed(0)  # foolbox draws from the global generator
        attack = kind(steps=50, rel_stepsize=2.5 / 50)
        *_, success = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=budgets)
    theirs = 1 - success.double().mean(1)
    assert (ours.accuracy <= theirs + 1e-9).all()  # three runs to one, so not even noise is allowed
    assert (ours.accuracy >= theirs - 0.15).all()  # and both attack the same model


def test_model_inputs_and_global_randomness_are_untouched():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10))
    model[0].bias.requires_grad_(False)
    model.train()
    model[1].eval()
    x, y = digits_test(20)
    model(x).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    flags = [p.requires_grad for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    before, rng = (x.clone(), y.clone()), torch.get_rng_state()
    with pytest.warns(UserWarning, match="train mode"):
        attack_sweep(model, x, y, eps=[0.0, 0.1], preset="fast")
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(grads)
    assert all(p.grad.equal(grads[n]) for n, p in model.named_parameters() if n in grads)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [m.training for m in model.modules()] == modes
    assert x.equal(before[0])
    assert y.equal(before[1])
    assert torch.get_rng_state().equal(rng)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack_sweep(model.eval(), x, y, eps=[0.1], preset="fast")


def test_under_no_grad_and_autocast_of_the_caller():
    model, (x, y) = robust_cnn(), digits_test(40)
    plain = attack_sweep(model, x, y, eps=[0.1, 0.2], preset="fast")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        inside = attack_sweep(model, x, y, eps=[0.1, 0.2], preset="fast")
    assert inside.distance.equal(plain.distance)


def test_channels_last_model_gives_the_same_result():
    model, (x, y) = robust_cnn(), digits_test(60)
    plain = attack_sweep(model, x, y, eps=[0.1, 0.2], preset="fast")
    seen = []
    model.to(memory_format=torch.channels_last)
    hook = model[3].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    try:
        last = attack_sweep(model, x, y, eps=[0.1, 0.2], preset="fast", keep_adversarial=True)
    finally:
        hook.remove()
        model.to(memory_format=torch.contiguous_format)
    assert all(seen)
    assert last.adversarial.is_contiguous()
    assert (last.robust != plain.robust).double().mean() <= 0.02  # another order of summation


def test_finished_blocks_are_found_again():
    model, (x, y) = robust_cnn(), digits_test(50)
    eps = [0.0, 0.1, 0.2]
    plain = attack_sweep(model, x, y, eps=eps, preset="fast", block=20)

    class Killed(Exception):
        pass

    def kill(done: int, total: int) -> None:
        if done >= 30:
            raise Killed

    store: dict[str, dict[str, Tensor]] = {}
    with pytest.raises(Killed):
        attack_sweep(model, x, y, eps=eps, preset="fast", block=20, store=store, progress=kill)
    assert len(store) == 1
    calls = []
    hook = model.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    resumed = attack_sweep(model, x, y, eps=eps, preset="fast", block=20, store=store)
    assert resumed.distance.equal(plain.distance)
    assert resumed.attack == plain.attack
    assert (resumed.gradients, resumed.forwards) == (plain.gradients, plain.forwards)
    calls.clear()
    attack_sweep(model, x, y, eps=eps, preset="fast", block=20, store=store)
    hook.remove()
    assert max(calls) <= 2  # looks at the model; no block is attacked again
    for changed in ({"eps": [0.0, 0.1]}, {"seed": 1}, {"norm": "l2"}, {"batch_size": 10}, {"search": "ascending"}):
        attack_sweep(model, x, y, **{"eps": eps, **changed}, preset="fast", block=20, store=store)
    assert len(store) == 3 * 6


def test_progress_counts_up_to_all():
    model, (x, y) = robust_cnn(), digits_test(50)
    seen: list[tuple[int, int]] = []
    attack_sweep(model, x, y, eps=[0.1], preset="fast", block=20, progress=lambda *now: seen.append(now))
    done = [now for now, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (50, 50)
    assert len(set(done)) > 3


class Broken(nn.Module):
    """Returns what it is given instead of logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), *self.logits.shape)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": torch.rand(4, 64)}, r"images must be \(N, C, H, W\)"),
        ({"images": torch.rand(0, 1, 8, 8)}, "not empty"),
        ({"images": torch.full((4, 1, 8, 8), 200, dtype=torch.uint8)}, "found dtype torch.uint8; divide bytes by 255"),
        ({"images": torch.full((4, 1, 8, 8), 1.5)}, "found 1.5 to 1.5; divide grey levels by 255"),
        ({"images": torch.full((4, 1, 8, 8), torch.nan)}, r"must lie in \[0, 1\], found nan"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels must be int64 of shape \(4,\)"),
        ({"labels": torch.zeros(4)}, "found torch.float32"),
        ({"labels": torch.full((4,), -1)}, "labels must be >= 0"),
        ({"labels": torch.full((4,), 10)}, r"labels must be 0..9, found 10"),
        ({"index": torch.arange(5)}, r"index must be int64 of shape \(4,\)"),
        ({"model": Broken(torch.full((10,), torch.nan)).eval()}, "NaN logits for 1 of 1 images, first at row 0"),
        ({"model": Broken(torch.zeros(())).eval()}, r"labels must be 0..1, found 8"),  # one logit
        ({"model": Broken(torch.zeros(1)).eval()}, r"labels must be 0..1, found 8"),
        ({"model": Broken(torch.zeros(3, 2)).eval()}, r"must return logits .*found for 1 images shape \(1, 3, 2\)"),
        ({"images": "digits.npy"}, "images must be a tensor or an array of numbers, found str"),
        ({"eps": "8 levels"}, "eps must be numbers such as 8/255, 0.03 or \"8/255\", found '8 levels'"),
        ({"eps": []}, "one or more finite numbers"),
        ({"eps": [0.1, torch.nan]}, "finite numbers >= 0"),
        ({"eps": [-0.1, 0.1]}, "finite numbers >= 0"),
        ({"eps": [0.2, 0.1]}, "strictly ascending"),
        ({"eps": [0.1, 0.1]}, "strictly ascending"),
        ({"eps": [8]}, "8 grey levels are 8/255"),
        ({"norm": "l3"}, "unknown norm 'l3'"),
        ({"norm": float("inf")}, r"unknown norm inf \(did you mean 'linf'\?\); known: l2, linf"),
        ({"device": "gpu"}, "device: expected cpu, cuda, cuda:N or another of PyTorch's, found 'gpu'"),
        ({"preset": "standart"}, "did you mean 'standard'"),
        ({"gradients_in": "float16"}, "unknown gradients_in 'float16'"),
        ({"search": "bisect"}, "unknown search 'bisect'"),
        ({"batch_size": 0}, "batch_size and block must be >= 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(wrong: dict, message: str):
    x, y = digits_test(4)
    call = {"model": robust_cnn(), "images": x, "labels": y, "eps": [0.1], "preset": "fast", **wrong}
    with pytest.raises(ValueError, match=message) as caught:
        attack_sweep(call.pop("model"), call.pop("images"), call.pop("labels"), **call)
    assert "\n" not in str(caught.value)


def test_nan_during_the_attack_is_refused():
    class Overflows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            bright = x.flatten(1).mean(1, keepdim=True)
            return torch.cat([1.0 - bright, bright], 1) * (0.55 - bright).sqrt()

    x = torch.full((2, 1, 4, 4), 0.45)
    with pytest.raises(ValueError, match="NaN"):
        attack_sweep(Overflows().eval(), x, torch.zeros(2, dtype=torch.int64), eps=[0.5], preset="fast")


def test_presets_get_stronger():
    model, (x, y) = robust_cnn(), digits_test(40)
    plans = [PRESETS["fast"], PRESETS["standard"], WHITE_BOX]
    curves = [attack_sweep(model, x, y, eps=[0.22], preset=plan).accuracy for plan in plans]
    for weaker, stronger in pairwise(curves):
        assert (stronger <= weaker + 1 / 40 + 1e-9).all()  # one image of 40: their draws differ
    assert curves[2].sum() < curves[0].sum()


@pytest.mark.parametrize("norm", NORMS)
def test_smallest_norm_attack_finds_the_closed_form(norm: str):
    model, x, y = linear_problem(2)
    distance = linear_distance(model, x, y, GEOMETRIES[norm])
    plan = AttackPlan(PRESETS["strong"].attacks[:1])
    result = attack_sweep(model, x, y, norm=norm, eps=[0.0, 1e-6], preset=plan)
    # The last radii change by 0.1 % a step, and by the paper's schedule by up to 5 % before.
    ratio = result.distance / distance
    assert ratio.min() >= 1 - 1e-5  # float32
    assert ratio.max() < 1.02
    assert result.robust.all()  # found, but far outside


def test_gradients_in_bfloat16_are_not_much_weaker():
    """Logits near 40 are multiples of 0.25 in bfloat16, so its forward often disagrees with the float32 one."""
    model, (x, y) = copy.deepcopy(robust_cnn()), digits_test(80)
    with torch.no_grad():
        model[-1].bias += 40
    precise, coarse = (
        attack_sweep(model, x, y, eps=[0.1, 0.2, 0.25], preset=SHORT, gradients_in=dtype).accuracy
        for dtype in ("float32", "bfloat16")
    )
    assert (coarse - precise).abs().max() <= 0.04  # three images of 80; measured 0.025


def test_arrays_and_fractions_are_understood():
    x, y = digits_test(20)
    plain = attack_sweep(robust_cnn(), x, y, eps=[0.1], preset="fast")
    for eps in (0.1, "0.1", "1/10", ["1/10"], np.array([0.1]), torch.tensor([0.1], dtype=torch.float64)):
        assert attack_sweep(robust_cnn(), x.numpy(), y.numpy(), eps=eps, preset="fast").distance.equal(plain.distance)
    for labels in (y.int(), y.numpy().astype("uint8"), y.tolist(), pd.Series(y.numpy())):
        found = attack_sweep(robust_cnn(), x.numpy().astype("float64"), labels, eps="0.05,0.1", preset="fast")
        assert found.robust[1].equal(plain.robust[0])


def test_a_result_is_five_lines_a_table_and_a_figure():
    x, y = digits_test(40)
    result = attack_sweep(robust_cnn(), x, y, eps=[0.0, 0.1, 0.2], preset="fast")
    lines = str(result).splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("l-inf sweep of 40 images")
    assert [float(share) for share in lines[2].split()[2:]] == pytest.approx((100 * result.accuracy).tolist(), abs=0.05)
    frame = result.to_frame()
    assert list(frame.columns) == ["eps", "accuracy", "low", "high"]
    assert ((frame["low"] <= frame["accuracy"]) & (frame["accuracy"] <= frame["high"])).all()
    assert list(result.plot().lines[0].get_ydata()) == pytest.approx((100 * result.accuracy).tolist())
    assert result._repr_html_().count("<td>") == 12
