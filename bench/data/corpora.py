"""Corpora of unlabelled EEG for pre-training, pinned by name; MOABB is the source of recordings and nothing else."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.catalogue import BAND, TRAIN_ONLY, Cutting, check, dataset
from bench.data.prepared import MANIFEST
from bench.data.shard_writer import (
    AT_ONCE,
    FULL,
    SUBJECTS,
    Absent,
    ShardWriter,
    finish_corpus,
    prepare_subject,
    receipt,
)
from bench.data.shards import CORPORA, read_manifest
from bench.errors import ENVIRONMENT, BenchError
from bench.files import disk_full

Array = np.ndarray
PAIRED = "imagenet_eeg"  # from which that one is taken
Progress = Callable[[int, int, str], None]
CUTTING = Cutting()


def prepare(name: str, root: Path, datasets: Sequence[str], subjects: Sequence[int] | None = None, *,
            workers: int = 1, progress: Progress | None = None, cutting: Cutting = CUTTING,
            allow_missing: bool = False) -> Path:
    """Cuts the recordings of all data sets into root/corpora/<name>/, a folder that is complete or absent.

    MOABB downloads what is not there (to MNE_DATA). Every finished subject is kept in <name>.partial/, so that the same
    call goes on from there. subjects: these numbers of each data set alone. allow_missing: a corpus without what cannot
    be had, which its manifest then names; else that raises BenchError (exit 3) with a line for each data set, after
    everything that can be had is prepared.
    """
    folder = root / CORPORA / name
    limits = sorted(set(subjects)) if subjects is not None else None
    wanted: dict[str, Any] = {"band": list(cutting.band), "datasets": sorted(datasets), "subjects": limits,
                              "window": _window(cutting)}
    if (folder / MANIFEST).is_file():
        return _already(name, root, wanted)
    check(datasets)
    _downloads_to()
    work = _at_work(folder, cutting)
    todo = [(one, subject) for one in sorted(datasets) for subject in _subjects(one, limits)]
    if not todo:
        raise BenchError(f"no data set of {name} has a subject {', '.join(map(str, limits or ()))}")
    tell = progress or (lambda done, total, text: None)
    failed: dict[tuple[str, int], str] = {}
    with _disk(root):
        _made(work, todo, cutting, workers, tell, failed)
        if failed and not allow_missing:
            raise BenchError(_missing(failed, name, len(todo)), ENVIRONMENT)
        receipts = [receipt(work, one, subject) for one, subject in todo if (one, subject) not in failed]
        return finish_corpus(name, root, work, [r for r in receipts if r], wanted, sorted(failed))


def from_pairs(root: Path, band: tuple[float, float] = BAND, source: str = PAIRED) -> Path:
    """The corpus TRAIN_ONLY: the trials of the prepared ImageNet-EEG in root whose part by picture is "train".

    No trial that any split tests on is in it. Raises BenchError (exit 3) where that data set is not prepared.
    """
    import pandas as pd

    from bench.data.recordings import normalised

    pairs, folder = root / source, root / CORPORA / TRAIN_ONLY
    try:
        about = json.loads((pairs / MANIFEST).read_text())
        trials = pd.read_csv(pairs / "trials.csv")
        eeg = np.load(pairs / f"eeg_{band[0]:g}-{band[1]:g}.npy", mmap_mode="r", allow_pickle=False)
        tested = (trials[[name for name in map(str, trials) if name.startswith("part_")]] == "test").any(axis=1)
        part = trials["part_item"].where(~tested, "test")
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(f"{pairs}: a prepared data set with a band of {band[0]:g}-{band[1]:g} Hz and a part_item of "
                         f"each trial is needed ({error}); prepare it: bench data prepare {PAIRED} --from DIR",
                         ENVIRONMENT) from error
    cutting = Cutting(band, eeg.shape[2], None, eeg.shape[2])
    wanted: dict[str, Any] = {
        "band": list(band), "datasets": [source], "subjects": None,
        "source": hashlib.sha256((pairs / MANIFEST).read_bytes()).hexdigest(),
        "window": _window(cutting)}
    if (folder / MANIFEST).is_file():
        return _already(TRAIN_ONLY, root, wanted)
    if len(trials) != len(eeg):
        raise BenchError(f"{pairs}: {len(trials)} trials in trials.csv, {len(eeg)} rows of EEG; prepare it again",
                         ENVIRONMENT)
    work = _at_work(folder, cutting)
    receipts = []
    with _disk(root):
        for subject in sorted(set(trials["subject"][part == "train"])):
            rows = np.flatnonzero((part == "train") & (trials["subject"] == subject))
            made = ShardWriter(work, source, int(subject))
            for begin in range(0, len(rows), 64):
                own = rows[begin : begin + 64]
                windows = normalised(np.asarray(eeg[own], np.float32)).astype(np.float16)
                places = [("", str(trials["item"][row]), 0.0) for row in own]
                made.add(windows, places, float(about["sfreq"]), list(band))
            receipts.append(made.close(Counter(), Counter()))
        return finish_corpus(TRAIN_ONLY, root, work, receipts, wanted, [])


def partial(root: Path) -> list[tuple[str, int]]:
    """Names of unfinished corpora, and how many subjects of each are done."""
    return [(folder.name.removesuffix(".partial"), sum(1 for _ in (folder / SUBJECTS).rglob("*.json")))
            for folder in sorted((root / CORPORA).glob("*.partial"))]


def _window(cutting: Cutting) -> dict[str, Any]:
    return {name: value for name, value in asdict(cutting).items() if name != "band"}


def _already(name: str, root: Path, wanted: dict[str, Any]) -> Path:
    """A corpus that is there; the same that is asked for, or BenchError."""
    there = read_manifest(root / CORPORA / name)
    other = [key for key, value in wanted.items() if there.get(key) != value]
    if other:
        raise BenchError(f"{root / CORPORA / name} is prepared with another {' and '.join(other)}: remove it, or give "
                         "another folder with --data DIR")
    return root / CORPORA / name


def _at_work(folder: Path, cutting: Cutting) -> Path:
    """The folder in which a corpus is made, new or of an interrupted call with the same cutting."""
    work = folder.with_name(folder.name + ".partial")
    options = json.dumps(asdict(cutting), sort_keys=True)
    try:
        (work / SUBJECTS).mkdir(parents=True, exist_ok=True)
        file = work / SUBJECTS / "cutting"
        if not file.is_file():
            file.write_text(options)
        elif file.read_text() != options:
            raise BenchError(f"{work} was begun with {file.read_text()}, not {options}: give the same again, or remove "
                             "it")
    except OSError as error:
        raise BenchError(f"{work}: a folder that can be written is needed ({error.strerror}); give another with "
                         "--data DIR", ENVIRONMENT) from error
    return work


def _downloads_to() -> None:
    place = os.environ.get("MNE_DATA")
    if place and not Path(place).is_dir():
        raise BenchError(f"MNE_DATA names {place}, where MOABB keeps its downloads; there is no such folder: make it, "
                         "or give another with --from DIR", ENVIRONMENT)


def _subjects(name: str, limits: Sequence[int] | None) -> list[int]:
    return [subject for subject in dataset(name).subject_list if limits is None or subject in limits]


@contextmanager
def _disk(root: Path) -> Iterator[None]:
    """A full disk as the error that says so."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(root) from error
        raise


def _made(work: Path, todo: list[tuple[str, int]], cutting: Cutting, workers: int, tell: Progress,
          failed: dict[tuple[str, int], str]) -> None:
    """Prepares every subject that is not there yet; `failed` gets the reason of each that could not be."""
    done = [task for task in todo if receipt(work, *task)]
    left = [task for task in todo if task not in set(done)]
    count, silent = len(done), list[str]()
    tell(count, len(todo), f"{count} there already" if count else "")

    def skipped(task: tuple[str, int]) -> str:
        if task[0] in silent:
            return "not tried after the first"
        return "not tried: no other answered" if len(silent) >= AT_ONCE else ""

    def ended(task: tuple[str, int], error: Absent | None) -> None:
        nonlocal count
        count += 1
        if error is None:
            silent.clear()
        else:
            failed[task] = str(error)
            if error.unreachable and task[0] not in silent:
                silent.append(task[0])
        tell(count, len(todo), f"{task[0]} subject {task[1]}" + (" FAILED" if error else ""))

    if workers < 2 or len(left) < 2:
        for task in left:
            reason = skipped(task)
            if reason:
                ended(task, Absent(reason))
                continue
            try:
                prepare_subject(work, *task, cutting)
                ended(task, None)
            except Absent as error:
                ended(task, error)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(left)), context, initializer=_quiet)
    try:
        running: dict[Future[None], tuple[str, int]] = {}
        while left or running:
            while left and len(running) < workers:
                task = left.pop(0)
                reason = skipped(task)
                if reason:
                    ended(task, Absent(reason))
                else:
                    running[pool.submit(prepare_subject, work, *task, cutting)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                try:
                    future.result()
                    ended(running.pop(future), None)
                except Absent as error:
                    ended(running.pop(future), error)
    except BrokenProcessPool as error:
        atwork = "; ".join(f"{one} subject {subject}" for one, subject in running.values())
        raise BenchError(f"a process died (out of memory?), at work was: {atwork}; what is finished is kept: give the "
                         "same command again, with fewer --workers", ENVIRONMENT) from error
    finally:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _quiet() -> None:
    """In a worker: Ctrl-C is the parent's to handle, and without a parent there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_with, args=(parent,), daemon=True).start()


def _with(parent: multiprocessing.process.BaseProcess) -> None:
    """Ends this process when its parent has ended."""
    parent.join()
    os._exit(1)


def _missing(failed: dict[tuple[str, int], str], name: str, total: int) -> str:
    """A line for each data set that is not complete, and what to do."""
    lines = []
    for one in dict.fromkeys(task[0] for task in failed):
        own = {subject: reason for (other, subject), reason in failed.items() if other == one}
        first = next(iter(own))
        lines.append(f"  {one}: {len(own)} subjects cannot be had; subject {first}: {own[first]}")
    return (f"{name} lacks {len(failed)} of {total} subjects; the others are prepared and kept\n" + "\n".join(lines)
            + "\n  MOABB downloads to MNE_DATA (--from DIR) and says of each data set where it comes from "
            "(https://moabb.neurotechx.com/docs/dataset_summary.html); give the same command again to go on, "
            "--allow-missing for a corpus without them, or a list of data sets of your own")
