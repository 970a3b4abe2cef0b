"""The sweep's inner engine: every attack of a plan, at every eps, on one block of images held on the device.

Each image walks through its own list of runs (eps ascending; at each eps the attacks of the plan and their
restarts) and leaves at the first eps that breaks it, since it is then broken at every larger one; an image that is
bound to one eps walks through the runs at that eps alone. Images
whose next run belongs to the same attack share batches, whatever their eps; the place of a broken image is
filled at once.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import inf, isinf

import torch
from torch import Tensor, nn

from ssrob import seeding
from ssrob.attacks.auto_batch import Parts
from ssrob.attacks.base import State, build, join, loss_and_gradient, select, take
from ssrob.attacks.frozen import memory_format
from ssrob.attacks.input_checks import check_logits
from ssrob.attacks.logit_losses import TARGETED, UNTARGETED, margin
from ssrob.attacks.run_order import Setting, schedule

Data = tuple[Tensor, Tensor, Tensor]  # images, labels, index
NOT_FOUND, CLEAN, FIRST_ATTACK = 0, 1, 2  # values of `Block.found_by`
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
        """Judge the clean images; x (N, C, H, W) in [0, 1], labels and index (N,) int64, on the device.

        `bound_to` gives each image (N) the one eps of the setting at which it is attacked; by default all.
        """
        x, labels, index = data
        self.model, self.setting = model, setting
        self.x, self.labels = x.contiguous(memory_format=memory_format(model)), labels
        self.keys = seeding.example_keys(index, setting.seed, "attack_sweep")
        self.runs = schedule(setting)
        self.routes = self._routes(bound_to)
        self.codes = torch.tensor([run.code for run in self.runs], dtype=torch.int64, device=x.device)
        self.steppers = [build(attack, setting.geometry) for attack in setting.attacks]
        self.gradients, self.forwards, self.done = 0, 0, 0
        self.parts = Parts(setting.batch_size)
        clean = self._logits(self.x)
        check_logits(clean, labels)
        self.clean_correct = (clean.argmax(1) == labels).cpu()
        others = clean.scatter(1, labels[:, None], -inf)
        self.likeliest_others = others.argsort(stable=True, dim=1, descending=True)
        self.distance = torch.where(self.clean_correct, inf, 0.0)
        self.found_by = torch.where(self.clean_correct, NOT_FOUND, CLEAN)
        self.adversarial, self.closest = self.x.clone(), self.x.clone()
        self.closest_margin = torch.full_like(self.keys, -inf, dtype=torch.float32)

    def attack(self, progress: Callable[[int], None]) -> None:
        """Walk every image through its runs; `progress` is told how many images are done."""
        self.position = [0] * len(self.x)
        self.waiting: list[deque[int]] = [deque() for _ in self.steppers]
        self._queue(range(len(self.x)))
        while any(self.waiting):
            longest = max(range(len(self.waiting)), key=lambda number: len(self.waiting[number]))
            self._stream(longest, progress)
        progress(self.done)

    def _routes(self, bound_to: Sequence[float] | None) -> list[Sequence[int]]:
        """Return the numbers of the runs that each image walks through."""
        every = range(len(self.runs))
        if bound_to is None:
            return [every] * len(self.x)
        routes = {
            eps: [place for place in every if self.runs[place].eps == eps or (eps and isinf(self.runs[place].budget))]
            for eps in set(bound_to)
        }
        return [routes[eps] for eps in bound_to]

    def _queue(self, rows: Sequence[int]) -> None:
        for row in rows:
            route, at = self.routes[row], self.position[row]
            if at == len(route) or self.runs[route[at]].eps >= float(self.distance[row]):
                self.done += 1
            else:
                self.waiting[self.runs[route[at]].attack].append(row)

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
        places = [self.routes[r][self.position[r]] for r in rows]
        runs = [self.runs[place] for place in places]
        budget = torch.tensor([run.budget for run in runs], dtype=torch.float32, device=device)
        restart = torch.tensor([run.restart for run in runs], device=device)
        keys = seeding.example_keys(self.keys[row] + self.codes[torch.tensor(places, device=device)], 0, "run")
        x, labels = self.x[row], self.labels[row]
        start = {"random": None, "warm": self.closest[row], "clean": x}[attack.start]
        return {
            **stepper.begin(x, budget, keys, start),
            "row": row,
            "labels": labels,
            "targets": self.likeliest_others[row, restart] if attack.targeted else labels,
            "flagged": torch.zeros_like(row, dtype=torch.bool),
            "found": x,
            "found_margin": torch.full_like(budget, -inf),
            "closest": self.closest[row],
            "closest_margin": self.closest_margin[row],
        }

    def _step(self, number: int, lanes: State) -> State:
        """Take one step with every lane; flag a lane seen misclassified and keep its point of largest margin."""
        stepper, adv = self.steppers[number], lanes["adv"]
        logits, loss, gradient = self._evaluate(number, lanes)
        told = stepper.tell(lanes, loss, gradient)
        if self.setting.attacks[number].row.minimises_norm:
            return told
        away = margin(logits, lanes["labels"])
        closer = away > lanes["closest_margin"]
        wrong = logits.argmax(1) != lanes["labels"]
        further = wrong & ~(away <= lanes["found_margin"])  # true of NaN too, which `_judge` must see
        return {
            **told,
            "found": select(further, adv, lanes["found"]),
            "found_margin": torch.where(further, away, lanes["found_margin"]),
            "flagged": wrong | lanes["flagged"],
            "closest": select(closer, adv, lanes["closest"]),
            "closest_margin": torch.where(closer, away, lanes["closest_margin"]),
        }

    def _evaluate(self, number: int, lanes: State) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B, K), the attack's loss (B,) and its gradient, from one forward pass of each image."""
        needed = {name: lanes[name] for name in ("adv", "labels", "targets")}
        parts = self.parts(lambda rows: self._pass(number, take(needed, rows)), len(lanes["row"]))
        logits, loss, gradient = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
        if self.setting.attacks[number].row.uses_gradient:
            self.gradients += len(loss)
        else:
            self.forwards += len(loss)
        return logits, loss, gradient

    def _pass(self, number: int, lanes: State) -> tuple[Tensor, Tensor, Tensor]:
        attack = self.setting.attacks[number]
        # An attack that minimises the norm decides success at every step, so it needs the precise forward.
        dtype = torch.float32 if attack.row.minimises_norm else self.setting.gradients_in
        seen: list[Tensor] = []

        def loss_at(point: Tensor) -> Tensor:
            with torch.autocast(point.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                logits = self.model(point).float()
            seen.append(logits.detach())
            if attack.targeted:
                return TARGETED[attack.loss](logits, lanes["labels"], lanes["targets"])
            return UNTARGETED[attack.loss](logits, lanes["labels"])

        loss, gradient = loss_and_gradient(loss_at, lanes["adv"], attack.row.uses_gradient)
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
            raise AssertionError(f"an attack left its budget: {norm[~inside].tolist()} > {eps[~inside].tolist()}")
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
        if self.setting.attacks[number].row.minimises_norm:
            ended = {**ended, "closest": select(ended["broken"], ended["adv"], ended["closest"])}
        self.closest[row] = ended["closest"]
        self.closest_margin[row] = ended["closest_margin"]
        for place in rows.tolist():
            self.position[place] += 1
        self._queue(rows.tolist())

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
