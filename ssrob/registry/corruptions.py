"""The table of corruptions: the 19 of CIFAR-10-C and those of plugins. Imports no torch."""

from dataclasses import dataclass
from numbers import Integral

from ssrob.registry.lookup import check_choice

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """One corruption: "module:function" of (x, params, draws), and its family.

    benchmark: one of the 15 that benchmark numbers are averaged over.
    severities: its five, of a plugin; those of the benchmark's stand in `parameters`.
    on_bytes: x and the result are uint8 images (B, H, W, C), not a float64 batch (B, C, H, W) in [0, 1].
    """

    function: str
    family: str = "other"
    benchmark: bool = False
    severities: tuple[tuple[float, ...], ...] | None = None
    on_bytes: bool = False

    def __post_init__(self) -> None:
        if self.severities is not None and len(self.severities) != len(SEVERITIES):
            raise ValueError(f"a corruption has {len(SEVERITIES)} severities, found {len(self.severities)}")


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("ssrob.corruptions.noise:gaussian_noise", "noise", benchmark=True),
    "shot_noise": Corruption("ssrob.corruptions.noise:shot_noise", "noise", benchmark=True),
    "impulse_noise": Corruption("ssrob.corruptions.noise:impulse_noise", "noise", benchmark=True, on_bytes=True),
    "defocus_blur": Corruption("ssrob.corruptions.blur:defocus_blur", "blur", benchmark=True, on_bytes=True),
    "glass_blur": Corruption("ssrob.corruptions.blur:glass_blur", "blur", benchmark=True),
    "motion_blur": Corruption("ssrob.corruptions.blur:motion_blur", "blur", benchmark=True),
    "zoom_blur": Corruption("ssrob.corruptions.blur:zoom_blur", "blur", benchmark=True),
    "snow": Corruption("ssrob.corruptions.weather:snow", "weather", benchmark=True),
    "frost": Corruption("ssrob.corruptions.weather:frost", "weather", benchmark=True),
    "fog": Corruption("ssrob.corruptions.weather:fog", "weather", benchmark=True, on_bytes=True),
    "brightness": Corruption("ssrob.corruptions.weather:brightness", "weather", benchmark=True),
    "contrast": Corruption("ssrob.corruptions.digital:contrast", "digital", benchmark=True),
    "elastic_transform": Corruption("ssrob.corruptions.digital:elastic_transform", "digital", benchmark=True),
    "pixelate": Corruption("ssrob.corruptions.digital:pixelate", "digital", benchmark=True, on_bytes=True),
    "jpeg_compression": Corruption(
        "ssrob.corruptions.digital:jpeg_compression", "digital", benchmark=True, on_bytes=True
    ),
    "speckle_noise": Corruption("ssrob.corruptions.noise:speckle_noise", "noise"),
    "gaussian_blur": Corruption("ssrob.corruptions.blur:gaussian_blur", "blur"),
    "spatter": Corruption("ssrob.corruptions.weather:spatter", "weather"),
    "saturate": Corruption("ssrob.corruptions.digital:saturate", "digital"),
}
"""By name, in the benchmark's order; plugins add rows."""

BENCHMARK = tuple(name for name, row in CORRUPTIONS.items() if row.benchmark)
"""The 15 corruptions that benchmark numbers are averaged over."""

EXTRA = tuple(name for name in CORRUPTIONS if name not in BENCHMARK)
"""The four that Hendrycks & Dietterich (2019) keep apart, for choosing and validating."""

NAMES = BENCHMARK + EXTRA


def families() -> dict[str, tuple[str, ...]]:
    """Return the corruptions of each family, those of plugins included."""
    by_family: dict[str, tuple[str, ...]] = {}
    for name, row in CORRUPTIONS.items():
        by_family[row.family] = (*by_family.get(row.family, ()), name)
    return by_family


def check_name(name: str) -> None:
    """Raise a ValueError that lists the known names and suggests the nearest, unless `name` is one."""
    check_choice("corruption", str(name), CORRUPTIONS)


def check_severity(severity: int) -> None:
    """Raise a ValueError unless `severity` is one of the integers 1..5."""
    if isinstance(severity, bool) or not isinstance(severity, Integral) or severity not in SEVERITIES:
        raise ValueError(f"severity must be an integer 1..5, found {severity!r}")
