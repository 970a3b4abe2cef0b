"""The natural-corruption test of a trained model."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from ssrob.corruptions import corrupt
from ssrob.data.test_split import open_test
from ssrob.models.saved import load_network
from ssrob.stage_specs import CorruptSpec
from ssrob.stages import Context
from ssrob.tables import CORRUPTED, write_table

BATCH = 1000


def stage(context: Context) -> None:
    """Run a corrupt stage: every corruption at every severity on one checkpoint."""
    spec = CorruptSpec.model_validate(context.stage.spec)
    model = load_network(context.parent("model") / f"{spec.checkpoint}.safetensors").to(context.device)
    images, labels, index = open_test(context.parent("data"), spec.images)
    frost = Path(context.stage.settings["frost"]) if spec.frost_photographs else None
    rows = []
    with context.progress(total=len(spec.names) * len(spec.severities), unit="test") as bar:
        for name in spec.names:
            for severity in spec.severities:
                corrupted = corrupt(images, name, severity, seed=spec.seed, index=index, frost=frost)
                hits = predict(model, corrupted, context.device) == np.asarray(labels)
                rows.append((name, severity, len(hits), np.packbits(hits).tobytes()))
                bar.update()
    table = pd.DataFrame(rows, columns=list(CORRUPTED))
    write_table(table, CORRUPTED, context.out / "corruptions.parquet")
    shares = [np.unpackbits(np.frombuffer(row[3], np.uint8), count=row[2]).mean() for row in rows]
    context.summary = f"mean accuracy {100 * float(np.mean(shares)):.1f} % over {len(spec.names)} corruptions"


@torch.no_grad()
def predict(model: nn.Module, images: np.ndarray, device: torch.device) -> np.ndarray:
    """Classify uint8 images (N, H, W, C); returns (N,) classes. The model takes (B, C, H, W) in [0, 1]."""
    classes = []
    for chunk in np.array_split(images, max(1, len(images) // BATCH)):
        x = torch.from_numpy(np.ascontiguousarray(chunk)).to(device).permute(0, 3, 1, 2).float() / 255
        classes.append(model(x).argmax(dim=1).cpu().numpy())
    return np.concatenate(classes)
