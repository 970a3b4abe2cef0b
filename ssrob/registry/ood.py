"""Out-of-distribution detection: scores and synthetic image sets, one row each. Imports no torch."""

from dataclasses import dataclass

HELD_OUT = "held_out"  # the images of the classes that a study's data holds out
TEST_IMAGES = "test"  # the name of the model's own test images among the image sets of results


@dataclass(frozen=True)
class Score:
    """One score of an image, higher for images of the training distribution.

    function: "module:name" of the outputs that `takes` names, attributes of `ssrob.ood.detector.Outputs`; returns (B,).
    forwards: passes of the network. head: of the network that it needs. words: what it is, for people.
    """

    function: str
    takes: tuple[str, ...]
    words: str
    forwards: int = 1
    head: str = ""


SCORES: dict[str, Score] = {
    "max_softmax": Score("ssrob.ood.scores:max_softmax", ("logits",), "largest class probability"),
    "max_logit": Score("ssrob.ood.scores:max_logit", ("logits",), "largest logit"),
    "energy": Score("ssrob.ood.scores:energy", ("logits",), "log of the summed exponentials of the logits"),
    "nearest_neighbour": Score(
        "ssrob.ood.scores:nearest_neighbour",
        ("features", "bank", "k"),
        "distance to the k-th nearest training features",
    ),
    "rotation_loss": Score(
        "ssrob.ood.scores:rotation_loss",
        ("turned",),
        "how well the rotation head recognises all four quarter turns",
        4,
        "rotation",
    ),
    "rotation": Score(
        "ssrob.ood.scores:rotation",
        ("logits", "turned"),
        "the same, and how far the class probabilities are from uniform",
        4,
        "rotation",
    ),
}

SYNTHETIC: dict[str, str] = {
    "gaussian": "ssrob.ood.image_sets:gaussian",
    "uniform": "ssrob.ood.image_sets:uniform",
    "rademacher": "ssrob.ood.image_sets:rademacher",
    "blobs": "ssrob.ood.image_sets:blobs",
    "textures": "ssrob.ood.image_sets:textures",
}
