"""What MLflow calls to load a model that `ssrob.tracking.model` wrote. Imports no mlflow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssrob.config.plugins import import_plugins
from ssrob.models.network import CLASS_HEAD, Network
from ssrob.models.serialization import load_network
from ssrob.tracking.model import PLUGINS, WEIGHTS

BATCH = 256


class Predictor:
    """A network behind MLflow's interface; `network` is the module itself, in eval mode."""

    def __init__(self, network: Network):
        self.network = network

    @torch.no_grad()
    def predict(self, images: NDArray[np.float32], params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Images (N, C, H, W) in [0, 1] -> logits (N, K), or features (N, D) of a network without classes."""
        answer = self.network if CLASS_HEAD in self.network.heads else self.network.features
        parts = torch.split(torch.from_numpy(np.asarray(images, dtype=np.float32)), BATCH)
        outputs: NDArray[np.float32] = torch.cat([answer(part) for part in parts]).numpy()
        return outputs


def _load_pyfunc(path: str) -> Predictor:
    """Load the model in a folder (the name is MLflow's)."""
    folder = Path(path)
    import_plugins(json.loads((folder / PLUGINS).read_text()), str(folder))
    return Predictor(load_network(folder / WEIGHTS))
