"""Mistakes in a config, in one line each: the file and line, the field, what was found and what is allowed."""

import datetime
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from ssrob.config.fields import FORMS, SETS
from ssrob.config.study import Study

LINE = 300  # characters of a message, however long a value of the config is
Location = Sequence[int | str]  # the keys and list positions that lead to a field


def explain(error: ValidationError, where: str = "", text: str = "", overrides: Sequence[str] = ()) -> list[str]:
    """Say in one line per mistake where it is, what was found and what is allowed.

    where: what the config is called. text: its YAML, if it comes from a file, for the line of each mistake.
    overrides: what the command line puts in place of the text, as KEY=VALUE.
    """
    return list(dict.fromkeys(_lines(error, where, text, overrides)))


def _lines(error: ValidationError, where: str, text: str, overrides: Sequence[str]) -> Iterator[str]:
    for item in error.errors(include_url=False):
        location = [part for part in item["loc"] if part not in ("[key]", "float", "str", *FORMS, *SETS)]
        message = item["msg"].removeprefix("Value error, ")
        found = "" if item["type"] in ("value_error", "missing") else f", found {_shown(item['input'], item['type'])}"
        path = ".".join(map(str, location))
        simple = item["type"] != "value_error" or message.startswith("expected a")  # says what a type is, not a field
        meaning = description(location) if where and simple else ""
        place = f"{where}:{line}" if (line := line_of(text, location)) else where
        place = next((f"--set {each}" for each in reversed(overrides) if _is_about(each, path, message)), place)
        yield _cut(": ".join(part for part in (place, path, f"{message}{found}") if part), meaning)


def _is_about(override: str, path: str, message: str) -> bool:
    """Say whether a mistake at `path` is one of an override: of its field or in its value, or a key that it adds."""
    key = override.partition("=")[0]
    parent, _, last = key.rpartition(".")
    return f"{path}.".startswith(f"{key}.") or (path == parent and message.startswith(f"unknown key {last!r}"))


def _cut(line: str, meaning: str) -> str:
    meaning = " ".join(meaning.split())  # a description may go over several lines
    line = f"{line} ({meaning.removesuffix('.')})" if meaning else line
    return line if len(line) <= LINE else f"{line[: LINE - 3]}..."


def description(location: Location) -> str:
    """Return what the schema says of a field, or nothing where a location leads to no field of its own."""
    schema, node = _schema(), _schema()
    text = ""
    for part in location:
        node = next((inner for inner in _resolved(node, schema) if _child(inner, part) is not None), {})
        child = _child(node, part)
        if child is None:
            return ""
        text, node = child.get("description", "" if isinstance(part, str) else text), child
    return text


def line_of(text: str, location: Location) -> int | None:
    """Return the line of a YAML text, from 1, on which a location stands, or the last part of it that is there."""
    try:
        node = yaml.compose(text, yaml.SafeLoader) if text else None
    except yaml.YAMLError:
        return None
    line = None
    for part in location:
        found = _inner(node, part)
        if found is None:
            return line
        line, node = found
    return line


def _inner(node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
    """Return the line and the node of a key or a list position. One value stands for a list of one."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


@functools.cache
def _schema() -> dict[str, Any]:
    return Study.model_json_schema()


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a schema's node, what it refers to, and its alternatives."""
    if "$ref" in node:
        yield from _resolved(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    for inner in node.get("anyOf", []):
        yield from _resolved(inner, schema)
    yield node


def _child(node: dict[str, Any], part: int | str) -> dict[str, Any] | None:
    child = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
    if child is None and isinstance(part, str) and isinstance(node.get("additionalProperties"), dict):
        child = node["additionalProperties"]
    return child if isinstance(child, dict) else None


def _shown(value: object, expected: str) -> str:
    """Show a value, and where text was expected, what YAML has made of it."""
    text = _short(value)
    if expected not in ("string_type", "path_type", "literal_error") or isinstance(value, str | list | tuple | dict):
        return text
    if value is None:
        return "null, as YAML reads ~ and a value that is left out"
    if isinstance(value, bool):
        text = f"{str(value).lower()}, as YAML reads {'yes and on' if value else 'no and off'}"
    elif isinstance(value, datetime.date):
        text = f"the date {value.isoformat()}"
    return f"{text}; write text in quotes"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
