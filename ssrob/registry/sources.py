"""Data sources: one row each. Imports no torch and opens nothing."""

from dataclasses import dataclass

IMAGE_ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)


@dataclass(frozen=True)
class Known:
    """What is known of a source before it is opened. test None: no test split.

    names: of its classes, where they are known, too. sizes: training images of each class; default: all alike.
    """

    train: int
    test: int | None
    classes: int
    shape: tuple[int, int, int]  # H, W, C
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Source:
    """One way to get a data set.

    open: ``open(data) -> ssrob.data.types.Opened``, from the config of a data set.
    reads: the fields of that config which it reads; the others are refused.
    endings: of the names of its files; by default all files below the path are its own.
    for_testing: ``for_testing(data) -> OpenedTest``: what an evaluation tests where there is no study; without it, the
        test split of `open`, or the share of train that a study would hold out.
    """

    open: str
    reads: frozenset[str]
    known: Known | None = None
    for_testing: str | None = None
    endings: tuple[str, ...] = ()


DIGITS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)  # images of each class
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

SOURCES: dict[str, Source] = {
    "digits": Source(
        "ssrob.data.builtin:digits",
        frozenset({"test_share"}),
        Known(1797, None, 10, (8, 8, 1), tuple("0123456789"), DIGITS),
    ),
    "cifar10": Source(
        "ssrob.data.builtin:cifar10", frozenset({"path"}), Known(50_000, 10_000, 10, (32, 32, 3), CIFAR10)
    ),
    "cifar100": Source("ssrob.data.builtin:cifar100", frozenset({"path"}), Known(50_000, 10_000, 100, (32, 32, 3))),
    "parquet": Source(
        "ssrob.data.parquet_files:parquet",
        frozenset({"path", "train", "test", "image_column", "label_column", "classes", "storage", "test_share"}),
        for_testing="ssrob.data.parquet_files:parquet_for_testing",
        endings=(".parquet", ".arrow", ".json", *IMAGE_ENDINGS),  # a table may name images
    ),
    "folder": Source(
        "ssrob.data.image_folder:folder",
        frozenset({"path", "train", "test", "label_column", "classes", "storage", "test_share"}),
        for_testing="ssrob.data.image_folder:folder_for_testing",
        endings=(*IMAGE_ENDINGS, "metadata.csv", "metadata.jsonl"),
    ),
}
