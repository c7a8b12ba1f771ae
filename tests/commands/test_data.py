"""`bench data prepare` and `bench data status`, as a user gives them; nothing tries the network."""

from __future__ import annotations

import argparse
import socket

import pytest
from formats import dump, write_things
from rich.console import Console

from bench.commands import data as command
from bench.data.unpickle import load_pickled_arrays
from bench.errors import ENVIRONMENT, OK, SOME_FAILED, USAGE, BenchError


@pytest.fixture(autouse=True)
def attempts(monkeypatch, tmp_path):
    """Every attempt to reach the network; there must be none."""
    found = []

    def refuse(*arguments, **_):
        found.append(arguments)
        raise OSError("no network here")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MNE_DATA", str(tmp_path))
    yield found
    assert found == []


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of data with a finished corpus, `Fake032+Fake062`, of two people each."""
    folder = tmp_path_factory.mktemp("data")
    assert bench("prepare", "Fake032,Fake062", "--subjects", "1,2", "--workers", "1", "--data", folder) == OK
    return folder


def bench(*arguments) -> int:
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    return command.main(parser.parse_args([str(argument) for argument in arguments]), Console(soft_wrap=True))


def files(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(message, *arguments, code=USAGE):
    with pytest.raises(BenchError, match=message) as error:
        bench(*arguments)
    assert error.value.exit_code == code


def test_before_anything_is_done_it_is_said_about_how_much_it_is(tmp_path, capsys):
    assert bench("prepare", "moabb_v046", "--data", tmp_path / "data", "--workers", 2, "--dry-run") == OK
    said = capsys.readouterr().out
    assert said.startswith("moabb_v046: 20 data sets, 644 subjects; about 3,4")
    assert "GB on disk" in said
    assert "on 2 workers" in said
    assert "about" in said
    assert not (tmp_path / "data").exists()


def test_a_corpus_larger_than_the_disk_is_warned_of(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: argparse.Namespace(free=5e8))
    bench("prepare", "moabb_v046", "--data", tmp_path / "data", "--dry-run")
    assert f"warning: the disk of {tmp_path / 'data'} has 0.5 GB left" in capsys.readouterr().err


def test_a_corpus_is_prepared_once_and_shown(data, capsys):
    before = files(data)
    assert bench("prepare", "Fake032,Fake062", "--subjects", "1,2", "--data", data) == OK
    assert files(data) == before
    assert bench("status", "--data", data) == OK
    for line in capsys.readouterr().out.strip().splitlines():
        assert line.startswith("Fake032+Fake062 ")
        for words in ("62 windows", "32-62 channels", "5-95 Hz", " MB ", "  complete"):
            assert words in line


def test_progress_is_a_line_for_each_subject_where_there_is_no_terminal(tmp_path, capsys):
    bench("prepare", "Fake032", "--subjects", "1,2", "--workers", 1, "--data", tmp_path, "--per-subject", 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["[1/2] Fake032 subject 1", "[2/2] Fake032 subject 2"]
    assert "6 windows" in lines[3]


def test_what_was_rejected_and_which_channels_were_bad_is_said_at_the_end(tmp_path, capsys):
    write_things(tmp_path / "raw", "gifford", subjects=(1,))
    file = tmp_path / "raw" / "sub-01" / "preprocessed_eeg_training.npy"
    content = load_pickled_arrays(file)
    content["preprocessed_eeg_data"][:3, 0, 5] *= 100
    content["preprocessed_eeg_data"][4, 0, :, 50:] = 0
    dump(file, content, "gifford")
    (tmp_path / "raw" / "sub-old").mkdir()
    assert bench("prepare", "things_eeg2", "--from", tmp_path / "raw", "--data", tmp_path, "--set", "size=16", "--set",
                 f"pictures={tmp_path / 'raw' / 'images'}", "--set", "val_concepts=2") == OK
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "  skipped: sub- without a number: 1", "  rejected: constant: 1", "  repaired: channel of another scale: 3",
        "  bad channels: E6 (scale): 3"]


def test_status_tells_what_is_unfinished_damaged_or_no_data_at_all(data, tmp_path, capsys):
    from bench.data.corpora import prepare as make

    def stop(done, total, text):
        if done == 2:
            raise KeyboardInterrupt

    assert bench("status", "--data", tmp_path / "none") == OK
    assert capsys.readouterr().out == f"nothing is prepared in {tmp_path / 'none'}: bench data prepare NAME\n"
    with pytest.raises(KeyboardInterrupt):
        make("begun", tmp_path, ("Fake032",), progress=stop)
    for name, content in files(data).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    shard = tmp_path / "corpora" / "Fake032+Fake062" / "Fake032" / "sub-001_C032.npy"
    shard.write_bytes(shard.read_bytes()[:-2])
    assert bench("status", "--data", tmp_path) == OK
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "incomplete: 2 subjects done; the same command resumes" in lines["begun"]
    assert "incomplete: manifest.json cannot be read" in lines["broken"]
    assert "incomplete: Fake032/sub-001_C032.npy is missing or of another size" in lines["Fake032+Fake062"]


def test_status_reads_every_byte_when_that_is_asked_for(data, tmp_path, capsys):
    assert bench("status", "--data", data, "--verify") == OK
    assert "every file has the hash in its manifest" in capsys.readouterr().out
    for name, content in files(data).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content[:-2] + b"\0\0" if name.endswith("C032.npy") else content)
    assert bench("status", "--data", tmp_path, "--verify") == SOME_FAILED
    assert capsys.readouterr().err.count("another SHA-256 than the manifest says") == 2


@pytest.mark.parametrize(("message", "arguments"), [
    ("no data set 'Cho2018' \\(similar: Cho2017", ["Cho2018"]),
    ("names no data set", [","]),
    ("--band 5: two numbers in Hz", ["fake", "--band", "5"]),
    ("--band 95,5: the second must be above", ["fake", "--band", "95,5"]),
    ("--subjects 1,x: all, or numbers of subjects", ["fake", "--subjects", "1,x"]),
    ("--stride 0: a number above 0", ["fake", "--stride", "0"]),
    ("--workers -1: a number above 0", ["fake", "--workers", "-1"]),
    ("--sfreq nan: a number above 0", ["fake", "--sfreq", "nan"]),
    ("--set is for imagenet_eeg", ["fake", "--set", "a=b"]),
    ("the folder of MOABB's downloads is expected", ["fake", "--from", "nowhere"]),
])
def test_a_wrong_option_is_one_line_and_nothing_prepared_is_lost(data, message, arguments):
    before = files(data)
    refused(message, "prepare", *arguments, "--data", data)
    assert files(data) == before


def test_a_folder_for_downloads_that_is_gone_is_an_error_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MNE_DATA", str(tmp_path / "gone"))
    refused("MNE_DATA names", "prepare", "fake", "--data", tmp_path, code=ENVIRONMENT)


def test_a_folder_of_data_that_cannot_be_written_is_an_error_of_the_environment(tmp_path):
    (tmp_path / "file").write_text("no folder")
    refused("cannot write to this folder", "prepare", "fake", "--data", tmp_path / "file", code=ENVIRONMENT)


@pytest.mark.parametrize("name", list(command.PAIRS))
def test_a_data_set_that_is_prepared_from_files_says_which(name, tmp_path):
    refused(rf"{name} is prepared from its published files: --from DIR with\n  ", "prepare", name)
    refused("a folder with the files of", "prepare", name, "--from", tmp_path / "gone")
    refused(r"--set no=1: .* has the options ", "prepare", name, "--from", tmp_path, "--set", "no=1")
