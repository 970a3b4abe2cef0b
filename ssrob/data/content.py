"""Hashes of what a data source holds, whatever its files are called, and of decoded images. Imports no torch."""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping

import numpy as np

from ssrob.data.types import Digests, Opened, Pixels, Rows, Split


def source_fingerprint(opened: Opened) -> str:
    """Hash the content of a source: every image as it is stored and its label, in order; no file names."""
    splits = {"train": opened.train, "test": opened.test}
    return content_hash({name: (split, np.arange(len(split))) for name, split in splits.items() if split is not None})


def content_hash(splits: Mapping[str, tuple[Split, Rows]]) -> str:
    """Hash rows of named splits: every image as it is stored and its label, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for name, (split, rows) in splits.items():
        digest.update(f"{name} {len(rows)}".encode())
        for label, (_, content) in zip(split.labels[rows], split.read(rows), strict=True):
            stored = content if isinstance(content, bytes) else content.tobytes()
            digest.update(struct.pack("<qq", label, len(stored)) + stored)
    return digest.hexdigest()


def image_digests(images: Iterable[Pixels]) -> Digests:
    """Hash decoded images, each (H, W, C) uint8, to (N,); a grey one is the same with one channel as with three."""
    return np.array([_image_digest(image) for image in images], np.uint64)


def _image_digest(image: Pixels) -> int:
    colour = np.broadcast_to(image, (*image.shape[:2], 3)).tobytes()
    return int.from_bytes(hashlib.blake2b(colour, digest_size=8).digest(), "little")


def digest_of(value: object) -> str:
    """Return a name for a value that JSON can hold."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()
