"""What the fields of a config are made of: names, numbers, weights, and models that refuse unknown keys. No torch."""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from ssrob.registry.lookup import check_choice
from ssrob.registry.losses import LOSSES

Norm = Literal["linf", "l2"]
Precision = Literal["float32", "bfloat16"]
Search = Literal["bracket", "ascending"]
SeverityTable = Literal["cifar", "imagenet"]
Checkpoint = Literal["best", "last"]
Tune = Literal["full", "head"]


class ConfigError(ValueError):
    """A config that cannot be run; the message names the field, what was found and what is allowed."""


def parse_number(value: object) -> object:
    """Read ``8/255`` as a fraction; leave everything else that is a number to pydantic."""
    if isinstance(value, str):
        try:
            above, *below = map(float, value.split("/", 1))
            return above / below[0] if below else value
        except ZeroDivisionError:
            raise ValueError(f"cannot divide by zero in {value!r}") from None
        except ValueError:
            raise ValueError(f"expected a valid number such as 0.03 or 8/255, found {value!r}") from None
    return not_a_word("a number", value)


def parse_whole(value: object) -> object:
    """Read ``1e3`` as the whole number that it is; leave everything else that is a number to pydantic."""
    if isinstance(value, str) and "e" in value.lower():
        with contextlib.suppress(ValueError):
            return int(number) if (number := float(value)).is_integer() else value
    return not_a_word("a whole number", value)


def not_a_word(expected: str, value: object) -> object:
    """Refuse true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        words = "yes and on" if value else "no and off"
        raise ValueError(f"expected {expected}, found {str(value).lower()} (as YAML reads {words}, too)")
    return value


def expand(path: object) -> str:
    """Replace ``~`` and ``$NAME`` in a path, as a shell does; raises ValueError where one stands for nothing."""
    found = os.path.expanduser(os.path.expandvars(str(path)))
    if found.startswith("~") or re.search(r"\$(\w|\{)", found):
        raise ValueError(f"no such home folder or environment variable, found {str(path)!r}")
    return found


def expand_uri(uri: str) -> str:
    """Replace ``~`` and ``$NAME`` in the path of a local tracking store, such as ``sqlite:///~/mlflow.db``."""
    start, path = re.fullmatch(r"(sqlite:///|file:(?://)?|)(.*)", uri, re.DOTALL).groups()  # type: ignore[union-attr]
    return uri if "://" in path or path.startswith("databricks") else start + expand(path)


def parse_resize(value: object) -> object:
    """Read what the shorter side of images is resized to: ``256`` (bilinear, as torchvision's) or ``256 bicubic``."""
    match = RESIZE.fullmatch(str(value)) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError(f"expected pixels of the shorter side such as 256 or '256 bicubic', found {value!r}")
    return f"{int(match.group(1))} {match.group(2) or 'bilinear'}"


def parse_weight(value: object) -> object:
    """Check a loss weight: a number, or the study's SSL weight as ``w``, ``0.5*w`` or ``w/2``."""
    match = WEIGHT.fullmatch(value) if isinstance(value, str) else None
    if isinstance(value, str) and match is None:
        try:
            value = parse_weight(float(str(parse_number(value))))
        except ValueError:
            rule = "a weight is a finite number >= 0, or the SSL weight as 'w', '0.5*w' or 'w/2'"
            raise ValueError(f"{rule}; found {value!r}") from None
    if match is not None and float(match.group(2) or 1) == 0:
        raise ValueError(f"cannot divide by zero in {value!r}")
    if isinstance(value, bool) or (isinstance(value, int | float) and not 0 <= value < float("inf")):
        raise ValueError(f"a weight is a finite number >= 0, found {value!r}")
    return value


def as_list(value: object) -> object:
    """Let a config write one item where a list is meant."""
    return value if isinstance(value, list | tuple) or value is None else [value]


def a_list(value: object) -> object:
    """Refuse one number where only a list is clear: ``seeds: 3`` might be meant as three of them."""
    if isinstance(value, int | float | str):
        raise ValueError(f"expected a list such as [0, 1, 2] (one alone: [{value}]), found {value!r}")
    return value


def distinct(values: list[Any]) -> list[Any]:
    """Refuse a list that is empty or names something twice."""
    if not values:
        raise ValueError("expected at least one entry, found an empty list")
    if len(set(values)) < len(values):
        raise ValueError(f"every entry once; found {values}")
    return values


def parse_name(value: object) -> object:
    """Say in words what a name may be; it becomes part of folders and of commands."""
    if isinstance(value, str) and not re.fullmatch(NAME, value):
        message = "expected a name of letters, digits, '_', '.' and '-', beginning with a letter or digit, 64 at most"
        raise ValueError(f"{message}; found {value!r}")
    return value


@dataclass(frozen=True)
class Choice:
    """A name that must be one of `names()`; where plugins or the study itself may add some, editors are offered those.

    open: not checked here, because the study as a whole knows the names.
    """

    what: str
    names: Callable[[], Iterable[str]]
    open: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Check the name after all that its type asks for."""
        schema = handler(source)
        return schema if self.open else core_schema.no_info_after_validator_function(self._checked, schema)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Offer the names, and take any string."""
        return {"anyOf": [{"enum": sorted(self.names())}, handler(schema)]}

    def _checked(self, name: str) -> str:
        return check_choice(self.what, name, self.names())


NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
RESIZE = re.compile(r"\s*([1-9]\d{0,3})(?:\s+(bilinear|bicubic))?\s*")
WEIGHT = re.compile(r"(?:(\d+(?:\.\d+)?)\s*\*\s*)?w(?:\s*/\s*(\d+(?:\.\d+)?))?")
_FRACTION = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[0-9.]+\s*/\s*[0-9.]+$"}]}
_WEIGHT_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": f"^{WEIGHT.pattern}$"}]}

_RESIZE_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{RESIZE.pattern}$"}]}

# These stand after the bounds of a field: what comes last is applied first.
NUMBER, WHOLE = BeforeValidator(parse_number), BeforeValidator(parse_whole)
Resize = Annotated[str, BeforeValidator(parse_resize), WithJsonSchema(_RESIZE_SCHEMA)]
Number = Annotated[float, NUMBER, WithJsonSchema(_FRACTION)]
Positive = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Uri = Annotated[str, BeforeValidator(lambda value: expand_uri(value) if isinstance(value, str) else value)]
AnyPath = Annotated[Path, BeforeValidator(lambda value: expand(value) if isinstance(value, str | Path) else value)]
Count = Annotated[int, Field(ge=1), WHOLE]
# Of fields that take either; no part of where a mistake is.
FORMS = ("a number", "by norm")
SETS = ("a name", "a data set")
ImagesPerNorm = Annotated[
    Annotated[Count, Tag(FORMS[0])] | Annotated[dict[Norm, Count], Tag(FORMS[1])],
    Discriminator(lambda value: FORMS[isinstance(value, dict)]),
]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63), WHOLE]  # tables hold it in 64 bits
Weight = Annotated[float | str, BeforeValidator(parse_weight), WithJsonSchema(_WEIGHT_SCHEMA)]
Name = Annotated[str, Field(pattern=NAME), BeforeValidator(parse_name)]
Seeds = Annotated[list[Seed], BeforeValidator(a_list), AfterValidator(distinct)]
LossName = Annotated[str, Choice("loss or task", lambda: [*LOSSES, "ssl"])]
LossArgument = Annotated[int | float, BeforeValidator(parse_number), WithJsonSchema(_FRACTION)]
Task = Annotated[str, Choice("SSL task", lambda: [name for name, row in LOSSES.items() if row.self_supervised])]
Terms = Annotated[dict[LossName, Weight], Field(min_length=1)]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys, and says which are known.

    renamed: earlier names of fields, still accepted -> names of today. removed: fields that are gone -> the value
    that changes nothing, which is still accepted, and what holds instead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)
    renamed: ClassVar[Mapping[str, str]] = {}
    removed: ClassVar[Mapping[str, tuple[object, str]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_keys(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or cls.model_config.get("extra") != "forbid":
            return value
        value = {key: given for key, given in value.items() if key not in cls.removed or given != cls.removed[key][0]}
        for key in value:
            if key in cls.removed:
                raise ValueError(f"{key} was removed: {cls.removed[key][1]}; found {value[key]!r}")
            check_choice("key", str(cls.renamed.get(key, key)), cls.model_fields)
            if key in cls.renamed and cls.renamed[key] in value:
                raise ValueError(f"{key} is the earlier name of {cls.renamed[key]}: give one of them, found both")
        return {cls.renamed.get(key, key): given for key, given in value.items()}
