"""Figures: what is drawn, from which rows, and that arms keep their names and looks across figures."""

import colorsys
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy import stats
from ssrob.reporting.figures import arms as arm_names
from ssrob.reporting.figures import summary
from ssrob.reporting.figures.classes import class_accuracies, shown_classes
from ssrob.reporting.figures.corruption import corruption_families, corruption_means
from ssrob.reporting.figures.curves import (
    difference_by_weight,
    difference_to_at,
    gain_from_pretraining,
    robust_accuracy,
)
from ssrob.reporting.figures.diagnosis import diagnosis
from ssrob.reporting.figures.effects import effects
from ssrob.reporting.figures.heatmaps import corruption_heatmap, sweep_heatmap
from ssrob.reporting.figures.inputs import Inputs, inputs
from ssrob.reporting.figures.pictures import adversarial_examples, in_norm
from ssrob.reporting.figures.probes import probe_accuracies, probe_rows
from ssrob.reporting.figures.style import eps_axis, looks, save
from ssrob.reporting.figures.trade_offs import at_reference, clean_against_robust, cost_against_robust
from ssrob.reporting.figures.training import chance, pretraining_curves, pretraining_rows, training_curves
from tests import synthetic

SMALL = {
    "seeds": [0, 1, 2],
    "threat": {"linf": {"eps": "8/255"}, "l2": {"eps": 0.5}},
    "arms": [
        {"variant": ["standard", "at", "at_ssl_joint"], "norm": "linf"},
        {"variant": ["at", "at_ssl_joint"], "norm": "linf", "init": "ssl"},
        {"variant": "at", "norm": "linf", "eps_scale": [0.5, 1.25]},
    ],
}


def _given(**changes: object) -> Inputs:
    study = synthetic.study(**{**SMALL, **changes})
    return inputs(study, synthetic.tables(study), {})


@pytest.fixture(scope="module")
def given() -> Inputs:
    return _given()


@pytest.fixture(scope="module")
def large() -> Inputs:
    study = synthetic.large_study()
    return inputs(study, synthetic.tables(study), {})


def _titled(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def _labels(axes: Axes) -> list[str]:
    return [str(line.get_label()) for line in axes.lines if not str(line.get_label()).startswith("_")]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]


# Names, order, looks.


def test_names_are_unique_but_for_the_seed_and_ordered(large: Inputs) -> None:
    arms = large.arms
    assert (arms.groupby("name")["seed"].nunique() == 3).all()
    names = list(dict.fromkeys(arms["name"]))
    assert names[:5] == ["standard", "at linf x0.5", "at linf x0.75", "at linf", "at linf x1.25"]
    assert names.index("at linf from ssl") > names.index("at_ssl_ensemble rotation w=0.5 linf")


def test_a_label_that_says_too_little_is_extended() -> None:
    study = synthetic.study(**SMALL)
    arms = synthetic.tables(study)["arms"].assign(label="model")
    named = arm_names.name_arms(arms)
    groups = named.drop_duplicates(arm_names.GROUP)
    assert groups["name"].is_unique
    assert any("ssl" in name for name in groups["name"])


def test_results_of_an_unknown_arm_are_refused(given: Inputs) -> None:
    rows = given.robustness.drop(columns=["label", "name"]).assign(arm="elsewhere")
    with pytest.raises(ValueError, match="elsewhere"):
        arm_names.with_names(rows, given.arms)


def test_looks_tell_every_pair_of_arms_apart(large: Inputs) -> None:
    for norm in ("linf", "l2"):
        found = looks(large.trained_on(norm).arms)
        points = [(look.colour, look.marker, look.fill, look.face, look.thin) for look in found.values()]
        assert len(set(points)) == len(points), "without their dashes, too"


def test_controls_are_pale_and_two_budgets_differ() -> None:
    blocks = [{"variant": ["at", "at_ssl_clean", "at_ssl_clean_nograd"], "norm": "linf"}]
    blocks += [{"variant": "at", "norm": "linf", "equal_passes": way} for way in ("at_ssl_clean", "at_ssl_joint")]
    found = _given(arms=blocks).looks
    one, other = (look for name, look in found.items() if "passes" in name)
    assert one.face == other.face == (1, 1, 1)
    assert one.marker != other.marker
    twins = [look for name, look in found.items() if name.startswith("at_ssl_clean")]
    assert twins[0].colour == twins[1].colour
    assert twins[0].face != twins[1].face


def test_a_look_does_not_depend_on_the_other_ways_in_the_study(given: Inputs, large: Inputs) -> None:
    for name in ("standard", "at linf", "at_ssl_joint rotation w=0.5 linf"):
        assert given.looks[name] == large.looks[name]


def test_a_larger_weight_is_darker(large: Inputs) -> None:
    light = [
        colorsys.rgb_to_hls(*large.looks[f"at_ssl_joint rotation w={w} linf"].colour)[1] for w in ("0.1", "0.5", "2")
    ]
    assert light == sorted(light, reverse=True)
    assert len(set(light)) == 3


def test_every_arm_stands_in_a_panel_and_the_baselines_in_each(large: Inputs) -> None:
    panels = arm_names.panels(large.robustness)
    assert set().union(*(part["name"] for _, part in panels)) == set(large.arms["name"])
    assert [told for told, _ in panels[:4]] == [
        "trained on l-inf · by way of training",
        "trained on l-inf · by initialisation",
        "trained on l-inf · by SSL weight",
        "trained on l-inf · controls",
    ]
    for told, part in panels:
        norm = "linf" if "l-inf" in told else "l2"
        assert f"at {norm}" in set(part["name"])
    assert all("standard" in set(part["name"]) for told, part in panels if told.endswith("by way of training"))


def test_robust_accuracy_of_many_arms_shows_the_main_comparison_alone(large: Inputs) -> None:
    figure = robust_accuracy(large.trained_on("linf").robustness, large.looks)
    names = _legend(figure)
    assert len(figure.axes) == 3
    assert {"standard", "at linf", "at_ssl_joint rotation w=0.5 linf"} < set(names)
    assert not any("w=2" in name or " from " in name or "passes" in name or "at_two" in name for name in names)
    assert f"{large.trained_on('linf').arms['name'].nunique() - len(names)} other arms" in figure.get_supxlabel()


def test_few_arms_need_one_panel(given: Inputs) -> None:
    assert [told for told, _ in arm_names.panels(given.robustness)] == [""]


# Numbers.


def test_t_interval_of_three_seeds_range_of_two_binomial_of_one() -> None:
    rows = pd.DataFrame(
        {"name": "a", "seed": [0, 1, 2], "accuracy": [0.5, 0.6, 0.65], "n": 100, "low": 0.4, "high": 0.7}
    )
    three = summary.over_seeds(rows, ["name"]).iloc[0]
    low, high = stats.t.interval(0.95, 2, loc=rows["accuracy"].mean(), scale=stats.sem(rows["accuracy"]))
    assert three[["mean", "low", "high"]].to_list() == pytest.approx([rows["accuracy"].mean(), low, high])
    two = summary.over_seeds(rows.iloc[:2], ["name"]).iloc[0]
    assert two[["mean", "low", "high"]].to_list() == pytest.approx([0.55, 0.5, 0.6])
    one = summary.over_seeds(rows.iloc[:1], ["name"]).iloc[0]
    assert one[["mean", "low", "high", "seeds"]].to_list() == pytest.approx([0.5, 0.4, 0.7, 1])


def test_an_interval_of_accuracies_stays_inside_0_to_1() -> None:
    rows = pd.DataFrame(
        {"name": "a", "seed": [0, 1, 2], "accuracy": [0.0, 0.0, 0.02], "n": 100, "low": 0.0, "high": 0.1}
    )
    assert summary.over_seeds(rows, ["name"])["low"].item() == 0


def test_wilson_equals_scipy() -> None:
    low, high = summary.wilson(pd.Series([0.0, 0.3, 1.0]), pd.Series([50, 200, 80]))
    for i, (hits, n) in enumerate([(0, 50), (60, 200), (80, 80)]):
        expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
        assert (low[i], high[i]) == pytest.approx((expected.low, expected.high), abs=1e-7)  # Z has seven digits


def test_differences_are_paired_by_seed_init_and_norm(given: Inputs) -> None:
    found = summary.differences_to_at(given.robustness, floor=0)
    row = found[(found["name"] == "at_ssl_joint rotation w=0.5 linf from ssl") & (found["seed"] == 1)].iloc[3]
    same = given.robustness.query("variant == 'at' and init == 'ssl' and seed == 1 and eps_scale == 1")
    base = same[(same["eval_norm"] == row["eval_norm"]) & (same["eps"] == row["eps"])]["accuracy"].item()
    assert row["difference"] == pytest.approx(100 * (row["accuracy"] - base))
    assert not arm_names.is_plain_at(found).any()
    assert found["norm"].notna().all()


def test_the_floor_leaves_out_where_at_is_lost(given: Inputs) -> None:
    found = summary.differences_to_at(given.robustness, floor=40)
    assert 0 < len(found) < len(summary.differences_to_at(given.robustness, floor=0))
    assert (found["base"] >= 0.4).all()


def test_gain_from_pretraining_is_against_the_same_way(given: Inputs) -> None:
    found = summary.differences_to_random(given.robustness, floor=0)
    assert set(found["name"]) == {"at linf from ssl", "at_ssl_joint rotation w=0.5 linf from ssl"}
    row = found.iloc[0]
    twin = given.robustness.query(
        "init == 'random' and variant == @row.variant and seed == @row.seed and eps_scale == 1"
    )
    twin = twin[(twin["eval_norm"] == row["eval_norm"]) & (twin["eps"] == row["eps"])]
    assert row["difference"] == pytest.approx(100 * (row["accuracy"] - twin["accuracy"].item()))


def test_corruption_means_weigh_every_corruption_and_severity_the_same(given: Inputs) -> None:
    means = corruption_means(given.corruptions)
    row = means[(means["name"] == "at linf") & (means["seed"] == 2) & (means["group"] == "all")].iloc[0]
    rows = given.corruptions[(given.corruptions["name"] == "at linf") & (given.corruptions["seed"] == 2)]
    assert len(rows) == 15 * 5
    assert row["accuracy"] == pytest.approx(rows["accuracy"].mean())
    assert row["kinds"] == 15


# Figures.


def test_robust_accuracy_draws_each_arm_and_marks_eps_train(given: Inputs) -> None:
    figure = robust_accuracy(given.robustness, given.looks)
    names = arm_names.names_in(given.robustness, given.arms)
    own, other = _titled(figure, "tested on l-inf"), _titled(figure, "tested on l2")
    assert _labels(own) == _labels(other) == names == _legend(figure)
    assert "1/255" in own.get_xlabel()
    assert [tick.get_text() for tick in own.get_xticklabels()] == ["0", "4", "8", "12", "16"]
    assert own.yaxis.get_major_formatter()(0.25, 0) == "25 %"
    assert [text.get_text() for text in own.texts] == ["training eps"]
    assert [text.get_text() for text in other.texts] == []  # no arm was trained on l2
    marks = [line for line in own.lines if list(line.get_xdata()) == [1, 1]]
    assert len(marks) == 1
    assert figure.get_suptitle().endswith("trained on l-inf")
    assert "n = 1,000 test images; 3 seeds: mean and 95 % t interval" in figure.get_supxlabel()


def test_robust_accuracy_shows_the_means(given: Inputs) -> None:
    figure = robust_accuracy(given.robustness, given.looks)
    line = next(line for line in _titled(figure, "tested on l2").lines if line.get_label() == "at linf")
    rows = given.robustness.query("name == 'at linf' and eval_norm == 'l2'")
    np.testing.assert_allclose(line.get_ydata(), rows.groupby("eps_multiple")["accuracy"].mean())


def test_one_seed_says_so_and_shows_the_noise_of_a_difference() -> None:
    given = _given(seeds=[0])
    assert "one seed: 95 % binomial interval" in robust_accuracy(given.robustness, given.looks).get_supxlabel()
    differences = summary.differences_to_at(given.robustness, 5)
    figure = difference_to_at(differences, given.looks, 5)
    assert "binomial noise" in figure.get_supxlabel()
    assert len(_titled(figure, "tested on l-inf").collections) == 1  # the grey zone, no bands


def test_difference_figure_has_the_frontier_without_bands(given: Inputs) -> None:
    differences = summary.differences_to_at(given.robustness, 5)
    figure = difference_to_at(differences, given.looks, 5)
    own = _titled(figure, "tested on l-inf")
    frontier = [line for line in own.lines if str(line.get_label()).startswith("at linf x")]
    assert len(frontier) == 2
    assert all(line.get_linewidth() == 1 for line in frontier)
    assert len(own.collections) == 2  # a band for each of the two arms that are no frontier
    assert "points" in own.get_ylabel()
    assert "below 5 %" in figure.get_supxlabel()


def test_crowded_panels_show_one_interval_in_place_of_bands(large: Inputs) -> None:
    part = large.trained_on("linf")
    figure = difference_to_at(summary.differences_to_at(part.robustness, 5), part.looks, 5)
    crowded = _titled(figure, "tested on l-inf · by way of training")
    assert "median interval" in [text.get_text() for text in crowded.texts]


def test_gain_from_pretraining_has_a_line_per_pretrained_arm(given: Inputs) -> None:
    figure = gain_from_pretraining(summary.differences_to_random(given.robustness, 5), given.looks, 5)
    assert _legend(figure) == ["at linf from ssl", "at_ssl_joint rotation w=0.5 linf from ssl"]


def test_sweep_heatmap_writes_every_value_in_per_cent(given: Inputs) -> None:
    axes = _titled(sweep_heatmap(given.robustness, given.looks), "tested on l-inf")
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    written = np.array([float(text.get_text()) for text in axes.texts]).reshape(len(names), -1)
    rows = given.robustness[given.robustness["eval_norm"] == "linf"]
    means = rows.pivot_table(index="name", columns="eps_multiple", values="accuracy").loc[names]
    np.testing.assert_allclose(written, 100 * means, atol=0.5)  # rounded to whole per cents
    assert [tick.get_text() for tick in axes.get_xticklabels()][:2] == ["0 ×", "0.25 ×"]
    assert len(axes.patches) == 1  # the reference eps


def test_corruption_heatmap_has_all_fifteen_by_family(given: Inputs) -> None:
    axes = corruption_heatmap(given.corruptions, given.looks).axes[0]
    assert len(axes.get_xticklabels()) == 15
    assert {"noise", "blur", "weather", "digital"} <= {text.get_text() for text in axes.texts}


def test_corruption_families_has_a_point_per_arm_and_family(given: Inputs) -> None:
    figure = corruption_families(corruption_means(given.corruptions), given.looks)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "noise (3)",
        "blur (4)",
        "weather (4)",
        "digital (4)",
        "all 15",
    ]
    assert all(len(axes.containers) == 7 for axes in figure.axes)


def test_training_curves_show_accuracies_and_losses(given: Inputs) -> None:
    figure = training_curves(given.training, given.looks)
    assert len(_labels(_titled(figure, "robust accuracy, each\nat its own training eps"))) == 7
    assert len(_labels(_titled(figure, "supervised loss"))) == 7
    assert len(_labels(_titled(figure, "SSL loss"))) == 2


def test_shared_pretraining_is_drawn_once(given: Inputs) -> None:
    rows = pretraining_rows(given.training)
    assert set(rows["pretraining"]) == {"ssl"}
    assert not rows.duplicated(["pretraining", "seed", "step", "metric"]).any()
    axes = _titled(pretraining_curves(rows, {}), "clean rotation accuracy")
    assert _labels(axes) == ["ssl"]
    assert any(list(line.get_ydata()) == [0.25, 0.25] for line in axes.lines)  # chance


def test_scatters_leave_out_untrained_arms_and_say_so(given: Inputs) -> None:
    points = at_reference(given.robustness, given.arms)
    assert points["clean"].notna().all()
    figure = clean_against_robust(points, given.looks)
    names = [container.get_label() for container in figure.axes[0].containers]
    assert len(names) == 6
    assert "standard" not in names
    assert "standard 9" in figure.get_supxlabel()
    cost = cost_against_robust(points, given.looks)
    assert "passes" in cost.axes[0].get_xlabel()
    assert "l-inf at reference eps" in cost.axes[0].get_ylabel()
    places = [float(container.lines[0].get_xdata()[0]) for container in cost.axes[0].containers]
    assert len(set(places)) == len(places), "marks of the same cost stand side by side"


def test_passes_on_other_data_are_no_cost_to_compare(given: Inputs) -> None:
    arms = given.arms.assign(passes=given.arms["passes"].where(given.arms["init"] == "random"))
    figure = cost_against_robust(at_reference(given.robustness, arms), given.looks)
    assert not any("from ssl" in name for name in _legend(figure))
    assert "pre-trained on other data" in " ".join(figure.get_supxlabel().split())


def test_effects_shows_primary_cells_and_survives_missing_ones(given: Inputs) -> None:
    rows = given.findings.copy()
    rows.loc[0, ["effect", "low", "high"]] = np.nan
    figure = effects(rows, 2.0, "99 %")
    assert "Bars: 99 % intervals" in figure.get_supxlabel()
    axes = figure.axes[0]
    written = [text.get_text() for text in axes.texts]
    assert written == ["no result", "supported", "inconclusive", "contradicted", "supported"]
    label = axes.get_yticklabels()[0].get_text()
    assert label.startswith("C2")
    assert label.endswith("mean at 0.25, 0.5 x eps"), "C2 and C3 compare the same arms at other sizes"


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_show_clean_perturbation_and_result(channels: int) -> None:
    samples = synthetic.samples(["at", "joint"], images=4, channels=channels)
    figure = adversarial_examples(samples, ["zero", "one"])
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 4 + 2 * 4 * 2
    first = np.asarray(shown[4].images[0].get_array())  # a perturbation: grey is no change, stretched to 0..1
    assert first.min() >= 0
    assert first.max() <= 1
    assert max(first.max() - 0.5, 0.5 - first.min()) == pytest.approx(0.5)
    assert shown[5].get_xlabel() == "→ one"
    assert "no perturbation within eps" in figure.get_supxlabel()
    assert "preset `fast`" in figure.get_supxlabel()


def test_pictures_of_different_images_are_refused() -> None:
    samples = synthetic.samples(["at", "joint"], images=4)
    samples["joint"]["label"] = samples["joint"]["label"][::-1]
    with pytest.raises(ValueError, match="joint"):
        adversarial_examples(samples)


def test_one_file_may_hold_the_attacks_of_both_norms() -> None:
    flat = synthetic.samples(["at"], images=2)["at"]
    keys = ("adversarial", "predicted_adversarial", "eps")
    both = {key: flat[key] for key in ("clean", "label", "predicted_clean")} | {f"{key}_l2": flat[key] for key in keys}
    found = in_norm(both, "l2")
    assert found is not None
    assert found["norm"] == "l2"
    assert found["adversarial"] is flat["adversarial"]
    assert in_norm(both, "linf") is None
    assert in_norm(flat, "linf") is not None


def test_the_same_figure_gives_the_same_bytes(given: Inputs, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save(effects(given.findings, 2.0), tmp_path, name)
    for kind in ("svg", "png"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "one.svg").read_bytes()


def test_drawing_leaves_matplotlib_as_it_was(given: Inputs) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 23.0, "axes.grid": False}):
        effects(given.findings, 2.0)
        assert mpl.rcParams["font.size"] == 23.0
        assert mpl.rcParams["axes.grid"] is False


def _lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* (D65) of an sRGB colour after the matrix `seen`, which works on linear RGB."""
    srgb = np.array(to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(seen @ linear, 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


DEUTERANOPIA = np.array(  # Machado, Oliveira, Fernandes 2009, severity 1
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


@pytest.mark.parametrize(("seen", "least"), [(np.eye(3), 12.0), (DEUTERANOPIA, 10.0)])
def test_colours_differ_for_most_readers(seen: np.ndarray, least: float) -> None:
    from ssrob.reporting.figures.style import _COLOURS, _SPARE

    colours = {way: colour for way, (colour, _) in [*_COLOURS.items(), *enumerate(_SPARE)]}
    places = {way: _lab(colour, seen) for way, colour in colours.items()}
    gaps = {
        pair: float(np.linalg.norm(places[pair[0]] - places[pair[1]])) for pair in itertools.combinations(places, 2)
    }
    closest = min(gaps, key=lambda pair: gaps[pair])
    assert gaps[closest] >= least, (closest, gaps[closest])


def test_no_two_ways_share_a_marker() -> None:
    from ssrob.reporting.figures.style import _COLOURS, _SPARE

    markers = [marker for _, marker in [*_COLOURS.values(), *_SPARE]]
    assert len(set(markers)) == len(markers)


def test_differences_by_weight_have_a_panel_per_way_and_darken_with_the_weight(large: Inputs) -> None:
    rows = summary.differences_to_at(large.robustness, 5)
    several = rows[(rows["variant"] == "at_ssl_joint") & (rows["init"] == "random") & rows["budget"].isna()]
    shown = several[several["norm"] == "linf"]
    figure = difference_by_weight(shown, large.looks, 5)
    lines = {line.get_label(): line.get_color() for line in figure.axes[0].lines if "w=" in str(line.get_label())}
    brightness = [sum(lines[f"at_ssl_joint rotation w={weight} linf"]) for weight in ("0.1", "0.5", "2")]
    assert brightness == sorted(brightness, reverse=True)


def test_accuracy_by_class_counts_what_no_attack_broke(large: Inputs) -> None:
    rows = pd.DataFrame(
        {
            "name": "at",
            "arm": "a",
            "class": [0, 0, 1, 1],
            "clean_correct": [True, True, True, False],
            "first_failed": [0.1, 0.2, float("inf"), 0.0],
        }
    )
    found = class_accuracies(rows, 0.1).set_index("class")
    assert found["clean"].tolist() == [1, 0.5]
    assert found["robust"].tolist() == [0.5, 0.5]  # broken at eps itself does not count as robust
    many = pd.DataFrame({"class": range(100), "robust": np.linspace(0, 1, 100)})
    assert shown_classes(many) == [*range(10), *range(90, 100)]


def test_a_diagnosis_has_a_row_per_model_and_head(large: Inputs) -> None:
    rows = large.diagnostics[large.diagnostics["norm"] == "linf"]
    figure = diagnosis(rows, large.looks)
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert "at linf" in labels
    assert "at_ssl_joint rotation w=0.5 linf, own head" in labels
    assert len(labels) == len(set(zip(rows["name"], rows["head"], strict=True)))


def test_probes_are_shown_by_pre_training_with_the_untrained_network(large: Inputs) -> None:
    found = probe_rows(large.probes)
    assert set(found["features"]) == {"pretrained", "untrained"}
    figure = probe_accuracies(large.probes)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == list(dict.fromkeys(found["pretraining"]))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["clean", "attacked, l-inf", "attacked, l2"]


def test_chance_is_known_of_every_task_that_chooses() -> None:
    levels = {task: chance(task, {}) for task in ("rotation", "jigsaw", "jigsaw_3x3", "contrastive", "vicreg", "xent")}
    assert levels == {
        "rotation": 0.25,
        "jigsaw": 1 / 12,
        "jigsaw_3x3": 1 / 30,
        "contrastive": None,
        "vicreg": None,
        "xent": None,
    }
    assert chance("jigsaw", {"jigsaw": {"grid": 3, "permutations": 24}}) == 1 / 24


def test_budgets_are_written_on_the_axis_as_in_tables() -> None:
    axes = Figure().subplots()
    eps_axis(axes, "l2", [0, 0.5, 1, 1.5, 2], 128 / 255)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "64", "128", "192", "256"]
    assert axes.get_xlabel() == "l2 perturbation eps (1/255)"
    eps_axis(axes, "linf", [0, 0.5, 1], 0.15)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "0.075", "0.15"]
