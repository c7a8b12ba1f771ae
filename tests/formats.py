"""Tiny files in the formats in which data sets are published: the same bytes for the same seed, but for legacy .pth."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from bench.data.rehearsal_files import draw, save, write_imagenet_eeg
from bench.errors import BenchError

__all__ = ["Bomb", "draw", "save", "write_alljoined", "write_imagenet_eeg", "write_things"]

COCO = (9, 25, 30, 34, 36, 42, 49, 61, 64, 71, 72, 73)  # some of each part among them


class Bomb:
    """Writes a file when it is unpickled without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def write_things(folder, variant="gifford", subjects=(1, 2), concepts=10, seed=0):
    """Writes THINGS-EEG2's files and folder/images.

    variant: "gifford" (np.save of a dict, 17 channels, 100 Hz) or "nice" (a pickle under the name .npy, 63 channels,
    250 Hz, 300 times of 250 samples). Two pictures of each concept x 4 repetitions to train, 5 x 8 to test.
    """
    rng = np.random.default_rng(seed)
    channels, times, samples = {"gifford": (17, np.arange(-20, 80) / 100, 100),
                                "nice": (63, np.arange(-50, 250) / 250, 250)}[variant]
    names = [f"E{number + 1}" for number in range(channels)]
    metadata = {}
    for part, prefix, first, count, each in (("train", "training", 0, concepts, 2), ("test", "test", concepts, 5, 1)):
        titles = [f"{number + 1:05d}_thing_{chr(97 + first + number)}" for number in range(count)]
        files = [(title, f"{title[6:]}_{copy + 1:02d}b.jpg") for title in titles for copy in range(each)]
        for number, (title, file) in enumerate(files):
            draw(folder / "images" / f"{prefix}_images" / title / file, first + number // each, concepts + 5, 32, rng)
        metadata[f"{part}_img_concepts"] = [title for title, _ in files]
        metadata[f"{part}_img_concepts_THINGS"] = [title for title, _ in files]
        metadata[f"{part}_img_files"] = [file for _, file in files]
        for subject in subjects:
            place = folder / f"sub-{subject:02d}"
            place.mkdir(parents=True, exist_ok=True)
            eeg = rng.standard_normal((len(files), 4 if part == "train" else 8, channels, samples))
            content = {"preprocessed_eeg_data": eeg, "ch_names": names, "times": times}
            dump(place / f"preprocessed_eeg_{prefix}.npy", content, variant)
    np.save(folder / "image_metadata.npy", metadata)


def dump(path, content, variant):
    """Writes a dict as one of the variants does."""
    if variant == "gifford":
        np.save(path, content)
    else:
        path.write_bytes(pickle.dumps(content, protocol=4))


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
