"""The sweep's inner engine: every attack of a plan, at every eps, on one block of images held on the device.

Each image walks through its own list of runs (`run_order`), in which eps and attacks follow from what was found
before. Images whose next run belongs to the same attack share batches, whatever their eps; the place of a broken
image is filled at once.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import inf

import torch
from torch import Tensor, nn

from ssrob import seeding
from ssrob.attacks.auto_batch import Parts
from ssrob.attacks.base import State, build, join, loss_and_gradient, select, take
from ssrob.attacks.frozen import memory_format
from ssrob.attacks.input_checks import check_logits
from ssrob.attacks.logit_losses import TARGETED, UNTARGETED, margin
from ssrob.attacks.run_order import Run, RunOrder, Setting

Data = tuple[Tensor, Tensor, Tensor]  # images, labels, index
NOT_FOUND, CLEAN, FIRST_ATTACK = 0, 1, 2  # values of `Block.found_by`
FIRST_EPS = 0.8  # of the distance at which a linear margin would be gone, where the search begins
_SYNC_EVERY = 5  # steps between looks at which images broke, on an accelerator: each look stalls its queue


class Block:
    """The images of one block and what is known about each."""

    def __init__(
        self,
        model: nn.Module,
        setting: Setting,
        data: Data,
        bound_to: Sequence[float] | None = None,
    ) -> None:
        """Classify the clean images; x (N, C, H, W) in [0, 1], labels and index (N,) int64, on the device.

        `bound_to` gives each image (N) the one eps of the setting at which it is attacked; by default all.
        """
        x, labels, index = data
        self.model, self.setting = model, setting
        self.x, self.labels = x.contiguous(memory_format=memory_format(model)), labels
        self.keys = seeding.example_keys(index, setting.seed, "attack_sweep")
        self.steppers = [build(attack, setting.geometry) for attack in setting.attacks]
        self.gradients, self.forwards, self.done = 0, 0, 0
        self.parts = Parts(setting.batch_size)
        clean = self._logits(self.x)
        check_logits(clean, labels)
        self.clean_correct = (clean.argmax(1) == labels).cpu()
        self.clean_margin = margin(clean, labels)
        others = clean.scatter(1, labels[:, None], -inf)
        self.likeliest_others = others.argsort(stable=True, dim=1, descending=True)
        self.distance = torch.where(self.clean_correct, inf, 0.0)
        self.found_by = torch.where(self.clean_correct, NOT_FOUND, CLEAN)
        self.adversarial, self.closest = self.x.clone(), self.x.clone()
        self.closest_margin = torch.full_like(self.keys, -inf, dtype=torch.float32)
        self.bracketing = setting.search == "bracket" and bound_to is None
        self.order = RunOrder(setting, self._first_eps(), bound_to)

    def attack(self, progress: Callable[[int], None]) -> None:
        """Walk every image through its runs; `progress` is called with the number of images that are done."""
        self.next: dict[int, Run] = {}
        self.waiting: list[deque[int]] = [deque() for _ in self.steppers]
        for row, correct in enumerate(self.clean_correct.tolist()):
            self._queue(row, self.order.begin(row) if correct else None)
        while any(self.waiting):
            longest = max(range(len(self.waiting)), key=lambda number: len(self.waiting[number]))
            self._stream(longest, progress)
        progress(self.done)

    def _first_eps(self) -> list[float]:
        """Return where each image's search begins (N): below the distance of a linear model, as steps are short there.

        0 in an ascending sweep. Infinite where that distance would tell nothing: a plan without gradients, a single
        eps, or an attack of the plan that looks for the nearest point.
        """
        if not self.bracketing:
            return [0.0] * len(self.x)
        guesses, rows = torch.full_like(self.clean_margin, inf), [attack.row for attack in self.setting.attacks]
        minimised, climbed = (any(getattr(row, name) for row in rows) for name in ("minimises_norm", "uses_gradient"))
        if climbed and not minimised and self.setting.eps[-2:-1] > (0.0,):
            correct = self.clean_correct.nonzero().squeeze(1).to(guesses.device)
            self.gradients += len(correct)
            for part, slope in self.parts(lambda part: (correct[part], self._slope(correct[part])), len(correct)):
                guesses[part] = FIRST_EPS * -self.clean_margin[part] / slope.clamp_min(1e-12)
        return guesses.tolist()

    def _slope(self, rows: Tensor) -> Tensor:
        """Return by how much the margin of clean images grows per unit of eps at first, (B,)."""
        lanes = {"adv": self.x[rows], "labels": self.labels[rows]}
        _, _, gradient = self._pass(lanes, lambda logits: margin(logits, lanes["labels"]), self.setting.gradients_in)
        return self.setting.geometry.dual_norm(gradient)

    def _queue(self, row: int, run: Run | None) -> None:
        if run is None:
            self.done += 1
        else:
            self.next[row] = run
            self.waiting[run.attack].append(row)

    def _stream(self, number: int, progress: Callable[[int], None]) -> None:
        """Run one attack on all images that wait for it, in batches kept full while there are any."""
        stepper, queue = self.steppers[number], self.waiting[number]
        lanes: State | None = None
        while queue or lanes is not None:
            room = self.parts.size - (0 if lanes is None else len(lanes["row"]))
            if queue and room > 0:
                fresh = self._begin(number, [queue.popleft() for _ in range(min(room, len(queue)))])
                lanes = fresh if lanes is None else join([lanes, fresh])
            assert lanes is not None
            for _ in range(_steps_between_looks(self.x.device, stepper.steps)):
                lanes = self._step(number, lanes)
            before = self.done
            lanes = self._settle(number, lanes)
            if self.done > before:
                progress(self.done)

    def _begin(self, number: int, rows: list[int]) -> State:
        attack, stepper = self.setting.attacks[number], self.steppers[number]
        device = self.x.device
        row = torch.tensor(rows, device=device)
        runs = [self.next[r] for r in rows]
        eps = torch.tensor([run.eps for run in runs], dtype=torch.float32, device=device)
        restart = torch.tensor([run.restart for run in runs], device=device)
        codes = torch.tensor([run.code for run in runs], dtype=torch.int64, device=device)
        keys = seeding.example_keys(self.keys[row] + codes, 0, "run")
        x, labels = self.x[row], self.labels[row]
        start = {"random": None, "warm": self.closest[row], "clean": x}[attack.start]
        return {
            **stepper.begin(x, eps, keys, start),
            "row": row,
            "labels": labels,
            "targets": self.likeliest_others[row, restart] if attack.targeted else labels,
            "flagged": torch.zeros_like(row, dtype=torch.bool),
            "found": x,
            "found_margin": torch.full_like(eps, -inf),
            "closest": self.closest[row],
            "closest_margin": self.closest_margin[row],
        }

    def _step(self, number: int, lanes: State) -> State:
        """Take one step with every lane; flag a lane seen misclassified and keep its point of largest margin."""
        stepper, adv = self.steppers[number], lanes["adv"]
        logits, loss, gradient = self._evaluate(number, lanes)
        state = stepper.tell(lanes, loss, gradient)
        if self.setting.attacks[number].row.minimises_norm:
            return state
        away = margin(logits, lanes["labels"])
        closer = away > lanes["closest_margin"]
        wrong = logits.argmax(1) != lanes["labels"]
        further = wrong & ~(away <= lanes["found_margin"])  # true of NaN too, which `_judge` must see
        return {
            **state,
            "found": select(further, adv, lanes["found"]),
            "found_margin": torch.where(further, away, lanes["found_margin"]),
            "flagged": wrong | lanes["flagged"],
            "closest": select(closer, adv, lanes["closest"]),
            "closest_margin": torch.where(closer, away, lanes["closest_margin"]),
        }

    def _evaluate(self, number: int, lanes: State) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B, K), the attack's loss (B,) and its gradient, from one forward pass of each image."""
        attack = self.setting.attacks[number]
        needed = {name: lanes[name] for name in ("adv", "labels", "targets")}
        # An attack that minimises the norm decides success at every step, so it needs the precise forward.
        dtype = torch.float32 if attack.row.minimises_norm else self.setting.gradients_in

        def passed(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
            part = take(needed, rows)

            def loss(logits: Tensor) -> Tensor:
                if attack.targeted:
                    return TARGETED[attack.loss](logits, part["labels"], part["targets"])
                return UNTARGETED[attack.loss](logits, part["labels"])

            return self._pass(part, loss, dtype, attack.row.uses_gradient)

        parts = self.parts(passed, len(lanes["row"]))
        logits, loss, gradient = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        if attack.row.uses_gradient:
            self.gradients += len(loss)
        else:
            self.forwards += len(loss)
        return logits, loss, gradient

    def _pass(
        self, lanes: State, loss_of: Callable[[Tensor], Tensor], dtype: torch.dtype, with_gradient: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        seen: list[Tensor] = []

        def loss_at(point: Tensor) -> Tensor:
            with torch.autocast(point.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                logits = self.model(point).float()
            seen.append(logits.detach())
            return loss_of(logits)

        loss, gradient = loss_and_gradient(loss_at, lanes["adv"], with_gradient)
        return seen[0], loss, torch.nan_to_num(gradient)

    def _settle(self, number: int, lanes: State) -> State | None:
        """Judge the lanes that are flagged or at their end; return those that go on, None if none does."""
        steps = self.steppers[number].steps
        ending = lanes["flagged"] | (lanes["step"] >= steps)
        places = ending.nonzero().squeeze(1)  # the one synchronisation of a chunk of steps
        if len(places) == 0:
            return lanes
        ended = take(lanes, places)
        adv, norm, broken = self._judge(ended)
        finished = broken | (ended["step"] >= steps)
        self._record(number, take({**ended, "adv": adv, "norm": norm, "broken": broken}, finished))
        keep = ~ending
        keep[places] = ~finished
        fresh = {"flagged": torch.zeros_like(ending), "found_margin": torch.full_like(lanes["eps"], -inf)}
        kept = take({**lanes, **fresh}, keep)
        return kept if len(kept["row"]) else None

    def _judge(self, lanes: State) -> tuple[Tensor, Tensor, Tensor]:
        """Project once more, and decide by a float32 forward on exactly what is stored.

        Returns the stored images (B, C, H, W), their distances (B,) and whether they are misclassified (B,).
        """
        x, eps = lanes["x"], lanes["eps"]
        adv = select(lanes["flagged"], lanes["found"], lanes["adv"])
        adv = self.setting.geometry.project(x, adv, eps)
        norm = self.setting.geometry.norm(adv - x)
        logits = self._logits(adv)
        check_logits(logits, lanes["labels"])
        # Rounding x + delta to float32 can lengthen a perturbation by one unit in the last place per pixel.
        inside = (norm <= eps * (1 + 1e-5) + 1e-6) & ((adv >= 0) & (adv <= 1)).flatten(1).all(1)
        if not bool(inside.all()):
            raise AssertionError(f"an attack left its ball: {norm[~inside].tolist()} > {eps[~inside].tolist()}")
        # Distance 0 means misclassified as it is, and a smaller batch may round the same logits otherwise.
        norm = torch.minimum(norm, eps).clamp_min(torch.finfo(torch.float32).tiny)
        return adv, norm, logits.argmax(1) != lanes["labels"]

    def _record(self, number: int, ended: State) -> None:
        """Keep what the finished lanes found and queue their images for their next run."""
        row = ended["row"]
        rows, norms, broken = row.cpu(), ended["norm"].cpu(), ended["broken"].cpu()
        better = broken & (norms < self.distance[rows])
        self.distance[rows[better]] = norms[better]
        self.found_by[rows[better]] = FIRST_ATTACK + number
        improved = better.to(row.device)
        self.adversarial[row[improved]] = ended["adv"][improved]
        closest, closest_margin = ended["closest"], ended["closest_margin"]
        if self.bracketing or self.setting.attacks[number].row.minimises_norm:
            closest = select(ended["broken"], ended["adv"], closest)
        if self.bracketing:  # the next eps is smaller, and no point of its ball need come as far
            closest_margin = torch.where(ended["broken"], -inf, closest_margin)
        self.closest[row], self.closest_margin[row] = closest, closest_margin
        left = (closest_margin / self.clean_margin[row]).tolist()
        for place, norm, share in zip(rows.tolist(), self.distance[rows].tolist(), left, strict=True):
            self._queue(place, self.order.after(place, norm, share))

    def _logits(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            logits: list[Tensor] = self.parts(lambda rows: self.model(x[rows]).float(), len(x))
        return torch.cat(logits)


def _steps_between_looks(device: torch.device, steps: int) -> int:
    """Return how many steps to take before the next look: a divisor of the steps, so that runs end on one."""
    if device.type == "cpu":
        return 1  # nothing is queued on a CPU, and a broken image dropped at once saves work
    return max(chunk for chunk in range(1, _SYNC_EVERY + 1) if steps % chunk == 0)
