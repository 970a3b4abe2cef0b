"""From a source's images to pixels of one shape: what a viewer would show, or a refusal. Imports no torch."""

import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from ssrob.config.data import Data
from ssrob.data.types import DataError, Pixels
from ssrob.formatting import one_line

# What Pillow raises for files that are cut short or damaged, by format.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_GREY = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")
_SIXTEEN = ("PNG", "PPM", "JPEG2000")  # formats whose 32-bit mode "I" holds 16-bit values
_UPRIGHT = {  # EXIF orientation -> what turns the stored pixels into the picture
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACKGROUND = (255, 255, 255)  # behind transparent pixels: a page


@dataclass(frozen=True)
class Crop:
    """How images come to one size.

    size: the centred square of so many pixels; of the largest one, shrunk by Pillow's bicubic filter, without `resize`.
    resize: what the shorter side is brought to before, and by which filter, as torchvision's `Resize` does.
    """

    size: int
    resize: tuple[int, str] | None = None


def crop_of(data: Data) -> Crop | None:
    """Return the crop that a config asks for; None: images stay as they are."""
    if data.size is None:
        return None
    if data.resize is None:
        return Crop(data.size)
    side, name = data.resize.split()
    return Crop(data.size, (int(side), name))


def decode(content: bytes | Pixels, where: str, crop: Crop | None) -> tuple[Pixels, bool]:
    """Return pixels (H, W, 3) uint8 and whether the image is grey (three equal channels)."""
    if isinstance(content, np.ndarray) and crop is None:
        grey = content.ndim == 2
        return (np.repeat(content[..., None], 3, axis=-1) if grey else content), grey
    picture, grey = decode_picture(content, where)
    return np.asarray(picture if crop is None else _cropped(picture, crop)), grey


def decode_picture(content: bytes | Pixels, where: str) -> tuple[Image.Image, bool]:
    """Return an image as RGB and whether it is grey.

    As a viewer shows it: turned upright, 16 bits as their upper 8, transparency over white, CMYK by its colour profile
    or by Pillow's formula. Animations are refused, as are values whose range the file does not state.
    """
    with _refused(where):
        image = Image.fromarray(content) if isinstance(content, np.ndarray) else _opened(content)
        grey = image.mode in _GREY
        return _as_shown(image, where), grey


def read_header(content: bytes | Pixels, where: str) -> tuple[tuple[int, int], bool]:
    """Return width and height as stored, and whether it is grey, from an image's first bytes; refuse what is none."""
    with _refused(where):
        image = Image.fromarray(content) if isinstance(content, np.ndarray) else _opened(content)
        return image.size, image.mode in _GREY


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise ValueError("it is empty: 0 bytes")
    return Image.open(io.BytesIO(content))


@contextlib.contextmanager
def _refused(where: str) -> Iterator[None]:
    """Turn what Pillow raises into one line."""
    try:
        yield
    except DataError:
        raise
    except _DAMAGED as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise DataError(f"{where}: cannot be decoded ({reason})") from error


def _as_shown(image: Image.Image, where: str) -> Image.Image:
    """Return an image as RGB, as a viewer shows it."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's JPEG with a preview: the first is the photograph
        raise DataError(f"{where}: expected one image, found {frames} (an animation or several pages)")
    deep, clear = ";16" in str(getattr(image, "tile", "")), image.info.get("transparency")
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith(("I", "F")):
        return _eight_bits(image, where, clear).convert("RGB")
    if deep and isinstance(clear, tuple):  # Pillow has taken the upper bits of the pixels, and not of this colour
        image.info["transparency"] = tuple(level >> 8 for level in clear)
    if image.mode == "CMYK" and (profile := image.info.get("icc_profile")):
        return _converted(image, profile, where)
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, (*_BACKGROUND, 255)), layered).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, where the metadata are damaged, as viewers do."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGED:
        orientation = None
    return orientation if isinstance(orientation, int) else 1


def _eight_bits(image: Image.Image, where: str, clear: object) -> Image.Image:
    """Take the upper 8 of 16 bits, as Pillow itself does of colour images; `clear` is the transparent level, if any."""
    if not image.mode.startswith("I;16") and not (image.mode == "I" and image.format in _SIXTEEN):
        rule = "expected 8 or 16 bits a channel; convert it to one of these"
        raise DataError(f"{where}: {rule}; found Pillow mode {image.mode!r}")
    levels = np.asarray(image).astype(np.uint32)
    upper = (levels >> 8).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.where(levels == clear, 255, upper).astype(np.uint8) if isinstance(clear, int) else upper)


def _converted(image: Image.Image, profile: bytes, where: str) -> Image.Image:
    try:
        source, shown = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted: Any = ImageCms.profileToProfile(image, source, shown, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise DataError(f"{where}: its colour profile cannot be used ({error}); save it as RGB") from error
    assert isinstance(converted, Image.Image)  # None is for a change in place
    return converted


def _cropped(image: Image.Image, crop: Crop) -> Image.Image:
    if crop.resize is None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        return square.resize((crop.size, crop.size), Image.Resampling.BICUBIC)
    side, name = crop.resize
    short = min(image.size)
    width, height = (side if length == short else int(side * length / short) for length in image.size)
    resized = image.resize((width, height), Image.Resampling[name.upper()])
    left, top = round((width - crop.size) / 2), round((height - crop.size) / 2)
    return resized.crop((left, top, left + crop.size, top + crop.size))
