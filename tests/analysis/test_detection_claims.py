"""The claim that SSL improves the detection of images of no known class, judged from per-example scores."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from ssrob.analysis import findings
from ssrob.analysis.comparisons import Comparisons
from ssrob.analysis.detection_sweeps import auroc_without_groups, detection_sweeps
from ssrob.analysis.looks import needed
from ssrob.analysis.power import Cost, outlook
from ssrob.analysis.sweeps import GROUPS, Sweeps
from ssrob.config.fields import ConfigError
from ssrob.config.findings import Claim, Findings, detection_claims
from ssrob.config.loader import parse_study
from ssrob.storage.tables import ALL_EXAMPLES, ARMS, OOD_SCORES, ROBUSTNESS
from tests.conftest import tiny_config

EMPTY = [pd.DataFrame(columns=list(columns)) for columns in (ROBUSTNESS, ALL_EXAMPLES)]
OOD = {"sets": ["blobs"]}


def test_auroc_is_that_of_scikit_learn_with_each_group_left_out() -> None:
    draws = np.random.default_rng(0)
    inside, outside = draws.normal(0.5, 1, 170).round(1), draws.normal(0, 1, 130).round(1)
    found = auroc_without_groups(inside, outside)

    def area(kept_inside: np.ndarray, kept_outside: np.ndarray) -> float:
        labels = np.repeat([1, 0], [len(kept_inside), len(kept_outside)])
        return float(roc_auc_score(labels, np.concatenate([kept_inside, kept_outside])))

    assert found[0] == pytest.approx(area(inside, outside))
    for group in (0, 7, GROUPS - 1):
        kept = (each[np.arange(len(each)) % GROUPS != group] for each in (inside, outside))
        assert found[1 + group] == pytest.approx(area(*kept))
    few = auroc_without_groups(inside, outside[: GROUPS - 1])
    assert np.isfinite(few[0])
    assert np.isnan(few[1:]).all()


def tables_of(gains: dict[str, float], seeds: int = 6, images: int = 300) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make scores in which each variant's own images lie so far above the others, and the arms of them."""
    arms, scores = [], []
    for variant, gain in gains.items():
        for seed in range(seeds):
            draws = np.random.default_rng([seed, len(variant)])
            ssl = variant != "at"
            arm = {"arm": f"{variant}-{seed}", "variant": variant, "init": "random", "norm": "linf", "tune": "full"}
            arm |= {"eps_scale": 1.0, "seed": seed, "passes": 10.0}
            arm |= {"task": "rotation" if ssl else None, "weight": 0.5 if ssl else None}
            arms.append(arm)
            for name, shift in (("test", gain + 0.05 * draws.normal()), ("held_out", 0.0), ("blobs", 0.0)):
                for eps in (0.0, 0.1):
                    value = draws.normal(shift if eps == 0 else 0.0, 1, images)
                    row = {"arm": arm["arm"], "checkpoint": "best", "image_set": name, "score": "max_softmax"}
                    scores.append(pd.DataFrame({"example": np.arange(images), "eps": eps, "value": value, **row}))
    return pd.concat(scores)[list(OOD_SCORES)], pd.DataFrame(arms, columns=list(ARMS))


def judged(gains: dict[str, float], claims: dict[str, Claim]) -> pd.DataFrame:
    scores, arms = tables_of(gains)
    rows = findings(*EMPTY, arms, Findings(claims=claims), scores=scores)
    return rows[rows["primary"]].set_index("claim")


def claim(**changes: object) -> dict[str, Claim]:
    own = {"compare": ["at_ssl_clean"], "controls": ["no_gradient"]}
    return {"OOD": detection_claims()["OOD"].model_copy(update=own | changes)}


def test_the_effect_is_the_difference_of_mean_areas() -> None:
    scores, arms = tables_of({"at": 1.0, "at_ssl_clean": 1.5})
    sweeps = detection_sweeps(scores, arms, "max_softmax")
    row = judged({"at": 1.0, "at_ssl_clean": 1.5}, claim()).loc["OOD"]
    means = {}
    for variant in ("at", "at_ssl_clean"):
        areas = []
        for _, mine in scores[(scores["eps"] == 0) & scores["arm"].str.match(rf"{variant}-\d")].groupby("arm"):
            sets = {name: part["value"] for name, part in mine.groupby("image_set")}
            for other in ("held_out", "blobs"):
                both = np.concatenate([sets["test"], sets[other]])
                areas.append(roc_auc_score(np.repeat([1, 0], 300), both))
        means[variant] = 100 * np.mean(areas)
    assert row["effect"] == pytest.approx(means["at_ssl_clean"] - means["at"])
    assert (row["seeds"], row["n"]) == (6, 300)
    assert {cell.variant for cell in sweeps.cells} == {"at", "at_ssl_clean"}


def test_verdicts_follow_the_rules_of_all_claims() -> None:
    better = {"at": 1.0, "at_ssl_clean": 2.0, "at_ssl_clean_nograd": 1.0}
    assert judged(better, claim()).loc["OOD", "verdict"] == "supported"
    assert "of AUROC on clean images" in judged(better, claim()).loc["OOD", "note"]
    assert judged(better | {"at_ssl_clean": 0.5}, claim()).loc["OOD", "verdict"] == "contradicted"
    assert judged(better | {"at_ssl_clean_nograd": 2.0}, claim()).loc["OOD", "verdict"] in (
        "inconclusive",
        "underpowered",
    )
    attacked = judged(better, claim(where="at")).loc["OOD"]
    assert attacked["verdict"] in ("inconclusive", "underpowered"), "the gain is on clean images alone"
    assert "on attacked images" in attacked["note"]
    assert judged({"at": 1.0}, claim()).empty


def test_a_study_has_the_claim_if_it_tests_detection(tmp_path) -> None:
    assert "OOD" not in parse_study(tiny_config(tmp_path)).findings.all_claims
    assert parse_study(tiny_config(tmp_path, ood=OOD)).findings.all_claims["OOD"] == detection_claims()["OOD"]
    own = {"mine": {"compare": "at_ssl_joint", "measure": "auroc", "where": [0, 0]}}
    assert list(parse_study(tiny_config(tmp_path, ood=OOD, findings={"claims": own})).findings.claims) == [
        "OOD",
        "mine",
    ]
    with pytest.raises(ConfigError, match=r"findings.claims.mine.measure: auroc needs a section ood, found none"):
        parse_study(tiny_config(tmp_path, findings={"claims": own}))


def test_claims_are_about_a_score_that_the_study_takes(tmp_path) -> None:
    energy = tiny_config(tmp_path, ood=OOD | {"scores": ["energy"], "attacked_scores": ["energy"]})
    assert parse_study(energy).findings.primary.score == "energy"
    with pytest.raises(ConfigError, match=r"findings.primary.score: the study has energy, found 'max_logit'"):
        parse_study(energy | {"findings": {"primary": {"score": "max_logit"}}})
    attacked = {"findings": {"claims": {"mine": {"compare": "at_ssl_joint", "measure": "auroc"}}}}
    assert "mine" in parse_study(energy | attacked).findings.claims
    for changes in ({"attacked_scores": ["max_softmax"]}, {"attacked_images": 0}, {"eps": 0}):
        with pytest.raises(ConfigError, match=r"findings.claims.mine.where: is about attacked images, but energy"):
            parse_study(energy | attacked | {"ood": energy["ood"] | changes})


def compared(gains: dict[str, float], settings: Findings, seeds: int = 6, images: int = 300) -> Comparisons:
    scores, arms = tables_of(gains, seeds, images)
    return Comparisons(detection_sweeps(scores, arms, "max_softmax"), settings)


def test_looks_go_on_for_the_claim_while_it_is_open_and_no_longer() -> None:
    settings, robustness = Findings(looks=[3, 5], claims=claim()), Sweeps(np.array([0.0, 1.0]), {})
    nothing_else = Comparisons(robustness, settings)
    closed = {"at": 1.0, "at_ssl_clean": 3.0, "at_ssl_clean_nograd": 1.0}
    assert needed(nothing_else, compared(closed, settings)) == {3: set(), 5: set()}
    still_open = compared(closed | {"at_ssl_clean": 1.02}, settings)
    cells = set(still_open.sweeps.cells)
    assert needed(nothing_else, still_open) == {3: cells, 5: cells}
    behind = compared(closed | {"at_ssl_clean": 1.02}, settings, seeds=4)
    assert needed(nothing_else, behind) == {3: cells}, "the second look waits for the fifth seed"


def test_more_images_and_seeds_detect_more() -> None:
    study = compared({"at": 1.0, "at_ssl_clean": 1.0}, Findings(claims=claim(controls=[])), images=100)
    costs = dict.fromkeys(study.sweeps.cells, Cost(training=3600.0, testing=360.0))
    (same,), (images,), (seeds,) = (
        outlook(study, seeds, {"OOD": images}, costs) for seeds, images in ((6, 100), (6, 400), (24, 100))
    )
    assert same.detectable == pytest.approx(same.now)
    assert same.hours == pytest.approx(6 * 2 * (1 + 0.1))
    assert images.detectable < 0.9 * same.detectable
    assert images.hours == pytest.approx(6 * 2 * (1 + 4 * 0.1)), "the test grows with its images"
    assert seeds.detectable < 0.6 * same.detectable


def test_a_claim_on_attacked_images_counts_these() -> None:
    scores, arms = tables_of({"at": 1.0, "at_ssl_clean": 1.5}, seeds=3, images=120)
    scores = scores[(scores["eps"] == 0) | (scores["example"] < 70)]
    both = claim(controls=[]) | {"attacked": claim(controls=[], where="at")["OOD"]}
    rows = findings(*EMPTY, arms, Findings(claims=both), scores=scores)
    assert rows[rows["primary"]].set_index("claim")["n"].to_dict() == {"OOD": 120, "attacked": 70}
