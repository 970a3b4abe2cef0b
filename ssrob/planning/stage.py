"""One unit of cached work, and the key that says everything that decides its result. Imports no torch."""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssrob.config.data import Data
from ssrob.config.fields import ConfigError, Strict
from ssrob.registry.stages import STAGES, revision

LONGEST_KEY = 240  # characters; file systems take 255
OPERATIONAL = {"path", "fingerprint", "storage"}  # fields of a data set that decide no result


@dataclass(frozen=True)
class Stage:
    """One unit of cached work: a spec, the stages it reads, and settings that cannot change its result."""

    kind: str
    key: str
    spec: dict[str, Any]
    parents: dict[str, str] = field(default_factory=dict)  # role -> "kind/key"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The stage's place below ``results/stages``."""
        return f"{self.kind}/{self.key}"

    @property
    def before(self) -> list[str]:
        """The stages that are finished before it starts: those it reads, and those that a study wants checked first."""
        return list(dict.fromkeys([*self.parents.values(), *self.settings.get("after", [])]))

    @property
    def name(self) -> str:
        """The readable part of its key, without the digest."""
        return self.key.rpartition("-")[0]

    @property
    def threads(self) -> int:
        """CPU threads that it computes with; part of its spec, as sums over other numbers of threads differ in bits."""
        return int(self.spec.get("threads", self._training.get("threads", 1)))

    @property
    def cores(self) -> int:
        """CPU cores that it keeps busy: its threads in each of its replicas."""
        return self.threads * self.replicas

    @property
    def replicas(self) -> int:
        """Processes that share its work."""
        return int(self._training.get("replicas", 1))

    @property
    def gpus(self) -> int:
        """GPUs that it uses where there are any: as many as it trains replicas, none for a data stage."""
        return int(STAGES[self.kind].gpu) * self.replicas

    @property
    def in_bfloat16(self) -> list[str]:
        """The settings by which it computes in bfloat16, such as ``finetune.precision``."""
        values = {"precision": self._training.get("precision"), "gradients_in": self.spec.get("gradients_in")}
        return [f"{self.kind}.{name}" for name, value in values.items() if value == "bfloat16"]

    @property
    def _training(self) -> dict[str, Any]:
        training: dict[str, Any] = self.spec.get("training", {})
        return training

    def to_json(self) -> str:
        """Write the stage as canonical JSON, the form in which a rule passes it on the command line."""
        return canonical(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Stage":
        """Read a stage and check that its key belongs to its contents."""
        try:
            stage = cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"expected a stage as JSON, as a workflow rule passes it: {error}") from None
        if stage.key != f"{stage.name}-{digest(stage.kind, stage.spec, stage.parents)}":
            raise ConfigError(f"stage {stage.path}: its key does not belong to its spec; was it edited by hand?")
        return stage


def make_stage(
    kind: str, name: str, spec: Strict, parents: dict[str, str], settings: dict[str, Any] | None = None
) -> Stage:
    """Return a stage with its key: a readable name and the digest of kind, revision, spec and parents."""
    # Sorted, as it comes back from the command line: losses added up in another order would give other bits.
    dumped = json.loads(canonical(dump(spec)))
    key = f"{name}-{digest(kind, dumped, parents)}"
    if len(key) > LONGEST_KEY:
        raise ConfigError(f"names: a folder called {key[:60]}... would have {len(key)} characters; shorten names in it")
    return Stage(kind, key, dumped, parents, settings or {})


def data_stage(data: Data, plugins: Sequence[str] = ()) -> Stage:
    """Return the stage that prepares a data set; where it lies is a setting, not part of its identity."""
    settings: dict[str, Any] = {"plugins": list(plugins)} if plugins else {}
    settings |= {name: str(value) for name in OPERATIONAL if (value := getattr(data, name)) is not None}
    return make_stage("data", data.name, data.model_copy(update=dict.fromkeys(OPERATIONAL)), {}, settings)


def data_of(stage: Stage) -> Data:
    """Return the data set of a data stage, with where it lies."""
    return Data.model_validate(stage.spec | {name: stage.settings[name] for name in OPERATIONAL & set(stage.settings)})


def canonical(value: object) -> str:
    """Write JSON in the one form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def dump(value: Any) -> Any:
    """Dump a spec without its defaults, so that a new field with a default changes no key."""
    if isinstance(value, Strict):
        return value.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    if isinstance(value, dict):
        return {key: dump(inner) for key, inner in value.items()}
    return value


def digest(kind: str, spec: dict[str, Any], parents: dict[str, str]) -> str:
    """Hash what decides the result of a stage (or, as kind ``study``, of a study); 10 hexadecimal digits."""
    identity = {"kind": kind, "revision": revision(kind), "spec": spec, "parents": parents}
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:10]


@functools.cache
def file_sha256(path: Path) -> str:
    """Hash a file's content."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
