"""Scale laptop on small made-up files in the layout of THINGS-EEG2: what it plans, and that it runs."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from laptop import write_published

from bench import FULL, systems
from bench.cli import main
from bench.data import things
from bench.errors import ENVIRONMENT, BenchError, NotAvailable
from bench.execute.build import build
from bench.experiment import ablation
from bench.experiment.graph import stages
from bench.experiment.scale import LAPTOP
from bench.experiment.stages import Features
from bench.setup.places import resolve_paths
from bench.store.store import Store
from bench.systems import guided

SMALL = {"concepts": 24, "exemplars": 2, "tested": 10, "repetitions": (2, 4), "width": 48, "signal": 2.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with published files and, in data/, the prepared data set."""
    folder = tmp_path_factory.mktemp("laptop")
    features = write_published(folder / "published", **SMALL)
    things.prepare(folder / "published", folder / "data" / "things_eeg2", folder / "published" / "images", size=16,
                   val_concepts=2, features=features)
    return folder


def row(name):
    variant, = ablation.load("laptop").select([name])
    return variant


def test_an_encoder_learns_and_its_null_does_not_need_another_training(folder, monkeypatch):
    monkeypatch.setitem(guided.SIZES, "laptop", replace(
        guided.MICRO, encoder_schedule=guided.EncoderSchedule(epochs=40, batch=22, lr=3e-3)))
    scale, store = resolve_paths(LAPTOP, folder, data=folder / "data"), Store(folder / "store")
    real, null = (systems.plan(row(name), scale.items(), scale, 0) for name in ("NICE", "NICE / EEG shuffled"))
    assert real.embedding.encoder == null.embedding.encoder
    for stage in stages([real, null]):
        build(stage, store)
    table = pd.read_csv(store.path(real) / "metrics.csv").set_index("metric")
    assert set(table["extractor"]) == {"published features of made"}
    assert table.loc["retrieval_top5", "value"] == 1 or table.loc["retrieval_2way", "value"] > 0.75
    assert pd.read_csv(store.path(null) / "metrics.csv").set_index("metric").loc["retrieval_2way", "value"] < 0.75


def test_a_data_set_without_features_is_refused(folder, tmp_path):
    things.prepare(folder / "published", tmp_path / "things_eeg2", folder / "published" / "images", size=16,
                   val_concepts=2)
    scale, store = resolve_paths(LAPTOP, tmp_path, data=tmp_path), Store(tmp_path / "store")
    features = systems.plan(row("NICE"), scale.items(), scale, 0).targets
    assert isinstance(features, Features)
    build(features.trials, store)
    with pytest.raises(BenchError, match="has no CLIP features of its images; prepare it again") as caught:
        build(features, store)
    assert caught.value.exit_code == ENVIRONMENT


def test_images_cannot_be_generated():
    with pytest.raises(NotAvailable, match="scale laptop has no frozen part"):
        systems.plan(FULL, LAPTOP.items(), LAPTOP, 0)


def test_it_is_planned_without_data(capsys, tmp_path):
    assert main(["plan", "--ablation", "laptop", "--scale", "laptop", "--data", str(tmp_path), "--store",
                 str(tmp_path / "store")]) == 0
    assert "guidedencoder" in capsys.readouterr().out


def test_no_data_is_one_line(capsys, tmp_path):
    assert main(["run", "--ablation", "laptop", "--scale", "laptop", "--data", str(tmp_path), "--store",
                 str(tmp_path / "store"), "--results", str(tmp_path / "results")]) == ENVIRONMENT
    assert "no prepared data set at" in capsys.readouterr().err
