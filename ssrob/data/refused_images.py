"""Images that cannot be used, gathered so that one message names them all. Imports no torch."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from ssrob.data.types import DataError

SHOWN = 10  # images that a message names


@dataclass
class RefusedImages:
    """How many images cannot be used, and what is wrong with the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Note an image's DataError, and go on."""
        try:
            yield
        except DataError as error:
            self.count += 1
            self.first = [*self.first, str(error)][:SHOWN]

    def add(self, others: "RefusedImages") -> None:
        """Add those of another part of the data."""
        self.count += others.count
        self.first = [*self.first, *others.first][:SHOWN]

    def check(self, among: str = "") -> None:
        """Raise a DataError if there are any; among: which images were looked at, if not all."""
        if self.count == 1:
            raise DataError(self.first[0])
        if self.count:
            more = f"\n  and {self.count - len(self.first):,} more" if self.count > len(self.first) else ""
            listed = "".join(f"\n  {line}" for line in self.first)
            raise DataError(
                f"{self.count:,} images{among} cannot be used; replace them or take them away:{listed}{more}"
            )
