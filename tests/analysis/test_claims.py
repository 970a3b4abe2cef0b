"""Claims as rows: the paper's and a study's own, from a config to a verdict."""

import numpy as np
import pytest
from pydantic import ValidationError
from ssrob.analysis import findings, judged_claim
from ssrob.analysis.comparisons import Comparisons
from ssrob.analysis.controls import CONTROLS, Subject, is_method
from ssrob.analysis.verdicts import verdict
from ssrob.config.fields import ConfigError
from ssrob.config.findings import Claim, Findings, paper_claims
from ssrob.config.loader import parse_study
from ssrob.config.variants import Variant, built_in_variants
from tests.conftest import tiny_config
from tests.simulated import PLAIN, Size, Truth, World, draw, method_cell, sweeps_of, tables_of

QUIET = Size(seeds=5, images=2000, seed_sd=0.05)
MINE = PLAIN._replace(variant="mine")
TWO_LINES = {"mine": {"compare": "mine", "against": "at"}}


def test_two_lines_of_a_config_are_a_claim_with_verdict_and_row(tmp_path) -> None:
    variants = {"mine": {"perturb": {"adv": {"maximise": {"xent": 1}}}, "train": {"adv": {"xent": 1}}}}
    arms = [{"variant": ["at", "mine"], "norm": "linf"}]
    study = parse_study(tiny_config(tmp_path, variants=variants, arms=arms, findings={"claims": TWO_LINES}))
    world = World({PLAIN: Truth(), MINE: Truth(below=5, at=5, above=5)})
    found = findings(*tables_of(draw(world, QUIET, np.random.default_rng(0))), study.findings)
    row = found[found["primary"]].iloc[0]
    assert (row["claim"], row["verdict"]) == ("mine", "supported")
    assert row["effect"] == pytest.approx(5, abs=1.5)
    assert row["cell"].startswith("mine - AT | linf")
    assert set(found[found["primary"]]["claim"]) == {"mine"}, (
        "the paper's claims have no rows: nothing of them is there"
    )


@pytest.mark.parametrize(
    ("row", "truth", "expected"),
    [
        ({"expect": "loss", "where": "above"}, Truth(above=-5), "supported"),
        ({"expect": "loss", "where": "above"}, Truth(above=5), "contradicted"),
        ({"expect": "equivalent"}, Truth(), "supported"),
        ({"where": [0.25, 0.5]}, Truth(below=5), "supported"),
        ({"where": [0.25, 0.5]}, Truth(at=5, above=5), "inconclusive"),
        ({"controls": ["equal_passes"]}, Truth(at=5), "inconclusive"),
    ],
)
def test_direction_interval_and_controls_are_fields(row: dict, truth: Truth, expected: str) -> None:
    settings = Findings(claims={"mine": {"compare": "mine"} | row}, margin=2.5, detectable=100)
    sweeps = sweeps_of(draw(World({PLAIN: Truth(), MINE: truth}), QUIET, np.random.default_rng(1)))
    assert [verdict(each)[0] for each in judged_claim(sweeps, settings, "mine")] == [expected]


def test_a_variant_without_ssl_is_compared_with_one_that_has_it() -> None:
    settings = Findings(claims={"mine": Claim(compare=["mine"], against=["at_ssl_adv"])}, detectable=100)
    world = World({PLAIN: Truth(), MINE: Truth(at=5), method_cell("at_ssl_adv"): Truth()})
    (judged,) = judged_claim(sweeps_of(draw(world, QUIET, np.random.default_rng(0))), settings, "mine")
    assert verdict(judged)[0] == "supported"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"compare": "my_method"}, ["findings.claims.mine.compare", "'my_method'"]),
        ({"compare": "at_ssl_joint"}, ["findings.claims.mine.compare", "no arm trains", "at_ssl_joint"]),
        ({"compare": "at", "against": "at_ssl_clean", "init": "sll"}, ["findings.claims.mine.init", "'sll'"]),
        (
            {"compare": "at", "against": "at_ssl_clean", "where": [0.6, 0.7]},
            ["findings.claims.mine.where", "[0.6, 0.7]"],
        ),
    ],
)
def test_a_claim_that_the_study_cannot_test_is_refused(tmp_path, row: dict, said: list[str]) -> None:
    config = tiny_config(tmp_path, arms=[{"variant": ["at", "at_ssl_clean"]}], findings={"claims": {"mine": row}})
    with pytest.raises(ConfigError) as error:
        parse_study(config)
    assert all(text in str(error.value) for text in said), error.value


def test_looks_take_the_seeds_that_there_are(tmp_path) -> None:
    for looks, said in (([5, 10], "findings.looks"), ([2, 3], "at least 3"), ([5, 4], "ascending")):
        with pytest.raises(ConfigError, match=said):
            parse_study(tiny_config(tmp_path, seeds=[0, 1, 2], findings={"looks": looks}))


def test_every_control_of_the_paper_is_known_and_a_typo_is_refused() -> None:
    assert {name for claim in paper_claims().values() for name in claim.controls} == set(CONTROLS)
    with pytest.raises(ValidationError, match="frontier"):
        Claim(compare=["mine"], controls=["frontiers"])


def test_a_study_may_replace_a_claim_of_the_paper() -> None:
    own = paper_claims()["C5a"].model_copy(update={"controls": []})
    assert Findings(claims={"C5a": own}).all_claims["C5a"].controls == []
    assert list(Findings(claims={"C5a": own}).all_claims) == list(paper_claims())


def test_a_study_says_which_of_its_variants_are_controls() -> None:
    """A user's own names: a control is known by its row, and what extends TRADES is not one of PGD training."""
    own = {
        "mine": Variant.model_validate({"base": "at", "train": {"clean": {"ssl": 1}}}),
        "quiet": Variant.model_validate({"control_of": "mine", "role": "no_gradient", "train": {"clean": {"xent": 1}}}),
        "other": Variant.model_validate({"base": "trades", "train": {"clean": {"ssl": 1}}}),
    }
    variants = built_in_variants() | own
    assert [name for name in own if is_method(method_cell(name), variants)] == ["mine"]
    assert not is_method(method_cell("at_ssl_adv_views"), variants)
    assert not is_method(method_cell("trades_ssl_adv"), variants)
    cells = [method_cell("mine"), method_cell("quiet"), PLAIN]
    sweeps = sweeps_of(draw(World(dict.fromkeys(cells, Truth())), QUIET, np.random.default_rng(0)))
    comparisons = Comparisons(sweeps, Findings(), variants)
    at = comparisons.kept(PLAIN, (1.0, 1.0))
    (found,) = CONTROLS["no_gradient"](Subject(comparisons, paper_claims()["C2"], method_cell("mine"), PLAIN, [], at))
    assert found.cell.startswith("mine rotation, w 0.5 - quiet rotation, w 0.5")
    assert not found.missing
