"""What an earlier call into the same folder has left: outputs are removed, finished blocks used if they are the same.

A folder that a user names may hold files of their own: nothing is removed but what this module's callers wrote.
"""

import contextlib
import hashlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

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


@contextlib.contextmanager
def blocks_of(out: Path, model: nn.Module, logits: Tensor) -> Iterator[BlockStore]:
    """Keep the blocks of a sweep while it runs; a call after a kill goes on with them if model and images are the same.

    The same: its logits of the images, to the bit, and the source files of its own code; a sweep adds the weights and
    its settings. Blocks of other models are removed, and all of them on a normal exit.
    """
    root, name = out / "blocks", model_digest(model, logits)
    for other in root.glob("model-*"):
        if other.name != name:
            shutil.rmtree(other)
    yield BlockStore(root / name)
    shutil.rmtree(root / name)
    with contextlib.suppress(OSError):  # not empty: something of the user's
        root.rmdir()


def model_digest(model: nn.Module, logits: Tensor) -> str:
    """Return a name that changes with what a model computes for the test images and with its source code."""
    kinds = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")}
    files = {file for kind in kinds if (file := getattr(sys.modules.get(kind.__module__), "__file__", None))}
    code = hashlib.sha256(b"".join(Path(file).read_bytes() for file in sorted(files)))
    return f"model-{digest(code.hexdigest(), logits)[:16]}"
