"""Strange images and damaged shards that stay in files: decoded as shown, or one line before any training."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from ssrob.config.data import Data
from ssrob.data.decode import crop_of, decode
from ssrob.data.decoding_loader import DecodedBatches
from ssrob.data.loader import Batches, Order
from ssrob.data.prepare import prepare
from ssrob.data.prepared import Prepared
from ssrob.data.sources import check_source, image_shape, open_source
from ssrob.data.types import DataError
from tests.image_files import encoded, folder_data, parquet_data, pixels, write_parquet

COUNTS = {f"{split}/{name}": 8 for split in ("train", "test") for name in ("ant", "bee", "cow")}


def saved(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def strange() -> dict[str, bytes]:
    """Return images that few loaders take, by the name of a file."""
    colour, deep = Image.fromarray(pixels(1, 7, 12)[0]), np.arange(144, dtype=np.uint16).reshape(12, 12) * 400
    clear = np.dstack([pixels(1, 8, 12)[0], pixels(1, 9, 12, channels=1)[0]])
    found = {
        "16-bit.png": saved(Image.fromarray(deep), "PNG"),
        "16-bit-clear.png": saved(Image.fromarray(deep), "PNG", transparency=int(deep[3, 4])),
        "cmyk.jpg": saved(colour.convert("CMYK"), "JPEG"),
        "palette-clear.png": saved(colour.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
        "clear.png": saved(Image.fromarray(clear), "PNG"),
        "grey-clear.png": saved(Image.fromarray(clear).convert("LA"), "PNG"),
        "two-levels.png": saved(colour.convert("1"), "PNG"),
        "still.gif": saved(colour.quantize(8), "GIF"),
        "page.tif": saved(colour, "TIFF"),
    }
    for orientation in range(1, 9):
        turned = Image.Exif()
        turned[ExifTags.Base.Orientation] = orientation
        found[f"turned-{orientation}.jpg"] = saved(colour.crop((0, 0, 12, 9)), "JPEG", exif=turned)
    return found


def damaged() -> dict[str, bytes]:
    """Return files that are no images, or no image that can be used, by the name of a file."""
    colour = Image.fromarray(pixels(1, 7, 40)[0])
    other = Image.fromarray(pixels(1, 8, 40)[0])
    return {
        "zero.png": b"",
        "cut.jpg": saved(colour, "JPEG")[:-300],
        "cut.png": saved(colour, "PNG")[:-2000],
        "head.png": saved(colour, "PNG")[:20],
        "text.jpg": b"<html>not found</html>",
        "moving.gif": saved(colour, "GIF", save_all=True, append_images=[other]),
        "pages.tif": saved(colour, "TIFF", save_all=True, append_images=[other]),
        "real-numbers.tif": saved(Image.fromarray(np.ones((12, 12), np.float32)), "TIFF"),
    }


def kept(folder: Path, data: Data, storage: str) -> tuple[Prepared, Order]:
    """Prepare a data set, and return it and its batches, with the images kept in one of the two ways."""
    stays = data.model_copy(update={"storage": storage})
    prepare(stays, folder / storage)
    found = Prepared(folder / storage, stays)
    if storage == "pixels":
        return found, Batches(*found.train(), 9, 3)
    return found, DecodedBatches(found.stored_images(), found.train_labels, 9, 3, workers=1)


@pytest.mark.parametrize("source", ["folder", "parquet"])
def test_strange_images_have_the_same_pixels_wherever_they_are_kept(source: str, tmp_path: Path) -> None:
    if source == "folder":
        data = folder_data(tmp_path / "images", COUNTS, size=8)
        for name, content in strange().items():
            (tmp_path / "images/train/ant" / name).write_bytes(content)
    else:
        data = parquet_data(tmp_path, size=8)
        images = [*strange().values(), *(encoded(image) for image in pixels(43))]
        write_parquet(tmp_path / "train.parquet", images, [i % 3 for i in range(len(images))])
    (pixel, one), (file, other) = (kept(tmp_path, data, storage) for storage in ("pixels", "files"))
    assert (pixel.in_files, file.in_files) == (False, True)
    assert (pixel.mean, pixel.std, pixel.shape) == (file.mean, file.std, file.shape)
    assert np.array_equal(pixel.validation()[0], file.validation()[0])
    for step in range(one.steps_per_epoch):
        assert all(torch.equal(a, b) for a, b in zip(one.at(step), other.at(step), strict=True))
    opened = open_source(data).train
    shown = {decode(content, where, crop_of(data))[0].tobytes() for where, content in opened.read(np.arange(17))}
    assert len({*shown} & {image.tobytes() for image in pixel.train()[0]}) > 9, "not all of them are for validation"


@pytest.mark.parametrize("name", damaged())
def test_a_damaged_image_is_the_same_error_wherever_images_are_kept(name: str, tmp_path: Path) -> None:
    data = folder_data(tmp_path / "images", COUNTS, size=8)
    (tmp_path / "images/train/ant" / name).write_bytes(damaged()[name])
    errors = []
    for storage in ("pixels", "files"):
        with pytest.raises(DataError, match=rf"^\S*/{re.escape(name)}: (cannot be decoded|expected) ") as refused:
            kept(tmp_path / "again", data, storage)
        errors.append(str(refused.value))
    assert errors[0] == errors[1]
    assert "\n" not in errors[0]


def test_an_image_that_is_damaged_during_training_is_the_same_error(tmp_path: Path) -> None:
    data = folder_data(tmp_path / "images", COUNTS, size=8)
    _, running = kept(tmp_path, data, "files")
    for image in (tmp_path / "images/train").rglob("*.png"):
        image.write_bytes(damaged()["cut.png"])
    with pytest.raises(DataError, match=r"^\S*train/\w+/\d+\.png: cannot be decoded \(") as refused:
        running.at(0)
    with pytest.raises(DataError) as all_of_them:
        prepare(data, tmp_path / "again")
    assert str(refused.value).partition(": ")[2] in str(all_of_them.value)


@pytest.mark.parametrize("content", [b"", encoded(pixels(1)[0])[:-40], b"no image"], ids=["empty", "cut", "text"])
def test_a_damaged_image_is_named_before_any_training(content: bytes, tmp_path: Path) -> None:
    data = folder_data(tmp_path / "images", COUNTS, size=8, storage="files")
    (tmp_path / "images/train/bee/004.png").write_bytes(content)
    with pytest.raises(DataError, match=r"^\S*train/bee/004\.png: cannot be decoded \(.*\)$"):
        prepare(data, tmp_path / "out")


@pytest.mark.parametrize("storage", ["files", "pixels"])
def test_all_damaged_images_are_named_in_one_message(storage: str, tmp_path: Path) -> None:
    data = folder_data(tmp_path / "images", COUNTS, size=8, storage=storage)
    damaged = [f"train/{name}/00{i}.png" for name in ("ant", "bee", "cow") for i in range(3)]
    for name in [*damaged, "test/cow/000.png", "test/cow/001.png", "test/cow/002.png"]:
        content = (tmp_path / "images" / name).read_bytes()
        (tmp_path / "images" / name).write_bytes(content[:-40])  # its header is sound
    check_source(data)
    with pytest.raises(DataError, match=r"^12 images cannot be used; replace them or take them away:") as refused:
        prepare(data, tmp_path / "out")
    lines = str(refused.value).splitlines()[1:]
    assert sorted(line.partition(":")[0].rpartition("/images/")[2] for line in lines[:9]) == damaged
    assert len(lines) == 11
    assert lines[10] == "  and 2 more"


def test_files_that_hold_no_image_are_named_before_work_starts(tmp_path: Path) -> None:
    data = folder_data(tmp_path / "images", COUNTS, size=8)
    check_source(data)
    (tmp_path / "images/test/bee/003.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^\S*test/bee/003\.png: cannot be decoded \(it is empty: 0 bytes\)$"):
        check_source(data)
    (tmp_path / "images/test/bee/004.png").write_bytes(b"<html>not found</html>")
    message = r"^2 images of 48 that were looked at cannot be used.*:\n.*003\.png: .*\n.*004\.png: .*\(not an image\)$"
    with pytest.raises(DataError, match=message):
        check_source(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"^\S*test\.parquet: row 7: cannot be decoded \(it is empty: 0 bytes\)$"),
        (b"<html>not found</html>", r"^\S*test\.parquet: row 7: cannot be decoded \(not an image\)$"),
        (None, r"^\S*test\.parquet: row 7: holds no image bytes$"),
    ],
)
def test_the_first_rows_of_a_table_are_looked_at_too(content: bytes | None, message: str, tmp_path: Path) -> None:
    data = parquet_data(tmp_path)
    images = [encoded(image) for image in pixels(30)]
    write_parquet(tmp_path / "test.parquet", [*images[:7], content, *images[8:]], [i % 3 for i in range(30)])
    with pytest.raises(DataError, match=message):
        check_source(data)


def test_images_of_several_sizes_are_refused_before_work_starts(tmp_path: Path) -> None:
    data = folder_data(tmp_path / "images", COUNTS)
    Image.fromarray(pixels(1, size=12)[0][:9]).save(tmp_path / "images/test/cow/005.png")
    message = (
        r"^data set 'tiny': size: images must be of one size, found 8 x 8 \(\S*\) and 9 x 12 \(\S*cow/005\.png\); set"
    )
    with pytest.raises(DataError, match=message):
        check_source(data)
    check_source(data.model_copy(update={"size": 8}))


def test_an_image_that_is_stored_on_its_side_is_of_the_same_size(tmp_path: Path) -> None:
    data, turned = folder_data(tmp_path / "images", COUNTS), Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for number, file in enumerate((tmp_path / "images").rglob("*.png")):
        colour = Image.fromarray(pixels(1, number, 12)[0])
        picture, tags = (
            (colour.crop((0, 0, 9, 12)), {"exif": turned}) if number % 2 else (colour.crop((0, 0, 12, 9)), {})
        )
        picture.save(file.with_suffix(".jpg"), **tags)
        file.unlink()
    check_source(data)
    prepare(data, tmp_path / "out")
    assert Prepared(tmp_path / "out").shape == (3, 9, 12)


def test_a_grey_image_among_colour_ones_makes_no_data_set_grey(tmp_path: Path) -> None:
    data = folder_data(tmp_path / "images", COUNTS)
    first = tmp_path / "images/train/ant/000.png"
    Image.open(first).convert("L").save(first)
    assert image_shape(data) == (8, 8, 3)
    for file in (tmp_path / "images").rglob("*.png"):
        Image.open(file).convert("L").save(file)
    assert image_shape(data) == (8, 8, 1)
