"""Tests `bench data features` with a small open_clip model, and the preparation that reads its files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from laptop import write_published

from bench.cli import main
from bench.data import features
from bench.errors import OK, USAGE
from bench.setup.rehearsal.weights import write_open_clip
from models import frozen

CONFIG = {"embed_dim": 16, "quick_gelu": False,
          "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
          "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with published files, without features, and in clip/small an open_clip model."""
    folder = tmp_path_factory.mktemp("features")
    write_published(folder / "published", concepts=6, exemplars=2, tested=5, repetitions=(2, 2), width=8)
    (folder / "clip").mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        write_open_clip(folder / "clip" / "small", CONFIG)
    return folder


def make(folder, out, *options, clip="small"):
    return main(["data", "features", str(folder / "published" / "images"), "--from", str(folder / "published"),
                 "--clip", str(folder / "clip" / clip), "--out", str(out), *options])


def test_the_features_are_those_of_the_model_and_the_data_set_is_prepared_with_them(folder, tmp_path, capsys,
                                                                                    monkeypatch):
    assert make(folder, tmp_path) == OK
    file = tmp_path / "small_features_train.pt"
    assert f"--set features={file}" in capsys.readouterr().out
    content = torch.load(file, weights_only=True)
    assert content["img_features"].shape == (12, 16)
    assert content["img_names"][:2] == ["train_thing_0000_00s.jpg", "train_thing_0000_01s.jpg"]
    net = frozen.load_clip(folder / "clip" / "small")
    text = net.embed_text(net.tokenize(["This picture is train thing 0000"]))
    np.testing.assert_allclose(content["text_features"][:1], text, atol=1e-6)
    monkeypatch.setattr(features, "ALIKE", 0.0)  # random weights do not know what a concept is
    data = tmp_path / "data"
    options = (f"pictures={folder / 'published' / 'images'}", f"features={file}", "size=16", "val_concepts=1")
    assert main(["data", "prepare", "things_eeg2", "--from", str(folder / "published"), "--data", str(data),
                 *(word for option in options for word in ("--set", option))]) == OK
    prepared = np.load(data / "things_eeg2" / "features.npy")
    test = torch.load(tmp_path / "small_features_test.pt", weights_only=True)
    np.testing.assert_allclose(prepared, torch.cat([content["img_features"], test["img_features"]]), atol=1e-6)
    assert json.loads((data / "things_eeg2" / "manifest.json").read_text())["options"]["features"] == "small"


def test_features_that_exist_are_not_replaced(folder, tmp_path, capsys):
    (tmp_path / "small_features_test.pt").touch()
    assert make(folder, tmp_path) == USAGE
    assert "small_features_test.pt: exists already; remove it" in capsys.readouterr().err


def test_no_model_is_named_like_a_published_one(folder, tmp_path, capsys):
    assert make(folder, tmp_path, "--name", "ViT-H-14") == USAGE
    assert "is not the published ViT-H-14; give the model another name: --name NAME" in capsys.readouterr().err


def test_what_is_no_model_is_one_line(folder, tmp_path, capsys):
    assert make(folder, tmp_path, clip="none") == USAGE
    assert "not clip_h or clip, and no folder with open_clip_config.json" in capsys.readouterr().err
