"""Write the reference pages from the code: config fields, commands, table columns, and the Python entry points.

python docs/generate.py           writes docs/reference/*.md
python docs/generate.py --check   exits with 1 and names the pages that are out of date
"""

import ast
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ssrob
from ssrob import attacks, cli
from ssrob.config.study import Study
from ssrob.storage import tables
from typer.main import get_command

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code; change it there. -->\n"
# Sections in the order in which a config is written, with the model of the schema that each of them is.
SECTIONS = {
    "The study": "Study",
    "data, pretrain_data": "Data",
    "model": "Model",
    "threat": "Threat",
    "pretrain, finetune": "Training",
    "ssl": "Ssl",
    "pretraining": "Pretraining",
    "variants": "Variant",
    "variants.NAME.perturb": "Perturb",
    "arms": "Arms",
    "arms.equal_passes": "EqualPasses",
    "evaluate": "Evaluation",
    "corrupt": "CorruptionTest",
    "probe": "Probing",
    "diagnose": "Diagnosis",
    "findings": "Findings",
    "findings.primary": "Primary",
}


def config_page() -> Iterator[str]:
    """Config fields, a table for each section."""
    schema = Study.model_json_schema()
    models = {"Study": schema} | schema["$defs"]
    """Config fields, a table for each section."""
    yield "# Config\n\nA study is one YAML file with these sections. Numbers may be fractions (`8/255`); every eps is"
    yield "in [0, 1] pixel units. Unknown keys are refused. Editors complete from `config/schema.json` with this:\n"
    yield "```yaml\n# yaml-language-server: $schema=schema.json\n```\n"
    listed = {*SECTIONS.values()}
    assert listed <= {*models}, listed - {*models}
    more = {name: name for name in models if name not in listed}
    for title, name in (SECTIONS | more).items():
        model = models[name]
        yield f"## {title}\n\n{_line(model.get('description', ''))}\n"
        yield "| field | what it is | values | default |\n|---|---|---|---|"
        required = model.get("required", [])
        for field, row in model.get("properties", {}).items():
            default = "required" if field in required else f"`{json.dumps(row.get('default'))}`"
            if default == "`null`":
                default = ""
            elif len(default) > 60 or '": ' in default:
                default = "see its section"
            yield f"| `{field}` | {_line(row.get('description', ''))} | {_values(row)} | {default} |"
        yield ""


def _values(row: dict[str, Any]) -> str:
    """Say in words what a schema allows."""
    if "$ref" in row or "const" in row:
        return "a section" if "$ref" in row else f"`{row['const']}`"
    if "enum" in row:
        return ", ".join(f"`{value}`" for value in row["enum"])
    if "anyOf" in row:
        offered = [inner for inner in row["anyOf"] if "enum" in inner]
        parts = [_values(inner) for inner in row["anyOf"] if inner.get("type") != "null"]
        return f"{_values(offered[0])}, or a name of your own" if offered else " or ".join(dict.fromkeys(parts))
    if row.get("type") == "array":
        inner = _values(row["items"]) if "items" in row else "anything"
        return f"a list: {inner}"
    limits = [f"{sign} {row[key]:g}" for key, sign in LIMITS.items() if abs(row.get(key, UNSAID)) < UNSAID]
    return " ".join([WORDS.get(row.get("type", ""), "a section"), *limits])


UNSAID = 1e15  # a limit of the machine, not of the field
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
WORDS = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}


def commands_page() -> Iterator[str]:
    """Commands with their options."""
    yield "# Commands\n\n`ssrob COMMAND -h` prints the same. `--set KEY=VALUE` overrides a setting of the config.\n"
    group = get_command(cli.app)
    for name, command in getattr(group, "commands", {}).items():
        context = command.make_context(f"ssrob {name}", [], resilient_parsing=True)
        usage = command.get_usage(context).removeprefix("Usage: ")
        yield f"## {name}\n\n{_line(command.help or '')}\n\n```text\n{usage}\n```\n"
        rows = [each.get_help_record(context) for each in command.params]
        shown = [row for row in rows if row]
        if shown:
            yield "| option | meaning |\n|---|---|"
            yield from (f"| `{option}` | {_line(meaning)} |" for option, meaning in shown)
            yield ""


def tables_page() -> Iterator[str]:
    """Columns of every table of a study."""
    yield "# Tables\n\n`ssrob where CONFIG` says where a study's tables are. Each is a parquet file, whose schema holds"
    yield "the same sentences. `ssrob.read_table(path)` reads one as a pandas data frame.\n"
    for name, columns in tables.COLLECTED.items():
        yield f"## {name}.parquet\n\n| column | type | what it holds |\n|---|---|---|"
        yield from (f"| `{column}` | {kind} | {_line(holds)} |" for column, (kind, holds) in columns.items())
        yield ""


def python_page() -> Iterator[str]:
    """What `import ssrob` and `ssrob.attacks` offer, with signatures and docstrings."""
    yield "# Python\n\n`import ssrob` offers these; torch is loaded when one of them first needs it.\n"
    for module, names in ((ssrob, ssrob.__all__), (attacks, getattr(attacks, "__all__", []))):
        for name in names:
            offered = getattr(module, name)
            if callable(offered):
                yield f"## {module.__name__}.{name}\n\n```python\n{_signature(offered)}\n```\n"
                yield f"```text\n{inspect.getdoc(offered)}\n```\n"


def _signature(function: Callable[..., Any]) -> str:
    """Return a function's signature as its source writes it, one argument a line."""
    (node,) = ast.parse(inspect.getsource(function)).body
    assert isinstance(node, ast.FunctionDef)
    plain, keyword = node.args.args, node.args.kwonlyargs
    defaults = [None] * (len(plain) - len(node.args.defaults)) + [*node.args.defaults] + [*node.args.kw_defaults]
    lines = [ast.unparse(each) for each in (*plain, *keyword)]
    lines = [f"{line} = {ast.unparse(value)}" if value else line for line, value in zip(lines, defaults, strict=True)]
    if keyword:
        lines.insert(len(plain), "*")
    return (
        f"{node.name}(\n"
        + "".join(f"    {line},\n" for line in lines)
        + f") -> {ast.unparse(node.returns or ast.Constant(None))}"
    )


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("``", "`")


PAGES = {"config.md": config_page, "commands.md": commands_page, "tables.md": tables_page, "python.md": python_page}


def main() -> int:
    """Write or check all pages; returns the exit code."""
    stale = []
    for name, page in PAGES.items():
        text, path = NOTE + "\n".join(page()).rstrip() + "\n", REFERENCE / name
        if path.is_file() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text)
    if stale and "--check" in sys.argv:
        print(f"docs/reference is out of date: {', '.join(stale)}; run python docs/generate.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
