"""Models of other packages by name: torchvision, timm, and the model zoo of RobustBench."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssrob.config.data import Data
from ssrob.config.fields import Norm
from ssrob.formatting import one_line
from ssrob.registry.architectures import check_architecture
from ssrob.registry.attacks import AUTOATTACK_NORMS
from ssrob.registry.lookup import check_choice


@dataclass(frozen=True)
class Asked:
    """What an evaluation says beside the model, which may decide which model is meant."""

    norm: Norm
    data: Data


def torchvision_model(name: str, asked: Asked | None, **arguments: Any) -> Any:
    """Make a classifier of torchvision; without `weights` among the arguments it is untrained."""
    import torchvision

    check_architecture("torchvision", name)
    return torchvision.models.get_model(name, **{"weights": None, **arguments})


def timm_model(name: str, asked: Asked | None, **arguments: Any) -> Any:
    """Make a model of timm; without ``pretrained: true`` among the arguments it is untrained."""
    import timm

    if ":" not in name:  # a hub's name is the hub's affair
        check_architecture("timm", name.partition(".")[0])
    return timm.create_model(name, **arguments)


def robustbench_model(name: str, asked: Asked | None, **arguments: Any) -> Any:
    """Load a model of RobustBench with its weights, which it downloads into `model_dir` if they are not there.

    The arguments `dataset` and `threat_model` are the evaluation's unless they are given.
    """
    from robustbench.model_zoo import model_dicts
    from robustbench.utils import load_model

    zoo = {data.value: {threat.value: models for threat, models in each.items()} for data, each in model_dicts.items()}
    chosen = {"model_dir": "models", "threat_model": AUTOATTACK_NORMS[asked.norm if asked else "linf"]} | arguments
    chosen["dataset"] = chosen.get("dataset") or _dataset(asked, zoo)
    dataset = check_choice("dataset of RobustBench", chosen["dataset"], zoo)
    threat = check_choice(f"threat model of RobustBench for {dataset}", chosen["threat_model"], zoo[dataset])
    check_choice(f"model of RobustBench for {dataset} and {threat}", name, zoo[dataset][threat])
    try:
        return load_model(model_name=name, **chosen)
    except Exception as error:  # of downloads, of files and of pickles: whatever the package raises
        place = Path(chosen["model_dir"], dataset, threat, f"{name}.pt")
        raise ValueError(
            f"RobustBench cannot load {name} ({one_line(error)}); its weights belong in {place}"
        ) from error


def _dataset(asked: Asked | None, zoo: Mapping[str, Any]) -> str:
    """Return which of RobustBench's data sets the images are of, by source or name."""
    names = (asked.data.source, asked.data.name) if asked else ()
    dataset = next((name for name in names if name in zoo), None)
    if dataset is None:
        say = """--model-args '{"dataset": "imagenet"}'"""
        raise ValueError(f"it needs to know which of {', '.join(zoo)} the images are of, as by {say}")
    return dataset
