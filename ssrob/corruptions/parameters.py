"""Severity tables: what each corruption's five severities mean. Imports no torch.

Two tables: "cifar" holds the parameters of CIFAR-10-C and suits images of up to 64 pixels; "imagenet" holds
the stronger ones of ImageNet-C. Both are the values that Hendrycks & Dietterich (2019) made their files with
(github.com/hendrycks/robustness, ImageNet-C/create_c). Lengths are pixels and amounts are in units of images
in [0, 1], except where a comment says otherwise.
"""

from types import MappingProxyType

from ssrob.registry.corruptions import CORRUPTIONS, check_name, check_severity

Params = tuple[float, ...]
Table = dict[str, tuple[Params, Params, Params, Params, Params]]

CIFAR_MAX_SIZE = 64
"""Longest side, in pixels, up to which `table_for` takes the CIFAR-10-C table."""

_CIFAR: Table = {
    # standard deviation
    "gaussian_noise": ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,)),
    # expected photons at x = 1
    "shot_noise": ((500,), (250,), (100,), (75,), (50,)),
    # share of channel values replaced
    "impulse_noise": ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,)),
    # radius, standard deviation that softens the disk's edge
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    # standard deviation, reach of a step, rounds
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    # radius, standard deviation along the line
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    # arange(1, stop, step) of zoom factors
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    # mean, standard deviation, zoom, threshold, motion radius, motion sigma, share of the image kept
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    # weight of the image, weight of the ice, scale of the photographs
    "frost": ((1, 0.2, 0.2), (1, 0.3, 0.2), (0.9, 0.4, 0.2), (0.85, 0.4, 0.2), (0.75, 0.45, 0.2)),
    # amount, decay of the roughness per octave
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    # added to the HSV value
    "brightness": ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,)),
    # factor on the distance from the mean
    "contrast": ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,)),
    # displacement, its smoothness, corner jitter: all three as a share of the shorter side
    "elastic_transform": ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    # share of the side's pixels kept
    "pixelate": ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,)),
    # quality of the encoder
    "jpeg_compression": ((80,), (65,), (58,), (50,), (40,)),
    # standard deviation at x = 1
    "speckle_noise": ((0.06,), (0.1,), (0.12,), (0.16,), (0.2,)),
    # standard deviation
    "gaussian_blur": ((0.4,), (0.6,), (0.7,), (0.8,), (1,)),
    # mean, standard deviation, smoothness, threshold, intensity (water) or edge blur (mud), 1 for mud
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    # factor on, then addition to, the HSV saturation
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}

# The authors write the elastic lengths as multiples of 244 (not 224) pixels; at 224 pixels these shares give
# back exactly their numbers.
_ELASTIC = 244 / 224

_IMAGENET: Table = {
    "gaussian_noise": ((0.08,), (0.12,), (0.18,), (0.26,), (0.38,)),
    "shot_noise": ((60,), (25,), (12,), (5,), (3,)),
    "impulse_noise": ((0.03,), (0.06,), (0.09,), (0.17,), (0.27,)),
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    "frost": ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    "brightness": ((0.1,), (0.2,), (0.3,), (0.4,), (0.5,)),
    "contrast": ((0.4,), (0.3,), (0.2,), (0.1,), (0.05,)),
    "elastic_transform": (
        (2 * _ELASTIC, 0.7 * _ELASTIC, 0.1 * _ELASTIC),
        (2 * _ELASTIC, 0.08 * _ELASTIC, 0.2 * _ELASTIC),
        (0.05 * _ELASTIC, 0.01 * _ELASTIC, 0.02 * _ELASTIC),
        (0.07 * _ELASTIC, 0.01 * _ELASTIC, 0.02 * _ELASTIC),
        (0.12 * _ELASTIC, 0.01 * _ELASTIC, 0.02 * _ELASTIC),
    ),
    "pixelate": ((0.6,), (0.5,), (0.4,), (0.3,), (0.25,)),
    "jpeg_compression": ((25,), (18,), (15,), (10,), (7,)),
    "speckle_noise": ((0.15,), (0.2,), (0.35,), (0.45,), (0.6,)),
    "gaussian_blur": ((1,), (2,), (3,), (4,), (6,)),
    "spatter": (
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
}

TABLES = MappingProxyType({"cifar": _CIFAR, "imagenet": _IMAGENET})


def table_for(size: int) -> str:
    """Return the name of the severity table for images whose longer side is `size` pixels."""
    return "cifar" if size <= CIFAR_MAX_SIZE else "imagenet"


def parameters(name: str, severity: int, table: str) -> Params:
    """Return the parameters of corruption `name` at severity 1..5 in a table ("cifar" or "imagenet")."""
    check_name(name)
    check_severity(severity)
    if table not in TABLES:
        raise ValueError(f"unknown severity table {table!r} (known: {', '.join(TABLES)})")
    severities = CORRUPTIONS[name].severities or TABLES[table].get(name)
    if severities is None:
        raise ValueError(f"corruption {name!r} has no severities: its row in CORRUPTIONS must give all five")
    return severities[severity - 1]
