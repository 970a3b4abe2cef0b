"""Figures: what is drawn, from which rows, and that arms keep their names and looks across figures."""

import colorsys
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats
from ssrob.formatting import signed
from ssrob.reporting.data import ReportData, report_data
from ssrob.reporting.figures import arms as arm_names
from ssrob.reporting.figures import saving, summary
from ssrob.reporting.figures.arm_styles import arm_styles
from ssrob.reporting.figures.arms import names_in
from ssrob.reporting.figures.classes import class_accuracies, shown_classes
from ssrob.reporting.figures.corruption import corruption_families, corruption_means
from ssrob.reporting.figures.curves import (
    difference_by_weight,
    difference_to_at,
    every_difference,
    gain_from_pretraining,
    robust_accuracy,
)
from ssrob.reporting.figures.diagnosis import diagnosis
from ssrob.reporting.figures.effects import effects
from ssrob.reporting.figures.heatmaps import corruption_heatmap, sweep_heatmap
from ssrob.reporting.figures.pictures import adversarial_examples, in_norm
from ssrob.reporting.figures.probes import probe_accuracies, probe_rows
from ssrob.reporting.figures.saving import save
from ssrob.reporting.figures.style import _spread_labels, eps_axis
from ssrob.reporting.figures.trade_offs import at_reference, clean_against_robust, cost_against_robust
from ssrob.reporting.figures.training import chance, pretraining_curves, pretraining_rows, training_curves
from ssrob.reporting.verdicts import VERDICTS, compared
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


AT, AT_SSL = "AT, l-inf", "AT, l-inf, from SSL pre-training"
JOINT = "AT + rotation in attack and training, w 0.5, l-inf"
JOINT_SSL = f"{JOINT}, from SSL pre-training"


def _given(**changes: object) -> ReportData:
    study = synthetic.study(**{**SMALL, **changes})
    return report_data(study, synthetic.tables(study), {})


@pytest.fixture(scope="module")
def given() -> ReportData:
    return _given()


@pytest.fixture(scope="module")
def large() -> ReportData:
    study = synthetic.large_study()
    return report_data(study, synthetic.tables(study), {})


def _titled(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def _drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    return figure


def _title(figure: Figure) -> str:
    return " ".join(figure.get_suptitle().split())


def _note(figure: Figure) -> str:
    return " ".join(figure.get_supxlabel().split())


def _names(axes: Axes) -> list[str]:
    """What stands beside rows."""
    return [" ".join(tick.get_text().split()) for tick in axes.get_yticklabels()]


def _written(axes: Axes) -> list[str]:
    """What stands at the ends of lines."""
    written = [" ".join(text.get_text().split()) for text in axes.texts]
    return [text for text in written if text != "training eps"]


def _labels(axes: Axes) -> list[str]:
    return [str(line.get_label()) for line in axes.lines if not str(line.get_label()).startswith("_")]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]


# Names, order, looks.


def test_names_are_unique_but_for_the_seed_and_ordered(large: ReportData) -> None:
    arms = large.arms
    assert (arms.groupby("name")["seed"].nunique() == 3).all()
    names = list(dict.fromkeys(arms["name"]))
    assert names[:5] == ["standard training", f"{AT}, 0.5 × eps", f"{AT}, 0.75 × eps", AT, f"{AT}, 1.25 × eps"]
    assert names.index(AT_SSL) > names.index("AT + rotation, ensemble of attacks, w 0.5, l-inf")


def test_a_label_that_says_too_little_is_extended() -> None:
    study = synthetic.study(**SMALL)
    named = arm_names.name_arms(synthetic.tables(study)["arms"].assign(label="model"), study)
    groups = named.drop_duplicates(arm_names.COLUMNS)
    assert groups["name"].is_unique
    assert any("ssl" in name for name in groups["name"])


def test_short_names_leave_out_what_a_figure_says_once() -> None:
    names = ["AT, l-inf", "AT + rotation, separate attacks, w 0.5, l-inf", "AT, l-inf (passes of AT)"]
    assert list(arm_names.short_names(names).values()) == ["AT", "AT + rotation, separate attacks", "AT (passes of AT)"]
    both = ["AT + rotation, w 0.5, l-inf", "AT + rotation, w 2, l2"]
    assert list(arm_names.short_names(both).values()) == both


def test_results_of_an_unknown_arm_are_refused(given: ReportData) -> None:
    rows = given.robustness.drop(columns=["label", "name"]).assign(arm="elsewhere")
    with pytest.raises(ValueError, match="elsewhere"):
        arm_names.with_names(rows, given.arms)


def test_looks_tell_every_pair_of_arms_apart(large: ReportData) -> None:
    for norm in ("linf", "l2"):
        found = arm_styles(large.trained_on(norm).arms)
        points = [(look.colour, look.marker, look.fill, look.fill_colour, look.thin) for look in found.values()]
        assert len(set(points)) == len(points), "without their dashes, too"


def test_controls_are_pale_and_two_budgets_differ() -> None:
    blocks = [{"variant": ["at", "at_ssl_clean", "at_ssl_clean_nograd"], "norm": "linf"}]
    blocks += [{"variant": "at", "norm": "linf", "equal_passes": way} for way in ("at_ssl_clean", "at_ssl_joint")]
    found = _given(arms=blocks).styles
    one, other = (look for name, look in found.items() if "passes" in name)
    assert one.fill_colour == other.fill_colour == (1, 1, 1)
    assert one.marker != other.marker
    twins = [look for name, look in found.items() if name.startswith("AT + rotation on clean images")]
    assert twins[0].colour == twins[1].colour
    assert twins[0].fill_colour != twins[1].fill_colour


def test_a_look_does_not_depend_on_the_other_ways_in_the_study(given: ReportData, large: ReportData) -> None:
    for name in ("standard training", AT, JOINT):
        assert given.styles[name] == large.styles[name]


def test_a_larger_weight_is_darker(large: ReportData) -> None:
    light = [colorsys.rgb_to_hls(*large.styles[JOINT.replace("0.5", w)].colour)[1] for w in ("0.1", "0.5", "2")]
    assert light == sorted(light, reverse=True)
    assert len(set(light)) == 3


def test_every_arm_answers_one_question(large: ReportData) -> None:
    groups = arm_names.questions(large.arms)
    names = [name for _, each in groups for name in each]
    assert sorted(names) == sorted(set(large.arms["name"]))
    titles = [title for title, _ in groups]
    assert titles[0] == "Methods, trained on l-inf"
    assert {"Controls, trained on l2", "SSL weight, trained on l-inf", "Without a perturbation"} < set(titles)
    assert any("passes of" in name for name in dict(groups)["Controls, trained on l-inf"])


def test_the_main_arms_are_few_and_the_usual_ones(large: ReportData) -> None:
    found = arm_names.main_arms(large.trained_on("linf").robustness)
    assert len(found) == 6
    assert {"standard training", AT, JOINT} <= set(found)
    assert not any("w 2" in name or " from " in name or "passes" in name or "TRADES" in name for name in found)


def test_robust_accuracy_of_many_arms_shows_the_main_comparison_alone(large: ReportData) -> None:
    part = large.trained_on("linf")
    figure = _drawn(robust_accuracy(part))
    assert len(figure.axes) == 2
    assert len(_labels(figure.axes[0])) == 6
    assert f"map of every arm: {part.arms['name'].nunique() - 6} more." in _note(figure)


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


def test_differences_are_paired_by_seed_init_and_norm(given: ReportData) -> None:
    found = summary.differences_to_at(given.robustness, floor=0)
    row = found[(found["name"] == JOINT_SSL) & (found["seed"] == 1)].iloc[3]
    same = given.robustness.query("variant == 'at' and init == 'ssl' and seed == 1 and eps_scale == 1")
    base = same[(same["eval_norm"] == row["eval_norm"]) & (same["eps"] == row["eps"])]["accuracy"].item()
    assert row["difference"] == pytest.approx(100 * (row["accuracy"] - base))
    assert not arm_names.is_plain_at(found).any()
    assert found["norm"].notna().all()


def test_the_floor_leaves_out_where_at_is_lost(given: ReportData) -> None:
    found = summary.differences_to_at(given.robustness, floor=40)
    assert 0 < len(found) < len(summary.differences_to_at(given.robustness, floor=0))
    assert (found["base"] >= 0.4).all()


def test_gain_from_pretraining_is_against_the_same_way(given: ReportData) -> None:
    found = summary.differences_to_random(given.robustness, floor=0)
    assert set(found["name"]) == {AT_SSL, JOINT_SSL}
    row = found.iloc[0]
    twin = given.robustness.query(
        "init == 'random' and variant == @row.variant and seed == @row.seed and eps_scale == 1"
    )
    twin = twin[(twin["eval_norm"] == row["eval_norm"]) & (twin["eps"] == row["eps"])]
    assert row["difference"] == pytest.approx(100 * (row["accuracy"] - twin["accuracy"].item()))


def test_corruption_means_weigh_every_corruption_and_severity_the_same(given: ReportData) -> None:
    means = corruption_means(given.corruptions)
    row = means[(means["name"] == AT) & (means["seed"] == 2) & (means["group"] == "all")].iloc[0]
    rows = given.corruptions[(given.corruptions["name"] == AT) & (given.corruptions["seed"] == 2)]
    assert len(rows) == 15 * 5
    assert row["accuracy"] == pytest.approx(rows["accuracy"].mean())
    assert row["kinds"] == 15


# Figures.


def test_robust_accuracy_draws_each_arm_and_marks_eps_train(given: ReportData) -> None:
    figure = _drawn(robust_accuracy(given))
    own, other = _titled(figure, "tested on l-inf"), _titled(figure, "tested on l2")
    assert set(_labels(own)) == set(_labels(other)) == set(arm_names.main_arms(given.robustness))
    short = arm_names.short_names(_labels(other))
    assert sorted(_written(other)) == sorted(short.values()), "names stand at the lines"
    assert "1/255" in own.get_xlabel()
    assert [tick.get_text() for tick in own.get_xticklabels()] == ["0", "4", "8", "12", "16"]
    assert [own.yaxis.get_major_formatter()(share, 0) for share in (0.25, 1.0, 1.1)] == ["25 %", "100 %", ""]
    assert "training eps" in [text.get_text() for text in own.texts]
    marks = [line for line in own.lines if list(line.get_xdata()) == [1, 1]]
    assert len(marks) == 1
    assert _title(figure).startswith("At l-inf 8/255, ")
    assert "n = 1,000 test images; 3 seeds: mean and 95 % t interval" in _note(figure)


def test_robust_accuracy_shows_the_means(given: ReportData) -> None:
    figure = _drawn(robust_accuracy(given))
    line = next(line for line in _titled(figure, "tested on l2").lines if line.get_label() == AT)
    rows = given.robustness.query("name == @AT and eval_norm == 'l2'")
    np.testing.assert_allclose(line.get_ydata(), rows.groupby("eps_multiple")["accuracy"].mean())


def test_one_seed_says_so_and_shows_the_noise_of_a_difference() -> None:
    given = _given(seeds=[0])
    assert "one seed: 95 % binomial interval" in _note(_drawn(robust_accuracy(given)))
    figure = _drawn(difference_to_at(given))
    assert "binomial noise" in _note(figure)
    assert len(_titled(figure, "tested on l-inf").collections) == 1  # the grey zone, no bands


def test_difference_figure_has_the_frontier_without_bands(given: ReportData) -> None:
    figure = _drawn(difference_to_at(given))
    own = _titled(figure, "tested on l-inf")
    frontier = [line for line in own.lines if "× eps" in str(line.get_label())]
    assert len(frontier) == 2
    assert all(line.get_linewidth() == 1 for line in frontier)
    assert len(own.collections) == 2  # a band for each of the two arms that are no frontier
    assert "points" in own.get_ylabel()
    assert "below 5 %" in _note(figure)


def test_the_title_of_differences_says_what_is_drawn(given: ReportData) -> None:
    rows = summary.differences_to_at(given.robustness, 5)
    at = rows[np.isclose(rows["eps_multiple"], 1) & (rows["eval_norm"] == "linf") & (rows["eps_scale"] == 1)]
    means = at.groupby("name")["difference"].mean()
    title = (
        f"At l-inf 8/255, these 2 arms differ from plain AT by {signed(means.min())} to {signed(means.max())} points"
    )
    assert _title(_drawn(difference_to_at(given))) == title


def test_more_arms_than_a_panel_holds_have_a_panel_each(large: ReportData, given: ReportData) -> None:
    figure = _drawn(every_difference(large.trained_on("linf")))
    shown = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert len(shown) > 6
    assert not any(axes.get_legend() for axes in figure.axes)
    assert every_difference(given) is None, "few arms are all in the figure before"
    alone = given.robustness[np.isclose(given.robustness["eps_multiple"], 1)]
    assert difference_to_at(dataclasses.replace(given, robustness=alone)) is None, "no panel with one point"


def test_names_at_lines_do_not_cover_each_other() -> None:
    placed = _spread_labels({"a": 0.1, "b": 0.11, "c": 0.5}, 0.1, 0, 1)
    assert placed["c"] == pytest.approx(0.5)
    assert placed["b"] - placed["a"] == pytest.approx(0.1)
    assert (placed["a"] + placed["b"]) / 2 == pytest.approx(0.105)
    assert _spread_labels({"a": 0.99, "b": 1.0}, 0.1, 0, 1) == pytest.approx({"a": 0.9, "b": 1.0})


def test_gain_from_pretraining_has_a_line_per_pretrained_arm(given: ReportData) -> None:
    figure = _drawn(gain_from_pretraining(given))
    assert _labels(_titled(figure, "tested on l-inf"))[-2:] == [AT_SSL, JOINT_SSL]


def test_sweep_heatmap_writes_every_value_in_per_cent(given: ReportData) -> None:
    axes = _titled(_drawn(sweep_heatmap(given)), "tested on l-inf")
    names = names_in(given.robustness, given.arms)
    assert _names(axes) == list(arm_names.short_names(names).values())
    written = np.array([float(text.get_text()) for text in axes.texts]).reshape(len(names), -1)
    rows = given.robustness[given.robustness["eval_norm"] == "linf"]
    means = rows.pivot_table(index="name", columns="eps_multiple", values="accuracy").loc[names]
    np.testing.assert_allclose(written, 100 * means, atol=0.5)  # rounded to whole per cents
    assert [tick.get_text() for tick in axes.get_xticklabels()][:2] == ["0", "0.25"]
    assert len(axes.patches) == 1  # the reference eps


def test_corruption_heatmap_has_all_fifteen_by_family(given: ReportData) -> None:
    axes = _drawn(corruption_heatmap(given)).axes[0]
    assert len(axes.get_xticklabels()) == 15
    assert {"noise", "blur", "weather", "digital"} <= {text.get_text() for text in axes.texts}


def test_corruption_families_has_a_point_per_arm_and_family(given: ReportData) -> None:
    figure = _drawn(corruption_families(given))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "noise (3)",
        "blur (4)",
        "weather (4)",
        "digital (4)",
        "all (15)",
    ]
    assert all(len(axes.containers) == 6 for axes in figure.axes)


def test_training_curves_show_accuracies_and_losses(given: ReportData) -> None:
    figure = _drawn(training_curves(given))
    assert len(_labels(_titled(figure, "robust accuracy"))) == 6
    assert len(_labels(_titled(figure, "supervised loss"))) == 6
    assert len(_labels(_titled(figure, "SSL loss"))) == 2
    validated = given.training[given.training["metric"].str.startswith("validation/")]
    part = _drawn(training_curves(dataclasses.replace(given, training=validated)))
    assert len(part.axes) == 3, "no panel without a line"
    assert training_curves(dataclasses.replace(given, training=validated[validated["epoch"] == 1])) is None


def test_shared_pretraining_is_drawn_once(given: ReportData) -> None:
    rows = pretraining_rows(given.training)
    assert set(rows["pretraining"]) == {"ssl"}
    assert not rows.duplicated(["pretraining", "seed", "step", "metric"]).any()
    axes = _titled(_drawn(pretraining_curves(given)), "clean rotation accuracy")
    assert _labels(axes) == ["ssl"]
    assert any(list(line.get_ydata()) == [0.25, 0.25] for line in axes.lines)  # chance


def test_scatters_leave_out_untrained_arms_and_say_so(given: ReportData) -> None:
    points = at_reference(given.robustness, given.arms)
    assert points["clean"].notna().all()
    figure = _drawn(clean_against_robust(given))
    names = [container.get_label() for container in figure.axes[0].containers]
    assert len(names) == 6
    assert "standard training" not in names
    assert "standard training 9" in _note(figure)
    assert " of 5 arms are above plain AT" in _title(figure)
    cost = _drawn(cost_against_robust(given))
    assert "passes" in cost.axes[0].get_xlabel()
    assert "l-inf at reference eps" in cost.axes[0].get_ylabel()


def test_passes_on_other_data_are_no_cost_to_compare(given: ReportData) -> None:
    arms = given.arms.assign(passes=given.arms["passes"].where(given.arms["init"] == "random"))
    figure = _drawn(cost_against_robust(dataclasses.replace(given, arms=arms)))
    assert not any("from SSL" in name for name in _legend(figure))
    assert "pre-trained on other data" in _note(figure)


def test_effects_shows_primary_comparisons_that_have_a_result(given: ReportData) -> None:
    rows = given.findings.copy()
    rows.loc[0, ["effect", "low", "high"]] = np.nan
    study = given.study.model_copy(update={"findings": given.study.findings.model_copy(update={"alpha": 0.01})})
    figure = _drawn(effects(dataclasses.replace(given, findings=rows, study=study)))
    assert "Bars: 99 % intervals" in _note(figure)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["supported", "inconclusive", "contradicted", "supported"]
    assert _title(figure) == "Of 4 comparisons: 2 supported, 1 inconclusive, 1 contradicted; 2 intervals without 0"
    label = _names(axes)[0]
    assert label.startswith("C3")
    assert label.endswith("mean at 0.25, 0.5 × eps"), "C2 and C3 compare the same arms at other sizes"
    assert effects(dataclasses.replace(given, findings=rows.assign(effect=np.nan))) is None


def test_what_is_compared_is_worded_for_people() -> None:
    arms, where = compared("AT + rotation - AT | linf, best checkpoint | mean at 0.25, 0.5 × eps")
    assert arms == "AT + rotation − AT"
    assert where == "l-inf, best checkpoint; mean at 0.25, 0.5 × eps"


def test_every_verdict_has_a_sign_and_a_colour_of_its_own() -> None:
    for of in ("sign", "colour"):
        assert len({getattr(verdict, of) for verdict in VERDICTS.values()}) == len(VERDICTS)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_show_clean_perturbation_and_result(channels: int) -> None:
    given = _pictured(synthetic.samples([AT, JOINT], images=4, channels=channels))
    figure = _drawn(adversarial_examples(given))
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 4 + 2 * 4 * 2
    first = np.asarray(shown[4].images[0].get_array())  # a perturbation: grey is no change, stretched to 0..1
    assert first.min() >= 0
    assert first.max() <= 1
    assert max(first.max() - 0.5, 0.5 - first.min()) == pytest.approx(0.5)
    assert shown[5].get_xlabel() == "→ one"
    assert "no perturbation within eps" in _note(figure)
    assert "preset `fast`" in _note(figure)


def test_pictures_of_different_images_are_refused() -> None:
    samples = synthetic.samples([AT, JOINT], images=4)
    samples[JOINT]["label"] = samples[JOINT]["label"][::-1]
    with pytest.raises(ValueError, match="AT \\+ rotation"):
        adversarial_examples(_pictured(samples))


def _pictured(samples: dict[str, dict[str, Any]]) -> ReportData:
    return dataclasses.replace(_given(), samples=samples, classes=["zero", "one"])


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


def test_the_same_figure_gives_the_same_bytes(given: ReportData, tmp_path: Path) -> None:
    one, two = (save(_drawn(effects(given)), tmp_path, name).path for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    text = one.read_text()
    assert "<dc:date>" not in text
    assert "mean at 0.25, 0.5 × eps" in text, "numbers in words are not rounded with the coordinates"


def test_a_large_figure_is_kept_as_a_bitmap_of_few_colours(
    given: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures are; a drawing of few lines stays one, since that is smaller."""
    monkeypatch.setattr(saving, "LARGEST_SVG", 1000)
    path = save(_drawn(adversarial_examples(_pictured(synthetic.samples([AT, JOINT])))), tmp_path, "examples").path
    assert [file.name for file in tmp_path.iterdir()] == ["examples.png"] == [path.name]
    assert save(_drawn(effects(given)), tmp_path, "effects").path.suffix == ".svg"
    assert Image.open(path).mode == "P"


def test_drawing_leaves_matplotlib_as_it_was(given: ReportData) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 23.0, "axes.grid": False}):
        effects(given)
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
    from ssrob.reporting.figures.arm_styles import _COLOURS, _SPARE

    colours = {way: colour for way, (colour, _) in [*_COLOURS.items(), *enumerate(_SPARE)]}
    places = {way: _lab(colour, seen) for way, colour in colours.items()}
    gaps = {
        pair: float(np.linalg.norm(places[pair[0]] - places[pair[1]])) for pair in itertools.combinations(places, 2)
    }
    closest = min(gaps, key=lambda pair: gaps[pair])
    assert gaps[closest] >= least, (closest, gaps[closest])


def test_no_two_ways_share_a_marker() -> None:
    from ssrob.reporting.figures.arm_styles import _COLOURS, _SPARE

    markers = [marker for _, marker in [*_COLOURS.values(), *_SPARE]]
    assert len(set(markers)) == len(markers)


def test_differences_by_weight_have_a_panel_per_weight(large: ReportData) -> None:
    figure = _drawn(difference_by_weight(large.trained_on("linf")))
    titles = " ".join(axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes)
    assert all(f"w {weight}" in titles for weight in ("0.1", "0.5", "2"))
    assert _title(figure).startswith("By SSL weight, mean difference to plain AT: ")
    assert difference_by_weight(_given()) is None


def test_accuracy_by_class_counts_what_no_attack_broke(large: ReportData) -> None:
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


def test_a_diagnosis_has_a_row_per_model_and_head(large: ReportData) -> None:
    figure = _drawn(diagnosis(large.trained_on("linf")))
    panel = _titled(figure, "rotation: cosine, clean")
    labels = _names(panel)
    assert "AT" in labels
    assert "AT + rotation in attack and training, own head" in labels
    assert len(labels) == len(set(labels))
    assert "mean cosine +0.05" in _title(figure)


def test_probes_are_shown_by_pre_training_with_the_untrained_network(large: ReportData) -> None:
    found = probe_rows(large.probes)
    assert set(found["features"]) == {"pretrained", "untrained"}
    figure = _drawn(probe_accuracies(large))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == list(dict.fromkeys(found["pretraining"]))
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == ["clean", "attacked, l-inf", "attacked, l2"]


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


def test_a_compact_svg_has_no_unused_ids_and_what_neighbours_share_once() -> None:
    paths = "".join(f'<path d="M {i} 0.123456 \nL 1 2 \n" style="fill: #fff; stroke: #000"/>' for i in range(3))
    faint = '<path d="M 0 0" style="opacity: 0.5"/>' * 3
    drawn = f'<defs><clipPath id="p"><rect/></clipPath></defs><g id="a"><g>{paths}</g>{faint}</g>'
    text = saving.compact(
        f'<svg xmlns="{saving.SVG}" xmlns:xlink="{saving.XLINK}"><metadata/>{drawn}<g clip-path="url(#p)"/></svg>'
    )
    assert "metadata" not in text
    assert 'id="a"' not in text
    assert '<clipPath id="p">' in text
    assert text.count("fill:#fff;stroke:#000") == 1
    assert text.count('d="M0 0.12L1 2"') == 1
    assert text.count("opacity:0.5") == 3, "a group's opacity is not that of each"


def test_no_axis_of_accuracies_goes_beyond_100_per_cent(given: ReportData) -> None:
    """Margins around points near 100 % would; half a marker may."""
    near = given.robustness.assign(accuracy=given.robustness["name"].rank(method="dense", pct=True, ascending=False))
    axes = _drawn(clean_against_robust(dataclasses.replace(given, robustness=near))).axes[0]
    assert max(near["accuracy"]) == 1
    assert 1 < max(axes.get_xlim()[1], axes.get_ylim()[1]) <= 1.02
