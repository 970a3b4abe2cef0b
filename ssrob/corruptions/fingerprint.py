"""Which files a folder of corruptions holds: photographs of frost, or published arrays. Imports no torch."""

import hashlib
from pathlib import Path

from ssrob.corruptions.imagenetc import is_tree, tree_listing

WHOLE = 10_000_000  # bytes up to which a file's content counts; of the published arrays, 150 MB each, the size does


def fingerprint(folder: Path) -> str:
    """Return a digest of the names, sizes and contents (of files up to `WHOLE` bytes) in a folder.

    Of ImageNet-C's folders, nearly four million files, names and sizes of one class at each severity.
    """
    digest = hashlib.blake2b(digest_size=16)
    if is_tree(folder):
        digest.update("\n".join(tree_listing(folder)).encode(errors="surrogateescape"))
    for file in sorted(folder.iterdir()):
        if file.is_file():
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            if size <= WHOLE:
                digest.update(file.read_bytes())
    return digest.hexdigest()
