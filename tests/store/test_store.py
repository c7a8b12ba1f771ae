"""The store: complete or absent."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from dataclasses import dataclass

import pytest

from bench.errors import ENVIRONMENT, RESUMABLE, BenchError
from bench.experiment.key import Stage
from bench.store.lease import Held, Lost
from bench.store.store import COPY_TIMEOUT, MANIFEST, Store, find_damage


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
    assert path.name == Note("a").key
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
    assert not store.is_intact(Note("a"))
    assert list((store.root / "work").iterdir()) == []


def change(file, old, new):
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize("harm", [
    lambda path: (path / "note.txt").write_text("b"),
    lambda path: (path / "note.txt").unlink(),
    lambda path: (path / MANIFEST).unlink(),
    lambda path: (path / MANIFEST).write_text("{"),
    lambda path: change(path / MANIFEST, '"text": "a"', '"text": "b"'),
    lambda path: change(path / MANIFEST, f'"key": "{path.name}', '"key": "0'),
    lambda path: change(path / MANIFEST, '"files": {', '"files": ["'),
    lambda path: change(path / MANIFEST, '"bytes": 1', '"bytes": 2'),
    lambda path: change(path / MANIFEST, '"bytes"', '"byter"'),
])
def test_a_damaged_stage_is_found_by_its_hash_and_built_again_with_one_warning(store, harm):
    harm(store.build(Note("a"), write(Note("a"))))
    again = Store(store.root)
    with pytest.warns(UserWarning, match="damaged") as caught:
        path = again.build(Note("a"), write(Note("a")))
    assert len(caught) == 1
    assert (path / "note.txt").read_text() == "a"


def test_a_file_that_cannot_be_read_is_no_damage(store, monkeypatch):
    path = store.build(Note("a"), write(Note("a")))

    def denied(file):
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr("bench.store.store.sha256", denied)
    with pytest.raises(BenchError, match="note.txt cannot be read .Permission denied.; nothing was removed") as caught:
        Store(store.root).is_intact(Note("a"))
    assert caught.value.exit_code == ENVIRONMENT
    assert (path / "note.txt").read_text() == "a"


def test_a_damaged_stage_that_another_has_put_right_meanwhile_stays(store, monkeypatch):
    path = store.build(Note("a"), write(Note("a")))
    (path / "note.txt").write_text("b")
    again, checks = Store(store.root), []

    def once(folder):
        damage = find_damage(folder)
        if not checks:  # between the first check and the removal, another process rebuilds it
            (path / "note.txt").write_text("a")
        checks.append(damage)
        return damage

    monkeypatch.setattr("bench.store.store.find_damage", once)
    with pytest.warns(UserWarning, match="damaged"):
        assert not again.is_intact(Note("a"))
    assert [bool(damage) for damage in checks] == [True, False]
    assert Store(store.root).is_intact(Note("a"))


def test_a_lease_that_does_not_say_its_attempt_yet_keeps_all_attempts(store):
    (store.root / "leases" / "ab").write_text("")
    attempt = store.root / "work" / "note-0123456789abcdef"
    attempt.mkdir()
    store.sweep()
    assert attempt.exists()
    (store.root / "leases" / "ab").unlink()
    store.sweep()
    assert not attempt.exists()


def stalled(store, stage):
    """Removes this process's lease, as if it had expired and another process had taken over."""
    (store.root / "leases" / stage.key).unlink()


def test_the_loser_of_a_race_takes_the_winners_folder(store):
    other = Store(store.root)

    def slow(out):
        stalled(store, Note("a"))
        other.build(Note("a"), write(Note("a")))
        (out / "note.txt").write_text("late")

    assert (store.build(Note("a"), slow) / "note.txt").read_text() == "a"
    assert list((store.root / "work").iterdir()) == []
    assert list((store.root / "leases").iterdir()) == []


def test_who_lost_its_lease_commits_nothing_and_does_not_disturb_the_thief(store):
    other = Store(store.root)

    def thief(out):
        (out / "note.txt").write_text("thief")
        with pytest.raises(Lost):
            claims[0].check()
        assert store.holder(Note("a")).attempt == out.name.split("-")[1]

    claims = []

    def slow(out):
        claims.append(store.claim(Note("a")))
        stalled(store, Note("a"))
        (out / "note.txt").write_text("late")

    with pytest.raises(Lost):
        store.build(Note("a"), slow)
    assert not store.has(Note("a"))
    assert (other.build(Note("a"), thief) / "note.txt").read_text() == "thief"


def test_an_attempt_whose_folder_was_swept_away_says_that_it_lost_and_no_more(store):
    def slow(out):
        stalled(store, Note("a"))
        Store(store.root).sweep()
        (out / "note.txt").write_text("late")

    with pytest.raises(Lost):
        store.build(Note("a"), slow)


def test_a_stage_that_another_builds_is_refused_at_once_or_waited_for(store, monkeypatch):
    monkeypatch.setenv("EEG2IMAGE_BENCH_LEASE_S", "5")
    other, refused, found = Store(store.root), [], []

    def make(out):
        with pytest.raises(Held) as caught:
            other.build(Note("a"), lambda out: pytest.fail("built twice"))
        refused.append(caught.value.lease.pid)
        waiting.start()
        time.sleep(0.5)
        (out / "note.txt").write_text("a")

    waiting = threading.Thread(target=lambda: found.append(
        other.build(Note("a"), lambda out: (out / "note.txt").write_text("twice"), wait=True)))
    path = store.build(Note("a"), make)
    waiting.join()
    assert refused == [os.getpid()]
    assert found == [path]
    assert (path / "note.txt").read_text() == "a"


def test_sweeping_removes_a_users_encoder_whose_copy_was_never_finished(store):
    young, old = (store.encoders / f"{name}.part" for name in ("a" * 8, "b" * 8))
    for folder in (young, old, store.encoders / "c"):
        folder.mkdir()
    for folder in (old, store.encoders / "c"):
        os.utime(folder, (time.time() - 2 * COPY_TIMEOUT,) * 2)
    store.sweep()
    assert sorted(path.name for path in store.encoders.iterdir()) == [young.name, "c"]


def test_sweeping_leaves_the_attempts_of_live_processes_and_removes_the_others(store):
    (store.root / "work" / "note-0123456789abcdef").mkdir()
    (store.root / "work" / "somebody's").mkdir()

    def make(out):
        (out / "note.txt").write_text("a")
        Store(store.root).sweep()
        assert sorted(path.name for path in (store.root / "work").iterdir()) == [out.name, "somebody's"]

    store.build(Note("a"), make)


def test_checkpoints_of_a_stage_that_is_complete_are_swept_away(store):
    store.build(Note("a"), write(Note("a")))
    for name in (Note("a"), Note("b")):
        store.checkpoints(name).mkdir(parents=True)
        (store.checkpoints(name) / "state.pt").write_text("{}")
    store.sweep()
    assert not store.checkpoints(Note("a")).exists()
    assert store.checkpoints(Note("b")).exists()


def test_a_key_is_found_by_its_beginning_and_what_is_ambiguous_is_listed(store):
    keys = sorted(Note(str(number)).key for number in range(20))
    for number in range(20):
        store.build(Note(str(number)), write(Note(str(number))))
    assert list(store.keys()) == keys
    assert store.resolve(keys[3][:20]) == keys[3]
    assert store.manifest_of(keys[3])["key"] == keys[3]
    with pytest.raises(BenchError, match="no stage in .* has a key that begins with 'xyz'"):
        store.resolve("xyz")
    with pytest.raises(BenchError, match=r"20 stages have a key that begins with '': .* \(note\), .*give more digits "
                                         "of the key"):
        store.resolve("")


def test_a_full_disk_is_said_in_one_line_with_exit_code_75(store):
    def full(out):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BenchError, match="no space left") as caught:
        store.build(Note("a"), full)
    assert caught.value.exit_code == RESUMABLE
    assert list((store.root / "work").iterdir()) == []


def test_a_store_that_is_a_file_is_refused_with_exit_code_3(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(BenchError, match="is not writable") as caught:
        Store(tmp_path / "store")
    assert caught.value.exit_code == ENVIRONMENT


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_store_that_cannot_be_written_is_refused_with_exit_code_3(tmp_path):
    (tmp_path / "store").mkdir(mode=0o555)
    with pytest.raises(BenchError, match="is not writable") as caught:
        Store(tmp_path / "store")
    assert caught.value.exit_code == ENVIRONMENT


def test_asking_about_an_absent_store_does_not_make_one(tmp_path):
    assert not Store(tmp_path / "none", create=False).has(Note("a"))
    assert not (tmp_path / "none").exists()
