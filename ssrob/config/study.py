"""A study's config: pydantic models that say what is allowed, with errors that say where it was not.

A config is YAML. Numbers may be written as fractions (``8/255``); every eps is in [0, 1] pixel units. Imports no torch.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ssrob.config.arms import Arms
from ssrob.config.data import Data
from ssrob.config.evaluation import CorruptionTest, Diagnosis, Evaluation, Probing
from ssrob.config.fields import AnyPath, Count, LossArgument, LossName, Name, Norm, Seeds, Strict, Uri
from ssrob.config.findings import Findings
from ssrob.config.ood import CalibrationTest, OodTest
from ssrob.config.training import Model, Threat, Training
from ssrob.config.variants import Pretraining, Ssl, Variant
from ssrob.registry.lookup import check_choice
from ssrob.registry.losses import checked_arguments
from ssrob.registry.ood import HELD_OUT


def _off(value: object) -> object:
    return None if value is False or value in ("off", "no", "false") else value  # text: as Snakemake reads `--config`


class Study(Strict):
    """A whole study: what is trained, how, on what, how it is tested and what is concluded."""

    study: Name
    """Name of the study; its tables and report go to `results/studies/NAME`."""
    title: str = ""
    """Title of the report."""
    plugins: list[str] = []
    """Modules to import first: they add losses, backbones, attacks, corruptions or sources of your own."""
    changed_plugins: Literal["refuse", "use"] = "refuse"
    """What becomes of finished stages whose plugins have changed since: refuse to go on, or use them as they are."""
    seeds: Seeds = [0]
    """Seeds of every arm. Example: `[0, 1, 2]`."""
    data: Data
    """The labelled data that is trained and tested on."""
    pretrain_data: Data | None = None
    """Other data for pre-training; labels are not needed. Default: `data`."""
    model: Model
    """The backbone."""
    threat: Annotated[dict[Norm, Threat], Field(min_length=1)]
    """Reference attack by norm."""
    ssl: Ssl = Ssl()
    """The self-supervised task and its weights."""
    pretrain: Training = Training()
    """How backbones are pre-trained."""
    finetune: Training = Training()
    """How models are trained, from random weights or from a pre-trained backbone."""
    pretraining: dict[Name, Pretraining] = {}
    """Inits of the study's own, beside those of `ssrob/config/variants.yaml`, by name."""
    variants: dict[Name, Variant] = {}
    """Variants of the study's own, beside those of `ssrob/config/variants.yaml`, by name."""
    losses: dict[LossName, dict[str, LossArgument]] = {}
    """Arguments of losses. Example: `{jigsaw: {grid: 3}}`."""
    arms: Annotated[list[Arms], Field(min_length=1)]
    """What is trained."""
    evaluate: Evaluation = Evaluation()
    """The attack sweep."""
    corrupt: CorruptionTest = CorruptionTest()
    """The natural corruptions."""
    probe: Annotated[Probing | None, BeforeValidator(_off)] = Probing()
    """Probes of pre-trained backbones; `off` leaves them out."""
    diagnose: Annotated[Diagnosis | None, BeforeValidator(_off)] = Diagnosis()
    """Gradients and transfer of perturbations; `off` leaves them out."""
    ood: Annotated[OodTest | None, BeforeValidator(_off)] = None
    """Detection of images of no known class (out of distribution). Default: off."""
    calibrate: Annotated[CalibrationTest | None, BeforeValidator(_off)] = None
    """Calibration of class probabilities. Default: off."""
    findings: Findings = Findings()
    """Which cells the claims are about, and how they are judged."""
    results: AnyPath = Path("results")
    """The results folder."""
    cuda_graphs: bool = True
    """On a GPU: capture training steps and replay them. Decides no result."""
    tracking_uri: Uri | None = None
    """MLflow's tracking URI. Default: a sqlite file in the results folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where stages run; with cuda none runs on a CPU because a GPU is missing."""
    jobs_per_gpu: Count = 1
    """How many stages may share a GPU: more than one for small models."""

    @field_validator("losses", mode="after")
    @classmethod
    def _losses_take_their_arguments(cls, losses: dict[str, dict[str, int | float]]) -> dict[str, Any]:
        for name, given in losses.items():
            try:
                checked_arguments(name, given)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return losses

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for i, block in enumerate(self.arms):
            for name in block.variant:
                check_choice(f"variant in arms.{i}.variant", name, self.variants)
            for name in block.init:
                check_choice(f"init in arms.{i}.init", name, ["random", *self.pretraining])
            if block.equal_passes:
                check_choice(f"variant in arms.{i}.equal_passes", block.equal_passes.variant, self.variants)
                check_choice(f"init in arms.{i}.equal_passes", block.equal_passes.init, ["random", *self.pretraining])
            for norm in block.norm or ():
                check_choice(f"norm in arms.{i}.norm", norm, self.threat)
        for norm in self.evaluate.images if isinstance(self.evaluate.images, dict) else ():
            check_choice("norm in evaluate.images", norm, self.threat)
        for name, row in self.variants.items():
            for field in ("base", "control_of"):
                if (other := getattr(row, field)) is not None:
                    check_choice(f"variant in variants.{name}.{field}", other, self.variants)
        self._claims_can_be_tested()
        self._refuse_without_effect()
        self._linf_stays_in_the_box()
        self._chosen_classes_fit()
        if self.data.label_column is None:
            raise ValueError("data.label_column: the study's data needs labels, found null")
        return self

    def _claims_can_be_tested(self) -> None:
        """Refuse a claim of the study's own about what it does not train or test, and looks beyond its seeds."""
        trained = {name for block in self.arms for name in block.variant}
        for name, claim in self.findings.claims.items():
            where = f"findings.claims.{name}"
            for variant in (*claim.compare, *claim.against):
                check_choice(f"variant in {where}.compare or .against", variant, self.variants)
            if absent := sorted({*claim.compare, *claim.against} - trained):
                raise ValueError(f"{where}.compare or .against: no arm trains {', '.join(absent)}")
            for init in filter(None, (claim.init, claim.against_init)):
                check_choice(f"{where}.init", init, ["primary", "pretrained", "random", *self.pretraining])
            if claim.measure == "auroc" and self.ood is None:
                raise ValueError(f"{where}.measure: auroc needs a section ood, found none")
            low, high = claim.where if isinstance(claim.where, tuple) else (0.0, math.inf)
            if not any(low <= eps <= high for eps in self.evaluate.eps):
                raise ValueError(f"{where}.where: no eps of evaluate.eps lies in it, found {[low, high]}")
        own = next((i for i, block in enumerate(self.arms) if block.seeds is not None), None)
        if self.findings.looks and own is not None:
            raise ValueError(f"arms.{own}.seeds: with findings.looks every arm has the study's seeds; leave it out")
        if self.findings.looks and self.findings.looks[-1] > len(self.seeds):
            raise ValueError(f"findings.looks: the study has {len(self.seeds)} seeds, found {self.findings.looks}")

    def _refuse_without_effect(self) -> None:
        """Refuse a block's weights or tasks where nothing of it depends on them."""
        for i, block in enumerate(self.arms):
            like = [block.equal_passes] if block.equal_passes else []
            variants = [self.variants[name] for name in (*block.variant, *(each.variant for each in like))]
            inits = [self.pretraining.get(name) for name in (*block.init, *(each.init for each in like))]
            before = [each.objective for each in inits if each is not None and each.objective is not None]
            if block.weight is not None and not any(variant.uses_weight for variant in variants):
                raise ValueError(f"arms.{i}.weight: no weight of {', '.join(block.variant)} depends on w; leave it out")
            if block.task is not None and not any(variant.uses_ssl for variant in (*variants, *before)):
                raise ValueError(f"arms.{i}.task: {', '.join(block.variant)} has no SSL task; leave it out")

    def _chosen_classes_fit(self) -> None:
        """Refuse an image set of held-out classes where none are, and what names of classes that are left out break."""
        if self.ood and HELD_OUT in self.ood.sets and not self.data.hold_out:
            raise ValueError("ood.sets: held_out needs classes under data.hold_out, found none")
        if self.ood and self.ood.attacked_images and self.ood.eps is None and "linf" not in self.threat:
            raise ValueError("ood.eps: without threat.linf give the eps of the attack, or attacked_images: 0")
        if (self.data.hold_out or self.data.only) and self.corrupt.official:
            raise ValueError("corrupt.official: published files are of all classes; leave out data.hold_out and only")
        if len(self.data.only) == 1:
            raise ValueError(f"data.only: a study needs at least 2 classes, found {self.data.only[0]}")

    def _linf_stays_in_the_box(self) -> None:
        """Refuse budgets that change any pixel into any other: nobody means them, and no attack takes them."""
        if "linf" not in self.threat:
            return
        eps, most = self.threat["linf"].eps, max(self.evaluate.eps)
        units = "linf eps is in [0, 1] pixel units (8 grey levels are 8/255)"
        if eps > 1:
            raise ValueError(f"threat.linf.eps: {units}, found {eps:g}")
        scales = {f"arms.{i}.eps_scale": max(block.eps_scale) for i, block in enumerate(self.arms)}
        for where, scale in {"evaluate.eps": most, **scales}.items():
            if eps * scale > 1:
                raise ValueError(f"{where}: {units}, found {scale:g} times the reference {eps:g}")
