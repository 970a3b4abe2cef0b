"""Strange images and damaged shards that stay in files: decoded as shown, or one line before any training."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from ssrob.data.decode import crop_of, decode
from ssrob.data.prepare import prepare
from ssrob.data.prepared import Prepared
from ssrob.data.sources import check_source, image_shape
from ssrob.data.types import DataError
from tests.image_files import encoded, folder_data, parquet_data, pixels, write_parquet

COUNTS = {f"{split}/{name}": 8 for split in ("train", "test") for name in ("ant", "bee", "cow")}


def saved(image: Image.Image, kind: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def strange() -> dict[str, bytes]:
    """Return images that few loaders take, by the file that each replaces."""
    colour = Image.fromarray(pixels(1, 7, 12)[0])
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    palette = colour.quantize(16)
    return {
        "000.png": saved(Image.fromarray(np.arange(144, dtype=np.uint16).reshape(12, 12) * 400), "PNG"),
        "001.jpg": saved(colour.convert("CMYK"), "JPEG"),
        "002.jpg": saved(colour, "JPEG", exif=turned),
        "003.png": saved(palette, "PNG", transparency=bytes(range(0, 256, 16))),
    }


def test_strange_images_are_decoded_as_shown(tmp_path: Path) -> None:
    data = folder_data(tmp_path / "images", COUNTS, size=8, storage="files", validation=0.2)
    folder = tmp_path / "images/train/ant"
    for name, content in strange().items():
        (folder / name).with_suffix(".png").unlink()
        (folder / name).write_bytes(content)
    prepare(data, tmp_path / "out")
    stored = Prepared(tmp_path / "out", data).stored_images()
    found, kept = stored.decoded(np.arange(len(stored.rows))), []
    for picture, row in zip(found, stored.rows, strict=True):
        [(where, content)] = stored.split.read(np.array([row]))
        assert np.array_equal(picture, decode(content, where, crop_of(data))[0]), where
        kept.append(Path(where).name if "ant" in where else "")
    assert len(set(kept) & set(strange())) >= 2  # not all of them are for validation


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
