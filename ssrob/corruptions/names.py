"""The names of the 19 corruptions of CIFAR-10-C, their order and their families. Imports no torch."""

from dataclasses import dataclass

from ssrob.catalog import known

BENCHMARK = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The 15 corruptions that benchmark numbers are averaged over."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The four that Hendrycks & Dietterich (2019) keep apart, for choosing and validating."""

NAMES = BENCHMARK + EXTRA
SEVERITIES = (1, 2, 3, 4, 5)

FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
}


@dataclass(frozen=True)
class Added:
    """A corruption of a plugin: "module:function" of (x, params, draws), its five severities, and its family."""

    function: str
    severities: tuple[tuple[float, ...], ...]
    family: str = "other"

    def __post_init__(self) -> None:
        if len(self.severities) != len(SEVERITIES):
            raise ValueError(f"a corruption has {len(SEVERITIES)} severities, found {len(self.severities)}")


ADDED: dict[str, Added] = {}
"""Corruptions of plugins by name; no part of the benchmark's averages."""


def all_names() -> tuple[str, ...]:
    """Return the names of all corruptions, those of plugins last."""
    return (*NAMES, *ADDED)


def families() -> dict[str, tuple[str, ...]]:
    """Return the corruptions of each family, those of plugins included."""
    found = dict(FAMILIES)
    for name, row in ADDED.items():
        found[row.family] = (*found.get(row.family, ()), name)
    return found


def check_name(name: str) -> None:
    """Raise a ValueError that lists the known names and suggests the nearest, unless `name` is one."""
    known("corruption", str(name), all_names())


def check_severity(severity: int) -> None:
    """Raise a ValueError unless `severity` is one of the integers 1..5."""
    if isinstance(severity, bool | float) or severity not in SEVERITIES:
        raise ValueError(f"severity must be an integer 1..5, found {severity!r}")
