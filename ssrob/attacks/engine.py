"""The sweep's inner engine: every attack of a plan, at every eps, on one block of images held on the device.

Each image goes through its own list of runs (`run_order`), in which eps and attack follow from what was found before.
Images whose next run is of the same attack are stepped as one batch, whatever their eps; the place of an image whose
run has ended is filled at once.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import inf

import torch
from torch import Tensor, nn

from ssrob import seeding
from ssrob.attacks.base import State, build, join, select, take
from ssrob.attacks.frozen import memory_format
from ssrob.attacks.input_checks import check_logits
from ssrob.attacks.logit_losses import TARGETED, UNTARGETED, margin
from ssrob.attacks.model_calls import ModelCalls
from ssrob.attacks.run_order import Run, RunOrder, SweepSettings

Data = tuple[Tensor, Tensor, Tensor]  # images, labels, index
NOT_FOUND, CLEAN, FIRST_ATTACK = 0, 1, 2  # values of `Block.found_by`
FIRST_EPS = 0.8  # of the distance at which a linear margin would be gone, where the search begins
_CHECK_EVERY = 5  # steps between checks of which images broke, on an accelerator: each check stalls its queue


class Block:
    """N images, what is known of each, and the loop that attacks them.

    distance (N,): norm of the smallest perturbation found so far; 0 if misclassified as it is, inf if none was found.
    found_by (N,): NOT_FOUND, CLEAN, or FIRST_ATTACK + the number of the attack that found it.
    adversarial (N, C, H, W): the image with that perturbation, else the clean one.
    closest (N, C, H, W), closest_margin (N,): the point nearest to being misclassified, where warm starts begin.
    """

    def __init__(
        self, model: nn.Module, settings: SweepSettings, data: Data, only_eps: Sequence[float] | None = None
    ) -> None:
        """Classify the clean images; x (N, C, H, W) in [0, 1], labels and index (N,) int64, on the device.

        only_eps: the one eps (N) of the settings at which each image is attacked; by default all of them.
        """
        x, labels, index = data
        self.settings, self.model = settings, ModelCalls(model, settings.batch_size)
        self.steppers = [build(attack, settings.geometry) for attack in settings.attacks]
        self.x, self.labels = x.contiguous(memory_format=memory_format(model)), labels
        self.keys = seeding.example_keys(index, settings.seed, "attack_sweep")
        logits = self.model.logits(self.x)
        check_logits(logits, labels)
        self.clean_margin = margin(logits, labels)
        others = logits.scatter(1, labels[:, None], -inf)
        self.likeliest_others = others.argsort(stable=True, dim=1, descending=True)
        correct = (logits.argmax(1) == labels).cpu()
        self.distance = torch.where(correct, inf, 0.0)
        self.found_by = torch.where(correct, NOT_FOUND, CLEAN)
        self.adversarial, self.closest = self.x.clone(), self.x.clone()
        self.closest_margin = torch.full_like(self.keys, -inf, dtype=torch.float32)
        bracketing = settings.search == "bracket" and only_eps is None
        first = self._first_eps() if bracketing else [0.0] * len(x)
        self.order = RunOrder(settings, first, only_eps)
        self.waiting: list[deque[tuple[int, Run]]] = [deque() for _ in self.steppers]  # by attack: image and run
        self.done = 0

    @property
    def clean_correct(self) -> Tensor:
        """Whether each image is classified right without a perturbation, (N,) bool."""
        return self.found_by != CLEAN

    def attack(self, progress: Callable[[int], None]) -> None:
        """Take every image through its runs; `progress` is called with the number of images that are done."""
        for row, correct in enumerate(self.clean_correct.tolist()):
            self._enqueue(row, self.order.begin(row) if correct else None)
        while any(self.waiting):
            longest = max(range(len(self.waiting)), key=lambda number: len(self.waiting[number]))
            self._run_attack(longest, progress)
        progress(self.done)

    def _first_eps(self) -> list[float]:
        """Return where each image's search begins (N): below the distance of a linear model, as steps are short there.

        Infinite where that distance would say nothing: a plan without gradients, a single eps, or an attack of the
        plan that looks for the nearest point.
        """
        guesses, rows = torch.full_like(self.clean_margin, inf), [attack.row for attack in self.settings.attacks]
        useful = any(row.uses_gradient for row in rows) and not any(row.minimises_norm for row in rows)
        correct = self.clean_correct.nonzero().squeeze(1).to(guesses.device)
        if useful and self.settings.eps[-2:-1] > (0.0,) and len(correct):
            labels = self.labels[correct]
            _, _, gradient = self.model.loss_and_gradient(
                self.x[correct], lambda logits, part: margin(logits, labels[part]), self.settings.gradients_in
            )
            slope = self.settings.geometry.dual_norm(gradient)  # of the margin, per unit of eps
            guesses[correct] = FIRST_EPS * -self.clean_margin[correct] / slope.clamp_min(1e-12)
        return guesses.tolist()

    def _enqueue(self, row: int, run: Run | None) -> None:
        if run is None:
            self.done += 1
        else:
            self.waiting[run.attack].append((row, run))

    def _run_attack(self, number: int, progress: Callable[[int], None]) -> None:
        """Run one attack on all images that wait for it, in batches kept full while there are any."""
        waiting, steps = self.waiting[number], self.steppers[number].steps
        active: State | None = None
        while waiting or active is not None:
            room = self.model.batch_size - (0 if active is None else len(active["row"]))
            if waiting and room > 0:
                fresh = self._begin(number, [waiting.popleft() for _ in range(min(room, len(waiting)))])
                active = fresh if active is None else join([active, fresh])
            assert active is not None
            for _ in range(_steps_between_checks(self.x.device, steps)):
                active = self._step(number, active)
            before = self.done
            active = self._retire_finished(number, active)
            if self.done > before:
                progress(self.done)

    def _begin(self, number: int, runs: list[tuple[int, Run]]) -> State:
        """Return the state of images at the start of their runs of one attack."""
        attack, device = self.settings.attacks[number], self.x.device
        row = torch.tensor([row for row, _ in runs], device=device)
        eps = torch.tensor([run.eps for _, run in runs], dtype=torch.float32, device=device)
        restart = torch.tensor([run.restart for _, run in runs], device=device)
        codes = torch.tensor([run.code for _, run in runs], dtype=torch.int64, device=device)
        keys = seeding.example_keys(self.keys[row] + codes, 0, "run")
        x, labels = self.x[row], self.labels[row]
        start = {"random": None, "warm": self.closest[row], "clean": x}[attack.start]
        return {
            **self.steppers[number].begin(x, eps, keys, start),
            "row": row,
            "labels": labels,
            "targets": self.likeliest_others[row, restart] if attack.targeted else labels,
            "broken": torch.zeros_like(row, dtype=torch.bool),  # seen misclassified, at `broken_adv`
            "broken_adv": x,
            "broken_margin": torch.full_like(eps, -inf),
            "closest": self.closest[row],
            "closest_margin": self.closest_margin[row],
        }

    def _step(self, number: int, active: State) -> State:
        """Take one step with every active image; of those seen misclassified keep the point of largest margin."""
        attack, adv = self.settings.attacks[number], active["adv"]

        def loss_of(logits: Tensor, part: slice) -> Tensor:
            if attack.targeted:
                return TARGETED[attack.loss](logits, active["labels"][part], active["targets"][part])
            return UNTARGETED[attack.loss](logits, active["labels"][part])

        # An attack that minimises the norm decides success at every step, so it needs the precise forward.
        dtype = torch.float32 if attack.row.minimises_norm else self.settings.gradients_in
        logits, loss, gradient = self.model.loss_and_gradient(
            adv, loss_of, dtype, with_gradient=attack.row.uses_gradient
        )
        moved = self.steppers[number].tell(active, loss, gradient)
        if attack.row.minimises_norm:
            return moved
        away = margin(logits, active["labels"])
        closer = away > active["closest_margin"]
        wrong = logits.argmax(1) != active["labels"]
        further = wrong & ~(away <= active["broken_margin"])  # true of NaN too, which `_verify` must see
        return {
            **moved,
            "broken": wrong | active["broken"],
            "broken_adv": select(further, adv, active["broken_adv"]),
            "broken_margin": torch.where(further, away, active["broken_margin"]),
            "closest": select(closer, adv, active["closest"]),
            "closest_margin": torch.where(closer, away, active["closest_margin"]),
        }

    def _retire_finished(self, number: int, active: State) -> State | None:
        """Record the images that broke or are at the end of their run; return those that go on, None if none does."""
        steps = self.steppers[number].steps
        ending = active["broken"] | (active["step"] >= steps)
        places = ending.nonzero().squeeze(1)  # the one synchronisation of a chunk of steps
        if len(places) == 0:
            return active
        ended = take(active, places)
        adv, norm, broken = self._verify(ended)
        finished = broken | (ended["step"] >= steps)
        self._record(number, take({**ended, "adv": adv, "norm": norm, "broken": broken}, finished))
        going_on = ~ending
        going_on[places] = ~finished
        unbroken = {"broken": torch.zeros_like(ending), "broken_margin": torch.full_like(active["eps"], -inf)}
        rest = take({**active, **unbroken}, going_on)
        return rest if len(rest["row"]) else None

    def _verify(self, ended: State) -> tuple[Tensor, Tensor, Tensor]:
        """Project once more, and decide by a float32 forward on exactly what is stored.

        Returns the stored images (B, C, H, W), their distances (B,) and whether they are misclassified (B,).
        """
        x, eps, geometry = ended["x"], ended["eps"], self.settings.geometry
        adv = geometry.project(x, select(ended["broken"], ended["broken_adv"], ended["adv"]), eps)
        logits = self.model.logits(adv)
        check_logits(logits, ended["labels"])
        norm, inside = geometry.norm(adv - x), geometry.contains(x, adv, eps)
        if not bool(inside.all()):
            raise AssertionError(f"an attack left its ball: {norm[~inside].tolist()} > {eps[~inside].tolist()}")
        # Distance 0 means misclassified as it is, and a smaller batch may round the same logits otherwise.
        norm = torch.minimum(norm, eps).clamp_min(torch.finfo(torch.float32).tiny)
        return adv, norm, logits.argmax(1) != ended["labels"]

    def _record(self, number: int, ended: State) -> None:
        """Keep what the finished runs found, and put their images in line for their next run."""
        row, adv, broken = ended["row"], ended["adv"], ended["broken"]
        rows, norms = row.cpu(), ended["norm"].cpu()
        nearer = broken.cpu() & (norms < self.distance[rows])
        self.distance[rows[nearer]] = norms[nearer]
        self.found_by[rows[nearer]] = FIRST_ATTACK + number
        self.adversarial[row[nearer.to(row.device)]] = adv[nearer.to(row.device)]
        closest, closest_margin = ended["closest"], ended["closest_margin"]
        if self.order.bracketing or self.settings.attacks[number].row.minimises_norm:
            closest = select(broken, adv, closest)
        if self.order.bracketing:  # the next eps is smaller, and no point of its ball need come as far
            closest_margin = torch.where(broken, -inf, closest_margin)
        self.closest[row], self.closest_margin[row] = closest, closest_margin
        margin_left = (closest_margin / self.clean_margin[row]).tolist()
        for place, distance, share in zip(rows.tolist(), self.distance[rows].tolist(), margin_left, strict=True):
            self._enqueue(place, self.order.after(place, distance, share))


def _steps_between_checks(device: torch.device, steps: int) -> int:
    """Return how many steps to take before the next check: a divisor of the steps, so that runs end on one."""
    if device.type == "cpu":
        return 1  # nothing is queued on a CPU, and a broken image dropped at once saves work
    return max(chunk for chunk in range(1, _CHECK_EVERY + 1) if steps % chunk == 0)
