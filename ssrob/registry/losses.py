"""Training losses and self-supervised tasks: one row each. Imports no torch."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ssrob.registry.lookup import check_choice

Widths = int | tuple[int, ...]  # of a head: its outputs, or the layers of an MLP (hidden, ..., outputs)
Arguments = Mapping[str, int | float | str]


@dataclass(frozen=True)
class Loss:
    """One training loss: where it lives and what it costs.

    function: ``loss(model, x, task) -> (B,)``, evaluated at images x (B, C, H, W) in [0, 1]; `task` has its views,
        labels and arguments (`Task` in losses/batch.py).
    forwards: the image batches it sends through the network: "x" (the images it is evaluated at), "clean" (the
        clean images), or a name of its own for each view that it makes.
    heads: heads it adds to the network, name -> number of outputs of a linear layer, or widths (hidden, ..., outputs)
        of an MLP; a width may be the name of an argument.
    draw: ``draw(batch_size, generator, **arguments) -> (B, ...)``, its view parameters, drawn once per training step.
    views: ``views(x, parameters, **arguments) -> tuple of (B, C, H', W')``, in the order of their names in `forwards`;
        the function takes them from ``task.views``. Needed for perturbations that live on a view.
    views_of: another loss, whose views, draws and arguments it uses; or the name of an argument that names that loss,
        and then it looks at all of them.
    correct: ``correct(model, x, task) -> (B,) bool``, for tasks whose accuracy means something; without it an SSL
        task is validated by its loss.
    arguments: what a config may change under ``losses:``, with defaults; whole numbers >= 1, other numbers >= 0.
    check: ``check(arguments)`` says what is wrong with them, or None.
    """

    function: str
    forwards: tuple[str, ...] = ("x",)
    heads: Mapping[str, int | str | tuple[int | str, ...]] = field(default_factory=dict)
    draw: str | None = None
    views: str | None = None
    views_of: str | None = None
    correct: str | None = None
    self_supervised: bool = False
    arguments: Arguments = field(default_factory=dict)
    check: Callable[[Arguments], str | None] | None = None

    @property
    def task_argument(self) -> str | None:
        """Its argument that names the study's SSL task, at whose views it looks; None of most losses."""
        return self.views_of if self.views_of in self.arguments else None

    @property
    def view_names(self) -> tuple[str, ...]:
        """The names of the views that it looks at."""
        return tuple(name for name in self.forwards if name not in ("x", "clean"))

    @property
    def head(self) -> str:
        """The head whose outputs it reads: the one that it adds, or the class head."""
        return next(iter(self.heads), "class")

    @property
    def widths(self) -> dict[str, Widths]:
        """The heads in numbers."""
        return {
            head: tuple(map(self._width, each)) if isinstance(each, tuple) else self._width(each)
            for head, each in self.heads.items()
        }

    def _width(self, width: int | str) -> int:
        return int(self.arguments[width]) if isinstance(width, str) else width


def _puzzle(arguments: Arguments) -> str | None:
    grid, count = int(arguments["grid"]), int(arguments["permutations"])
    most = min(math.factorial(grid**2), 10_000)
    if not 2 <= grid <= 8:
        return f"grid must be 2..8 tiles per side, found {grid}"
    return None if 2 <= count <= most else f"permutations of {grid**2} tiles must be 2..{most}, found {count}"


def _temperature(arguments: Arguments) -> str | None:
    return None if float(arguments["temperature"]) > 0 else "temperature must be > 0, found 0"


_JIGSAW = Loss(
    "ssrob.losses.jigsaw:jigsaw",
    forwards=("shuffled",),
    heads={"jigsaw": "permutations"},
    draw="ssrob.losses.jigsaw:draw",
    views="ssrob.losses.jigsaw:views",
    correct="ssrob.losses.jigsaw:correct",
    self_supervised=True,
    arguments={"grid": 2, "permutations": 12},  # any two orders differ in at least three places, 24 would in two
    check=_puzzle,
)

LOSSES: dict[str, Loss] = {
    "xent": Loss("ssrob.losses.supervised:xent", correct="ssrob.losses.supervised:correct"),
    "kl_to_clean": Loss("ssrob.losses.supervised:kl_to_clean", forwards=("x", "clean")),
    # Cross-entropy of the classes at the views of the study's SSL task: the views as plain augmentation.
    "views_xent": Loss(
        "ssrob.losses.supervised:views_xent", forwards=(), views_of="task", arguments={"task": "rotation"}
    ),
    "rotation": Loss(
        "ssrob.losses.rotation:rotation",
        forwards=("rotated",),
        heads={"rotation": 4},
        draw="ssrob.losses.rotation:draw",
        views="ssrob.losses.rotation:views",
        correct="ssrob.losses.rotation:correct",
        self_supervised=True,
    ),
    "rotation_all": Loss(
        "ssrob.losses.rotation:rotation_all",
        forwards=("turned_0", "turned_1", "turned_2", "turned_3"),
        heads={"rotation": 4},
        views="ssrob.losses.rotation:all_views",
        correct="ssrob.losses.rotation:correct_all",
        self_supervised=True,
    ),
    "jigsaw": _JIGSAW,
    "jigsaw_3x3": replace(
        _JIGSAW,
        forwards=("shuffled_3x3",),
        heads={"jigsaw_3x3": "permutations"},
        arguments={"grid": 3, "permutations": 30},  # as many as Carlucci et al.; at least seven places
    ),
    "contrastive": Loss(
        "ssrob.losses.contrastive:contrastive",
        forwards=("contrastive_first", "contrastive_second"),
        heads={"contrastive": ("hidden", "outputs")},
        draw="ssrob.losses.contrastive:draw",
        views="ssrob.losses.contrastive:two_views",
        correct="ssrob.losses.contrastive:correct",
        self_supervised=True,
        arguments={"temperature": 0.5, "hidden": 512, "outputs": 128},  # 0.5: the best of B.9 there for CIFAR-10
        check=_temperature,
    ),
    "vicreg": Loss(
        "ssrob.losses.vicreg:vicreg",
        forwards=("vicreg_first", "vicreg_second"),
        heads={"vicreg": ("hidden", "hidden", "outputs")},
        draw="ssrob.losses.contrastive:draw",
        views="ssrob.losses.contrastive:two_views",
        self_supervised=True,
        # Theirs are 25, 25 and 1. Divided by 5, an untrained network's gradient has about the norm of the
        # cross-entropy's (on digits 0.6 and 0.6; rotation 0.4, contrastive 0.8), so that an SSL weight means about as
        # much as for the other tasks.
        arguments={"invariance": 5.0, "variance": 5.0, "covariance": 0.2, "hidden": 512, "outputs": 512},
    ),
    # RoCL (Kim et al. 2020): the third view is the first again, for a perturbation to live on.
    "rocl": Loss(
        "ssrob.losses.contrastive:rocl",
        forwards=("rocl_first", "rocl_second", "rocl_third"),
        heads={"rocl": ("hidden", "outputs")},
        draw="ssrob.losses.contrastive:draw",
        views="ssrob.losses.contrastive:three_views",
        self_supervised=True,
        arguments={"temperature": 0.5, "hidden": 512, "outputs": 128},
        check=_temperature,
    ),
    "rocl_attack": Loss(
        "ssrob.losses.contrastive:rocl_attack",
        forwards=("rocl_second", "rocl_third"),
        heads={"rocl": ("hidden", "outputs")},
        views_of="rocl",
        self_supervised=True,
    ),
}


def loss_row(name: str, arguments: Mapping[str, Arguments] | None = None) -> Loss:
    """Return a loss's row with the arguments of a config (loss name -> arguments) put over its defaults.

    Its `views_of` is then the loss that makes the views it looks at, itself or another, or None where none is named.
    """
    raw, given = LOSSES[name], dict(arguments or {})
    if raw.views_of is None:
        merged = {**raw.arguments, **given.get(name, {})}
        return replace(raw, arguments=merged, views_of=name if raw.views else None)
    if raw.task_argument:
        merged = {**raw.arguments, **given.get(name, {})}
        source = loss_row(str(merged[raw.task_argument]), arguments)
        return replace(raw, arguments=merged, views_of=source.views_of, forwards=source.view_names)
    return replace(raw, arguments=loss_row(raw.views_of, arguments).arguments)


def checked_arguments(name: str, given: Arguments) -> Arguments:
    """Return the arguments of a loss if it takes them; a ValueError says what it found and what is allowed."""
    row = LOSSES[name]
    numbers = {key: default for key, default in row.arguments.items() if not isinstance(default, str)}
    for key, value in given.items():
        default = numbers[check_choice(f"argument of {name}", key, numbers)]
        whole = isinstance(default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < whole:
            allowed = "a whole number >= 1" if whole else "a number >= 0"
            raise ValueError(f"{key} must be {allowed}, found {value!r}")
    wrong = row.check({**row.arguments, **given}) if row.check else None
    if wrong:
        raise ValueError(wrong)
    return given
