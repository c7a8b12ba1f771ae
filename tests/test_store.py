"""The store: complete or absent."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass

import pytest

from bench.errors import ENVIRONMENT, RESUMABLE, BenchError
from bench.key import Stage, key
from bench.store import MANIFEST, Store


@dataclass(frozen=True)
class Note(Stage):
    text: str


def write(stage):
    return lambda out: (out / "note.txt").write_text(stage.text)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_built_stage_lies_under_its_key_with_a_manifest_of_hashes(store):
    path = store.build(Note("a"), write(Note("a")), host="here")
    assert path.name == key(Note("a"))
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest["files"]["note.txt"]["bytes"] == 1
    assert manifest["stage"]["text"] == "a"
    assert manifest["host"] == "here"
    assert path.stat().st_mode & 0o777 == 0o755


def test_a_stored_stage_is_not_built_again(store):
    store.build(Note("a"), write(Note("a")))
    store.build(Note("a"), lambda out: pytest.fail("built twice"))
    Store(store.root).build(Note("a"), lambda out: pytest.fail("built twice"))


def test_a_stage_that_fails_leaves_nothing_behind(store):
    def fail(out):
        (out / "half.txt").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.build(Note("a"), fail)
    assert not store.sound(Note("a"))
    assert list((store.root / "work").iterdir()) == []


@pytest.mark.parametrize("harm", [
    lambda path: (path / "note.txt").write_text("b"),
    lambda path: (path / "note.txt").unlink(),
    lambda path: (path / MANIFEST).unlink(),
    lambda path: (path / MANIFEST).write_text("{"),
])
def test_a_damaged_stage_is_found_by_its_hash_and_built_again_with_one_warning(store, harm):
    harm(store.build(Note("a"), write(Note("a"))))
    again = Store(store.root)
    with pytest.warns(UserWarning, match="damaged") as caught:
        path = again.build(Note("a"), write(Note("a")))
    assert len(caught) == 1
    assert (path / "note.txt").read_text() == "a"


def test_the_loser_of_a_race_takes_the_winners_folder(store):
    other = Store(store.root)

    def slow(out):
        other.build(Note("a"), write(Note("a")))
        (out / "note.txt").write_text("late")

    assert (store.build(Note("a"), slow) / "note.txt").read_text() == "a"
    assert list((store.root / "work").iterdir()) == []


def test_a_full_disk_is_said_in_one_line_with_exit_code_75(store):
    def full(out):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BenchError, match="no room left") as caught:
        store.build(Note("a"), full)
    assert caught.value.exit_code == RESUMABLE
    assert list((store.root / "work").iterdir()) == []


def test_a_store_that_is_a_file_is_refused_with_exit_code_3(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(BenchError, match="folder that can be written") as caught:
        Store(tmp_path / "store")
    assert caught.value.exit_code == ENVIRONMENT


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_store_that_cannot_be_written_is_refused_with_exit_code_3(tmp_path):
    (tmp_path / "store").mkdir(mode=0o555)
    with pytest.raises(BenchError, match="folder that can be written") as caught:
        Store(tmp_path / "store")
    assert caught.value.exit_code == ENVIRONMENT


def test_asking_about_an_absent_store_does_not_make_one(tmp_path):
    assert not Store(tmp_path / "none", create=False).has(Note("a"))
    assert not (tmp_path / "none").exists()
