"""Tiny files in the formats in which data sets are published: the same bytes for the same seed, but for legacy .pth."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import BenchError
from bench.setup.rehearsal.files import draw, dump, save, write_imagenet_eeg, write_things

__all__ = ["Bomb", "draw", "dump", "save", "write_alljoined", "write_imagenet_eeg", "write_things"]

COCO = (9, 25, 30, 34, 36, 42, 49, 61, 64, 71, 72, 73)  # some of each part among them


class Bomb:
    """Writes a file when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def write_alljoined(folder, subjects=(1, 2), blocks=6, each=3, samples=334, seed=0, scale=1e-5):
    """Writes Alljoined1's parquet files (train and test) and folder/images; returns its rows without their EEG."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(seed)
    for number, coco in enumerate(COCO):
        draw(folder / "images" / f"{coco:012d}.jpg", number, len(COCO), 32, rng)
    rows = [{"subject_id": subject, "session": 1, "block": block, "trial": trial, "73k_id": 100 + own, "coco_id": own,
             "curr_time": 10.0 * block + trial}
            for subject in subjects for block in range(1, blocks + 1) for trial in range(each)
            for own in (int(rng.choice(COCO)),)]
    signals = pa.list_(pa.list_(pa.float64()))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for part, own in (("train", rows[: len(rows) // 2]), ("test", rows[len(rows) // 2:])):
        eeg = scale * rng.standard_normal((len(own), 64, samples))
        table = pa.table({"EEG": pa.array(eeg.tolist(), signals)}
                         | {name: [row[name] for row in own] for name in own[0]})
        parquet.write_table(table, folder / "data" / f"{part}-00000-of-00001.parquet")
    return rows


def prepares_nothing(prepare, out, said, exit_code):
    """Preparing `out` ends with all that in one line, and what was prepared there before is untouched."""
    out.mkdir(parents=True)
    (out / "manifest.json").write_text("before")
    with pytest.raises(BenchError) as caught:
        prepare()
    assert caught.value.exit_code == exit_code
    assert "\n" not in str(caught.value)
    for text in said:
        assert text in str(caught.value)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    assert (out / "manifest.json").read_text() == "before"
