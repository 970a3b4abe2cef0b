"""A whole curve of robust accuracy over eps as one computation.

An example broken at one eps is broken at every larger one, and the perturbation found breaks every eps above
its norm; so only the smallest norm found is kept per example, and the curve is read off those norms.
"""

import hashlib
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssrob.attacks.auto_batch import CPU_BATCH, batch_for
from ssrob.attacks.base import select
from ssrob.attacks.engine import Block, Data
from ssrob.attacks.frozen import channels_last, memory_format
from ssrob.attacks.input_checks import (
    as_device,
    as_tensor,
    check_data,
    check_eps,
    check_logits,
    find_plan,
    float32_below,
)
from ssrob.attacks.lp_ball import GEOMETRIES
from ssrob.attacks.model_contract import LOOK, Adapted, borrowed, device_of_model
from ssrob.attacks.result import SweepResult
from ssrob.attacks.run_order import SweepSettings
from ssrob.attacks.verify import confirmed
from ssrob.hardware.device import exact_float32
from ssrob.progress import shown
from ssrob.registry.attacks import GRADIENT_DTYPES, LAYOUTS, SEARCHES
from ssrob.registry.lookup import check_choice
from ssrob.registry.presets import AttackPlan

Outcome = dict[str, Tensor]  # what is known of one block when it is finished
Store = MutableMapping[str, Outcome]
Eps = float | str | Sequence[float | str] | Tensor


def attack_sweep(
    model: Callable[..., Any],
    images: Tensor,
    labels: Tensor,
    *,
    norm: str = "linf",
    eps: Eps,
    preset: str | AttackPlan = "standard",
    seed: int = 0,
    batch_size: int | None = None,
    index: Tensor | None = None,
    device: torch.device | str | None = None,
    gradients_in: str = "float32",
    layout: str = "channels_last",
    search: str = "bracket",
    keep_adversarial: bool = False,
    progress: bool | Callable[[int, int], None] | None = None,
    store: Store | None = None,
    block: int = 1024,
) -> SweepResult:
    """Attack every example at every eps (ascending, [0, 1] pixel units, 0 allowed; also "8/255"), sharing the work.

    model: images (B, C, H, W) float in [0, 1] -> logits (B, K), given back as it was (`model_contract.adapt` says what
    else it may be; where no gradient reaches the images, attacks that need one are skipped); labels (N,) int64;
    arrays are taken as well; index (N,) int64: the example numbers that random draws depend on (default 0..N-1).
    `gradients_in` "bfloat16" takes gradients under autocast; success is always decided by a float32 forward. `layout`
    is that of weights and images during the sweep: "channels_last" where the model can take it, or "model", its own.
    `search`: "bracket" looks for the largest eps that an image withstands (`run_order.RunOrder`) and takes it as robust
    at every smaller one; "ascending" attacks at every eps from the smallest on, at 2.5 times the gradients.
    progress: None shows a bar on a terminal and in a notebook, True always, False never; or a function of (done, total)
    that counts examples.
    batch_size: examples attacked at once; by default 256 on a CPU, on a GPU what fits its memory. It is halved when
    memory runs out after all.

    With a `store`, every finished block of `block` examples is put there, and is found again by a later call
    with the same weights, data and settings; the result then equals that of an uninterrupted call.
    """
    budgets, plan = check_eps(eps, norm), find_plan(preset)
    images, labels = as_tensor("images", images), as_tensor("labels", labels)
    index = None if index is None else as_tensor("index", index)
    dtype: torch.dtype = getattr(torch, check_choice("gradients_in", gradients_in, GRADIENT_DTYPES))
    search, layout = check_choice("search", search, SEARCHES), check_choice("layout", layout, LAYOUTS)
    index = check_data(images, labels, index, 1 if batch_size is None else batch_size, block)
    device = device_of_model(model, images) if device is None else as_device(device)
    look = images[:LOOK].to(device)
    with (
        exact_float32(device),
        borrowed(model, look) as lent,
        channels_last(lent, look[:1]) if layout == "channels_last" else nullcontext(),
    ):
        plan = plan_for(plan, lent, look[:1])
        batch_size = batch_size or (batch_for(lent, look[:1]) if lent.interface.gradient else CPU_BATCH)
        eps_below = float32_below(budgets)
        settings = SweepSettings(GEOMETRIES[norm], eps_below, plan.attacks, seed, batch_size, dtype, search)
        job = _Job(lent, settings, device, keep_adversarial, store)
        outcomes = []
        with shown(progress, len(images), "image", "attacks") as report:
            for first in range(0, len(images), block):
                part = slice(first, first + block)

                def tell(done: int, first: int = first) -> None:
                    report(first + done, len(images))

                outcomes.append(job.outcome((images[part], labels[part], index[part]), tell))
    return merged(norm, budgets, [attack.name for attack in plan.attacks], outcomes)


@dataclass(frozen=True)
class _Job:
    """What all blocks of a sweep have in common."""

    model: nn.Module
    settings: SweepSettings
    device: torch.device
    keep_adversarial: bool
    store: Store | None

    def outcome(self, data: Data, tell: Callable[[int], None]) -> Outcome:
        """Attack one block, or find it in the store."""
        if self.store is None:
            return self.attack(data, tell)
        weights = self.model.state_dict().values()
        key = digest(f"{self.settings} {memory_format(self.model)} {self.keep_adversarial}", *weights, *data)
        if key not in self.store:
            self.store[key] = self.attack(data, tell)
        tell(len(data[0]))
        return self.store[key]

    def attack(self, data: Data, tell: Callable[[int], None]) -> Outcome:
        """Attack one block."""
        images, labels, index = (tensor.to(self.device) for tensor in data)
        block = Block(self.model, self.settings, (images, labels, index))
        block.attack(tell)
        judged = (block.x, block.adversarial, labels, block.distance.to(self.device))
        outcome = {
            "distance": block.distance,
            "attack": block.found_by,
            "clean_correct": block.clean_correct,
            "confirmed": confirmed(self.model, self.settings.geometry, judged, block.model.batch_size).cpu(),
            "spent": torch.tensor([block.model.gradients, block.model.forwards]),
        }
        if self.keep_adversarial:
            outcome["adversarial"] = _within(block).cpu().contiguous()
        return outcome


def _within(block: Block) -> Tensor:
    """Return the images found within the largest eps, and the clean image where there is none."""
    inside = (block.distance <= block.settings.eps[-1]).to(block.x.device)
    return select(inside, block.adversarial, block.x)


def merged(norm: str, eps: list[float], attacks: Sequence[str], outcomes: list[Outcome]) -> SweepResult:
    """Return the outcomes of a sweep's blocks, in their order, as one result; `attacks` as they are numbered there."""
    whole = {name: torch.cat([outcome[name] for outcome in outcomes]) for name in outcomes[0]}
    found_by = ("none", "clean", *attacks)  # the order of `engine.FIRST_ATTACK`
    return SweepResult(
        norm=norm,
        eps=torch.tensor(eps, dtype=torch.float64),
        distance=whole["distance"],
        attack=tuple(found_by[number] for number in whole["attack"].tolist()),
        attacks=tuple(attacks),
        clean_correct=whole["clean_correct"],
        confirmed=whole["confirmed"],
        gradients=int(whole["spent"][0::2].sum()),
        forwards=int(whole["spent"][1::2].sum()),
        adversarial=whole.get("adversarial"),
    )


def plan_for(plan: AttackPlan, model: Adapted, image: Tensor) -> AttackPlan:
    """Return the attacks of a plan for a model's number of classes, the black-box ones where it has no gradient."""
    return (plan if model.interface.gradient else plan.black_box()).for_classes(count_classes(model, image))


def count_classes(model: nn.Module, image: Tensor) -> int:
    """Return the number of classes, from one forward pass of one image."""
    with torch.no_grad():
        logits = model(image)
    check_logits(logits, image.new_zeros(1, dtype=torch.int64))
    return int(logits.shape[1])


def digest(text: str, *tensors: Tensor) -> str:
    """Return a name for settings and tensors that changes with any bit of them."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
