"""THINGS-EEG2 from its preprocessed files: both variants, repetitions, damaged files that are refused."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
from formats import Bomb, dump, prepares_nothing, write_things

from bench.data import prepared, things
from bench.data.unpickle import load_pickled_arrays
from bench.errors import USAGE, BenchError
from bench.execute.build import build
from bench.experiment import datasets
from bench.experiment.stages import Trials
from bench.store.store import Store
from bench.tables.record import leak_of

VARIANTS = ("gifford", "nice")
TRAIN, TEST = things.FILES["train"], things.FILES["test"]


@pytest.fixture(scope="module", params=VARIANTS)
def published(request, tmp_path_factory):
    """A folder of files as published, in each variant."""
    folder = tmp_path_factory.mktemp(request.param)
    write_things(folder, request.param)
    return folder


@pytest.fixture(scope="module")
def done(published, tmp_path_factory):
    """The same data set, prepared."""
    return things.prepare(published, tmp_path_factory.mktemp("data") / "things_eeg2", published / "images",
                          val_concepts=2, size=16)


@pytest.fixture
def source(tmp_path):
    """A folder as Gifford et al. published it, for a test to damage."""
    write_things(tmp_path / "source", "gifford", subjects=(1, 2))
    return tmp_path / "source"


def run(source, **options):
    return things.prepare(source, source.parent / "data" / "things_eeg2", options.pop("pictures", source / "images"),
                          **{"val_concepts": 2, "size": 16} | options)


def refused(source, *said, **options):
    """Preparing fails with all these texts in one line, and a previous data set is unchanged."""
    prepares_nothing(lambda: run(source, **options), source.parent / "data" / "things_eeg2", said, USAGE)


def spoilt(file, **changes):
    content = load_pickled_arrays(file)
    dump(file, content | {name: change(content[name]) for name, change in changes.items()}, "gifford")


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def table(folder):
    return pd.read_csv(folder / "trials.csv", keep_default_na=False)


def test_both_variants_are_read_as_numpy_reads_them(published):
    file = published / "sub-01" / TRAIN
    loaded = np.load(file, allow_pickle=True)  # NumPy is the oracle; the file was written by this test
    expected = loaded.item() if isinstance(loaded, np.ndarray) else loaded
    found = load_pickled_arrays(file)
    assert np.array_equal(found["preprocessed_eeg_data"], expected["preprocessed_eeg_data"])
    assert list(found["ch_names"]) == list(expected["ch_names"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_every_protocol_are_read(tmp_path, protocol):
    content = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.float32(2), "c": np.array(["x", "yy"]), "d": b"\xff"}
    (tmp_path / "a.npy").write_bytes(pickle.dumps(content, protocol=protocol))
    found = load_pickled_arrays(tmp_path / "a.npy")
    assert np.array_equal(found["a"], content["a"])
    assert (found["b"], found["c"].tolist(), found["d"]) == (2, ["x", "yy"], b"\xff")


def test_names_of_older_numpy_are_known(tmp_path):
    text = pickle.dumps({"a": np.arange(3)}, protocol=2).replace(b"numpy._core.", b"numpy.core.")
    (tmp_path / "a.npy").write_bytes(text)
    assert load_pickled_arrays(tmp_path / "a.npy")["a"].tolist() == [0, 1, 2]


def test_eeg_begins_at_the_stimulus(published, done):
    channels, samples, begin, rate = {"gifford": (17, 80, 20, 100), "nice": (63, 248, 0, 250)}[
        published.name.rstrip("0123456789")]
    eeg = np.load(done / "eeg_0.1-100.npy", mmap_mode="r")
    assert eeg.shape == (170, channels, samples)
    assert manifest(done)["sfreq"] == rate
    assert manifest(done)["n_times"] == samples
    recorded = load_pickled_arrays(published / "sub-02" / TRAIN)["preprocessed_eeg_data"]
    row = table(done).query("subject == 2 and picture == 7 and repetition == 3").index.item()
    assert np.array_equal(eeg[row], recorded[7, 3, :, begin : begin + samples].astype(np.float16))


def test_test_trials_are_means_over_repetitions(published, done):
    recorded = load_pickled_arrays(published / "sub-01" / TEST)["preprocessed_eeg_data"]
    rows = table(done)
    test = rows[rows["part_item"] == "test"]
    assert len(test) == 2 * 5
    eeg = np.load(done / "eeg_0.1-100.npy", mmap_mode="r")[test.index[3]]
    mean = recorded[3].mean(0)
    begin = 20 if len(mean) == 17 else 0
    assert np.array_equal(eeg, mean[:, begin : begin + eeg.shape[1]].astype(np.float16))


def test_training_keeps_repetitions_and_holds_the_last_concepts_out(done):
    rows = table(done)
    assert rows.groupby("part_item").size().to_dict() == {"test": 10, "train": 128, "val": 32}
    assert sorted(set(rows["label"][rows["part_item"] == "val"])) == [8, 9]
    assert sorted(set(rows["label"][rows["part_item"] == "test"])) == [10, 11, 12, 13, 14]
    assert rows["item"].is_unique
    assert rows["item"].is_monotonic_increasing
    classes = pd.read_csv(done / "classes.csv")
    assert classes["name"].tolist()[:2] == ["thing a", "thing b"]
    assert set(classes["judge"]) == {-1}
    assert len(np.load(done / "pictures.npy")) == 25


@pytest.mark.parametrize(("split", "trained"), [("concept", {1, 2, 3}), ("subject", {1, 3}),
                                                ("subject_seen", {1, 2, 3})])
def test_the_last_of_the_subjects_asked_for_is_left_out(tmp_path, split, trained):
    write_things(tmp_path / "source", "gifford", subjects=(1, 2, 3))
    run(tmp_path / "source")
    store, stage = Store(tmp_path / "store"), Trials(
        datasets.find_pairs("things_eeg2", tmp_path / "data"), (1, 3, 2), things.BAND, split=split)
    build(stage, store)
    rows = pd.read_csv(store.path(stage) / "trials.csv")
    assert set(rows["subject"][rows["part"] == "train"]) == trained
    for part in ("val", "test"):
        assert set(rows["subject"][rows["part"] == part]) == ({1, 2, 3} if split == "concept" else {2})
    assert len(np.load(store.path(stage) / "eeg.npy")) == len(rows)
    assert leak_of(stage, store).startswith("yes: who is said to be left out") == (split == "subject_seen")


def test_every_test_repetition_is_an_item_where_that_is_asked_for(source):
    rows = table(run(source, average_test="no"))
    test = rows[rows["part_item"] == "test"]
    assert len(test) == 2 * 5 * 8
    assert sorted(set(test["repetition"])) == list(range(8))


def test_ids_do_not_depend_on_which_subjects_are_chosen(source):
    everyone = table(run(source))
    own = table(run(source, subjects="2"))
    assert set(own["subject"]) == {2}
    assert own["item"].tolist() == everyone["item"][everyone["subject"] == 2].tolist()


def test_a_repetition_that_is_not_finite_is_left_out_of_its_mean(source):
    def change(eeg):
        eeg[0, 2, 3, 50] = np.nan
        eeg[1] = np.inf
        return eeg

    spoilt(source / "sub-01" / TEST, preprocessed_eeg_data=change)
    out = run(source)
    assert manifest(out)["repaired"] == {"repetition left out of a mean": 9}
    assert manifest(out)["rejected"] == {"not finite": 1}
    rows = table(out)
    first = rows.query("subject == 1 and part_item == 'test'")
    assert first["picture"].tolist() == [20, 22, 23, 24]
    recorded = load_pickled_arrays(source / "sub-01" / TEST)["preprocessed_eeg_data"][0, :, :, 20:]
    mean = np.delete(recorded, 2, 0).mean(0).astype(np.float16)
    assert np.array_equal(np.load(out / "eeg_0.1-100.npy")[first.index[0]], mean)


def test_a_bad_channel_of_a_repetition_is_replaced_before_the_mean_and_named(source):
    def change(eeg):
        eeg[0, 2, 3] *= 100
        eeg[1, 5, :9] = 0  # more than a tenth of the channels
        eeg[2, 1, :, 50:] = 0
        return eeg

    before = load_pickled_arrays(source / "sub-01" / TEST)["preprocessed_eeg_data"][..., 20:]
    spoilt(source / "sub-01" / TEST, preprocessed_eeg_data=change)
    out = run(source)
    assert manifest(out)["repaired"] == {"repetition left out of a mean": 2, "channel of another scale": 1}
    assert manifest(out)["bad_channels"] == {"E4 (scale)": 1}
    assert manifest(out)["rejected"] == {}
    test = table(out).query("subject == 1 and part_item == 'test'").index
    means = [before[0].copy(), np.delete(before[1], 5, 0), np.delete(before[2], 1, 0)]
    means[0][2, 3] = before[0, 2, 4]
    for row, mean in zip(test[:len(means)], means, strict=True):
        assert np.array_equal(np.load(out / "eeg_0.1-100.npy")[row], mean.mean(0).astype(np.float16))


def with_codes(eeg):
    eeg = eeg.copy()
    eeg[:, :, 5] = 0
    eeg[:, :, 5, 22] = 0.25 * (np.arange(len(eeg))[:, None] + 1)
    return eeg


def test_a_channel_with_a_code_for_each_picture_is_refused_with_its_name(source):
    for file in source.glob("sub-*/*.npy"):
        spoilt(file, preprocessed_eeg_data=with_codes)
    refused(source, "channel E6 holds 21 distinct values, as a trigger channel does")


@pytest.mark.parametrize("name", ["Status", "STI 014", "TRIG", "DIN1", "Event", "Marker"])
def test_a_channel_named_as_a_trigger_channel_is_refused(source, name):
    spoilt(source / "sub-02" / TRAIN, ch_names=lambda names: [*names[:-1], name])
    refused(source, f"channel {name} holds triggers by its name")


def test_folders_that_are_no_subjects_are_counted(source):
    (source / "sub-02_old").mkdir()
    assert manifest(run(source))["skipped"] == {"sub- without a number": 1}


def test_the_manifest_is_the_same_each_time(source):
    first = (run(source) / "manifest.json").read_bytes()
    assert (run(source) / "manifest.json").read_bytes() == first
    assert prepared.verify(source.parent / "data" / "things_eeg2") == []


@pytest.mark.parametrize(("changes", "said"), [
    ({"preprocessed_eeg_data": lambda eeg: eeg[:19]}, "has the EEG of 19 images; image_metadata.npy lists 20"),
    ({"preprocessed_eeg_data": lambda eeg: eeg[:, :, :16]}, "16 channels and 17 different names"),
    ({"preprocessed_eeg_data": lambda eeg: eeg[0]}, "[images, repetitions, channels, samples]"),
    ({"preprocessed_eeg_data": lambda eeg: eeg.astype(object)}, "[images, repetitions, channels, samples]"),
    ({"preprocessed_eeg_data": lambda eeg: eeg[:, :3]}, "3 repetitions of a training image"),
    ({"ch_names": lambda names: [*names[:-1], "stim"]}, "channel stim holds triggers"),
    ({"ch_names": lambda names: [*names[:-1], names[0]]}, "17 channels and 16 different names"),
    ({"times": lambda times: times * 2}, "the rate of its times is 50 Hz; expected 100 Hz for 17 channels"),
    ({"times": lambda times: times[:-1]}, "99 times for 100 samples"),
    ({"times": lambda times: times - 5}, "no EEG after the stimulus"),
])
def test_spoilt_files_are_refused(source, changes, said):
    spoilt(source / "sub-02" / TRAIN, **changes)
    refused(source, said)


def test_another_unit_is_refused(source):
    for file in source.glob("sub-*/*.npy"):
        spoilt(file, preprocessed_eeg_data=lambda eeg: eeg * 1e-6)
    refused(source, "is it in another unit?")


def test_a_leak_of_eeg_is_refused(source):
    test = load_pickled_arrays(source / "sub-01" / TEST)["preprocessed_eeg_data"]
    spoilt(source / "sub-01" / TRAIN, preprocessed_eeg_data=lambda eeg: np.concatenate([eeg[:1] * 0 + test[:1, :4],
                                                                                     eeg[1:]]))
    refused(source, "hold the same EEG", average_test="no")


def test_subjects_of_two_variants_are_not_mixed(source, tmp_path):
    write_things(tmp_path / "other", "nice", subjects=(2,))
    shutil.rmtree(source / "sub-02")
    (tmp_path / "other" / "sub-02").rename(source / "sub-02")
    refused(source, "use files of one variant")


@pytest.mark.parametrize(("changes", "said"), [
    ({"train_img_concepts": lambda names: ["../../etc", *names[1:]]}, "'../../etc' is not a plain name"),
    ({"test_img_files": lambda names: ["..", *names[1:]]}, "'..' is not a plain name"),
    ({"test_img_files": lambda names: names[1:]}, "4 files and 5 concepts of test"),
    ({"test_img_concepts": lambda names: ["00001_thing_a", *names[1:]]}, "concepts of training and of test: thing a"),
])
def test_spoilt_metadata_is_refused(source, changes, said):
    spoilt(source / "image_metadata.npy", **changes)
    refused(source, "image_metadata.npy", said)


def test_missing_files_are_named(source):
    (source / "images" / "test_images" / "00001_thing_k" / "thing_k_01b.jpg").unlink()
    refused(source, "1 of 25 images are missing: test_images/00001_thing_k/thing_k_01b.jpg")
    (source / "sub-02" / TEST).unlink()
    with pytest.raises(BenchError, match=f"sub-02/{TEST} is missing"):
        run(source)
    with pytest.raises(BenchError, match="no subject 3; available: 1, 2"):
        run(source, subjects="1,3")


@pytest.mark.parametrize(("options", "said"), [
    ({"average_test": "perhaps"}, "average_test=perhaps: expected yes or no"),
    ({"val_concepts": "10"}, "val_concepts=10: expected fewer than the 10 training concepts"),
    ({"val_concepts": "few"}, "val_concepts=few"),
    ({"subjects": "one"}, "subjects=one: expected numbers"),
    ({"pictures": None}, "--set pictures=DIR"),
])
def test_options_that_mean_nothing_are_refused(source, options, said):
    refused(source, said, **options)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named_with_its_size(tmp_path, variant, share):
    file = tmp_path / "preprocessed_eeg_test.npy"
    dump(file, {"preprocessed_eeg_data": np.zeros((5, 100))}, variant)
    kept = file.read_bytes()[: int(share * file.stat().st_size)]
    file.write_bytes(kept)
    with pytest.raises(BenchError, match="truncated, or another format") as caught:
        load_pickled_arrays(file)
    assert caught.value.exit_code == USAGE
    assert f"{file} ({len(kept):,} bytes)" in str(caught.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pickle_bomb_never_runs(source, tmp_path, variant):
    dump(source / "sub-01" / TRAIN, {"preprocessed_eeg_data": Bomb(tmp_path / "ran")}, variant)
    refused(source, "requires builtins.exec, which could run code, and is not read")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("code", [
    b"cnumpy\nload\n.", b"cnumpy.testing._private.utils\nrunstring\n.", b"cos\nsystem\n(S'true'\ntR.",
    b"c_codecs\nencode\n(VYQ==\nVbase64\ntR.", b"cnumpy._core.multiarray\nfromfile\n.", b"cbuiltins\ngetattr\n.",
])
def test_no_other_name_is_let_through(tmp_path, code):
    (tmp_path / "a.npy").write_bytes(code)
    with pytest.raises(BenchError, match="could run code, and is not read"):
        load_pickled_arrays(tmp_path / "a.npy")


def test_an_array_that_claims_to_be_enormous_is_no_crash(tmp_path):
    text = pickle.dumps(np.zeros(3), protocol=2).replace(b"K\x03\x85", b"\x8a\x06\xff\xff\xff\xff\xff\x7f\x85")
    (tmp_path / "a.npy").write_bytes(text)
    with pytest.raises(BenchError):
        load_pickled_arrays(tmp_path / "a.npy")


def test_a_plain_array_is_refused(source):
    np.save(source / "sub-01" / TRAIN, np.zeros(5))
    refused(source, "is a plain array; expected a pickled dict of arrays")
