"""What a file is that a user saved in place of data, and the message of each reader that meets it."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data import alljoined, catalogue, prepared, unpickle
from bench.errors import BenchError
from bench.experiment import ablation
from bench.files import HEAD, check_content, describe_content, describe_head, explain
from bench.images import decode
from bench.scoring import audit, compare, gallery
from bench.setup import weights
from bench.tables import results
from models.pins import File

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0a" * 32 + b"\nsize 8336163007\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>Please log in.</body></html>\n"
DRIVE = (b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>Google Drive can't "
         b"scan this file for viruses.</body></html>")
LFS, HTML, CONFIRM = "a Git LFS pointer", "an HTML page", "a confirmation or quota page of Google Drive"


def zipped(name="x.npy", content=b"x"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(("content", "kind"), [
    (POINTER, r"a Git LFS pointer, not the file itself \(run: git lfs pull\)"),
    (b"/annex/objects/MD5E-s12--0cc175b9.edf\n", "a git-annex pointer"),
    (PAGE, r"an HTML page \(a login, consent or error page; download the file again\)"),
    (b"\n\n  <HTML><BODY>404 Not Found", "an HTML page"),
    (b"\xef\xbb\xbf<!doctype html>", "an HTML page"),
    (PAGE.decode().encode("utf-16"), "an HTML page"),
    (b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "x"><html>', "an HTML page"),
    (DRIVE, r"a confirmation or quota page of Google Drive \(open the link in a browser"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an error message of a server: .*AccessDenied"),
    (b'{"error": "Repository not found"}', r"JSON text \(an error message of a server\?\): .*Repository not found"),
    (b"Entry not found", "only text: 'Entry not found'"),
    (b"Access to dataset x is restricted.\nPlease log in.\n", "only text: 'Access to dataset x is restricted. Please"),
    (b"", "empty"),
    (b"\0" * 5000, "zeros from its first byte on"),
    (zipped(), r"a zip archive \(unpack it\)"),
    (gzip.compress(b"x", mtime=0), "a gzip archive"),
    (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "a macOS resource file"),
    (b"%PDF-1.7", "a PDF document"),
])
def test_what_was_saved_in_place_of_data_is_named(tmp_path, content, kind):
    path = tmp_path / "recording.edf"
    path.write_bytes(content)
    found = describe_content(path)
    assert found is not None
    assert "\n" not in found
    assert pd.Series([found]).str.fullmatch(f"{kind}.*").all(), found
    assert explain(path, ValueError("bad magic")) == f"it is {found}"


def test_a_link_whose_content_was_not_got_is_named(tmp_path):
    path = tmp_path / "sub-01_eeg.edf"
    path.symlink_to("../.git/annex/objects/0a/MD5E-s12--0a.edf/MD5E-s12--0a.edf")
    assert describe_content(path) == "a link to a file that is not here (run: datalad get, or git annex get)"
    assert describe_content(tmp_path) == "a folder"
    assert describe_content(tmp_path / "nothing") is None


def test_a_valid_file_is_never_described(tmp_path):
    """Of the formats that are read here, each under its own ending."""
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.savez(tmp_path / "a.npz", np.zeros(3))
    (tmp_path / "pickled.npy").write_bytes(pickle.dumps({"a": np.zeros(3)}, 4))
    torch.save({"a": torch.zeros(3)}, tmp_path / "zip.pth")
    torch.save({"a": torch.zeros(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for ending in ("png", "jpg", "bmp", "gif", "ppm", "tiff", "webp"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"a.{ending}")
    pd.DataFrame({"name": ["a"], "label": [1]}).to_csv(tmp_path / "a.csv", index=False)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "a.txt").write_text("Cho2017\n")
    (tmp_path / "a.vhdr").write_text("Brain Vision Data Exchange Header File Version 1.0\n")
    (tmp_path / "a.edf").write_bytes(b"0       " + b"X".ljust(248) + b"\x01\0" * 100)
    (tmp_path / "a.bdf").write_bytes(b"\xffBIOSEMI" + b" " * 248)
    assert {path.name: describe_content(path) for path in tmp_path.iterdir() if describe_content(path)} == {}


@settings(deadline=None, derandomize=True, database=None, max_examples=50)
@given(st.binary(max_size=HEAD), st.sampled_from(["", ".npy", ".csv", ".edf", ".png", ".pth"]))
def test_any_bytes_are_described_in_one_line_or_not_at_all(head, ending):
    found = describe_head(head, ending)
    assert found is None or (found.isprintable() and len(found) < 200)


def read_image(path):
    decode(path)


def read_array(path):
    gallery.open_gallery(path)


def read_labels(path):
    gallery.read_labels(path, ["a"], 10)


def read_trials(path):
    audit.read(path.parent)


def read_corpus(path):
    path.rename(path.parent / "eeg.npy")
    pd.DataFrame({"item": [0], "subject": 1, "picture": 0, "label": 0, "part": "train", "block": -1,
                  "position": -1}).to_csv(path.parent / "trials.csv", index=False)
    audit.read(path.parent)


def read_judge(path):
    compare.compare(path.parent / "made", path.parent / "real", judge=str(path))


def read_torch(path):
    unpickle.load_torch(path)


def read_things(path):
    unpickle.load_pickled_arrays(path)


def read_parquet(path):
    alljoined.prepare(path.parent, path.parent / "out", path.parent)


def read_results(path):
    results.read_csv(path)


def read_list(path):
    catalogue.parse_corpus(str(path))


def read_ablation(path):
    ablation.load(str(path))


def read_manifest(path):
    prepared.read_manifest(path.parent)


def read_prepared(path):
    prepared.check_sizes(path.parent, {path.name: {"bytes": 8_000_000}})


def read_weights(path):
    raise BenchError(weights.wrong_size(File(path.name, 1_000), path))


READERS = {read_image: "a.png", read_array: "a.npy", read_labels: "labels.csv", read_trials: "trials.csv",
           read_corpus: "array.npy", read_judge: "judge.safetensors", read_torch: "a.pth", read_things: "a.npy",
           read_parquet: "a.parquet", read_results: "a.csv", read_list: "mine.txt", read_ablation: "mine.py",
           read_manifest: "manifest.json", read_prepared: "eeg_5-95.npy", read_weights: "model.safetensors"}


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@pytest.mark.parametrize(("content", "kind"), [(POINTER, LFS), (PAGE, HTML), (DRIVE, CONFIRM)],
                         ids=["lfs", "html", "drive"])
def test_every_reader_says_that_it_was_given_a_pointer_or_a_page(tmp_path, reader, content, kind):
    for folder in ("made", "real"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{name}.png")
    path = tmp_path / READERS[reader]
    path.write_bytes(content)
    with pytest.raises(BenchError) as error:
        reader(path)
    assert kind in str(error.value)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_table_is_not_refused_for_what_it_holds(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("name,label\na,3\n")
    check_content(path, "a CSV of labels")
    short = tmp_path / "labels"  # without an ending that says text
    short.write_text("name,label\na cat,3\n")
    assert gallery.read_labels(short, ["a cat"], 10).tolist() == [3]
    check_content(tmp_path / "absent.csv", "a CSV of labels")  # its reader says so
    assert gallery.read_labels(path, ["a"], 10).tolist() == [3]
