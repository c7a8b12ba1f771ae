"""The store: a folder for each stage, leases, journals, provenance."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol


class Keyed(Hashable, Protocol):
    """A value with a folder in the store, such as every bench.experiment.key.Stage."""

    @property
    def key(self) -> str: ...  # 64 hex digits, the name of the folder

    @property
    def kind(self) -> str: ...  # the kind of stage, in lower case

    @property
    def document(self) -> str: ...  # the JSON whose hash is the key
