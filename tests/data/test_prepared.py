"""Prepared data sets as values and as stages: identified by their manifest, read by subject, band and split."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from formats import save, write_imagenet_eeg

from bench.data import imagenet_eeg, prepared, writing
from bench.data.recordings import normalise
from bench.errors import ENVIRONMENT, RESUMABLE, USAGE, BenchError
from bench.execute.build import build
from bench.experiment import datasets
from bench.experiment.stages import Items, Numerics, Prepared, Reference, Trials
from bench.images import resize
from bench.setup.rehearsal.files import WNIDS
from bench.setup.rehearsal.weights import write_rehearsal
from bench.store.store import Store
from bench.train import items, reference
from bench.train.trials import write_prepared

SUBJECTS, CLASSES, PER_CLASS = (2, 4, 5, 6), 2, 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of data with a prepared ImageNet-EEG of two bands."""
    folder = tmp_path_factory.mktemp("published")
    content = write_imagenet_eeg(folder, SUBJECTS, WNIDS[:CLASSES], PER_CLASS, serialisation="zip")
    for trial in content["dataset"]:
        trial["eeg"] = -2 * trial["eeg"]
    save(folder / "eeg_14_70_std.pth", content, "zip")
    data = tmp_path_factory.mktemp("data")
    imagenet_eeg.prepare(folder, data / "imagenet_eeg", folder / "images", size=32)
    return data


@pytest.fixture(scope="module")
def world(root):
    return datasets.find_pairs("imagenet_eeg", root)


def trials(world, **fields):
    return Trials(**{"world": world, "subjects": (4,), "band": (5.0, 95.0)} | fields)


def written(stage, out):
    out.mkdir()
    write_prepared(stage, out)
    return pd.read_csv(out / "trials.csv"), np.load(out / "eeg.npy")


def refused(stage, out, *said, exit_code=USAGE):
    with pytest.raises(BenchError) as caught:
        written(stage, out)
    assert caught.value.exit_code == exit_code
    assert "\n" not in str(caught.value)
    for text in said:
        assert text in str(caught.value)
    assert list(out.iterdir()) == []


def copied(root, tmp_path):
    shutil.copytree(root, tmp_path / "data")
    return tmp_path / "data" / "imagenet_eeg", datasets.find_pairs("imagenet_eeg", tmp_path / "data")


def test_a_data_set_is_found_by_the_hash_of_its_manifest(root, world):
    manifest = root / "imagenet_eeg" / "manifest.json"
    assert world == Prepared("imagenet_eeg", prepared.digest(manifest)["sha256"], 128, 512, 1000 * 512 / 440)
    assert world.path == str(manifest.parent.resolve())


def test_an_absent_data_set_names_the_command(tmp_path):
    with pytest.raises(BenchError, match="bench data prepare imagenet_eeg --from DIR") as caught:
        datasets.find_pairs("imagenet_eeg", tmp_path)
    assert caught.value.exit_code == ENVIRONMENT


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "corpus", "schema": 1}', '{"kind": "pairs", "schema": 2}'])
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "manifest.json").write_text(text)
    with pytest.raises(BenchError, match=r"manifest\.json") as caught:
        datasets.find_pairs("some", tmp_path)
    assert caught.value.exit_code == ENVIRONMENT


def test_a_stage_holds_the_chosen_subjects_in_ascending_order_of_item(world, root, tmp_path):
    rows, eeg = written(trials(world, subjects=(5, 2)), tmp_path / "out")
    everything = pd.read_csv(root / "imagenet_eeg" / "trials.csv", keep_default_na=False)
    own = everything[everything["subject"].isin((2, 5))]
    assert rows.columns.tolist() == ["item", "subject", "picture", "label", "part", "block", "position"]
    for name in ("item", "subject", "picture", "label", "block", "position"):
        assert rows[name].tolist() == own[name].tolist()
    assert rows["part"].tolist() == own["part_item"].tolist()
    source = np.load(root / "imagenet_eeg" / "eeg_5-95.npy")
    assert eeg.dtype == np.float16
    expected = normalise(source[own.index].astype(np.float32)).astype(np.float16)
    assert np.array_equal(eeg, expected)
    assert np.allclose(eeg.astype(float).std((1, 2)), 1, atol=0.05)  # as the windows of a corpus


def test_eeg_that_is_not_normalised_is_that_of_the_prepared_data_set(world, root, tmp_path):
    rows, eeg = written(trials(world, subjects=(5, 2), normalised=False), tmp_path / "out")
    everything = pd.read_csv(root / "imagenet_eeg" / "trials.csv")
    source = np.load(root / "imagenet_eeg" / "eeg_5-95.npy")
    assert np.array_equal(eeg, source[everything.index[everything["item"].isin(rows["item"])]])


def test_truncated_eeg_is_what_was_recorded_before_the_interpolation_then_zeros(world, root, tmp_path):
    _, whole = written(trials(world, normalised=False), tmp_path / "whole")
    _, cut = written(trials(world, normalised=False, cut="truncated"), tmp_path / "cut")
    assert cut.shape == whole.shape
    assert (cut[..., 440:] == 0).all()
    again = imagenet_eeg.stretch(cut[..., :440].astype(float))
    assert np.abs(again - whole).max() < 2e-3 * np.abs(whole).max()
    _, normalised = written(trials(world, cut="truncated"), tmp_path / "normalised")
    expected = normalise(cut[..., :440].astype(np.float32))
    assert np.abs(normalised[..., :440] - expected).max() < 0.02
    assert (normalised[..., 440:] == 0).all()


def test_the_samples_before_the_interpolation_are_recovered():
    windows = np.random.default_rng(0).standard_normal((3, 4, 440))
    assert np.allclose(imagenet_eeg.unstretch(imagenet_eeg.stretch(windows)), windows)


def test_a_data_set_that_was_not_interpolated_cannot_be_truncated(root, tmp_path):
    folder, _ = copied(root, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"name": "mine"}))
    world = datasets.find_pairs("imagenet_eeg", tmp_path / "data")
    refused(trials(world, cut="truncated"), tmp_path / "out", "is mine, whose EEG was not interpolated",
            "available: prepared")


def test_the_band_chooses_the_eeg(world, tmp_path):
    _, first = written(trials(world), tmp_path / "first")
    _, second = written(trials(world, band=(14, 70)), tmp_path / "second")
    assert np.allclose(-1 * first, second, rtol=1e-3, atol=1e-6)


def test_pictures_keep_their_numbers_in_every_stage(world, root, tmp_path):
    written(trials(world, split="single"), tmp_path / "out")
    for name in ("pictures.npy", "classes.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (root / "imagenet_eeg" / name).read_bytes()


def test_only_trials_with_a_part_in_the_split_are_written(world, root, tmp_path):
    everything = pd.read_csv(root / "imagenet_eeg" / "trials.csv", keep_default_na=False)
    rows, eeg = written(trials(world, split="single"), tmp_path / "single")
    single = everything[everything["part_single"] != ""]
    assert 0 < len(single) < (everything["subject"] == 4).sum()
    assert rows["item"].tolist() == single["item"].tolist()
    assert len(eeg) == len(rows)
    rows, _ = written(trials(world, split="subject", subjects=SUBJECTS), tmp_path / "subject")
    assert {part: set(own["subject"]) for part, own in rows.groupby("part")} == {
        "train": {2, 4}, "val": {5}, "test": {6}}


def test_columns_that_an_audit_reads_are_kept(root, tmp_path):
    folder, _ = copied(root, tmp_path)
    table = pd.read_csv(folder / "trials.csv", keep_default_na=False)
    table.assign(session=1, exemplar=table["picture"]).to_csv(folder / "trials.csv", index=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    writing.write_manifest(folder, {name: value for name, value in manifest.items() if name != "files"})
    rows, _ = written(trials(datasets.find_pairs("imagenet_eeg", tmp_path / "data")), tmp_path / "out")
    assert rows.columns.tolist()[-2:] == ["session", "exemplar"]


def test_the_trials_stage_of_a_prepared_world_is_built_and_read_as_items(world, tmp_path):
    stage = trials(world, subjects=(4, 6))
    folder = build(stage, Store(tmp_path / "store"))
    for part, n in (("train", 16), ("val", 4), ("test", 3)):
        loaded = items.load(Items(stage, part), folder)
        assert loaded.eeg.shape == (n, 128, 512)
        assert loaded.eeg.dtype == np.float32
        assert loaded.names == ("canoe", "grand piano")
        assert set(loaded.judge_label) == {472, 579}
        assert loaded.pictures.shape == (n, 32, 32, 3)
    shuffled = items.load(Items(stage, "train", "shuffled"), folder)
    assert not np.array_equal(shuffled.eeg, items.load(Items(stage, "train"), folder).eeg)


def test_what_the_data_set_does_not_have_is_refused_with_what_there_is(world, tmp_path):
    for number, (fields, said) in enumerate([
        ({"subjects": (4, 1, 9)}, "no subject 1, 9; available: 2, 4, 5, 6"),
        ({"band": (55.0, 95.0)}, "no band 55-95 Hz; available: 5-95, 14-70"),
        ({"split": "block"}, "no split 'block'; available: item, single, subject"),
        ({"window": "blank"}, "no window 'blank'"),
        ({"split": "single", "subjects": (2,)},
         "subjects 2 have no train trials in split 'single'; subjects with train trials: 4"),
        ({"split": "subject"}, "subjects 4 have no test trials in split 'subject'; subjects with test trials: 6"),
    ]):
        refused(trials(world, **fields), tmp_path / str(number), said)


def test_a_data_set_that_was_not_prepared_cannot_be_read(world, tmp_path):
    refused(trials(Prepared("imagenet_eeg", "", 128, 512, 1000.0)), tmp_path / "out", "is not prepared",
            exit_code=ENVIRONMENT)


def test_a_data_set_that_was_prepared_anew_is_another(root, tmp_path):
    folder, world = copied(root, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"options": {"size": 33}}))
    refused(trials(world), tmp_path / "out", f"not {world.sha256[:12]}", "was prepared again", exit_code=ENVIRONMENT)
    assert datasets.find_pairs("imagenet_eeg", tmp_path / "data") != world


def test_a_file_that_is_missing_or_of_another_size_is_named(root, tmp_path):
    folder, world = copied(root, tmp_path)
    content = (folder / "pictures.npy").read_bytes()
    (folder / "pictures.npy").write_bytes(content[:-1])
    message = f"pictures.npy: {len(content) - 1:,} bytes, expected {len(content):,} bytes;"
    refused(trials(world), tmp_path / "short", message, exit_code=ENVIRONMENT)
    (folder / "pictures.npy").unlink()
    refused(trials(world), tmp_path / "absent", "pictures.npy: missing", exit_code=ENVIRONMENT)


@pytest.mark.parametrize("name", ["eeg_5-95.npy", "trials.csv", "classes.csv", "pictures.npy"])
def test_a_byte_that_changed_since_the_data_set_was_prepared_ends_the_stage_that_reads_it(root, tmp_path, name):
    folder, world = copied(root, tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    refused(trials(world), tmp_path / "out", f"{name} is missing, or has another SHA-256 than manifest.json says",
            exit_code=ENVIRONMENT)


@pytest.mark.parametrize(("old", "new", "said"), [
    ('"n_chans"', '"n_chanz"', "n_chans is missing"), ('"n_times": 512', '"n_times": "5"', "n_times is '5'"),
    ('"files"', '"filez"', "files is missing"), ('"sha256": "', '"sha255": "', "has no bytes and sha256")])
def test_a_manifest_without_what_its_readers_need_is_refused(root, tmp_path, old, new, said):
    folder, _ = copied(root, tmp_path)
    text = (folder / "manifest.json").read_text()
    where = text.index('"files"') if old.startswith('"sha256') else 0
    (folder / "manifest.json").write_text(text[:where] + text[where:].replace(old, new, 1))
    for use in (lambda: datasets.find_pairs("imagenet_eeg", tmp_path / "data"), lambda: prepared.verify(folder)):
        with pytest.raises(BenchError, match=rf"manifest\.json: .*{said}") as caught:
            use()
        assert caught.value.exit_code == ENVIRONMENT


def test_verify_reads_every_file(root, tmp_path):
    folder, _ = copied(root, tmp_path)
    assert prepared.verify(folder) == []
    with (folder / "eeg_5-95.npy").open("r+b") as file:
        file.seek(5000)
        file.write(b"\x00\x01\x02")
    (folder / "classes.csv").unlink()
    (folder / "notes.txt").write_text("mine")
    damage = prepared.verify(folder)
    assert [line.split(": ")[0].rsplit("/")[-1] for line in damage] == ["classes.csv", "eeg_5-95.npy", "notes.txt"]


def test_every_split_says_whether_it_leaks(world):
    assert prepared.describe_leak(world, "item").startswith("yes: ")
    assert prepared.describe_leak(world, "subject").startswith("no: ")


def filled(out, text, error=None):
    with writing.new_folder(out) as work:
        (work / "file").write_text(text)
        assert not out.exists() or (out / "file").read_text() != text
        if error:
            raise error


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    out, other = tmp_path / "data" / "some", tmp_path / "other"
    other.mkdir()
    filled(out, "first")
    assert (out / "file").read_text() == "first"
    with pytest.raises(KeyboardInterrupt):
        filled(out, "second", KeyboardInterrupt())
    assert [path.name for path in out.parent.iterdir()] == ["some"]
    assert (out / "file").read_text() == "first"
    filled(out, "third")
    assert (out / "file").read_text() == "third"
    assert [path.name for path in out.parent.iterdir()] == ["some"]
    assert out.stat().st_mode == other.stat().st_mode


def test_a_full_disk_leaves_what_was_there_and_can_be_resumed(tmp_path):
    out = tmp_path / "data" / "some"
    filled(out, "first")
    with pytest.raises(BenchError, match="no space left") as caught:
        filled(out, "second", OSError(28, "No space left on device"))
    assert caught.value.exit_code == RESUMABLE
    assert (out / "file").read_text() == "first"
    assert [path.name for path in out.parent.iterdir()] == ["some"]


def test_a_folder_of_data_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(BenchError, match="cannot write to this folder") as caught:
        filled(tmp_path / "data" / "some", "first")
    assert caught.value.exit_code == ENVIRONMENT


def test_the_references_pictures_are_training_pictures_that_no_split_tests_on(world, root):
    everything = pd.read_csv(root / "imagenet_eeg" / "trials.csv", keep_default_na=False)
    tested = set(everything["picture"][(everything.filter(like="part_") == "test").any(axis=1)])
    trained = set(everything["picture"][everything["part_item"] == "train"])
    assert trained & tested  # the split "single" tests on some
    pictures, rows, labels = reference.training_pictures(world, 10_000)
    assert len(pictures) == CLASSES * PER_CLASS
    assert rows.tolist() == sorted(trained - tested)
    of_picture = dict(zip(everything["picture"], everything["label"], strict=True))
    assert labels.tolist() == [(472, 579)[of_picture[row]] for row in rows]
    _, fewer, _ = reference.training_pictures(world, 3)
    assert fewer.tolist() == [rows[0], rows[len(rows) // 3], rows[2 * len(rows) // 3]]


def test_the_reference_of_a_prepared_world_is_what_the_judge_sees(world, tmp_path):
    import torch

    from bench.images import as_images
    from models import frozen

    judge = write_rehearsal(tmp_path / "weights", seed=0)["judge"]
    folder = build(Reference(world, judge, 10_000, Numerics()), Store(tmp_path / "store"))
    features, hard = np.load(folder / "features.npy"), np.load(folder / "hard.npy")
    pictures, rows, _ = reference.training_pictures(world, 10_000)
    network = frozen.load_judge(judge.path, judge.sha256)
    with torch.inference_mode():
        own = as_images(resize(pictures[rows[1]], (network.size, network.size))[None], "cpu")
        assert np.allclose(features[1], network.features(own)[0], atol=1e-4)
    assert len(features) == len(rows)
    assert hard.shape == (1000, 999)
    assert sorted(np.flatnonzero((hard >= 0).any(1))) == [472, 579]
    assert 472 not in hard[472]


def test_a_data_set_without_known_classes_has_a_reference_without_distractors(root, tmp_path):
    folder, _ = copied(root, tmp_path)
    classes = pd.read_csv(folder / "classes.csv").assign(judge=-1)
    classes.to_csv(folder / "classes.csv", index=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    writing.write_manifest(folder, {name: value for name, value in manifest.items() if name != "files"})
    world = datasets.find_pairs("imagenet_eeg", tmp_path / "data")
    judge = write_rehearsal(tmp_path / "weights", seed=0)["judge"]
    built = build(replace(Reference(world, judge, 2, Numerics())), Store(tmp_path / "store"))
    assert (np.load(built / "hard.npy") == -1).all()
    assert len(np.load(built / "features.npy")) == 2


def test_the_rehearsals_files_are_the_same_for_a_seed_and_hold_a_weak_signal(tmp_path):
    def write(folder, seed=0):
        content = write_imagenet_eeg(folder, (4,), WNIDS, 12, seed, "zip", missing=0)
        return content, {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    content, first = write(tmp_path / "first")
    assert write(tmp_path / "again")[1] == first
    assert write(tmp_path / "other", seed=1)[1] != first
    eeg = np.stack([trial["eeg"].numpy()[:, 20:460].reshape(128, 55, 8).mean(-1) for trial in content["dataset"]])
    label, held = np.array([trial["label"] for trial in content["dataset"]]), np.arange(len(eeg)) >= len(eeg) * 2 // 3
    means = np.stack([eeg[~held & (label == one)].mean(0) for one in range(len(WNIDS))])
    nearest = np.square(eeg[held][:, None] - means).sum((2, 3)).argmin(1)
    assert 2 / len(WNIDS) < (nearest == label[held]).mean() < 1


def test_trials_in_another_unit_than_the_others_are_refused(tmp_path):
    content = write_imagenet_eeg(tmp_path / "raw", subjects=(1, 2), per_class=6)
    for trial in content["dataset"][:5]:
        trial["eeg"] *= 1e-6
    save(tmp_path / "raw" / "eeg_5_95_std.pth", content)
    message = r"in 5 of \d+ trials the median of .EEG. differs from that of all trials by a factor above 1000"
    with pytest.raises(BenchError, match=message):
        imagenet_eeg.prepare(tmp_path / "raw", tmp_path / "out", pictures=tmp_path / "raw" / "images", size=32)
    assert not (tmp_path / "out").exists()
