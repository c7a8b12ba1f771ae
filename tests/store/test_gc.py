"""Stages in the store: listed, shown, verified, and removed if no result needs them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import pandas as pd
import pytest

from bench.cli import main
from bench.errors import BenchError
from bench.execute import worker
from bench.experiment.key import Stage
from bench.files import sha256
from bench.store import gc, lease
from bench.store.store import Store


@dataclass(frozen=True)
class Grape(Stage):
    sort: str


@dataclass(frozen=True)
class Must(Stage):
    grape: Grape


@dataclass(frozen=True)
class Wine(Stage):
    must: Must
    year: int


KEPT, LOOSE = Wine(Must(Grape("red")), 1), Wine(Must(Grape("white")), 1)


def fill(stage):
    return lambda out: (out / "note.txt").write_text("a" * 1000)


def chain(wine):
    return [wine.must.grape, wine.must, wine]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Two chains of three stages, built a month ago; a result needs one of them."""
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / ".bench")
    for wine in (KEPT, LOOSE):
        for stage in chain(wine):
            manifest = store.build(stage, fill(stage)) / "MANIFEST.json"
            os.utime(manifest, (time.time() - 30 * 86400,) * 2)
    named(tmp_path / "results" / "tiny", KEPT)
    return store


def named(folder, *stages):
    folder.mkdir(parents=True)
    lines = [f"Full,0,fid,1.5,{stage.key[:16]}" for stage in stages]
    (folder / "own.csv").write_text("\n".join(["variant,seed,metric,value,stage", *lines]) + "\n")
    (folder / "own.runs.csv").write_text(f"date,variant,stage\n2020,Full,{LOOSE.key[:16]}\n")


def there(store):
    return [stage for stage in (*chain(KEPT), *chain(LOOSE)) if store.has(stage)]


def test_what_a_result_stands_on_is_kept_with_all_that_it_was_built_from_and_nothing_is_removed_unless_asked(store,
                                                                                                      capsys):
    assert main(["gc"]) == 0
    said = capsys.readouterr().out
    assert "would remove 3 of 6 stages, 3.0 kB" in said
    assert "--delete" in said
    assert len(there(store)) == 6
    assert main(["gc", "--delete"]) == 0
    assert "removed 3 of 6 stages, 3.0 kB" in capsys.readouterr().out
    assert there(store) == chain(KEPT)
    assert list((store.root / "work").iterdir()) == []


def test_what_is_young_is_kept_with_all_that_it_was_built_from(store, capsys):
    os.utime(store.path(LOOSE.must) / "MANIFEST.json")
    assert main(["gc", "--delete"]) == 0
    assert there(store) == [*chain(KEPT), LOOSE.must.grape, LOOSE.must]
    assert main(["gc", "--delete", "--older-than", "0"]) == 0
    assert there(store) == chain(KEPT)


def test_a_stage_with_checkpoints_keeps_what_it_is_built_from(store):
    begun = Wine(LOOSE.must, 2)
    store.checkpoints(begun).mkdir(parents=True)
    (store.checkpoints(begun) / "stage.json").write_text(begun.document)
    assert main(["gc", "--delete"]) == 0
    assert there(store) == [*chain(KEPT), LOOSE.must.grape, LOOSE.must]
    assert store.checkpoints(begun).exists()


def test_nothing_is_removed_while_a_run_is_at_work(store, capsys):
    with lease.acquire(store.root / "leases", Wine(LOOSE.must, 3).key, "wine"):
        assert main(["gc", "--delete"]) == 2
    assert f"a run is active in .bench (process {os.getpid()} on " in capsys.readouterr().err
    assert len(there(store)) == 6


def test_nothing_is_removed_under_a_run_that_builds_nothing_just_now(store, capsys):
    with store.at_work():
        assert main(["gc", "--delete"]) == 2
    assert f"a run is active in .bench (process {os.getpid()} on " in capsys.readouterr().err
    assert len(there(store)) == 6
    assert list((store.root / "runs").iterdir()) == []


@pytest.mark.parametrize("broken", ["", "{"])
def test_nothing_is_removed_where_it_is_not_known_what_a_result_stands_on(store, capsys, broken):
    (store.path(KEPT) / "MANIFEST.json").write_text(broken)
    assert main(["gc", "--delete"]) == 2
    assert f"{KEPT.key}/MANIFEST.json cannot be read" in capsys.readouterr().err
    assert len(there(store)) == 6


@pytest.mark.parametrize("file", ["checkpoints/ab/stage.json", "requests/ab.job"])
def test_a_note_that_is_cut_is_named(store, capsys, file):
    (store.root / file).parent.mkdir(parents=True)
    (store.root / file).write_text('{"job"')
    assert main(["gc"]) == 2
    assert f"{file} cannot be read as JSON" in capsys.readouterr().err


def test_a_store_is_not_emptied_because_a_folder_was_mistaken(store, tmp_path, capsys):
    for arguments, said in ((["--results", "nowhere"], "no results in nowhere"),
                            (["--store", "nowhere"], "no store in nowhere"),
                            (["--older-than", "-1"], "--older-than -1"),
                            (["--results", "other"], "none of the 1 stages that other names is in .bench")):
        if arguments == ["--results", "other"]:
            named(tmp_path / "other", Wine(Must(Grape("none")), 1))
        assert main(["gc", "--delete", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert len(there(store)) == 6


def test_results_behind_a_link_keep_their_stages(store, tmp_path, capsys):
    named(tmp_path / "disk" / "tiny", LOOSE)
    (tmp_path / "results" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "results" / "again").symlink_to(tmp_path / "results")
    assert main(["gc", "--delete"]) == 0
    assert len(there(store)) == 6


def test_results_that_a_spreadsheet_saved_keep_their_stages(store, tmp_path):
    """With all cells in quotes, and a mark of the byte order."""
    named(tmp_path / "results" / "copy", LOOSE)
    file = tmp_path / "results" / "copy" / "own.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    table.to_csv(file, index=False, quoting=csv.QUOTE_ALL, encoding="utf-8-sig")
    assert main(["gc", "--delete"]) == 0
    assert len(there(store)) == 6


def test_every_stage_is_listed_with_kind_size_and_age(store, capsys):
    assert main(["store", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["grape"] * 2 + ["must"] * 2 + ["wine"] * 2
    assert lines[0].split()[2:] == ["1.0", "kB", "30", "days"]
    assert lines[-1] == "6 stages, 6.0 kB"
    assert main(["store", "ls", "--kind", "wine", "--sort", "key"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]] == sorted(
        stage.key[:16] for stage in (KEPT, LOOSE))
    assert main(["store", "ls", "--kind", "beer"]) == 2
    assert "no stage of kind beer in .bench; there are: grape, must, wine" in capsys.readouterr().err


def test_a_manifest_is_shown_by_the_beginning_of_its_key(store, capsys):
    assert main(["store", "show", KEPT.key[:12]]) == 0
    assert json.loads(capsys.readouterr().out)["stage"]["must"]["grape"]["sort"] == "red"
    assert main(["store", "show", "zz"]) == 2
    assert "has a key that begins with 'zz'" in capsys.readouterr().err


def test_verifying_names_what_is_damaged_and_removes_it_when_asked(store, capsys):
    assert main(["store", "verify"]) == 0
    assert capsys.readouterr().out == "6 stages read, 0 damaged\n"
    (store.path(KEPT) / "note.txt").write_text("b" * 1000)
    (store.path(LOOSE) / "MANIFEST.json").unlink()
    assert main(["store", "verify"]) == 1
    said = capsys.readouterr().out
    assert f"{KEPT.key[:16]}  wine: the hash of note.txt differs from the manifest" in said
    assert f"{LOOSE.key[:16]}  damaged: FileNotFoundError" in said
    assert "6 stages read, 2 damaged" in said
    assert main(["store", "verify", "--delete-damaged"]) == 1
    assert not store.path(KEPT).exists()
    assert not store.path(LOOSE).exists()
    assert main(["store", "verify"]) == 0


def test_ancestry_by_a_manifest_is_that_of_the_plan():
    from bench import FULL, systems
    from bench.experiment import graph
    from bench.experiment.scale import MICRO

    score = systems.plan(FULL, MICRO.items(), MICRO, 0)
    assert set(gc.ancestry(json.loads(score.document))) == {stage.key for stage in graph.stages([score])}


def test_the_store_is_looked_at_without_torch(store):
    code = ("import sys; from bench.cli import main; main(sys.argv[1:]); "
            "sys.exit(any(name.split('.')[0] in ('torch', 'diffusers', 'timm') for name in sys.modules))")
    for arguments in (["gc"], ["store", "ls"]):
        assert subprocess.run([sys.executable, "-c", code, *arguments], cwd=store.root.parent, check=False,
                              capture_output=True).returncode == 0


def test_what_engines_were_handed_goes_when_it_is_old_and_its_stage_complete(store, capsys):
    never, running = Wine(LOOSE.must, 4), Wine(LOOSE.must, 5)
    files = {}
    for number, stage in enumerate((KEPT, never, running)):
        files[stage] = [worker.write_request(store, stage), store.root / "slurm" / f"{number}_submitted.pkl"]
        files[stage][1].parent.mkdir(exist_ok=True)
        files[stage][1].touch()
        if stage is not never:  # it has a request, and no job
            files[stage].append(files[stage][0].with_suffix(".job"))
            files[stage][2].write_text(json.dumps({"engine": "slurm", "job": str(number),
                                                   "stage": json.loads(stage.document)}))
    assert main(["gc", "--delete"]) == 0
    every = [path for those in files.values() for path in those]
    assert all(path.exists() for path in every)  # they are too new
    for path in every:
        os.utime(path, (time.time() - 30 * 86400,) * 2)
    assert main(["gc"]) == 0
    printed = capsys.readouterr().out
    assert "and 5 files of cluster engines: " in printed
    assert "; to remove them: --delete" in printed
    assert main(["gc", "--delete"]) == 0
    assert [path for path in every if path.exists()] == files[running]
    assert there(store) == [*chain(KEPT), LOOSE.must.grape, LOOSE.must]  # the job needs them


def test_what_cannot_be_read_is_counted_and_the_rest_is_verified(store, capsys, monkeypatch):
    def denied(file):
        if file.parent.name == KEPT.key:
            raise PermissionError(13, "Permission denied", str(file))
        return sha256(file)

    monkeypatch.setattr("bench.store.store.sha256", denied)
    (store.path(LOOSE) / "note.txt").write_text("b")
    assert main(["store", "verify", "--delete-damaged"]) == 3
    said = capsys.readouterr().out
    assert "note.txt cannot be read (Permission denied)" in said
    assert "the hash of note.txt differs from the manifest, removed" in said
    assert "6 stages read, 1 damaged, 1 could not be read" in said
    assert store.has(KEPT)
    assert not store.has(LOOSE)


def test_what_is_being_built_again_is_not_said_to_be_removed(store, capsys):
    (store.path(LOOSE) / "note.txt").write_text("b")
    with lease.acquire(store.root / "leases", LOOSE.key, "wine"):
        assert main(["store", "verify", "--delete-damaged"]) == 1
    assert ", removed" not in capsys.readouterr().out
    assert store.has(LOOSE)


def test_a_folder_that_cannot_be_listed_ends_gc(store, capsys, monkeypatch):
    closed = store.path(KEPT).parent
    iterdir = type(closed).iterdir

    def denied(folder):
        if folder.name == closed.name:
            raise PermissionError(13, "Permission denied", str(folder))
        return iterdir(folder)

    monkeypatch.setattr(type(closed), "iterdir", denied)
    assert main(["gc", "--delete"]) == 3
    assert f"{closed.name} cannot be read (Permission denied)" in capsys.readouterr().err
    monkeypatch.undo()
    assert len(list((store.root / "objects").glob("*/*"))) == 6


def test_a_damaged_manifest_is_shown_as_damaged_in_one_line(store, capsys):
    (store.path(KEPT) / "MANIFEST.json").write_bytes(b"\xff{")
    assert main(["store", "show", KEPT.key[:12]]) == 3
    line, = capsys.readouterr().err.splitlines()
    assert "MANIFEST.json is damaged" in line
    assert "bench store verify --delete-damaged" in line


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b'variant,metric,stage\n"1,2,3\n'])
def test_a_damaged_results_file_ends_gc_before_anything_is_removed(store, capsys, text):
    name = store.root.parent / "results" / "tiny" / "own.csv"
    name.write_bytes(text)
    assert main(["gc", "--delete"]) == 2
    assert "own.csv cannot be read as a CSV" in capsys.readouterr().err
    assert len(there(store)) == 6


@pytest.mark.parametrize("text", [b"\xff\xfe", b"[]", b'{"stage": 5}'])
def test_a_damaged_note_of_an_engines_job_is_named(store, text):
    (store.root / "requests").mkdir()
    (store.root / "requests" / f"{'0' * 64}.job").write_bytes(text)
    with pytest.raises(BenchError, match=r"\.job (cannot be read|is not the note)"):
        gc.engine_jobs(store)
