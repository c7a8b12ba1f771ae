"""What the store keeps folders for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol


class Keyed(Hashable, Protocol):
    """A value that names its folder: every stage (bench.experiment.key.Stage) is one."""

    @property
    def key(self) -> str:
        """64 hex digits, the name of the folder."""

    @property
    def kind(self) -> str:
        """The kind of stage, in lower case."""

    @property
    def document(self) -> str:
        """JSON of all that the key is the hash of."""
