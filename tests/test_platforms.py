"""What works on Windows and macOS, simulated here: modules of POSIX that are absent, paths, locks, device mps."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PureWindowsPath

import filelock
import numpy as np
import pytest
import torch
from PIL import Image
from visible import Visible

import bench
from bench import files, runtime
from bench.cli import main
from bench.errors import BenchError
from bench.execute.devices import Layout, choose_layout
from bench.execute.pool import Pool
from bench.experiment.kinds import gpus_of
from bench.experiment.scale import MICRO, SCALES, TINY
from bench.experiment.stages import Numerics
from bench.setup import request
from bench.setup.rows import with_numerics
from bench.store.store import Store
from bench.train.loop import precision, to_device

ROOT = Path(__file__).resolve().parents[1]
ABSENT = """
import builtins, os, signal, sys

whole_import = builtins.__import__
def without(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "").partition(".")[0]
    if name in ("fcntl", "resource", "termios", "pwd", "grp") and importer in ("bench", "models", "filelock"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)  # other libraries know where they are
    return whole_import(name, globals, locals, fromlist, level)

builtins.__import__ = without
for name in ("sched_getaffinity", "posix_fallocate"):
    delattr(os, name)
signals = {name: vars(signal).pop(name) for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM")}
from bench.cli import main
for line in sys.stdin.read().splitlines():
    if line.startswith("score"):
        vars(signal).update(signals)  # torch for Linux needs them
    code = main(line.split())
    print(f"exit {code}", flush=True)
"""
HELD = """
import sys
from pathlib import Path
from bench import files
files.fcntl = None
with files.locking(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(1, 10))}
MPS = replace(TINY, numerics=Numerics("mps"))


def check_without_posix(lines, capsys, monkeypatch):
    """Checks that commands print the same in a process without the modules of POSIX."""
    monkeypatch.setenv("COLUMNS", "100")
    ran = subprocess.run([sys.executable, "-X", "warn_default_encoding", "-c", ABSENT], input="\n".join(lines),
                         capture_output=True, text=True, check=False, cwd=ROOT)
    for line in lines:
        print(f"exit {main(line.split())}")
    assert ran.stdout == capsys.readouterr().out, ran.stderr
    assert ran.stdout.count("exit 0") == len(lines)
    assert f"{ROOT}/bench" not in ran.stderr  # no EncodingWarning: on Windows the default is not UTF-8


def test_list_table_and_plan_print_the_same_without_the_modules_of_posix(tmp_path, capsys, monkeypatch):
    check_without_posix(["list mask_ratio", "table table2 --reference",
                         f"plan --ablation clip --scale micro --store {tmp_path}/s"], capsys, monkeypatch)


@pytest.mark.long  # imports all libraries twice
def test_score_prints_the_same_without_the_modules_of_posix(tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("made", "real"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / name / f"{number}.png")
    check_without_posix([f"score {tmp_path / 'made'} {tmp_path / 'real'} --judge none --metrics ssim --device cpu"],
                        capsys, monkeypatch)


def test_without_flock_a_lock_is_a_file_beside_and_ends_with_its_process(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    path = tmp_path / "mask_ratio.runs.csv"
    path.touch()
    with subprocess.Popen([sys.executable, "-c", HELD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, cwd=ROOT) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(f"{path}.lock").acquire(blocking=False)
        holder.kill()
        holder.wait()
        with files.locking(path, shared=True):
            assert (tmp_path / "mask_ratio.runs.csv.lock").exists()
    assert path.read_bytes() == b""


def test_without_flock_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    path = tmp_path / "mask_ratio.runs.csv"
    path.touch()
    (tmp_path / "mask_ratio.runs.csv.lock").mkdir()
    with pytest.raises(BenchError, match=r"runs\.csv\.lock cannot be written .*; copy the folder") as error, \
            files.locking(path, shared=True):
        pass
    assert error.value.exit_code == 3


def test_with_flock_readers_share_a_lock_and_leave_no_file(tmp_path):
    path = tmp_path / "mask_ratio.runs.csv"
    path.touch()
    with files.locking(path, shared=True), files.locking(path, shared=True):
        assert list(tmp_path.iterdir()) == [path]


def test_on_windows_a_folder_is_not_flushed_and_a_file_is_opened_for_writing(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    opened = []
    monkeypatch.setattr(os, "open", lambda path, flags: opened.append((path, flags)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "close", lambda descriptor: None)
    monkeypatch.setattr(os, "name", "nt")
    files.sync(tmp_path)
    assert opened == []
    files.sync(tmp_path / "file")
    assert opened == [(tmp_path / "file", os.O_RDWR)]


def test_on_windows_a_store_is_only_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(BenchError, match="on Linux and macOS only; on Windows, use WSL 2") as error:
        Store(tmp_path)
    assert error.value.exit_code == 3
    assert not Store(tmp_path, create=False).built


def test_a_system_without_cpu_affinity_has_all_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert runtime.count_cores() == choose_layout(None, "cpu").cpu == 3


def test_memory_is_unknown_and_files_have_no_limit_without_the_module_resource(monkeypatch):
    assert runtime.peak_memory() > 0
    monkeypatch.setattr(runtime, "resource", None)
    assert runtime.peak_memory() == runtime.peak_memory(of_children=True) == 0
    runtime.allow_open_files(10**9)


def test_results_of_a_judge_have_a_folder_that_windows_can_have(monkeypatch):
    monkeypatch.setattr(request, "Path", PureWindowsPath)
    for judge in (r"C:\judges\mine.pth", "hf-hub:timm/mine"):
        asked = bench.setup.request.Request("clip", judge=judge, results=PureWindowsPath("D:/results"))
        assert str(asked.results_folder) == r"D:\results\tiny\judge mine"


def test_names_of_the_projects_files_are_possible_on_windows_and_macos():
    for folder in ("bench", "models", "ablations", "results/published", "results/reference", "tests", "docs"):
        names = [path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if "_build" not in path.parts
                 and "__pycache__" not in path.parts]
        assert len({name.lower() for name in names}) == len(names)
        for part in {part for name in names for part in name.split("/")}:
            assert not set(part) & set('<>:"\\|?*'), part
            assert part.partition(".")[0].lower() not in RESERVED, part
            assert part == part.rstrip(". "), part


def test_mps_is_a_device_of_macs_with_apple_silicon(monkeypatch):
    with pytest.raises(BenchError, match="no Mac with Apple silicon; use --device cpu") as error:
        runtime.device("mps")
    assert error.value.exit_code == 3
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(runtime.platform, "machine", lambda: "arm64")
    assert runtime.device("mps") == "mps"
    assert runtime.device("auto") != "mps"
    for scale in (TINY, MICRO):
        chosen = with_numerics(scale, request.Request("clip", device="mps"))
        assert chosen.numerics == replace(scale.numerics, device_class="mps")


@pytest.mark.parametrize(("scale", "settings", "message"), [
    ("paper", {}, "scale paper computes in bfloat16, mps only in float32; use --device cuda, or scale tiny"),
    ("laptop", {}, "scale laptop has real data; only scales tiny and micro run on mps"),
    ("tiny", {"processes": 2}, "mps is one GPU; use one process"),
    ("tiny", {"engine": "ray"}, "mps is the GPU of this machine; leave out --on"),
])
def test_what_mps_cannot_compute_is_refused(scale, settings, message, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(runtime.platform, "machine", lambda: "arm64")
    with pytest.raises(BenchError, match=message):
        with_numerics(SCALES[scale], request.Request("clip", device="mps", **settings), needed=False)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_a_stage_on_mps_computes_in_float32_only(dtype):
    with pytest.raises(BenchError, match=f"device mps computes in float32, not in {dtype}"):
        precision(Numerics("mps", dtype), "mps")
    with precision(Numerics("mps"), "mps")():
        assert not torch.is_autocast_enabled("cpu")


def test_tensors_are_moved_to_a_device_that_is_not_cuda():
    assert to_device(torch.zeros(2), "meta").device.type == "meta"
    same = torch.zeros(2)
    assert to_device(same, "cpu") is same


def test_a_stage_of_mps_is_built_by_a_worker_of_mps(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    layout = choose_layout(1, "mps")
    assert (layout.gpus, layout.per_gpu) == (("mps",), 1)
    assert Layout(1, ("mps",)).describe() == "1 worker on GPU mps and 1 on the CPU"
    stage, store = Visible(0, MPS.numerics), Store(tmp_path)
    assert gpus_of(stage) == 1
    with Pool(replace(layout, cpu=1), tmp_path, [stage], "mps") as pool:
        pool.submit(stage)
        events = (event for _ in iter(int, 1) for event in pool.events(1.0))
        assert next(event for event in events if event.what != "started").what == "done"
    assert (store.path(stage) / "visible.txt").read_text() == "None mps False"


def test_memory_that_ends_on_mps_is_known():
    assert runtime.is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other ...)"))
