"""A model is given the pixels that a viewer shows, or the image is refused."""

import io
import itertools
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from ssrob.config.data import Data
from ssrob.data.decode import Crop, crop_of, decode
from ssrob.data.types import DataError
from tests.image_files import pixels
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

PICTURE = pixels(1, size=16)[0, :, :12]  # taller than wide
STORED = {  # EXIF orientation -> how a camera stores the picture
    1: PICTURE,
    2: PICTURE[:, ::-1],
    3: PICTURE[::-1, ::-1],
    4: PICTURE[::-1],
    5: PICTURE.transpose(1, 0, 2),
    6: np.rot90(PICTURE),
    7: np.rot90(PICTURE, 2).transpose(1, 0, 2),
    8: np.rot90(PICTURE, -1),
}


def saved(image: Image.Image, kind: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def shown(content: bytes) -> np.ndarray:
    return decode(content, "here", None)[0]


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_every_orientation_is_turned_upright(orientation, kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    settings = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(shown(saved(stored, kind, exif=exif, **settings)), PICTURE)


@pytest.mark.parametrize("orientation", STORED)
def test_a_photograph_that_was_taken_sideways_stands_upright(orientation):
    smooth = np.repeat(np.repeat(pixels(1, size=2)[0, :, :1], 32, 0), 16, 1)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turned = {6: np.rot90(smooth), 8: np.rot90(smooth, -1), 3: smooth[::-1, ::-1], 4: smooth[::-1]}
    turned |= {2: smooth[:, ::-1], 5: smooth.transpose(1, 0, 2), 7: np.rot90(smooth, 2).transpose(1, 0, 2), 1: smooth}
    content = saved(Image.fromarray(np.ascontiguousarray(turned[orientation])), "JPEG", exif=exif, quality=95)
    assert np.abs(shown(content).astype(int) - smooth).mean() < 4  # levels that JPEG changes


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("factor", [256, 257])
def test_16_bits_of_grey_are_their_upper_eight(kind, factor):
    grey = pixels(1, channels=1)[0]
    found, is_grey = decode(saved(Image.fromarray(grey.astype(np.uint16) * factor), kind), "here", None)
    assert is_grey
    assert np.array_equal(found, np.repeat(grey[..., None], 3, -1))


def test_16_bits_of_colour_are_their_upper_eight(tmp_path: Path):
    header = b"P6 8 8 65535\n"
    colour = pixels(1)[0]
    assert np.array_equal(shown(header + (colour.astype(">u2") * 257).tobytes()), colour)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "transparent grey"])
def test_what_is_transparent_is_white(mode):
    hidden = Image.new("L", (4, 4), 7)
    alpha = Image.fromarray(np.repeat(np.array([[0, 0, 255, 255]], np.uint8), 4, 0))
    if mode == "RGBA":
        content = saved(Image.merge("RGBA", [hidden, hidden, hidden, alpha]), "PNG")
    elif mode == "LA":
        content = saved(Image.merge("LA", [hidden, alpha]), "PNG")
    else:
        levels = np.repeat(np.array([[9, 9, 7, 7]], np.uint8), 4, 0)
        image = Image.fromarray(levels)
        if mode == "P":
            image = image.convert("P")
            image.putpalette([level for level in range(256) for _ in range(3)])
        content = saved(image, "PNG", transparency=9)
    assert shown(content)[0, :, 0].tolist() == [255, 255, 7, 7]


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (4, 4), (0, 100, 200, 128))
    assert np.abs(shown(saved(image, "PNG"))[0, 0].astype(int) - [127, 177, 227]).max() <= 1


def test_opaque_alpha_changes_nothing():
    image = Image.fromarray(PICTURE).convert("RGBA")
    assert np.array_equal(shown(saved(image, "PNG")), PICTURE)


def test_cmyk_is_shown_in_its_colours():
    flat = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # full magenta and yellow: red
    assert np.abs(shown(saved(flat, "JPEG", quality=95)).astype(int) - [255, 0, 0]).max() <= 2


def png(depth: int, kind: int, rows: list[bytes], *chunks: bytes) -> bytes:
    """Write a PNG by hand, of 2 pixels a row: Pillow writes no colours of 16 bits."""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, len(rows), depth, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + start + b"".join(chunks) + data + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


@pytest.mark.parametrize("kind", [".png", ".tif"])
def test_files_with_16_bits_of_colour_are_their_upper_eight(kind):
    colour = pixels(1)[0]
    _, content = cv2.imencode(kind, colour[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(shown(content.tobytes()), colour)


def test_16_bits_with_alpha_lie_over_white():
    grey = png(16, 4, [struct.pack(">4H", 0x12FF, 0xFFFF, 0x1234, 0)])
    colour = png(16, 6, [struct.pack(">8H", 0x12FF, 0x3400, 0x56FF, 0xFFFF, 1, 2, 3, 0)])
    assert shown(grey)[0].tolist() == [[0x12] * 3, [255] * 3]
    assert shown(colour)[0].tolist() == [[0x12, 0x34, 0x56], [255] * 3]


def test_one_transparent_colour_of_16_bits_is_white_and_no_other():
    grey = png(16, 0, [struct.pack(">2H", 0x1234, 0x1235)], chunk(b"tRNS", struct.pack(">H", 0x1234)))
    assert shown(grey)[0].tolist() == [[255] * 3, [0x12] * 3]
    transparent = struct.pack(">3H", 0x1234, 0x5678, 0x0A0A)
    colour = png(16, 2, [transparent + struct.pack(">3H", 0x1234, 0x5678, 0x0B0A)], chunk(b"tRNS", transparent))
    assert shown(colour)[0].tolist() == [[255] * 3, [0x12, 0x56, 0x0B]]


def test_every_colour_of_a_palette_has_its_own_transparency():
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 100, 200, 0, 0, 255, 9, 9, 9])
    found = shown(saved(image, "PNG", transparency=bytes([0, 128, 255, 255])))
    assert np.abs(found.reshape(4, 3) - [[255, 255, 255], [127, 177, 227], [0, 0, 255], [9, 9, 9]]).max() <= 1


def test_cmyk_stored_as_luminance_and_chroma_is_shown_in_its_colours():
    # Adobe's YCCK: the samples are Y, Cb, Cr of 255 - C, 255 - M, 255 - Y, and K; Pillow writes 255 - sample.
    cyan = np.asarray(Image.new("RGB", (1, 1), (0, 255, 255)).convert("YCbCr"))[0, 0]
    content = saved(Image.new("CMYK", (8, 8), (*(255 - cyan).tolist(), 0)), "JPEG", quality=100)
    marker = content.index(b"Adobe")
    content = content[: marker + 11] + b"\x02" + content[marker + 12 :]
    assert np.abs(shown(content).astype(int) - [255, 0, 0]).max() <= 4


def ink_profile(lightness: int) -> bytes:
    """Write a colour profile by hand in which one ink is a grey of that CIE lightness, 0..100, and two are black."""
    corners = [(100, lightness, 0, 0, 0)[sum(ink)] for ink in itertools.product((0, 1), repeat=4)]
    table = bytes(level for each in corners for level in (round(each * 2.55), 128, 128))
    linear = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    tags = {
        b"A2B0": b"mft1\0\0\0\0\x04\x03\x02\0" + matrix + 4 * linear + table + 3 * linear,
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78),
    }
    place, index, content = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        index += name + struct.pack(">II", place + len(content), len(tag))
        content += tag + bytes(-len(tag) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12x4s", place + len(content), b"\0" * 4, 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp"
    )
    illuminant = struct.pack(">3i", 63190, 65536, 54061)
    return (head + bytes(28) + illuminant).ljust(128, b"\0") + index + content


@pytest.mark.parametrize("ink", np.eye(4, dtype=int).tolist())
def test_cmyk_with_a_profile_is_shown_by_it(ink):
    flat = Image.new("CMYK", (8, 8), tuple(255 * part for part in ink))
    for kind, settings in (("JPEG", {"quality": 100}), ("TIFF", {})):
        found = shown(saved(flat, kind, icc_profile=ink_profile(50), **settings))
        assert np.abs(found.astype(int) - 119).max() <= 3  # L* = 50 in sRGB


def test_a_profile_of_other_channels_is_refused():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for content in (profile, b"no profile"):
        flat = saved(Image.new("CMYK", (8, 8)), "JPEG", icc_profile=content)
        with pytest.raises(DataError, match=r"^here: its colour profile cannot be used .*; save it as RGB$"):
            shown(flat)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
@pytest.mark.filterwarnings("ignore:.*EXIF|Truncated:UserWarning")
def test_damaged_metadata_leave_a_picture_upright(kind):
    flat = Image.new("RGB", (8, 8), (90, 90, 90))
    for exif in (b"garbage", b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0"):
        assert np.abs(shown(saved(flat, kind, exif=exif)).astype(int) - 90).max() <= 2


def test_black_and_white_is_black_and_white():
    bits = pixels(1, channels=1)[0] > 127
    found, grey = decode(saved(Image.fromarray(bits), "PNG"), "here", None)
    assert grey
    assert np.array_equal(found[..., 0], bits * 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_and_pages_are_refused(kind):
    first, second = (Image.fromarray(image) for image in pixels(2))
    with pytest.raises(DataError, match="here: expected one image, found 2"):
        shown(saved(first, kind, save_all=True, append_images=[second]))


def test_one_frame_of_a_gif_is_an_image():
    grey = Image.fromarray(pixels(1, channels=1)[0])
    assert np.array_equal(shown(saved(grey, "GIF"))[..., 0], np.asarray(grey))


def test_a_photograph_with_a_preview_is_a_photograph():
    first, preview = (Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (90, 10))
    assert np.abs(shown(saved(first, "MPO", save_all=True, append_images=[preview])).astype(int) - 90).max() <= 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"hello", "not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "not an image"),
        (saved(Image.fromarray(PICTURE), "PNG")[:60], "truncated"),
        (saved(Image.fromarray(np.tile(PICTURE, (9, 9, 1))), "JPEG", progressive=True)[:2000], "truncated"),
        (saved(Image.fromarray(PICTURE), "WEBP", lossless=True)[:-40], "cannot be decoded"),
        (saved(Image.fromarray(PICTURE), "BMP")[:-40], "truncated"),
        (saved(Image.fromarray(PICTURE), "TIFF")[:-200], "truncated"),
        (saved(Image.fromarray(PICTURE), "PPM")[:-40], "truncated"),
        (saved(Image.fromarray(PICTURE), "PNG")[:-40], "cannot be decoded"),
        (saved(Image.fromarray(PICTURE), "JPEG")[:-40], "cannot be decoded"),
        (saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "found Pillow mode 'F'"),
        (saved(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"), "found Pillow mode 'I'"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_its_place(content, reason):
    with pytest.raises(DataError, match=f"^here: .*{reason}") as error:
        shown(content)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(40, 60), (61, 40), (50, 50), (33, 47)])
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_resize_and_crop_are_those_of_torchvision(shape, name):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    data = Data(name="x", source="digits", size=24, resize=32 if name == "bilinear" else f"32 {name}")
    expected = CenterCrop(24)(Resize(32, getattr(InterpolationMode, name.upper()))(image))
    found, _ = decode(saved(image, "PNG"), "here", crop_of(data))
    assert np.array_equal(found, np.asarray(expected))


def test_an_upright_image_is_cropped_after_it_was_turned():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = Image.fromarray(np.ascontiguousarray(STORED[6]))
    found, _ = decode(saved(stored, "PNG", exif=exif), "here", Crop(12))
    assert np.array_equal(found, PICTURE[2:14])


@pytest.mark.parametrize("settings", [{"resize": 20}, {"resize": 20, "size": 24}, {"resize": "big", "size": 8}])
def test_a_resize_that_leaves_no_crop_is_refused(settings):
    with pytest.raises(ValueError, match="resize"):
        Data(name="x", source="digits", **settings)
