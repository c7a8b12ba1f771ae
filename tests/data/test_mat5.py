"""EEGLAB's .set files are checked before a library reads them: a damaged one is an error, and not the process's end."""

from __future__ import annotations

import struct
import subprocess
import sys

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix

from bench.data import mat5

CONTENT = {"EEG": {"setname": "rec", "nbchan": 4.0, "data": np.arange(40.0).reshape(4, 10), "empty": [],
                   "chanlocs": np.array([("Fp1", 1.5), ("Öz", 2.5)], [("labels", object), ("theta", object)]),
                   "event": np.array([{"type": "square", "latency": 3}, "cell"], object), "whole": np.int32(7)}}


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def file(request, tmp_path):
    savemat(tmp_path / "rec.set", CONTENT, appendmat=False, do_compression=request.param)
    return tmp_path / "rec.set"


def test_intact_files_pass_with_and_without_compression(file):
    mat5.check(file)
    assert loadmat(file)["EEG"]["nbchan"].item().item() == 4


def element(code, content):
    return struct.pack("<II", code, len(content)) + content + bytes(-len(content) % 8)


def test_a_string_or_table_of_matlab_inside_a_set_is_no_damage(tmp_path):
    """MATLAB writes objects of its classes as opaque matrices; scipy.io.savemat cannot."""
    savemat(tmp_path / "rec.set", {"x": np.ones(3), "sparse": csc_matrix(np.eye(3)), "none": csc_matrix((2, 2))},
            appendmat=False)
    number = element(14, element(6, struct.pack("<II", 13, 0)) + element(5, struct.pack("<2i", 1, 1)) + element(1, b"")
                     + element(6, struct.pack("<I", 7)))
    opaque = element(14, element(6, struct.pack("<II", 17, 0)) + element(1, b"note") + element(1, b"MCOS")
                     + element(1, b"string") + number)
    handle = element(14, element(6, struct.pack("<II", 16, 0)) + element(5, struct.pack("<2i", 1, 1))
                     + element(1, b"handle") + number)
    data = (tmp_path / "rec.set").read_bytes()
    (tmp_path / "rec.set").write_bytes(data + opaque + handle)
    mat5.check(tmp_path / "rec.set")
    assert set(loadmat(tmp_path / "rec.set")) >= {"x", "sparse", "none", "handle"}
    (tmp_path / "rec.set").write_bytes(data + opaque.replace(b"MCOS", b"MC\0\0").replace(number, b""))
    with pytest.raises(ValueError, match="truncated|damaged"):
        mat5.check(tmp_path / "rec.set")


@pytest.mark.parametrize("text", [b"", b"text", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_other_files_are_left_to_the_library(tmp_path, text):
    (tmp_path / "rec.set").write_bytes(text)
    mat5.check(tmp_path / "rec.set")


def test_a_truncated_file_is_refused(file):
    data = file.read_bytes()
    for size in (len(data) - 1, len(data) // 2, 140):
        file.write_bytes(data[:size])
        with pytest.raises(ValueError, match="truncated|damaged"):
            mat5.check(file)


def test_a_type_code_that_ends_the_process_in_scipy_is_refused(tmp_path):
    file = tmp_path / "rec.set"
    savemat(file, {"x": np.ones((1, 1))}, appendmat=False)
    data = bytearray(file.read_bytes())
    place = data.rindex((9).to_bytes(4, "little"))  # the type of the number: double
    data[place] = 8
    file.write_bytes(data)
    with pytest.raises(ValueError, match="damaged: .*type 8"):
        mat5.check(file)


def test_no_bit_flip_of_a_small_file_ends_the_process(tmp_path):
    """What passes the check is read by scipy in a process of its own, which ends as it should."""
    savemat(tmp_path / "rec.set", CONTENT, appendmat=False)
    data, rng, kept = (tmp_path / "rec.set").read_bytes(), np.random.default_rng(0), 0
    for number in range(300):
        flipped = bytearray(data)
        flipped[int(rng.integers(128, len(data)))] ^= 1 << int(rng.integers(8))
        file = tmp_path / f"{number}.set"
        file.write_bytes(flipped)
        try:
            mat5.check(file)
            kept += 1
        except ValueError:
            file.unlink()
    assert 0 < kept < 300
    (tmp_path / "rec.set").unlink()
    code = ("import sys, pathlib, warnings\nfrom scipy.io import loadmat\nwarnings.simplefilter('ignore')\n"
            "for file in pathlib.Path(sys.argv[1]).glob('*.set'):\n"
            "    try:\n        loadmat(file)\n    except Exception:\n        pass\n")
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
