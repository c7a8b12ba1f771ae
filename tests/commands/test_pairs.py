"""`bench data pairs`, as a user gives it, on BIDS folders that are written here."""

from __future__ import annotations

import json

import mne
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.cli import main
from bench.data import prepared
from bench.data.recordings import normalise
from bench.errors import ENVIRONMENT, OK, USAGE
from bench.experiment import datasets
from bench.experiment.stages import Trials
from bench.train.trials import write_prepared

mne_bids = pytest.importorskip("mne_bids")

SFREQ, SECONDS, BAND, TIMES = 200.0, 30.0, (5.0, 95.0), 100
CHANNELS = [f"E{number}" for number in range(1, 13)]
CLASSES = ("badger", "car", "dog", "cup")  # an event of the type badger is no bad stretch
EACH = 6
PEOPLE, SESSIONS = ("01", "02"), ("1", "2")


def image_names():
    return [f"{name}/{number}.png" for name in CLASSES for number in range(EACH)]


def write_images(folder):
    rng = np.random.default_rng(1)
    for name in image_names():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 30, 3), np.uint8)).save(folder / name)


def write_run(root, person, session, seed, change=lambda rows: rows, bads=(), sfreq=SFREQ, ch_names=CHANNELS):
    """Writes 30 s of noise [13, 6000] in V, 24 images every 0.7 s, and events that cannot be used; returns the EEG and
    the events."""
    rng = np.random.default_rng(seed)
    data = 2e-5 * rng.standard_normal((13, int(SECONDS * sfreq)))
    raw = mne.io.RawArray(data, mne.create_info([*ch_names, "EOG"], sfreq, ["eeg"] * 12 + ["eog"]), verbose="error")
    raw.info["bads"] = list(bads)
    raw.set_annotations(mne.Annotations([1.0], [0.0], ["start"]))
    path = mne_bids.BIDSPath(subject=person, session=session, task="look", root=root, datatype="eeg")
    mne_bids.write_raw_bids(raw, path, format="BrainVision", allow_preload=True, overwrite=True, verbose="error")
    path = path.copy().update(suffix="eeg", extension=".vhdr")
    names = rng.permutation(image_names()).tolist()
    rows = [(2 + 0.7 * number, 0.1, name.split("/")[0], name) for number, name in enumerate(names)]
    rows += [(20.0, 0.1, "button", "n/a"), (22.0, 0.1, "car", names[0]), (25.0, 0.1, "dog", names[1]),
             (25.3, 0.0, "boundary", "n/a"), (29.6, 0.1, "cup", names[2])]
    rows = pd.DataFrame(change(rows), columns=["onset", "duration", "trial_type", "stim_file"])
    rows.to_csv(path.copy().update(suffix="events", extension=".tsv").fpath, sep="\t", index=False, na_rep="n/a")
    marks = path.fpath.with_suffix(".vmrk")
    marks.write_text(marks.read_text() + f"Mk9=Bad Interval,BAD_amplifier,{int(22.2 * sfreq)},20,0\n")
    return data, rows


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A BIDS folder of two people and two sessions, its images, and what was recorded in each of the four runs."""
    folder = tmp_path_factory.mktemp("source")
    write_images(folder / "images")
    runs = {}
    for number, (person, session) in enumerate((a, b) for a in PEOPLE for b in SESSIONS):
        bads = ["E2"] if (person, session) == ("01", "2") else []
        runs[f"sub-{person}", f"ses-{session}"] = write_run(folder / "bids", person, session, number, bads=bads)
    return folder, runs


def bench(source, *options, name="mine"):
    return main([str(word) for word in ("data", "pairs", source / "bids", "--images", source / "images", "--name", name,
                                        "--data", source / "data", "--size", 32, *options)])


def refused(capsys, source, message, *options, code=USAGE, name="other"):
    assert bench(source, *options, name=name) == code
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith("bench: ")
    assert message in printed
    assert not (source / "data" / name).exists()


@pytest.fixture(scope="module")
def done(source):
    """The folder that the command wrote, its trials, and what it printed."""
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()) as printed:
        assert bench(source[0], "--split", "item,session,subject") == OK
    folder = source[0] / "data" / "mine"
    return folder, pd.read_csv(folder / "trials.csv", keep_default_na=False), printed.getvalue()


def test_events_that_name_an_image_become_the_trials_of_a_prepared_data_set(source, done):
    folder, trials, _ = done
    assert prepared.open_dataset(datasets.find_pairs("mine", folder.parent))[0] == folder.resolve()
    assert len(trials) == 4 * 24
    assert trials["item"].is_unique
    classes = pd.read_csv(folder / "classes.csv")
    assert classes["name"].tolist() == sorted(CLASSES)
    for (person, session), (_, events) in source[1].items():
        rows = trials[(trials["participant"] == person) & (trials["session"] == session)]
        assert rows["image"].tolist() == events["stim_file"][:24].tolist()
        assert classes["name"][rows["label"]].tolist() == events["trial_type"][:24].tolist()
        assert set(rows["subject"]) == {int(person[-2:])}
        assert rows["position"].tolist() == list(range(24))
    pictures = np.load(folder / "pictures.npy")
    for name, picture in trials[["image", "picture"]].drop_duplicates().itertuples(index=False):
        image = Image.open(source[0] / "images" / name).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.array_equal(pictures[picture], np.asarray(image))


def test_each_window_is_the_filtered_signal_from_the_samples_of_its_event_on(source, done):
    folder, trials, _ = done
    eeg = np.load(folder / "eeg_5-95.npy")
    assert eeg.shape == (96, 12, TIMES)
    for (person, session), (data, events) in source[1].items():
        rows = trials[(trials["participant"] == person) & (trials["session"] == session)].index
        signal = 1e6 * mne.filter.filter_data(data[:12], SFREQ, *BAND, verbose="error")
        if (person, session) == ("sub-01", "ses-2"):
            signal[1] = signal[2]  # E2 has status bad in channels.tsv: replaced by the next channel
        for row, onset in zip(rows, events["onset"][:len(rows)], strict=True):
            first = round(onset * SFREQ)
            assert np.allclose(eeg[row], signal[:, first : first + TIMES], rtol=2e-3, atol=0.02)


def test_what_is_left_out_is_said_and_in_the_manifest(done):
    folder, _, printed = done
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["left_out"] == {"no image (stim_file is n/a)": 8, "BAD or a join within the filter's reach": 8,
                                    "epoch not inside the recording": 4}
    for reason, number in manifest["left_out"].items():
        assert f"left out    {number}: {reason}\n" in printed
    assert "people      2, sessions 4, recordings 4, 0.03 h\n" in printed
    assert "events      116; 96 are trials\n" in printed
    assert "channels left out, not EEG (1): eog: 1\n" in printed
    assert "channels bad in some recordings, replaced there by the next good one (1): E2\n" in printed
    assert manifest["repaired"] == {"flat channel": 24}
    assert manifest["options"] == {"size": 32}
    assert (manifest["settings"]["event_column"], manifest["settings"]["seed"]) == ("stim_file", 0)
    assert "sub-01/ses-1/eeg/sub-01_ses-1_task-look_events.tsv" in manifest["sources"]


def test_parts_share_no_image_and_splits_by_session_and_person_none_of_these_either(done):
    _, trials, _ = done
    for split, unit in (("item", None), ("session", "session"), ("subject", "subject")):
        used = trials[trials[f"part_{split}"] != ""]
        assert set(used[f"part_{split}"]) == {"train", "val", "test"}
        assert (used.groupby("picture")[f"part_{split}"].nunique() == 1).all()
        if unit:
            train, test = (set(used[unit][used[f"part_{split}"] == part]) for part in ("train", "test"))
            assert not train & test
    assert trials["part_item"].value_counts().to_dict() == {"train": 64, "val": 16, "test": 16}
    assert {group["part_item"].nunique() for _, group in trials.groupby("label")} == {3}


def test_the_audit_is_printed_at_once_and_its_verdict_on_the_order_of_the_events_is_stated(done):
    folder, _, printed = done
    leaky = json.loads((folder / "manifest.json").read_text())["leaky"]
    assert leaky["item"] == "no: no image is in two parts, and the order of the events does not tell the class"
    assert f"audit of split item (stated: {leaky['item']})" in printed
    assert printed.count("\nleaky: no\n") == 3
    assert "identical EEG in two parts" in printed


def test_a_run_reads_it(done, tmp_path):
    folder, trials, _ = done
    write_prepared(Trials(datasets.find_pairs("mine", folder.parent), (1, 2), BAND), tmp_path)
    eeg = np.load(tmp_path / "eeg.npy")
    assert np.array_equal(eeg, normalise(np.load(folder / "eeg_5-95.npy").astype(np.float32)).astype(np.float16))
    assert pd.read_csv(tmp_path / "trials.csv")["part"].tolist() == trials["part_item"].tolist()


def test_a_dry_run_says_the_same_and_writes_nothing(source, done, capsys):
    assert bench(source[0], "--split", "item,session,subject", "--dry-run", name="dry") == OK
    printed = capsys.readouterr().out
    assert done[2].startswith(printed)
    assert "badger 24, car 24, cup 24, dog 24" in printed
    assert not (source[0] / "data" / "dry").exists()


def test_epochs_of_other_times_rates_and_people(source, capsys):
    assert bench(source[0], "--tmin=-0.1", "--tmax", 0.4, "--sfreq", 100, "--subjects", "02", name="few") == OK
    folder = source[0] / "data" / "few"
    trials, manifest = pd.read_csv(folder / "trials.csv"), json.loads((folder / "manifest.json").read_text())
    assert (manifest["n_times"], manifest["sfreq"], manifest["bands"]) == (48, 100.0, [[5.0, 50.0]])
    assert set(trials["subject"]) == {2}
    printed = capsys.readouterr().out
    assert "50 samples from tmin to tmax; the first 48 are used, a multiple of 4" in printed
    assert "the band ends at 50 Hz" in printed
    assert (trials["stop"] - trials["start"] == 48).all()
    assert trials["start"][0] == round(1.9 * 100)
    assert bench(source[0], "--subjects", "02", name="few") == USAGE
    assert "is already prepared; remove it, or choose another --name" in capsys.readouterr().err


@pytest.mark.parametrize(("message", "options"), [
    ("no events.tsv has the column picture; name it with --event-column; there are: duration, onset, stim_file, "
     "trial_type", ["--event-column", "picture"]),
    ("no column kind; it has onset, duration, trial_type, stim_file", ["--class-column", "kind"]),
    ("--subjects 07: ", ["--subjects", "07"]),
    ("--split run: no split 'run'; expected item, session, subject, block", ["--split", "run"]),
    ("--split block: no block is known; name a column", ["--split", "block"]),
    ("'a b' cannot name a data set", ["--name", "a b"]),
    ("--split subject: expected at least two people", ["--split", "subject", "--subjects", "01"]),
    ("--band 95,5: the second must be above", ["--band", "95,5"]),
    ("the end must be after the begin", ["--tmin", "1"]),
    ("the end must be after the begin", ["--tmax", "inf"]),
    ("--sfreq 0: a number above 0", ["--sfreq", "0"]),
    ("expected 'no: ' or 'yes: ' and the reason", ["--leaky", "maybe"]),
    ("--judge cat=3: no trial has the class cat", ["--judge", "cat=3"]),
    ("--judge dog: NAME=NUMBER is expected", ["--judge", "dog"]),
    ("expected the side of the images", ["--size", "7"]),
])
def test_a_wrong_option_is_one_line(source, capsys, message, options):
    refused(capsys, source[0], message, *options)


@pytest.fixture
def single(tmp_path):
    """A folder of one recording and its images, for a test to change."""
    write_images(tmp_path / "images")
    write_run(tmp_path / "bids", "01", "1", 5)
    return tmp_path


def test_images_that_are_not_there_are_counted_in_one_line(single, capsys):
    for name in image_names()[:12]:
        (single / "images" / name).unlink()
    refused(capsys, single, "12 of 24 images are missing: badger/0.png, badger/1.png, badger/2.png, badger/3.png, "
            "badger/4.png, badger/5.png, car/0.png, car/1.png, car/2.png, car/3.png and 2 more")


def test_an_image_outside_the_folder_is_refused(single, capsys):
    write_run(single / "bids", "01", "1", 5, lambda rows: [(2.0, 0.1, "car", "../secret.png"), *rows[1:]])
    refused(capsys, single, "an event names the image '../secret.png'; expected a file below")


def test_an_order_that_tells_the_class_is_stated_as_a_leak(single, capsys):
    def by_class(rows):
        names = sorted(row[3] for row in rows[:24])
        return [(*row[:2], name.split("/")[0], name) for row, name in zip(rows[:24], names, strict=True)] + rows[24:]

    for person in ("01", "02", "03"):
        write_run(single / "bids", person, "1", 5 + int(person), by_class)
    assert bench(single) == OK
    leaky = json.loads((single / "data" / "mine" / "manifest.json").read_text())["leaky"]["item"]
    assert leaky.startswith("yes: the time tells the class")
    assert f"leaky: {leaky}\n" in capsys.readouterr().out


def test_too_few_trials_to_tell_a_leak_need_the_users_word(single, capsys):
    few = [name for name in image_names() if name.startswith(("car", "dog"))]

    def two_classes(rows):
        return [(*row[:2], name.split("/")[0], name) for row, name in zip(rows[:len(few)], few, strict=True)]

    write_run(single / "bids", "01", "1", 5, two_classes)
    refused(capsys, single, "too few to tell); state it: --leaky 'no: REASON'")
    assert bench(single, "--leaky", "no: the order was drawn") == OK
    assert json.loads((single / "data" / "mine" / "manifest.json").read_text())["leaky"] == {
        "item": "no: the order was drawn"}


def test_equal_images_of_different_files_in_two_parts_are_stated_as_a_leak(single, capsys):
    image = Image.open(single / "images" / "car" / "0.png")
    for number in range(EACH):
        image.save(single / "images" / "car" / f"{number}.png", compress_level=number)
    for person in ("02", "03"):
        write_run(single / "bids", person, "1", int(person))
    assert bench(single) == OK
    leaky = json.loads((single / "data" / "mine" / "manifest.json").read_text())["leaky"]["item"]
    assert leaky == "yes: 1 identical picture under different ids in two parts"
    assert f"leaky: {leaky}\n" in capsys.readouterr().out
    assert prepared.verify(single / "data" / "mine") == []


def test_missing_samples_are_rejected_with_the_epochs_within_the_filters_reach(single, capsys):
    eeg = np.memmap(single / "bids/sub-01/ses-1/eeg/sub-01_ses-1_task-look_eeg.eeg", np.float32, "r+").reshape(-1, 13)
    eeg[round(10.4 * SFREQ), 3] = np.nan
    eeg.flush()
    assert bench(single, "--leaky", "no: the order was drawn") == OK
    trials = pd.read_csv(single / "data" / "mine" / "trials.csv", keep_default_na=False)
    begins = 2 + 0.7 * np.arange(24)
    near = (begins < 10.4 + 0.82) & (begins + 0.5 > 10.4 - 0.82)
    assert trials["position"].tolist() == np.flatnonzero(~near).tolist()
    assert f"{24 - near.sum()} trials written; rejected: not finite: {near.sum()}\n" in capsys.readouterr().out


def test_a_join_is_one_place_however_long_the_stretch_that_was_cut_out_there(single, capsys):
    write_run(single / "bids", "01", "1", 5, lambda rows: [
        *rows[:-2], (25.3, 3.0, "boundary", "n/a"), (27.0, 0.1, "cup", rows[0][3])])
    assert bench(single, "--leaky", "no: the order was drawn", "--dry-run") == OK
    printed = capsys.readouterr().out
    assert "events      29; 25 are trials\n" in printed
    assert "left out    2: BAD or a join within the filter's reach\n" in printed


def test_recordings_of_several_rates_and_channels_need_a_common_rate_and_share_channels(single, capsys):
    write_run(single / "bids", "02", "1", 6, sfreq=250.0, ch_names=[*CHANNELS[:11], "X"])
    refused(capsys, single, "recordings at 200, 250 Hz; name a common rate with --sfreq, such as --sfreq 200")
    assert bench(single, "--sfreq", 200, "--dry-run") == OK
    printed = capsys.readouterr().out
    assert "EEG         11 channels, 200 Hz, 5-95 Hz; epochs of 100 samples, 0 to 0.5 s\n" in printed
    assert "channels left out, not in every recording (2): E12, X\n" in printed


def test_linked_people_are_read_and_what_is_no_recording_is_said(single, capsys):
    write_run(single / "elsewhere", "02", "1", 7)
    (single / "bids" / "sub-02").symlink_to(single / "elsewhere" / "sub-02")
    (single / "bids" / "sub-03").mkdir()
    (single / "bids/sub-01/ses-1/eeg/sub-01_ses-1_task-look_channels.tsv").unlink()
    (single / "bids/sub-01/ses-1/eeg/sub-01_ses-1_task-rest_eeg.cnt").write_bytes(b"EEG")
    assert bench(single, "--dry-run") == OK
    printed = capsys.readouterr().out
    assert "people      2, sessions 2, recordings 2," in printed
    assert "left out, people without a recording (1): sub-03\n" in printed
    assert "without a channels.tsv, where types of channels are those of the file and of their names (1)" in printed
    assert "left out, files of a format that BIDS does not allow for EEG (1): sub-01_ses-1_task-rest_eeg.cnt" in printed


def test_the_names_of_images_match_however_their_letters_are_composed_also_in_a_linked_folder(single, capsys):
    def umlaut(rows):
        return [(*row[:3], row[3].replace("cup/0", "cup/Tu\u0308r")) for row in rows]

    (single / "images" / "cup" / "0.png").rename(single / "images" / "cup" / "T\u00fcr.png")
    (single / "images" / "cup").rename(single / "cups")
    (single / "images" / "cup").symlink_to(single / "cups")
    write_run(single / "bids", "01", "1", 5, umlaut)
    assert bench(single, "--dry-run") == OK
    assert "images      24\n" in capsys.readouterr().out


def test_without_mne_bids_the_extra_is_named(single, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mne_bids", None)  # an import then fails, as if not installed
    refused(capsys, single, "pip install eeg2image-bench[bids]", code=ENVIRONMENT)


def test_classes_and_blocks_come_from_columns_and_the_judges_numbers_from_the_user(single, capsys):
    table = single / "bids/sub-01/ses-1/eeg/sub-01_ses-1_task-look_events.tsv"
    events = pd.read_csv(table, sep="\t", keep_default_na=False, dtype=str)
    kind = ["n/a" if row in (3, 4) else name for row, name in enumerate(events["trial_type"])]
    events.assign(kind=kind, part=[str(row // 12) for row in range(len(events))]).to_csv(table, sep="\t", index=False)
    assert bench(single, "--class-column", "kind", "--block-column", "part", "--split", "block", "--judge",
                 "dog=207,cup=504", "--leaky", "no: the order was drawn") == OK
    trials = pd.read_csv(single / "data" / "mine" / "trials.csv", keep_default_na=False)
    assert len(trials) == 22
    used = trials[trials["part_block"] != ""]
    assert (used.groupby("block")["part_block"].nunique() <= 1).all()
    judge = pd.read_csv(single / "data" / "mine" / "classes.csv").set_index("name")["judge"].to_dict()
    assert judge == {"badger": -1, "car": -1, "cup": 504, "dog": 207}
    assert "left out    2: no class (kind is n/a)\n" in capsys.readouterr().out


@pytest.mark.parametrize(("damage", "message"), [
    (lambda text: text.replace("\t0.1\t", "\t", 1), "line 2: 3 values; expected 4, one for each column"),
    (lambda text: text.replace("onset", "time", 1), "has no column onset"),
    (lambda text: text.replace("\t", ","), "has no column onset"),
    (lambda text: "", "has no column onset"),
])
def test_a_damaged_table_of_events_is_named(single, capsys, damage, message):
    table = single / "bids/sub-01/ses-1/eeg/sub-01_ses-1_task-look_events.tsv"
    table.write_text(damage(table.read_text()))
    refused(capsys, single, message)


def test_a_recording_that_is_cut_off_is_named(single, capsys):
    file = single / "bids/sub-01/ses-1/eeg/sub-01_ses-1_task-look_eeg.vhdr"
    samples = file.with_suffix(".eeg")
    samples.write_bytes(samples.read_bytes()[:200_001])
    refused(capsys, single, "sub-01_ses-1_task-look_eeg.vhdr cannot be read: the file of its samples has 200,001 bytes")
    file.write_text("Brain Vision\n")
    refused(capsys, single, "sub-01_ses-1_task-look_eeg.vhdr cannot be read: ")


def test_a_bids_folder_without_eeg_says_what_is_expected(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "bids").mkdir()
    refused(capsys, tmp_path, "no EEG recording of a BIDS folder; expected sub-XX/[ses-YY/]eeg/*_eeg with .vhdr")
