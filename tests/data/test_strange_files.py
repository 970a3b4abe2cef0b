"""Strange images and damaged shards that stay in files: decoded as shown, or one line before any training."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from ssrob.data.decode import crop_of, decode
from ssrob.data.prepare import prepare
from ssrob.data.prepared import Prepared
from ssrob.data.types import DataError
from tests.image_files import encoded, folder_data, pixels

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
    for name in ("ant", "bee", "cow"):  # one at least is trained on
        (tmp_path / f"images/train/{name}/004.png").write_bytes(content)
    with pytest.raises(DataError, match=r"^\S*train/\w+/004\.png: cannot be decoded \(.*\)$"):
        prepare(data, tmp_path / "out")
