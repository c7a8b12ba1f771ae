"""`bench data prepare PATH... --name NAME`, as a user gives it."""

from __future__ import annotations

import argparse

import pytest
from eeg_writers import make_raw, write, write_bids
from rich.console import Console

from bench.commands import data as command
from bench.errors import ENVIRONMENT, OK, USAGE, BenchError
from bench.experiment import datasets
from bench.setup import places
from bench.setup.request import Request


@pytest.fixture
def folder(tmp_path):
    """Two people's recordings, one with too few channels, and a file of another kind."""
    write(make_raw(seconds=8), tmp_path / "in" / "ann" / "one.edf")
    write(make_raw(12, seconds=8, seed=1), tmp_path / "in" / "ann" / "few.bdf")
    write(make_raw(seconds=8, seed=2), tmp_path / "in" / "bob" / "two.vhdr")
    (tmp_path / "in" / "notes.txt").write_text("x")
    return tmp_path / "in"


def bench(*arguments) -> int:
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    return command.main(parser.parse_args([str(argument) for argument in arguments]), Console(soft_wrap=True))


def prepare(*arguments):
    return bench("prepare", *arguments, "--workers", 1)


def refused(message, *arguments, code=USAGE):
    with pytest.raises(BenchError, match=message) as error:
        prepare(*arguments)
    assert error.value.exit_code == code


def test_a_dry_run_lists_what_was_found_and_what_will_be_left_out_and_why(folder, tmp_path, capsys):
    (folder / "bob" / "broken.set").write_bytes(b"x" * 300)
    assert prepare(folder, "--name", "mine", "--data", tmp_path / "data", "--dry-run") == OK
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["ann/one.edf"][1:] == ["ann", "256", "32/32", "0.002", "4"]
    assert lines["bob/two.vhdr"][1:] == ["bob", "256", "32/32", "0.002", "4"]
    assert "left out: few_channels: 12 EEG channels; at least 30 are needed" in out
    assert "left out: unreadable: " in out
    assert "2 of 4 recordings will be cut: 2 people, 0.004 hours, at most 8 windows of 512 samples (2 s)" in out
    assert "skipped: 1 ending .txt (notes.txt)" in out
    assert "skipped: 2 part of a recording (bob/two.eeg, bob/two.vmrk)" in out
    assert "people: ann, bob\n" in out
    assert max(map(len, out.splitlines())) <= 110
    assert not (tmp_path / "data").exists()


def test_a_folder_becomes_a_corpus_that_a_run_uses_by_its_name(folder, tmp_path, capsys):
    assert prepare(folder, "--name", "mine", "--data", tmp_path) == OK
    out = capsys.readouterr().out
    assert out.startswith(f"3 recordings (1 .bdf, 1 .edf, 1 .vhdr) in {folder}\n")
    assert "2 of 3 recordings gave windows\n  left out: ann/few.bdf: 0 windows; rejected: few_channels: 1" in out
    assert "8 windows       32 channels" in out
    assert bench("status", "--data", tmp_path, "--verify") == OK
    assert "every file has the hash in its manifest" in capsys.readouterr().out
    assert prepare(folder, "--name", "mine", "--data", tmp_path) == OK
    scale = places.resolve_scale(Request(scale="paper", corpus="mine", data=tmp_path), needed=False)
    assert scale.corpus == datasets.find_corpus("mine", tmp_path)


def test_of_one_person_alone_it_is_said_that_the_end_of_each_recording_is_held_out(tmp_path, capsys):
    write_bids(tmp_path / "study", "01", seconds=20)
    assert prepare(tmp_path / "study", "--name", "mine", "--data", tmp_path, "--dry-run") == OK
    assert "one person alone: the last sixth of each recording will be held out" in capsys.readouterr().out
    assert prepare(tmp_path / "study", "--name", "mine", "--data", tmp_path, "--stride", 256) == OK
    assert "the last sixth of each recording is held out: 15 windows train, 3 are held out, 1 overlap" in \
        capsys.readouterr().out


def test_a_recording_that_cannot_be_read_ends_the_command_and_can_be_left_out(folder, tmp_path, capsys):
    (folder / "bob" / "broken.set").write_bytes(b"x" * 300)
    refused(r"1 of 4 recordings cannot be read.*\n  bob/broken.set: ", folder, "--name", "mine", "--data", tmp_path,
            code=ENVIRONMENT)
    assert prepare(folder, "--name", "mine", "--data", tmp_path, "--allow-missing") == OK
    out = capsys.readouterr().out
    assert "left out: bob/broken.set: unreadable: " in out
    assert "complete without 1 recordings" in out


def test_one_name_in_two_folders_is_two_people_and_is_said(tmp_path, capsys):
    for number, day in enumerate(("monday", "tuesday")):
        write(make_raw(seconds=4, seed=number), tmp_path / day / "ann" / "one.edf")
    assert prepare(tmp_path / "monday", tmp_path / "tuesday", "--name", "mine", "--dry-run") == OK
    assert "in several folders, taken for different people: ann; if they are the same: --subject-pattern" in \
        capsys.readouterr().out
    assert prepare(tmp_path / "monday", tmp_path / "tuesday", "--name", "mine", "--dry-run", "--subject-pattern",
                   "/([a-z]+)/") == OK
    assert "people: ann\n" in capsys.readouterr().out


def test_only_some_people_are_prepared_by_their_labels(folder, tmp_path, capsys):
    assert prepare(folder, "--name", "mine", "--data", tmp_path, "--subjects", "bob", "--dry-run") == OK
    assert "1 of 1 recording will be cut: 1 person" in capsys.readouterr().out
    refused("--subjects eve: no recording is of this person; there are: ann, bob", folder, "--name", "mine",
            "--subjects", "eve")


@pytest.mark.parametrize(("message", "arguments"), [
    (r"in: for your own recordings give the new corpus a name: bench data prepare .*in --name NAME", ["{folder}"]),
    (r"for your own recordings give the new corpus a name", ["{folder}/ann/one.edf", "{folder}/bob/two.vhdr"]),
    ("expected one name; write several MOABB data sets as one list", ["Cho2017", "Lee2019_MI"]),
    ("--name mine: Cho2017 has a name already; --name is for your own recordings", ["Cho2017", "--name", "mine"]),
    ("--name mine: imagenet_eeg has a name already", ["imagenet_eeg", "--name", "mine"]),
    ("--name things_eeg2: this is the name of a published data set", ["{folder}", "--name", "things_eeg2"]),
    ("--name Cho2017: this is the name of a published data set", ["{folder}", "--name", "Cho2017"]),
    ("--name a/b: expected letters", ["{folder}", "--name", "a/b"]),
    ("gone: no such file or folder", ["{folder}/gone", "--name", "mine"]),
    ("--from cannot be combined with --name", ["{folder}", "--name", "mine", "--from", "{folder}"]),
    ("--set cannot be combined with --name", ["{folder}", "--name", "mine", "--set", "a=b"]),
    ("--stride 0: a number above 0", ["{folder}", "--name", "mine", "--stride", "0"]),
    ("--sfreq inf: a number above 0", ["{folder}", "--name", "mine", "--sfreq", "inf"]),
    ("--band 5,inf: the second must be above", ["{folder}", "--name", "mine", "--band", "5,inf"]),
    ("--subject-pattern is for your own recordings", ["fake", "--subject-pattern", "(s)"]),
    ("--subject-pattern .*: nothing in 'ann/few.bdf' fits", ["{folder}", "--name", "mine", "--subject-pattern", "(S)"]),
])
def test_a_wrong_argument_is_one_line_and_nothing_is_written(folder, tmp_path, message, arguments):
    refused(message, *(argument.format(folder=folder) for argument in arguments), "--data", tmp_path / "data")
    assert not (tmp_path / "data").exists()
