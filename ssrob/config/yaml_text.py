"""Reading YAML as people mean it: every key once, and no number that YAML 1.1 makes something else of. No torch."""

import re
from typing import Any

import yaml

PATHS = frozenset({"path", "results", "weights", "frost", "official"})  # keys whose value is a file or a folder
_OCTAL = re.compile(r"[-+]?0[0-9_]{2,}")  # 01 to 07 are what they look like, 08 and 09 are text
_NULL = "tag:yaml.org,2002:null"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class YamlError(ValueError):
    """Text that cannot be read, or not as it is meant; `line` counts from 1."""

    def __init__(self, message: str, line: int | None = None):
        super().__init__(message)
        self.line = line


class _Once(yaml.SafeLoader):
    """Refuses a key that is given twice; of two values PyYAML would silently take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Look at keys before merges (``<<``), which may override."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {key.value!r} is given twice")
            seen.add((key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key))
            self.check_pair(key, value)
        return node

    def check_pair(self, key: yaml.Node, value: yaml.Node) -> None:
        """Refuse a value that does not go with its key."""


class _Values(_Once):
    """Refuses plain text of which YAML 1.1 makes another number than people read."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Look at a value as it is written."""
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if node.style is None and node.tag in _NUMBERS:
            how = "base 60" if ":" in node.value else "base 8" if _OCTAL.fullmatch(node.value) else ""
            if how:
                made = self.construct_object(node)
                remedy = "write a decimal number, or quotes around text"
                raise YamlError(f"{node.value} is {made:g} to YAML ({how}); {remedy}", node.start_mark.line + 1)
        return node

    def check_pair(self, key: yaml.Node, value: yaml.Node) -> None:
        """Refuse a home folder that YAML takes for nothing."""
        if key.value in PATHS and value.tag == _NULL and value.value == "~":
            remedy = "write '~' in quotes or $HOME for the home folder, null for nothing"
            raise YamlError(f"{key.value}: ~ is nothing (null) to YAML; {remedy}", value.start_mark.line + 1)


class _Texts(_Once):
    """Reads every value as the text that is written."""

    yaml_implicit_resolvers: dict[str, Any] = {}


def read_yaml(text: str) -> Any:
    """Read YAML 1.1 with null, booleans, numbers and dates; raises YamlError."""
    return _load(text, _Values, "YAML")


def read_texts(text: str) -> Any:
    """Read YAML or JSON whose values and keys are all text: ``no`` is a name, and so is ``007``."""
    return _load(text, _Texts, "JSON or YAML")


def _load(text: str, loader: type[yaml.SafeLoader], what: str) -> Any:
    try:
        return yaml.load(text, loader)
    except yaml.MarkedYAMLError as error:
        words = ": ".join(filter(None, (error.context, error.problem)))
        mark = error.problem_mark or error.context_mark
        raise YamlError(f"cannot be read as {what}: {words}", mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise YamlError(f"cannot be read as {what}: {' '.join(str(error).split())}") from None
