"""Which output of a model stands for which class of the data: by a file, a list, the model's own names, or numbers."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ssrob.config.fields import expand
from ssrob.config.yaml_text import YamlError, read_texts

OVER = ("allowed", "all")  # accuracy over the outputs of the data's classes alone, or over all that the model has
_ATTRIBUTES = ("classes", "class_names", "label_names", "categories", "names", "id2label")


def outputs_of(text: str, classes: Sequence[str], model: nn.Module, count: int) -> tuple[int, ...]:
    """Return the output for each class of the data; `count` outputs there are.

    text: "model" (its own names), "numbers" (the classes' names are numbers of outputs), a file, or the names in the
    order of the outputs, separated by commas. A file, or text in brackets or braces, is JSON or YAML: a list in the
    order of the outputs, {name: output} or {output: name or names}; else a name a line, or NAME,OUTPUT.
    """
    known = _known(text, model, classes)
    loose: dict[str, set[int]] = {}
    for name, outputs in known.items():
        loose.setdefault(_plain(name), set()).update(outputs)
    by_class = {name: known.get(name) or loose.get(_plain(name), set()) for name in classes}
    missing = [name for name, outputs in by_class.items() if not outputs]
    if missing:
        shown = ", ".join(map(repr, list(known)[:3]))
        raise ValueError(
            f"--classes: {len(missing)} of {len(classes)} classes are not among its names, such as "
            f"{missing[0]!r}; it has {len(known)}, such as {shown}"
        )
    if several := [name for name, outputs in by_class.items() if len(outputs) > 1]:
        numbers = sorted(by_class[several[0]])
        raise ValueError(f"--classes: {several[0]!r} names several outputs, {numbers}; use names that are distinct")
    chosen = tuple(next(iter(outputs)) for outputs in by_class.values())
    if outside := [output for output in chosen if not 0 <= output < count]:
        raise ValueError(f"--classes: outputs must be 0..{count - 1} (the model's), found {outside[0]}")
    if len(set(chosen)) < len(chosen):
        twice = next(output for output in chosen if chosen.count(output) > 1)
        names = [name for name, output in zip(classes, chosen, strict=True) if output == twice]
        raise ValueError(f"--classes: output {twice} stands for {' and '.join(map(repr, names))}; expected one class")
    return chosen


def _known(text: str, model: nn.Module, classes: Sequence[str]) -> dict[str, set[int]]:
    if text == "model":
        return _by_name(_names_of(model), "--classes model")
    if text == "numbers":
        if strange := [name for name in classes if not name.isdecimal()]:
            raise ValueError(f"--classes numbers: expected classes that are called by numbers, found {strange[0]!r}")
        return {name: {int(name)} for name in classes}
    if text.lstrip().startswith(("[", "{")):
        return _by_name(_parsed(text, "--classes"), "--classes")
    path = Path(expand(text))
    if path.is_file():
        return _of_file(path)
    if "," not in text:
        raise ValueError(f"--classes: expected model, numbers, a file or names separated by commas, found {text!r}")
    return _by_name([name.strip() for name in text.split(",")], "--classes")


def _of_file(path: Path) -> dict[str, set[int]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--classes {path}: cannot be read as text ({error})") from None
    if path.suffix.lower() in (".json", ".yaml", ".yml"):
        return _by_name(_parsed(text, f"--classes {path}"), f"--classes {path}")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = [re.fullmatch(r"(.+?)\s*[,;\t]\s*(\d+)", line) for line in lines]
    if all(pairs):
        return _by_name({pair.group(1): int(pair.group(2)) for pair in pairs if pair}, f"--classes {path}")
    return _by_name([[line, line.split()[0]] for line in lines], f"--classes {path}")


def _parsed(text: str, where: str) -> Any:
    try:
        return read_texts(text)
    except YamlError as error:
        raise ValueError(f"{where}: {error}") from None


def _by_name(names_or_outputs: Any, where: str) -> dict[str, set[int]]:
    """Return the outputs of every name; a list is in the order of the outputs, an entry may be several names."""
    if isinstance(names_or_outputs, list | tuple):
        names_or_outputs = dict(enumerate(names_or_outputs))
    if not isinstance(names_or_outputs, Mapping) or not names_or_outputs:
        raise ValueError(f"{where}: expected a list of names or a mapping, found {type(names_or_outputs).__name__}")
    known: dict[str, set[int]] = {}
    if all(str(key).isdecimal() for key in names_or_outputs):  # output: name or names
        for key, names in names_or_outputs.items():
            for name in names if isinstance(names, list | tuple) else [names]:
                known.setdefault(str(name), set()).add(int(key))
        return known
    for name, output in names_or_outputs.items():
        if not str(output).isdecimal():
            raise ValueError(f"{where}: expected the number of an output for {name!r}, found {output!r}")
        known[str(name)] = {int(output)}
    return known


def _names_of(model: nn.Module) -> Any:
    """Return the class names that a model carries, as Hugging Face's, timm's and fast.ai's do."""
    for module in model.modules():
        for owner in (module, getattr(module, "config", None), getattr(module, "pretrained_cfg", None)):
            for attribute in _ATTRIBUTES:
                value = owner.get(attribute) if isinstance(owner, Mapping) else getattr(owner, attribute, None)
                if isinstance(value, list | tuple | Mapping) and value:
                    return value
    raise ValueError(f"--classes model: the model carries no names; looked for {', '.join(_ATTRIBUTES)}")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()
