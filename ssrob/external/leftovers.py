"""What an earlier call into the same folder has left: outputs are removed, finished blocks used if they are the same.

A folder that a user names may hold files of their own: nothing is removed but what this module's callers wrote.
"""

import contextlib
import hashlib
import shutil
import sys
from pathlib import Path
from types import TracebackType

from torch import Tensor, nn

from ssrob.attacks.sweep import digest
from ssrob.external.entry import DOCUMENT
from ssrob.runtime.sweep_cache import BlockStore

OUTPUTS = ("robustness.parquet", "checks.parquet", "corruptions.parquet", DOCUMENT, "report.html")
FIGURES = "figures/robust_accuracy.*"


def remove_outputs(out: Path) -> None:
    """Remove what an earlier evaluation wrote, so that nothing of it stands beside the new one."""
    for file in (*(out / name for name in OUTPUTS), *out.glob(FIGURES)):
        file.unlink(missing_ok=True)


class BlockFolder:
    """The blocks of one sweep while it runs: found again by a call after a kill, if model and images are the same.

    The same: its logits of the images, to the bit, and the source files of its own code; a sweep adds the weights and
    its settings. Blocks of other models are removed, and all of them on a normal exit.
    """

    def __init__(self, out: Path, model: nn.Module, logits: Tensor):
        self.root, self.name = out / "blocks", model_digest(model, logits)

    def __enter__(self) -> BlockStore:
        for other in self.root.glob("model-*"):
            if other.name != self.name:
                shutil.rmtree(other)
        return BlockStore(self.root / self.name)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            shutil.rmtree(self.root / self.name)
            with contextlib.suppress(OSError):  # not empty: something of the user's
                self.root.rmdir()


def model_digest(model: nn.Module, logits: Tensor) -> str:
    """Return a name that changes with what a model computes for the test images and with its source code."""
    kinds = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")}
    files = {file for kind in kinds if (file := getattr(sys.modules.get(kind.__module__), "__file__", None))}
    code = hashlib.sha256(b"".join(Path(file).read_bytes() for file in sorted(files)))
    return f"model-{digest(code.hexdigest(), logits)[:16]}"
