"""Full and read-only disks: one clear line, nothing lost, and the same command resumes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_gc import KEPT, chain, fill

from bench.cli import main
from bench.errors import RESUMABLE, BenchError
from bench.files import create_npy
from bench.scoring import schema
from bench.store.store import Store
from bench.tables import results

TWO = """
from ablations.table2 import full, row3
variants = [full, row3]
contrasts = [("Full", "3")]
"""


@pytest.fixture
def disk(tmp_path):
    """Makes small disks, and mounts them again in another size or read-only."""
    mounted = []

    def mount(name: str, *options: str) -> Path:
        folder = tmp_path / name
        again = ["remount"] if folder in mounted else []
        folder.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join((*again, *options)), "tmpfs", str(folder)],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            # only root mounts, and not in every container; a disk that is not really full would show nothing
            pytest.skip(f"small disks cannot be made here, which takes root: {done.stderr.strip()}")
        if not again:
            mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_store_that_can_only_be_read_is_read_and_building_in_it_ends_with_exit_code_3(disk, tmp_path, capsys,
                                                                                       monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = disk("disk", "size=4m")
    store = Store(folder / "store")
    for stage in chain(KEPT):
        store.build(stage, fill(stage))
    disk("disk", "ro")
    for arguments in (["store", "ls"], ["store", "show", KEPT.key[:8]], ["store", "verify"]):
        assert main([*arguments, "--store", str(store.root)]) == 0
    assert main(["plan", "--ablation", "mask_ratio", "--scale", "micro", "--store", str(store.root)]) == 0
    assert Store(store.root, create=False).running() == []
    capsys.readouterr()
    assert main(["run", "--ablation", "mask_ratio", "--scale", "micro", "--store", str(store.root)]) == 3
    assert capsys.readouterr().err.splitlines() == [
        f"bench: store {store.root} is not writable (Read-only file system); choose another folder with --store DIR"]


def test_a_mapped_file_that_does_not_fit_is_an_error_before_anything_is_written_into_it(disk):
    folder = disk("disk", "size=1m")
    with pytest.raises(OSError, match="No space left"):
        create_npy(folder / "pictures.npy", np.uint8, (3 << 20,))
    array = create_npy(folder / "little.npy", np.uint8, (1 << 10,))
    array[:] = 7
    array.flush()
    assert (np.load(folder / "little.npy") == 7).all()


def test_a_stage_that_fills_the_disk_ends_with_exit_code_75_leaves_nothing_and_is_built_when_there_is_room(disk):
    store, stage = Store(disk("disk", "size=1m")), KEPT.must.grape

    def large(out):
        create_npy(out / "large.npy", np.uint8, (2 << 20,))

    message = "no space left on the disk of .*free space and run the command again"
    with pytest.raises(BenchError, match=message) as caught:
        store.build(stage, large)
    assert caught.value.exit_code == RESUMABLE
    for part in ("work", "leases"):
        assert list((store.root / part).iterdir()) == []
    disk("disk", "size=8m")
    assert (store.build(stage, large) / "large.npy").stat().st_size > 2 << 20


@pytest.mark.parametrize("option", ["--store", "--results"])
def test_a_disk_that_is_full_before_anything_began_ends_a_run_with_exit_code_75_and_one_line(disk, capsys, option):
    folder = disk("disk", "size=1m", "nr_inodes=1")
    arguments = {"--store": folder.parent / "s", "--results": folder.parent / "r"} | {option: folder / "full"}
    assert main(["run", "--ablation", "mask_ratio", "--scale", "micro",
                 *(str(text) for pair in arguments.items() for text in pair)]) == RESUMABLE
    line, = capsys.readouterr().err.splitlines()
    assert str(folder) in line
    assert "free space" in line


def test_results_on_a_full_disk_stay_as_they_were_and_are_recorded_when_there_is_room(disk):
    folder = disk("disk", "size=200k")
    about = {name: "" for name in schema.ABOUT if name != schema.FAILED} | {"items": "real", "leaky": "no"}

    def rows(seeds):
        return pd.DataFrame([{"metric": f"metric{number}", "key": "k" * 40, "value": 0.5, "n": 3, "extractor": "",
                              "extractor_sha256": "", "comparable": 1, "failed": "", "variant": "a", "seed": seed}
                             | about for seed in seeds for number in range(10)])

    results.record(folder, "own", rows([0]), pd.DataFrame())
    before = (folder / "own.csv").read_bytes()
    many = rows(range(1, 300))
    with pytest.raises(BenchError, match="the disk is full") as caught:
        results.record(folder, "own", many, pd.DataFrame())
    assert caught.value.exit_code == RESUMABLE
    assert (folder / "own.csv").read_bytes() == before
    disk("disk", "size=4m")
    results.record(folder, "own", many, pd.DataFrame())
    assert results.read(folder, "own").rows["seed"].nunique() == 300


def bench(folder, *arguments):
    """(exit code, lines of stderr) of a command."""
    code = "import sys; from bench.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=folder, capture_output=True,
                          text=True, check=False, timeout=1800)
    return done.returncode, done.stderr.splitlines()


@pytest.mark.long
def test_a_run_on_disks_that_fill_goes_on_when_room_is_made_and_ends_with_the_same_bytes(disk, tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    command = ["run", "--ablation", "two.py", "--scale", "micro"]
    assert bench(tmp_path, *command, "--store", "whole", "--results", "whole_r")[0] == 0
    store, there = disk("disk", "size=3m"), disk("disk_r", "size=60k")
    ended = []
    for store_mb, results_kb in ((3, 60), (5, 60), (7, 60), (9, 60), (12, 60), (64, 60), (64, 100), (64, 4000)):
        disk("disk", f"size={store_mb}m")
        disk("disk_r", f"size={results_kb}k")
        code, err = bench(tmp_path, *command, "--store", store / "s", "--results", there / "r")
        ended.append((store_mb, results_kb, code, err))
        if code == 0:
            break
        assert code == 75, ended
        assert len(err) == 1, ended
        assert "no space left on the disk" in err[0] or "the disk is full" in err[0]
    assert ended[-1][2] == 0, ended
    said = " ".join(err[0] for *_, err in ended[:-1])
    assert "no space left on the disk" in said
    assert "the disk is full" in said
    for name in ("two.csv", "two.items.csv.gz"):
        assert (there / "r/micro" / name).read_bytes() == (tmp_path / "whole_r/micro" / name).read_bytes()
    for part in ("work", "leases", "checkpoints"):
        assert list((store / "s" / part).glob("*")) == []
