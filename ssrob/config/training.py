"""What is trained against what, and how: backbone, reference attacks, optimiser and schedule."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ssrob.config.fields import NUMBER, Choice, Count, NotNegative, Number, Positive, Precision, Strict, as_list
from ssrob.registry.architectures import check_arguments
from ssrob.registry.backbones import BACKBONES
from ssrob.registry.lookup import check_choice
from ssrob.registry.schedules import SCHEDULES


class Model(BaseModel):
    """A backbone by name with its arguments, e.g. ``{name: resnet, depth: 14, width: 32}``.

    Or a network of torchvision or timm, e.g. ``{name: timm, arch: vit_tiny_patch16_224, img_size: 32, patch_size: 4}``.
    """

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str, Choice("backbone", BACKBONES.keys)]
    """The backbone. Its arguments (`depth`, `width`, ...) stand beside it; those of `torchvision` and `timm` are `arch`
    and whatever that network takes."""

    @model_validator(mode="after")
    def _arguments_fit(self) -> Self:
        row = BACKBONES[self.name]
        if row.library:
            check_arguments(row.library, self.arguments)
            return self
        for key, value in self.arguments.items():
            check_choice(f"argument of {self.name}", key, row.arguments)
            if type(value) is not int or value < 1:
                raise ValueError(f"{key} must be a whole number >= 1, found {value!r}")
        if row.depth_step and "depth" in self.arguments:
            step, offset = row.depth_step
            if (self.arguments["depth"] - offset) % step or self.arguments["depth"] <= offset:
                raise ValueError(f"depth of {self.name} must be {row.depths}, found {self.arguments['depth']}")
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """The backbone's arguments as given in the config."""
        return dict(self.model_extra or {})


class Threat(Strict):
    """The reference attack of a norm: its eps is the study's reference, eps grids are multiples of it."""

    eps: Positive
    """Radius of the ball, in [0, 1] pixel units. Example: `8/255` (l-inf), `128/255` (l2)."""
    steps: Count = 10
    """PGD steps of the attack during training."""
    step_size: Positive | None = None
    """Length of a step, in [0, 1] pixel units. Default: 2.5 eps / steps."""


class Training(Strict):
    """How a network is trained: stochastic gradient descent with schedules as functions of the step."""

    removed: ClassVar = {
        "record_every": (1, "every step is recorded"),
        "early_stop": (None, "set epochs; the best checkpoint is kept beside the last"),
        "label_smoothing": (0, "labels are as they are"),
    }

    epochs: Positive = 20
    """Passes over the training images: a number such as `8`; fractions are possible."""
    batch_size: Count = 128
    """Images per optimiser step."""
    lr: Positive = 0.1
    """Peak learning rate."""
    momentum: Annotated[float, Field(ge=0, lt=1), NUMBER] = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Nesterov momentum."""
    weight_decay: NotNegative = 5e-4
    """Weight decay of SGD."""
    schedule: Annotated[str, Choice("schedule", SCHEDULES.keys)] = "onecycle"
    """Learning rate over the training."""
    warmup: Annotated[Number, Field(ge=0, lt=1)] = 0.3
    """Share of the steps until the peak, for onecycle."""
    milestones: list[Annotated[Number, Field(gt=0, lt=1)]] = [0.5, 0.75]
    """Shares of the steps at which the learning rate is divided by 10, for piecewise."""
    augment: Annotated[list[Literal["crop", "flip", "resized_crop"]], BeforeValidator(as_list)] = []
    """Augmentation of the training images. `crop` moves small images by some pixels; `resized_crop` takes a random part
    of the stored image and resizes it, as for ImageNet. Example: `[crop, flip]`."""
    crop_padding: Count = 4
    """Pixels that `crop` pads on each side."""
    precision: Precision = "float32"
    """Arithmetic of forward and backward passes; weights are float32. bfloat16 is for devices that have it natively."""
    deterministic: bool = True
    """On a GPU: the same bits at every run, for some speed."""
    compile: bool = False
    """Compile the backbone with torch.compile: other bits, a minute or more at the start."""
    threads: Count = 1
    """CPU threads of each process; sums over other numbers of threads differ in bits."""
    replicas: Count = 1
    """Processes that share every batch, each with a GPU of its own if there are any."""
    validate_every: Count = 1
    """Epochs between two validations."""
    validation_steps: Count = 10
    """PGD steps of the attack on validation images."""
    validation_images: Count | None = None
    """Validate on this many images. Default: the whole validation split."""
    ema: Annotated[float, Field(gt=0, lt=1), NUMBER] | None = None
    """Decay of an exponential moving average of the weights, which is then validated and saved. Example: `0.98`."""

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        if {"crop", "resized_crop"} <= set(self.augment):
            raise ValueError(f"augment: give crop (small images) or resized_crop (large ones), found {self.augment}")
        return self

    @model_validator(mode="after")
    def _replicas_share_a_batch(self) -> Self:
        if self.batch_size % self.replicas:
            raise ValueError(f"batch_size must be a multiple of replicas ({self.replicas}), found {self.batch_size}")
        return self
