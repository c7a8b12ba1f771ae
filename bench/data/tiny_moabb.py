"""The tiny world's corpus as MOABB datasets, one for each device; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import mne
from moabb.datasets.base import BaseDataset

from bench.data.recordings import as_raw
from bench.data.tiny import DEVICES, Device, TinyWorld, corpus_recording


class Tiny(BaseDataset):
    """The recordings of one device. Subject s is the s-th person recorded with it."""

    def __init__(self, world: TinyWorld, device: Device):
        self.world = world
        self.numbers = range(DEVICES.index(device), world.recordings, len(DEVICES))
        super().__init__(
            subjects=list(range(1, len(self.numbers) + 1)), sessions_per_subject=1, events={"stimulus": 1, "rest": 2},
            code=f"Tiny{device.name.lower()}", interval=[0, 0.5], paradigm="imagery")

    def number(self, subject: int) -> int:
        """Returns the number of a subject's recording in the corpus."""
        return self.numbers[subject - 1]

    def _get_single_subject_data(self, subject: int) -> dict[str, dict[str, mne.io.BaseRaw]]:
        recording = corpus_recording(self.world, self.number(subject))
        return {"0": {"0": as_raw(recording.data, recording.sfreq, recording.ch_names, recording.annotations)}}

    def data_path(self, *_: Any, **__: Any) -> list[str]:
        """Returns no paths, as nothing is on disk."""
        return []
