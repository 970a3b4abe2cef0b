"""The 19 corruptions one image at a time, as they are defined: with scikit-image, OpenCV, SciPy and Pillow.

Slow and plain on purpose. Each takes a uint8 image (H, W, 3), the severity's parameters and a source of
random numbers, and returns a float image in [0, 255], which the caller clips and truncates. Two sources:
`SameDraws` hands out the package's own numbers, so that results can be compared pixel by pixel; `FreshDraws`
hands out numpy's, so that only statistics can.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Protocol

import cv2
import numpy as np
import torch
from PIL import Image
from scipy.ndimage import map_coordinates
from scipy.ndimage import zoom as stretch
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian
from skimage.util import random_noise
from sklearn.datasets import load_sample_images
from ssrob.corruptions.draws import Draws


def crops(count: int, size: int) -> np.ndarray:
    """Return uint8 crops (count, size, size, 3) of two photographs that come with scikit-learn.

    Every third crop spans the photograph's height, every third a half of it, every third a fifth, so that there
    are smooth images and busy ones.
    """
    photographs = load_sample_images().images
    generator = np.random.default_rng(0)
    found = []
    for i in range(count):
        photograph = photographs[i % 2]
        stride = max(1, photograph.shape[0] // size // (1, 2, 5)[i % 3])
        top, left = (generator.integers(0, side - stride * size + 1) for side in photograph.shape[:2])
        block = photograph[top : top + stride * size, left : left + stride * size]
        found.append(block.reshape(size, stride, size, stride, 3).mean((1, 3)).round())
    return np.array(found, np.uint8)


class Source(Protocol):
    def uniform(self, purpose: str, *shape: int) -> np.ndarray: ...

    def normal(self, purpose: str, *shape: int) -> np.ndarray: ...

    def between(self, purpose: str, low: float, high: float, *shape: int) -> np.ndarray: ...


class SameDraws:
    """The numbers that the package draws for image `number`."""

    def __init__(self, seed: int, name: str, severity: int, number: int) -> None:
        self.draws = Draws(seed=seed, name=name, severity=severity, index=torch.tensor([number]))

    def uniform(self, purpose: str, *shape: int) -> np.ndarray:
        return self.draws.uniform(purpose, *shape)[0].numpy()

    def normal(self, purpose: str, *shape: int) -> np.ndarray:
        return self.draws.normal(purpose, *shape)[0].numpy()

    def between(self, purpose: str, low: float, high: float, *shape: int) -> np.ndarray:
        return self.draws.between(purpose, low, high, *shape)[0].numpy()


class FreshDraws:
    """Numbers from a numpy generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator

    def uniform(self, purpose: str, *shape: int) -> np.ndarray:
        return np.asarray(self.generator.uniform(size=shape))

    def normal(self, purpose: str, *shape: int) -> np.ndarray:
        return np.asarray(self.generator.normal(size=shape))

    def between(self, purpose: str, low: float, high: float, *shape: int) -> np.ndarray:
        return np.asarray(self.generator.uniform(low, high, size=shape))


Reference = Callable[[np.ndarray, tuple[float, ...], Source], np.ndarray]


def stored(values: np.ndarray) -> np.ndarray:
    """Clip to [0, 255] and truncate, as the original stores its images."""
    return np.uint8(np.clip(values, 0, 255))


def gaussian_noise(image, params, source):
    return 255 * (image / 255 + params[0] * source.normal("noise", 3, *image.shape[:2]).transpose(1, 2, 0))


def shot_noise(image, params, source):
    """Not a function of the package's uniform numbers: takes a numpy generator."""
    return 255 * source.generator.poisson(image / 255 * params[0]) / params[0]


def impulse_noise(image, params, source):
    """Not a function of the package's uniform numbers: takes a numpy generator."""
    return 255 * random_noise(image / 255, mode="s&p", amount=params[0], rng=source.generator)


def speckle_noise(image, params, source):
    x = image / 255
    return 255 * (x + x * params[0] * source.normal("noise", 3, *image.shape[:2]).transpose(1, 2, 0))


def defocus_blur(image, params, source):
    radius, softness = params
    reach, width = (8, 3) if radius <= 8 else (int(radius), 5)
    span = np.arange(-reach, reach + 1)
    across, down = np.meshgrid(span, span)
    kernel = np.float32(across**2 + down**2 <= radius**2)
    kernel = cv2.GaussianBlur(kernel / kernel.sum(), (width, width), softness)
    return np.dstack([255 * cv2.filter2D(image[..., c] / 255, -1, kernel) for c in range(3)])


def glass_blur(image, params, source):
    sigma, reach, rounds = params[0], int(params[1]), int(params[2])
    height, width = image.shape[:2]
    pixels = np.uint8(255 * gaussian(image / 255, sigma=sigma, channel_axis=-1))
    for turn in range(rounds):
        steps = np.floor(source.between(f"steps {turn}", -reach, reach, 2, height, width)).astype(int)
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = steps[:, row, column]
                pixels[row, column] = pixels[row + down, column + right]
    return 255 * gaussian(pixels / 255, sigma=sigma, channel_axis=-1)


def smeared(image, radius, sigma, angle):
    """Average along a line that starts at each pixel, the image continued by its edge pixels."""
    length = 2 * int(radius) + 1
    weight = np.exp(-(np.arange(length) ** 2) / (2 * sigma**2))
    height, width = image.shape[:2]
    margin = [(length, length), (length, length)] + [(0, 0)] * (image.ndim - 2)
    wide = np.pad(image.astype(float), margin, mode="edge")
    total = np.zeros(image.shape)
    for i in range(length):
        top = length + int(np.ceil(i * np.sin(np.radians(angle)) - 0.5))
        left = length + int(np.ceil(i * np.cos(np.radians(angle)) - 0.5))
        total += weight[i] / weight.sum() * wide[top : top + height, left : left + width]
    return np.floor(np.round(total * 257) / 257)  # rounded to 16 bits, truncated to 8


def motion_blur(image, params, source):
    return smeared(image, *params, float(source.between("angle", -45, 45)))


def clipped_zoom(image, factor):
    """Magnify the centre of a square image (H, H, C)."""
    size = image.shape[0]
    crop = int(np.ceil(size / factor))
    top = (size - crop) // 2
    large = stretch(image[top : top + crop, top : top + crop], (factor, factor, 1), order=1)
    trim = (large.shape[0] - size) // 2
    return large[trim : trim + size, trim : trim + size]


def zoom_blur(image, params, source):
    x = image / 255
    versions = [x] + [clipped_zoom(x, factor) for factor in np.arange(1, *params)]
    return 255 * np.mean(versions, axis=0)


def snow(image, params, source):
    mean, sigma, factor, threshold, radius, spread, kept = params
    x = np.float32(image) / 255
    layer = clipped_zoom(mean + sigma * source.normal("flakes", 1, *image.shape[:2])[0][..., None], factor)
    layer[layer < threshold] = 0
    layer = np.uint8(255 * np.clip(layer[..., 0], 0, 1))
    layer = smeared(layer, radius, spread, float(source.between("angle", -135, -45)))[..., None] / 255
    grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]
    x = kept * x + (1 - kept) * np.maximum(x, 1.5 * grey + 0.5)
    return 255 * (x + layer + np.rot90(layer, 2))


def frost(image, params, source, plates):
    """Photographs `plates`, uint8 (H', W', 3), already shrunk."""
    choice, down, right = source.uniform("crop", 3)
    plate = plates[int(choice * len(plates))]
    height, width = image.shape[:2]
    top, left = int(down * (plate.shape[0] - height)), int(right * (plate.shape[1] - width))
    return params[0] * image + params[1] * plate[top : top + height, left : left + width]


def plasma(noise, decay):
    """Diamond-square on a torus: every new point is the mean of its four neighbours, and some noise."""
    size = len(noise)
    rows, columns = np.indices(noise.shape)
    field = np.zeros_like(noise)
    rough, step = 100.0, size
    while step >= 2:
        half = step // 2
        odd_row, odd_column = rows % step == half, columns % step == half
        even_row, even_column = rows % step == 0, columns % step == 0
        diagonal = [(a, b) for a in (-half, half) for b in (-half, half)]
        straight = [(half, 0), (-half, 0), (0, half), (0, -half)]
        centres = odd_row & odd_column
        edges = (odd_row & even_column) | (even_row & odd_column)
        for new, neighbours in ((centres, diagonal), (edges, straight)):
            mean = sum(np.roll(field, shift, (0, 1)) for shift in neighbours) / 4
            field = np.where(new, mean + rough * rough * noise, field)
        step, rough = half, rough / decay
    return (field - field.min()) / (field.max() - field.min())


def fog(image, params, source):
    amount, decay = params
    height, width = image.shape[:2]
    size = 2 ** int(np.ceil(np.log2(max(height, width))))
    x = image / 255
    field = plasma(source.between("field", -1, 1, size, size), decay)[:height, :width, None]
    return 255 * (x + amount * field) * x.max() / (x.max() + amount)


def brightness(image, params, source):
    hsv = rgb2hsv(image / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + params[0], 0, 1)
    return 255 * hsv2rgb(hsv)


def contrast(image, params, source):
    x = image / 255
    mean = x.mean((0, 1), keepdims=True)
    return 255 * ((x - mean) * params[0] + mean)


def elastic_transform(image, params, source):
    height, width = image.shape[:2]
    alpha, sigma, jitter = (share * min(height, width) for share in params)
    centre, out = np.array([width // 2, height // 2]), min(height, width) // 3
    corners = np.float32(centre + out * np.array([[1, 1], [1, -1], [-1, -1]]))
    moved = corners + np.float32(source.between("corners", -jitter, jitter, 3, 2))
    back = cv2.invertAffineTransform(cv2.getAffineTransform(corners, moved))
    rows, columns = np.mgrid[:height, :width]
    x, y = (back[i, 0] * columns + back[i, 1] * rows + back[i, 2] for i in (0, 1))
    turned = np.dstack([map_coordinates(image[..., c] / 255, [y, x], order=1, mode="mirror") for c in range(3)])
    right, down = (
        alpha * gaussian(field, sigma, mode="reflect", truncate=3)
        for field in source.between("field", -1, 1, 2, height, width)
    )
    places = [rows + down, columns + right]
    return 255 * np.dstack([map_coordinates(turned[..., c], places, order=1, mode="reflect") for c in range(3)])


def pixelate(image, params, source):
    height, width = image.shape[:2]
    small = int(width * params[0]), int(height * params[0])
    shrunk = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.asarray(shrunk.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(image, params, source):
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(params[0]))
    return np.asarray(Image.open(file))


def gaussian_blur(image, params, source):
    return 255 * gaussian(image / 255, sigma=params[0], channel_axis=-1)


def spatter(image, params, source):
    mean, sigma, smoothness, threshold, strength, mud = params
    x = image / 255
    layer = gaussian(mean + sigma * source.normal("drops", 1, *image.shape[:2])[0], sigma=smoothness)
    layer[layer < threshold] = 0
    if mud:
        cover = gaussian(np.float32(layer > threshold), sigma=strength)
        cover[cover < 0.8] = 0
        return 255 * (1 - cover[..., None]) * x + cover[..., None] * np.array([63, 42, 20])
    liquid = np.uint8(255 * layer)
    distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.threshold(distance, 20, 20, cv2.THRESH_TRUNC)[1]
    relief = cv2.equalizeHist(np.uint8(cv2.blur(distance, (3, 3))))
    relief = cv2.filter2D(relief, cv2.CV_8U, np.array([[-2.0, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    light = liquid * np.float32(cv2.blur(relief, (3, 3)))
    light = light / light.max() if light.max() > 0 else light
    return 255 * x + strength * light[..., None] * np.array([175, 238, 238])


def saturate(image, params, source):
    hsv = rgb2hsv(image / 255)
    hsv[..., 1] = np.clip(hsv[..., 1] * params[0] + params[1], 0, 1)
    return 255 * hsv2rgb(hsv)


REFERENCES: dict[str, Reference] = {
    function.__name__: function
    for function in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        glass_blur,
        motion_blur,
        zoom_blur,
        snow,
        frost,
        fog,
        brightness,
        contrast,
        elastic_transform,
        pixelate,
        jpeg_compression,
        speckle_noise,
        gaussian_blur,
        spatter,
        saturate,
    )
}
