"""Whether two evaluations can be compared: the same images and labels, attacked in the same way."""

from ssrob.external.saved import Saved
from ssrob.formatting import NORMS, eps_text


def refuse_unlike(a: Saved, b: Saved) -> None:
    """Raise a ValueError that says what differs and what to do, or return."""
    if a.folder.resolve() == b.folder.resolve():
        raise ValueError(f"cannot compare: {a.folder} and {b.folder} are the same folder")
    _refuse("was attacked in", NORMS[a.norm], NORMS[b.norm], "give both the same --norm")
    _refuse("was tested on", _images(a), _images(b), "give both the same --data and --images")
    _refuse("was attacked by", _attacks(a), _attacks(b), "give both the same --preset; a model must be differentiable")
    precision = [str(each.document["gradients_in"]) for each in (a, b)]
    _refuse("had its gradients in", precision[0], precision[1], "give both one --gradients-in")
    labels, other = (each.examples["label"] for each in (a, b))
    if differing := int((labels.to_numpy() != other.to_numpy()).sum()):
        remedy = "give both classes in one order, and the same --classes and --over"
        raise ValueError(f"cannot compare: labels differ for {differing} of {len(labels)} images; {remedy}")
    if not set(a.eps) & set(b.eps):
        found = ", B ".join(", ".join(map(eps_text, each.eps)) or "none" for each in (a, b))
        raise ValueError(f"cannot compare: no eps in common, found A {found}")


def corruptions_alike(a: Saved, b: Saved) -> bool:
    """Return whether both were tested on the same corrupted images."""
    ours, theirs = (each.document["facts"].get("corruptions") for each in (a, b))
    if ours is None or ours != theirs:
        return False
    return bool(ours["images"] == "official files") or a.document["seed"] == b.document["seed"]


def remarks(a: Saved, b: Saved) -> list[str]:
    """Say what was left out of a comparison, and what a reader has to know of either side."""
    notes = [
        f"Left out: {side} alone was attacked at eps {', '.join(map(eps_text, sorted(alone)))}."
        for side, alone in (("A", {*a.eps} - {*b.eps}), ("B", {*b.eps} - {*a.eps}))
        if alone
    ]
    tested = [side for side, each in (("A", a), ("B", b)) if "corruptions" in each.document["facts"]]
    if tested and not corruptions_alike(a, b):
        reason = "made with other settings or another --seed" if len(tested) == 2 else f"{tested[0]} alone has them"
        notes.append(f"Left out: corruptions; {reason}.")
    for side, each in (("A", a), ("B", b)):
        if failed := each.document["failed_checks"]:
            notes.append(f"Warning: {side} failed checks ({', '.join(failed)}); its numbers may be too high.")
    if len({each.document["facts"]["model"]["weights_sha256"] for each in (a, b)}) == 1:
        notes.append("A and B have the same weights.")
    return notes


def _refuse(what: str, a: str, b: str, remedy: str) -> None:
    if a != b:
        raise ValueError(f"cannot compare: A {what} {a}, B {what} {b}; {remedy}")


def _images(saved: Saved) -> str:
    facts = saved.document["facts"]
    return f"{facts['n']:,} images of {facts['dataset']} (sha256 {facts['images_sha256'][:12]})"


def _attacks(saved: Saved) -> str:
    attacks = ", ".join(saved.document["facts"]["attacks"])
    return f"preset {saved.document['attack']} ({attacks})"
