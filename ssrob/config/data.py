"""The data sets of a study."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ssrob.config.fields import WHOLE, AnyPath, Choice, Count, Name, Number, Resize, Seed, Strict, as_list, distinct
from ssrob.registry.sources import SOURCES


def _as_names(value: object) -> object:
    """Take whole numbers, which are what YAML makes of the names of digits, for names."""
    listed = as_list(value)
    return [str(name) if type(name) is int else name for name in listed] if isinstance(listed, list) else listed


def _once(names: list[str]) -> list[str]:
    return distinct(names) if names else names


Classes = Annotated[list[str], BeforeValidator(_as_names), AfterValidator(_once)]


class Data(Strict):
    """A data set. Its name is its identity: where it lies (`path`) is not part of any result."""

    name: Name
    """The name that results carry. Example: `cifar10`."""
    source: Annotated[str, Choice("data source", SOURCES.keys)]
    """Where the images come from."""
    path: AnyPath | None = None
    """Folder of parquet or Arrow files, folder that holds `train/` and `test/`, or folder to download CIFAR into."""
    train: Annotated[list[str], BeforeValidator(as_list)] = ["train*.parquet"]
    """Training split: file patterns below `path`, for parquet; the name of its folder, for a folder."""
    test: Annotated[list[str], BeforeValidator(as_list)] = ["test*.parquet"]
    """Test split: file patterns below `path`, for parquet; the name of its folder, for a folder; `[]` for none."""
    image_column: str = "image"
    """Column of the images, for parquet. Default: `image`, else `img`."""
    label_column: str | None = "label"
    """Column of the labels, for parquet and for `metadata.csv`; null for unlabelled images, which serve pre-training
    alone. Default: `label`, else `labels` or `fine_label`."""
    classes: list[str] | None = None
    """Names of the classes in the order of their labels. Default: those that the source itself gives."""
    hold_out: Classes = []
    """Classes whose images are left out of training, validation and test: images of no known class, for `ood`. Example:
    `["8", "9"]`."""
    only: Classes = []
    """Use images of these classes alone. Default: of all."""
    size: Annotated[int, Field(ge=4, le=1024), WHOLE] | None = None
    """Cut the centred square and shrink it to this many pixels per side. Default: images as they are."""
    resize: Resize | None = None
    """Resize the shorter side to this many pixels before a square of `size` is cut, as torchvision's `Resize` and
    `CenterCrop` do. Example: `256` (bilinear) or `256 bicubic`."""
    storage: Literal["pixels", "files"] | None = None
    """Where training images are kept, which changes no result: `pixels` are decoded once and lie on the device, `files`
    stay as they are and are decoded by worker processes. Default: `files` if the pixels would take more than 4 GB."""
    train_images: Count | None = None
    """Use this many training images, the same number of each class, validation images included. Default: all."""
    test_images: Count | None = None
    """Use this many test images, the same number of each class. Default: all."""
    validation: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    """Share of the training images that is held out for validation."""
    test_share: Annotated[Number, Field(gt=0, lt=1)] = 0.25
    """Share of the images that becomes the test split, for sources without one of their own."""
    split_seed: Seed = 0
    """Seed of the splits."""
    fingerprint: str | None = None
    """Refuse data whose fingerprint (see `data.json` of a data stage) differs from this one."""

    @model_validator(mode="after")
    def _has_a_path(self) -> Self:
        if self.source in ("parquet", "folder") and self.path is None:
            raise ValueError(f"source {self.source!r} needs a path, found none")
        return self

    @model_validator(mode="after")
    def _classes_are_chosen_once(self) -> Self:
        if both := [name for name in self.only if name in self.hold_out]:
            raise ValueError(f"hold_out: a class is given here or in only, found {', '.join(both)} in both")
        return self

    @model_validator(mode="after")
    def _resize_comes_before_a_crop(self) -> Self:
        if self.resize is not None and int(self.resize.split()[0]) < (self.size or 10**9):
            allowed = "the shorter side, from which size x size pixels are cut; must be at least size"
            raise ValueError(f"resize: {allowed}, found {self.resize} and size {self.size}")
        return self

    def changes(self, field: str) -> bool:
        """Return whether a field differs from its default, which is all that a stage's spec records."""
        return bool(getattr(self, field) != type(self).model_fields[field].default)
