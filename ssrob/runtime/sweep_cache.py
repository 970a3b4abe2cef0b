"""Finished blocks of a sweep, kept in a folder, so that a killed evaluation does not attack them again."""

import logging
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

from torch import Tensor

from ssrob.runtime import checkpoint

_log = logging.getLogger(__name__)
_SUFFIX = ".block"


class BlockStore(MutableMapping[str, dict[str, Tensor]]):
    """One file per block, written atomically and with a checksum; a damaged one counts as missing.

    `then` is called after a block was stored: the moment to stop a sweep without losing work.
    """

    def __init__(self, folder: Path, then: Callable[[], None] = lambda: None):
        self.folder, self.then = folder, then
        folder.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, key: str) -> dict[str, Tensor]:
        try:
            return checkpoint.load(self._file(key))
        except FileNotFoundError:
            raise KeyError(key) from None
        except checkpoint.DamagedCheckpoint as damaged:
            _log.warning("%s: its images are attacked again", damaged)
            raise KeyError(key) from None

    def __setitem__(self, key: str, outcome: dict[str, Tensor]) -> None:
        checkpoint.save(outcome, self._file(key))
        self.then()

    def __delitem__(self, key: str) -> None:
        try:
            self._file(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        return (file.stem for file in sorted(self.folder.glob(f"*{_SUFFIX}")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"
