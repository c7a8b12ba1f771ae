"""Reading a corpus: order of rows, replicated channels, damaged or missing files; and a tiny world's corpus."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data import catalogue, corpora, shard_writer, shards
from bench.errors import ENVIRONMENT, USAGE, BenchError
from bench.execute.build import build
from bench.experiment import datasets
from bench.experiment.scale import MICRO
from bench.experiment.stages import Corpus, Shards
from bench.runtime import Runtime
from bench.store.store import Store
from bench.train.corpus import corpus

BAND = (5.0, 95.0)
SIZES = {("a", 1): (32, 7), ("a", 2): (32, 5), ("b", 1): (62, 6), ("c", 3): (128, 4)}  # (channels, windows)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus of random windows of 32, 62 and 128 channels, through the writer of corpora, and those windows."""
    root, rng, truth, receipts = tmp_path_factory.mktemp("data"), np.random.default_rng(0), [], []
    work = corpora.open_work_folder(root / "corpora" / "made", catalogue.Cutting())
    for (name, subject), (channels, n) in SIZES.items():
        windows = rng.standard_normal((n, channels, 512)).astype(np.float16)
        writer = shard_writer.ShardWriter(work, name, subject)
        writer.add(windows[:3], [("0", "0", float(i)) for i in range(3)], 250.0, [5.0, 95.0])
        writer.add(windows[3:], [("0", "1", float(i)) for i in range(n - 3)], 250.0, [5.0, 95.0])
        receipts.append(writer.close(Counter(), Counter()))
        truth += list(windows)
    wanted = {"band": list(BAND), "datasets": ["a", "b", "c"], "subjects": None,
              "window": {"n_times": 512, "per_subject": None, "sfreq": None, "stride": 512}}
    shard_writer.finish_corpus("made", root, work, receipts, wanted, [])
    return datasets.find_corpus("made", root), truth


@pytest.fixture
def copy(made, tmp_path):
    """The same in a folder that a test may damage."""
    path = tmp_path / "corpora" / "made"
    shutil.copytree(made[0].path, path)
    return Shards(made[0].name, made[0].sha256, made[0].n_chans, made[0].n_times, str(path))


def built(world, folder, band=BAND):
    folder.mkdir(exist_ok=True)
    corpus(Corpus(world, band), lambda stage: folder, folder, Runtime())
    return folder


def test_windows_come_in_the_order_asked_for_with_channels_replicated(made):
    value, truth = made
    windows = shards.open_shards(Path(value.path), value.sha256)
    assert (len(windows), windows.n_chans, windows.n_times) == (22, 128, 512)
    rows = np.array([21, 0, 13, 13, 6, 7, 17])
    found = windows.gather(rows)
    assert (found.shape, found.dtype) == ((7, 128, 512), torch.float32)
    for window, row in zip(found.numpy(), rows, strict=True):
        own = truth[row].astype(np.float32)
        assert np.array_equal(window, own[np.arange(128) % len(own)])


def test_a_batch_has_a_block_for_each_number_of_channels_as_stored(made):
    value, truth = made
    rows = np.array([21, 0, 13, 8])
    blocks = shards.open_shards(Path(value.path), value.sha256).batch(rows)
    assert sorted(block.shape for _, block in blocks) == [(1, 62, 512), (1, 128, 512), (2, 32, 512)]
    for positions, block in blocks:
        assert block.dtype == np.float16
        for position, window in zip(positions, block, strict=True):
            assert np.array_equal(window, truth[rows[position]])


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batches_that_are_read_ahead_are_those_that_are_read_alone_in_the_same_order(made, workers):
    windows = shards.open_shards(Path(made[0].path), made[0].sha256)
    order = [np.random.default_rng(i).integers(0, 22, 9) for i in range(30)]
    for rows, found in zip(order, windows.batches(order, workers=workers), strict=True):
        assert torch.equal(found, windows.gather(rows))


def test_reading_ahead_ends_with_the_loop_that_leaves_it(made):
    windows = shards.open_shards(Path(made[0].path), made[0].sha256)
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield np.arange(4)

    for turn, _ in enumerate(windows.batches(endless())):
        if turn == 3:
            break
    assert len(asked) <= 3 + 1 + shards.AHEAD + 1


def test_parts_are_rows_and_together_all_of_them(made):
    windows = shards.open_shards(Path(made[0].path), made[0].sha256)
    rows = np.concatenate([windows.rows("train"), windows.rows("held_out")])
    assert sorted(rows) == list(range(22))
    with pytest.raises(BenchError, match="no part 'test' in the corpus; available: held_out, train"):
        windows.rows("test")


def test_a_row_that_does_not_exist_is_an_error_and_no_row_from_the_end(made):
    windows = shards.open_shards(Path(made[0].path), made[0].sha256)
    for wrong in (-1, 22):
        with pytest.raises(BenchError, match="the corpus has 22 windows"):
            windows.gather(np.array([0, wrong]))


def test_a_tiny_worlds_windows_are_bit_for_bit_those_of_its_file(micro):
    folder = micro.path(MICRO.windows())
    windows, stored = shards.open_corpus(folder), np.load(folder / "windows.npy")
    assert (len(windows), windows.n_chans, windows.n_times) == stored.shape
    assert windows.batch(np.array([3]))[0][1].dtype == np.float32
    for part in ("train", "held_out"):
        rows = windows.rows(part)
        assert np.array_equal(windows.gather(rows).numpy(), stored[rows])
    assert len(windows.rows("train")) + len(windows.rows("held_out")) == len(stored)


def test_the_stage_of_a_prepared_corpus_copies_no_window_and_is_found_again(made, tmp_path):
    value, truth = made
    stage, store = Corpus(value, BAND), Store(tmp_path / "store")
    build(stage, store)
    folder = store.path(stage)
    assert sorted(file.name for file in folder.iterdir()) == ["MANIFEST.json", "index.csv", "manifest.json",
                                                             "shards.json"]
    assert np.array_equal(shards.open_corpus(folder).batch(np.array([2]))[0][1][0], truth[2])
    moved = Corpus(Shards(value.name, value.sha256, value.n_chans, value.n_times, "elsewhere"), BAND)
    assert store.path(moved) == folder  # the path is in no key


def test_a_corpus_of_another_band_is_refused(made, tmp_path):
    with pytest.raises(BenchError, match="prepared at 5-95 Hz, not 14-70 Hz") as error:
        built(made[0], tmp_path / "stage", (14.0, 70.0))
    assert error.value.exit_code == USAGE


def test_a_corpus_that_is_planned_with_but_not_prepared_is_named(tmp_path):
    message = "corpus moabb_v046 is not prepared; run: bench data prepare moabb_v046"
    with pytest.raises(BenchError, match=message) as error:
        built(Shards("moabb_v046", "", 128, 512), tmp_path / "stage")
    assert error.value.exit_code == ENVIRONMENT


def test_a_corpus_that_has_moved_is_named_with_its_place(copy, tmp_path):
    folder = built(copy, tmp_path / "stage")
    shutil.move(copy.path, tmp_path / "elsewhere")
    with pytest.raises(BenchError, match=f"no prepared corpus at {copy.path}") as error:
        shards.open_corpus(folder)
    assert error.value.exit_code == ENVIRONMENT


def test_a_corpus_that_was_prepared_anew_is_not_taken_for_the_old_one(copy, tmp_path):
    folder, manifest = built(copy, tmp_path / "stage"), Path(copy.path) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"name": "other"}))
    for use in (lambda: shards.open_corpus(folder), lambda: built(copy, tmp_path / "second")):
        with pytest.raises(BenchError, match=f"not {copy.sha256[:12]}: the corpus was prepared again") as error:
            use()
        assert error.value.exit_code == ENVIRONMENT


def test_a_truncated_or_missing_shard_is_named_with_its_size(copy):
    shard = Path(copy.path) / "b" / "sub-001_C062.npy"
    size = shard.stat().st_size
    with shard.open("r+b") as file:
        file.truncate(size - 100)
    message = f"sub-001_C062.npy: {size - 100:,} bytes, expected {size:,} bytes; restore it"
    with pytest.raises(BenchError, match=message) as error:
        shards.open_shards(Path(copy.path), copy.sha256)
    assert error.value.exit_code == ENVIRONMENT
    shard.unlink()
    with pytest.raises(BenchError, match=f"sub-001_C062.npy: missing, expected {size:,} bytes"):
        shards.open_shards(Path(copy.path), copy.sha256)


def test_a_shard_of_pickled_objects_is_never_unpickled(copy):
    shard = Path(copy.path) / "b" / "sub-001_C062.npy"
    size = shard.stat().st_size
    with shard.open("wb") as file:
        np.save(file, np.array([{"a": 1}], object))
        file.write(bytes(size - file.tell()))
    windows = shards.open_shards(Path(copy.path), copy.sha256)
    with pytest.raises(BenchError, match="sub-001_C062.npy cannot be read as a shard of windows") as error:
        windows.gather(np.arange(22))
    assert error.value.exit_code == ENVIRONMENT


def test_an_index_of_another_corpus_is_refused(copy):
    index = Path(copy.path) / "index.csv"
    index.write_text(index.read_text().replace("held_out", "train"))
    with pytest.raises(BenchError, match=r"index\.csv: missing, or another than the manifest says"):
        shards.open_shards(Path(copy.path), copy.sha256)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"kind": "corpus", "schema": 1', '{"kind": "pairs", "schema": 1}'])
def test_a_manifest_that_is_none_is_an_error_of_one_line(copy, text):
    (Path(copy.path) / "manifest.json").write_text(text)
    with pytest.raises(BenchError, match=r"manifest\.json: ") as error:
        datasets.find_corpus("made", Path(copy.path).parents[1])
    assert error.value.exit_code == ENVIRONMENT
    assert "\n" not in str(error.value)


def test_every_byte_is_compared_when_that_is_asked_for(copy):
    path = Path(copy.path)
    assert shards.verify(path) == []
    with (path / "a" / "sub-002_C032.npy").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff")
    (path / "b" / "sub-001_C062.npy").unlink()
    (path / "stray.npy").write_bytes(b"x")
    assert [line.split(": ")[0].removeprefix(f"{path}/") for line in shards.verify(path)] == [
        "a/sub-002_C032.npy", "b/sub-001_C062.npy", "stray.npy"]


def test_a_corpus_that_is_not_prepared_says_which_command_makes_it(tmp_path):
    with pytest.raises(BenchError, match=f"bench data prepare moabb_v046 --data {tmp_path}") as error:
        datasets.find_corpus("moabb_v046", tmp_path)
    assert error.value.exit_code == ENVIRONMENT


def test_first_channels_come_in_the_order_of_the_corpus(made, tmp_path):
    value, truth = made
    folder = built(value, tmp_path / "stage")
    first = shards.read_first_channels(folder)
    assert np.array_equal(first[:, 0], np.stack([truth[i][0] for i in range(len(first))]))


def test_corpora_and_shards_are_read_without_torch_or_moabb():
    code = ("import sys; import bench.data.corpora, bench.data.shards, bench.commands.data; "
            "print([m for m in ('torch', 'moabb', 'mne') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_byte_of_a_shard_that_changed_is_found_when_the_shard_is_read(copy, made):
    shard = Path(copy.path) / "a" / "sub-002_C032.npy"
    with shard.open("r+b") as file:
        file.seek(5000)
        file.write(b"\x01")
    windows = shards.open_shards(Path(copy.path), copy.sha256)
    intact = [row for row in range(len(windows)) if windows.index["shard"][row] != 1]
    assert np.array_equal(windows.gather(np.array(intact)), shards.open_shards(
        Path(made[0].path), made[0].sha256).gather(np.array(intact)))
    with pytest.raises(BenchError, match=r"sub-002_C032\.npy has another SHA-256 than the manifest says") as error:
        windows.gather(np.arange(22))
    assert error.value.exit_code == ENVIRONMENT


def test_two_shards_of_one_size_that_were_exchanged_are_found(tmp_path):
    rng, receipts = np.random.default_rng(0), []
    work = corpora.open_work_folder(tmp_path / "corpora" / "two", catalogue.Cutting())
    for subject in (1, 2):
        writer = shard_writer.ShardWriter(work, "a", subject)
        writer.add(rng.standard_normal((2, 32, 512)).astype(np.float16), [("0", "0", 0.0), ("0", "0", 1.0)], 250.0,
                   [5.0, 95.0])
        receipts.append(writer.close(Counter(), Counter()))
    shard_writer.finish_corpus("two", tmp_path, work, receipts, {"band": list(BAND), "window": {"n_times": 512}}, [])
    first, second = sorted((tmp_path / "corpora" / "two" / "a").iterdir())
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    world = datasets.find_corpus("two", tmp_path)
    with pytest.raises(BenchError, match="has another SHA-256"):
        shards.open_shards(Path(world.path), world.sha256).gather(np.arange(4))


@pytest.mark.parametrize(("name", "text"), [("shards.json", b"\xff"), ("shards.json", b"[]"),
                                            ("windows.npy", b"\x93NUMPY"), ("windows.npy", b"")])
def test_a_damaged_stage_of_a_corpus_is_named(tmp_path, name, text):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(BenchError, match=f"{name} cannot be read.*bench store verify --delete-damaged"):
        shards.open_corpus(tmp_path)
