"""Trackers: the progress of a run's stages goes there, and nowhere unless asked."""

from __future__ import annotations

import importlib.util
import io
import json
import sqlite3

import pandas as pd
import pytest
from PIL import Image

from bench import FULL
from bench.cli import main
from bench.errors import ENVIRONMENT, BenchError
from bench.execute import trackers
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.setup import rows as rows_

ROWS = [row for row in rows_.rows([FULL], MICRO, [0]) if row.items in ("real", "shuffled")]
FIRST, SECOND = (stage for stage in graph.stages([ROWS[0].stage]) if stage.kind in ("pretrain", "finetune"))


def tracked(name, folder):
    """Reports two stages that run at once, as `bench run` does."""
    tracker = trackers.Tracker(name, folder, "table2-micro", ROWS)
    for step in range(1, 6):
        for stage in (FIRST, SECOND):
            tracker.advanced(stage, step * 10, 100, {"loss": 1 / step})
    tracker.ended(FIRST, False)
    tracker.close()


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_a_tracker_whose_package_is_absent_is_refused_before_anything_is_built(name, tmp_path, capsys, monkeypatch):
    here = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *more: None if asked == name else here(asked, *more))
    assert main(["run", "--ablation", "mask_ratio", "--scale", "micro", "--track", name,
                 "--store", str(tmp_path / "s")]) == ENVIRONMENT
    captured = capsys.readouterr()
    assert captured.err == (f'bench: --track {name} needs a package that is not installed: '
                            f'pip install "eeg2image-bench[{name}]"\n')
    assert captured.out == ""
    assert not (tmp_path / "s").exists()


def test_a_tracker_that_fails_is_given_up_and_the_run_goes_on(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("no such place")

    monkeypatch.setattr(trackers, "check", lambda name: None)
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", broken)
    message = "tensorboard failed and is switched off for this run: OSError: no such place"
    with pytest.warns(UserWarning, match=message) as warned:
        tracked("tensorboard", tmp_path)
    assert len(warned) == 1


def test_tensorboard_gets_every_scalar_of_every_stage_under_row_kind_and_seed(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard (extra tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked("tensorboard", tmp_path)
    for stage in (FIRST, SECOND):
        events = EventAccumulator(str(tmp_path / f"tensorboard/table2-micro/Full/{stage.kind}/seed 0"))
        events.Reload()
        assert set(events.Tags()["tensors"]) == {"loss", "done"}
        assert [event.step for event in events.Tensors("loss")] == [10, 20, 30, 40, 50]
        assert [event.tensor_proto.float_val[0] for event in events.Tensors("loss")] == pytest.approx(
            [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])


def test_trackio_gets_both_of_two_stages_at_once_on_this_machines_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read when it is imported
    pytest.importorskip("trackio", reason="needs trackio (extra trackio)")
    tracked("trackio", tmp_path)
    with sqlite3.connect(tmp_path / f"{trackers.PROJECT}.db") as database:
        found = dict(database.execute("select run_name, count(*) from metrics group by run_name").fetchall())
    assert found == {f"table2-micro/Full/{stage.kind}/seed 0": 5 for stage in (FIRST, SECOND)}


def test_weights_and_biases_is_offline_unless_its_mode_is_set(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb (extra wandb)")
    for name in ("WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    tracked("wandb", tmp_path)
    files = sorted((tmp_path / "wandb/wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    for stage in (FIRST, SECOND):
        assert any(f"Full/{stage.kind}/seed 0".encode() in file.read_bytes() for file in files)
    assert all(b"loss" in file.read_bytes() for file in files)


def test_an_unknown_tracker_is_refused_with_those_that_there_are(capsys):
    assert main(["run", "--ablation", "mask_ratio", "--track", "abacus"]) == 2
    err = capsys.readouterr().err
    assert all(name in err for name in trackers.TRACKERS)


def test_each_trackers_package_is_asked_for_by_name():
    with pytest.raises(BenchError, match=r"eeg2image-bench\[absent\]"):
        trackers.check("absent")


TABLE = pd.DataFrame({"row": ["Full", "3  no | pre-training"], "top-1, %": ["75.6 [71.9, 79.1]", "77.8"]})


def published(name, folder):
    """Publishes a table and an image, and returns the image's bytes."""
    file = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(file, "PNG")
    tracker = trackers.Tracker(name, folder, "table2-micro", [])
    tracker.publish(TABLE, {"contact sheet": file.getvalue()})
    tracker.close()
    return file.getvalue()


def test_tensorboard_gets_the_final_table_and_images(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard (extra tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    image = published("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard/table2-micro/results"))
    events.Reload()
    text = events.Tensors("table")[0].tensor_proto.string_val[0].decode()
    assert text.splitlines() == ["| row | top-1, % |", "| -- | -- |", "| Full | 75.6 [71.9, 79.1] |",
                                 "| 3  no \\| pre-training | 77.8 |"]
    shown = events.Images("contact sheet")[0]
    assert (shown.width, shown.height, shown.encoded_image_string) == (30, 20, image)


def test_weights_and_biases_gets_the_final_table_and_images(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs wandb (extra wandb)")
    for name in ("WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    published("wandb", tmp_path)
    folder = next((tmp_path / "wandb/wandb").glob("offline-run-*"))
    media = {path.suffix for path in folder.rglob("media/**/*") if path.is_file()}
    assert media == {".json", ".png"}
    table = json.loads(next(folder.rglob("media/table/**/*.json")).read_text())
    assert table["columns"] == list(TABLE)
    assert table["data"] == TABLE.to_numpy().tolist()


def test_trackio_gets_the_final_table_and_images(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # read when it is imported
    utils = pytest.importorskip("trackio.utils", reason="needs trackio (extra trackio)")
    published("trackio", tmp_path)
    with sqlite3.connect(utils.TRACKIO_DIR / f"{trackers.PROJECT}.db") as database:  # of the first test that imports it
        metrics, = database.execute("select metrics from metrics where run_name = 'table2-micro/results'").fetchone()
    assert {"table", "contact sheet"} <= set(json.loads(metrics))


def test_a_tracker_that_cannot_take_the_table_is_given_up(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("no such place")

    monkeypatch.setattr(trackers, "check", lambda name: None)
    monkeypatch.setitem(trackers.PUBLISH, "tensorboard", broken)
    with pytest.warns(UserWarning, match="tensorboard failed and is switched off for this run: OSError"):
        published("tensorboard", tmp_path)
