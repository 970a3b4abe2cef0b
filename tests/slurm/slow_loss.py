"""Cross-entropy that takes a second, while the file $SSROB_TEST_SLOW exists: a training to be disturbed."""

import os
import time
from pathlib import Path
from typing import Any

from ssrob.losses.supervised import xent
from ssrob.registry.losses import LOSSES
from torch import Tensor


def slow_xent(*given: Any) -> Tensor:
    """Return `xent` of the same arguments."""
    if Path(os.environ.get("SSROB_TEST_SLOW", "/nowhere")).exists():
        time.sleep(1)
    return xent(*given)


LOSSES["slow_xent"] = type(LOSSES["xent"])("slow_loss:slow_xent")
