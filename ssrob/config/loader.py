"""Reading a config: YAML, overrides, plugins, and errors that say where, what was found and what is allowed."""

import difflib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ssrob.config.explain import explain
from ssrob.config.fields import ConfigError
from ssrob.config.findings import Primary, detection_claims
from ssrob.config.plugins import find_plugins_beside, import_plugins
from ssrob.config.study import Study
from ssrob.config.variants import family
from ssrob.config.yaml_text import PATHS, YamlError, read_yaml
from ssrob.registry.ood import SCORES


def parse_study(config: Mapping[str, Any], where: str = "config", overrides: Sequence[str] = ()) -> Study:
    """Check a config that has `overrides` in it, and return the study; raises ConfigError with one line per mistake."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"{where}: expected a mapping of settings, found {type(config).__name__}")
    import_plugins(config.get("plugins") or [], where)
    merged = dict(config)
    for section in ("variants", "pretraining"):
        own = config.get(section) or {}
        merged[section] = {**family()[section], **own} if isinstance(own, Mapping) else own
    try:
        return _with_detection_claims(_with_primary_cell(Study.model_validate(merged), where), where)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, where, _text(where), overrides))) from None


def _text(where: str) -> str:
    """Return the YAML of a config that is called by its file's path; nothing for one that is called otherwise."""
    try:
        return Path(where).read_text() if Path(where).is_file() else ""
    except (OSError, ValueError):
        return ""


def _with_detection_claims(study: Study, where: str) -> Study:
    """Add the shipped claims on detection to a study that tests it; its own of the same name replace them."""
    if study.ood is None:
        return study
    score = study.findings.primary.score
    for name, claim in study.findings.claims.items():
        if claim.measure == "auroc" and claim.where != (0, 0) and score not in study.ood.scores_under_attack:
            message = f"is about attacked images, but {score} (findings.primary.score) is not attacked"
            raise ConfigError(f"{where}: findings.claims.{name}.where: {message}; see ood.attacked_scores")
    claims = {**detection_claims(), **study.findings.claims}
    return study.model_copy(update={"findings": study.findings.model_copy(update={"claims": claims})})


def _with_primary_cell(study: Study, where: str) -> Study:
    """Take the primary cell from the study where the config does not name it; refuse what the study does not have."""
    primary, offered = study.findings.primary, _offered(study)
    usual = primary.model_dump() | {"task": study.ssl.task, "weight": study.ssl.weights[0]}
    changes = {}
    for name, values in offered.items():
        if name not in primary.model_fields_set:
            changes[name] = usual[name] if usual[name] in values else values[0]
        elif getattr(primary, name) not in values:
            message = f"the study has {', '.join(map(str, values))}, found {getattr(primary, name)!r}"
            raise ConfigError(f"{where}: findings.primary.{name}: {message}")
    for name in ("below", "above"):
        changed = getattr(primary, name) != getattr(Primary(), name)
        if changed and not primary.points(name, study.evaluate.eps):
            message = f"no eps of evaluate.eps {study.evaluate.eps} lies in it, found {list(getattr(primary, name))}"
            raise ConfigError(f"{where}: findings.primary.{name}: {message}")
    findings = study.findings.model_copy(update={"primary": primary.model_copy(update=changes)})
    return study.model_copy(update={"findings": findings})


def _offered(study: Study) -> dict[str, list[Any]]:
    """Return what a primary cell may be of, by field: what the arms that it concerns are trained and tested with."""
    blocks = [(block, [study.variants[name] for name in block.variant]) for block in study.arms]
    norms = [block.norm or study.threat for block, variants in blocks if any(each.perturb for each in variants)]
    tasks = [
        block.task or [study.ssl.task]
        for block, variants in blocks
        if any(each.uses_ssl for each in variants) or block.init != ["random"]
    ]
    weights = [
        block.weight or study.ssl.weights for block, variants in blocks if any(each.uses_weight for each in variants)
    ]
    return {
        "norm": list(dict.fromkeys(itertools.chain(*norms or [study.threat]))),
        "task": list(dict.fromkeys(itertools.chain(*tasks or [[study.ssl.task]]))),
        "weight": list(dict.fromkeys(itertools.chain(*weights or [study.ssl.weights]))),
        "init": ["random", *study.pretraining],
        "pretrained": list(study.pretraining),
        "checkpoint": study.evaluate.checkpoints,
        "score": study.ood.scores if study.ood else list(SCORES),
    }


def load_config(path: Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """Read a YAML config and apply overrides such as ``data.path=/somewhere``."""
    try:
        config = _read(Path(path).read_text(), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file{_meant(Path(path))}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: expected a YAML file, found a folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if config is None:
        raise ConfigError(f"{path}: the file is empty")
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, found {type(config).__name__}")
    for override in overrides or []:
        key, sign, value = override.partition("=")
        if not sign:
            raise ConfigError(f"--set {override}: expected KEY=VALUE")
        home = value == "~" and key.rpartition(".")[2] in PATHS  # no shell expands it there
        nested: Any = value if home else _read(value, f"--set {override}")
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(config, nested)
    return config


def _meant(path: Path) -> str:
    """Guess which config was meant by a path that leads nowhere."""
    there = {file.name: file for folder in (path.parent, Path("config")) for file in sorted(folder.glob("*.y*ml"))}
    wanted = (path.name, f"{path.name}.yaml")
    close = [each for name in wanted for each in difflib.get_close_matches(name, there, n=1, cutoff=0.75)]
    return f" (did you mean {there[close[0]]}?)" if close else ""


def _read(text: str, where: str) -> Any:
    try:
        return read_yaml(text)
    except YamlError as error:
        place = f"{where}:{error.line}" if error.line and not where.startswith("--") else where
        raise ConfigError(f"{place}: {error}") from None


def _merge(config: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put changes into a config, mapping by mapping, as Snakemake does with its `--config`."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            config[key] = dict(config[key])  # a YAML alias may be the same mapping elsewhere
            _merge(config[key], value)
        else:
            config[key] = value


def restore_nulls(config: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Make null in a config what Snakemake reads as the text "null" from its `--config`; given: those settings."""
    for key, value in given.items():
        if value == "null":
            config[key] = None
        elif isinstance(value, Mapping) and isinstance(config.get(key), dict):
            restore_nulls(config[key], value)


def load_study(path: Path | str, overrides: list[str] | None = None) -> Study:
    """Read and check a config file."""
    path = Path(path)
    config = load_config(path, overrides)
    find_plugins_beside(path, config.get("plugins") or [])
    return parse_study(config, str(path), overrides or [])
