"""Challenges: nothing that is handed out tells a label, and what an organiser scores verifies and stands on a board."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.cli import main
from bench.data.pictures import SHOWN, draw_scenes, render
from bench.errors import BenchError
from bench.tables.submission import folder as files
from bench.tables.submission.challenge import KEPT, make_protocol
from bench.tables.submission.verify import verify

COUNT = 12


@pytest.fixture(scope="module")
def organiser(tmp_path_factory):
    """A folder with named images, their labels, EEG whose first number is the image's row, and a challenge."""
    folder = tmp_path_factory.mktemp("challenge")
    (folder / "images").mkdir()
    scenes = draw_scenes(COUNT, SHOWN, np.random.default_rng(0))
    names = [f"class{label}_{row}" for row, label in enumerate(scenes.label)]
    for name, image in zip(names, render(scenes), strict=True):
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
    pd.DataFrame({"name": names, "label": scenes.label}).to_csv(folder / "labels.csv", index=False)
    order = sorted(range(COUNT), key=names.__getitem__)
    np.save(folder / "eeg.npy", np.array([[row, 1.0] for row in order]))  # in the order of the images' names
    make_protocol(folder / "images", folder / "made", "tiny challenge", folder / "labels.csv", folder / "eeg.npy", 2)
    return folder


@pytest.fixture(scope="module")
def scored(organiser):
    """Submissions of a participant who knows the images, and of one who draws noise."""
    rng, real = np.random.default_rng(1), organiser / "made" / "secret" / "images"
    for name, draw in (("perfect", lambda path: np.asarray(Image.open(path))),
                       ("noise", lambda path: rng.integers(0, 256, (32, 32, 3), np.uint8))):
        (organiser / name).mkdir()
        for path in sorted(real.iterdir()):
            for sample in (0, 1):
                Image.fromarray(draw(path)).save(organiser / name / f"{path.stem}_{sample}.png")
        assert main(["protocol", "score", str(organiser / "made" / "secret"), str(organiser / name), "--name", name,
                     "--out", str(organiser / f"sent-{name}")]) == 0
    return organiser


def test_what_is_handed_out_has_the_eeg_in_the_items_order_and_nothing_of_images_or_labels(organiser):
    public, secret = organiser / "made" / "public", organiser / "made" / "secret"
    assert {path.name for path in public.rglob("*")} == {"protocol.json", "eeg.npy"}
    text = (public / "protocol.json").read_text()
    known = json.loads((secret / KEPT).read_text())
    assert known["salt"] not in text
    assert not [name for name in known["names"].values() if name in text]
    rows = np.load(public / "eeg.npy")[:, 0].astype(int)
    assert sorted(rows) == list(range(COUNT))
    for item, row in enumerate(rows):
        name = known["names"][f"{item:02d}"]
        assert name.rpartition("_")[2] == str(row), "the EEG of an item is that of its image"
        np.testing.assert_array_equal(*(np.asarray(Image.open(path)) for path in (
            secret / "images" / f"{item:02d}.png", organiser / "images" / f"{name}.png")))
    labels = pd.read_csv(secret / "labels.csv", dtype=str)
    assert [known["names"][name].partition("_")[0] for name in labels["name"]] == ("class" + labels["label"]).tolist()


def test_the_hash_of_the_secret_depends_on_its_salt(organiser, tmp_path):
    protocol = json.loads((organiser / "made" / "public" / "protocol.json").read_text())
    known = json.loads((organiser / "made" / "secret" / KEPT).read_text())
    assert protocol["secret_sha256"] == files.hash_text(files.canonical_json(known))
    assert len(known["salt"]) == 64
    assert protocol["secret_sha256"] != files.hash_text(files.canonical_json(known | {"salt": "0" * 64}))


def test_without_hide_labels_and_images_are_handed_out_too(organiser, tmp_path):
    assert main(["protocol", "make", str(organiser / "images"), "--name", "open", "--labels",
                 str(organiser / "labels.csv"), "--out", str(tmp_path / "open")]) == 0
    assert {path.name for path in (tmp_path / "open" / "public").iterdir()} == {"protocol.json", "labels.csv", "images"}


def test_submissions_verify_and_stand_on_one_board(scored, tmp_path, capsys):
    folders = [str(scored / f"sent-{name}") for name in ("noise", "perfect")]
    assert main(["verify", *folders]) == 0
    assert main(["leaderboard", *folders, "--out", str(tmp_path / "board")]) == 0
    board = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    assert board["submission"].tolist() == ["perfect", "noise"]
    assert board["items"].tolist() == [COUNT, COUNT]
    page = (tmp_path / "board" / "index.html").read_text()
    assert not [name for name in json.loads((scored / "made" / "secret" / KEPT).read_text())["names"].values()
                if name in page]


def test_a_submission_of_fewer_items_than_the_protocol_does_not_verify(scored, tmp_path):
    copied = shutil.copytree(scored / "sent-noise", tmp_path / "copied")
    protocol = json.loads((copied / files.PROTOCOL).read_text())
    (copied / files.PROTOCOL).write_bytes(files.json_bytes(protocol | {"items": 20}))
    names = [path.name for path in copied.iterdir() if path.name != files.SUMS]
    (copied / files.SUMS).write_bytes(files.sums_of({name: (copied / name).read_bytes() for name in names}))
    assert "items.csv.gz: has 12 items, protocol.json says 20" in verify(copied).problems


def test_a_changed_secret_and_images_that_do_not_fit_are_refused(scored, tmp_path, capsys):
    secret = shutil.copytree(scored / "made" / "secret", tmp_path / "secret")
    score = ["protocol", "score", str(secret), str(scored / "noise"), "--name", "x", "--out", str(tmp_path / "x")]
    labels = (secret / "labels.csv").read_text()
    (secret / "labels.csv").write_text(labels + "x,0\n")
    assert main(score) == 2
    assert "labels.csv is missing or was changed; restore it" in capsys.readouterr().err
    (secret / "labels.csv").write_text(labels)
    known = json.loads((secret / KEPT).read_text())
    (secret / KEPT).write_text(json.dumps(known | {"salt": "0" * 64}))
    assert main(score) == 2
    assert "is not the one that protocol.json names" in capsys.readouterr().err
    (secret / KEPT).write_text(json.dumps(known))
    few = shutil.copytree(scored / "noise", tmp_path / "few")
    next(few.iterdir()).unlink()
    assert main([*score[:3], str(few), *score[4:]]) == 2
    assert "has 23 images; expected 2 of each of 12 items" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("change", "said"), [
    ({"samples": 0}, "--samples 0: expected 1 or more"),
    ({"labels": "image,label\n"}, "has columns image, label; expected name and label"),
    ({"labels": "name,label\n"}, "has no label for 12 images"),
    ({"eeg": np.zeros((3, 2))}, "has 3 rows; expected one for each of 12 images")])
def test_inputs_that_do_not_fit_are_refused(organiser, tmp_path, change, said):
    if "labels" in change:
        (tmp_path / "l.csv").write_text(change["labels"])
        change = {"labels": tmp_path / "l.csv"}
    if "eeg" in change:
        np.save(tmp_path / "e.npy", change["eeg"])
        change = {"eeg": tmp_path / "e.npy"}
    with pytest.raises(BenchError, match=said):
        make_protocol(organiser / "images", tmp_path / "out", "x", **change)
    assert not (tmp_path / "out").exists()
