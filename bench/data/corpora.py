"""Prepares corpora of unlabelled EEG for pre-training, from MOABB's data sets or a prepared ImageNet-EEG."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.catalogue import BAND, TRAIN_ONLY, Cutting, check_names, load_dataset
from bench.data.montages import stated_names
from bench.data.prepared import MANIFEST, check_hashes, eeg_file, read_trials
from bench.data.shard_writer import SUBJECTS, ShardWriter, Unavailable, finish_corpus, prepare_subject, read_receipt
from bench.data.shards import CORPORA, read_manifest
from bench.data.writing import reporting_full_disk
from bench.errors import ENVIRONMENT, BenchError
from bench.files import sha256 as file_hash

PAIRED = "imagenet_eeg"  # source of the corpus TRAIN_ONLY
MAX_OFFLINE = 2  # data sets in a row whose server does not answer, after which no download is tried
Progress = Callable[[int, int, str], None]
Task = tuple[str, int]  # data set, subject
Job = Callable[[Path, str, int, Cutting], None]  # `prepare_subject`, or one of its form that pickle can send


def prepare(name: str, root: Path, datasets: Sequence[str], subjects: Sequence[int] | None = None, *,
            workers: int = 1, progress: Progress | None = None, cutting: Cutting | None = None,
            allow_missing: bool = False) -> Path:
    """Cuts the recordings of all data sets into root/corpora/<name>/, a folder that is complete or absent.

    MOABB downloads what is missing to MNE_DATA. Finished subjects are kept in <name>.partial/, so that the same call
    resumes. subjects: only these numbers of each data set; None: all. allow_missing: finish without unavailable
    subjects, which the manifest then lists; otherwise they raise BenchError (exit 3) with a line for each data set,
    after everything available is prepared.
    """
    folder, cutting = root / CORPORA / name, cutting or Cutting()
    limits = sorted(set(subjects)) if subjects is not None else None
    wanted = settings(cutting, datasets, limits)
    if (folder / MANIFEST).is_file():
        return _check_settings(folder, wanted)
    check_names(datasets)
    downloads = os.environ.get("MNE_DATA")
    if downloads and not Path(downloads).is_dir():
        raise BenchError(f"MNE_DATA names {downloads}, where MOABB keeps its downloads, but that folder does not "
                         "exist; make it, or name another with --from DIR", ENVIRONMENT)
    work = open_work_folder(folder, cutting)
    tasks = [(dataset, subject) for dataset in sorted(datasets) for subject in load_dataset(dataset).subject_list
             if limits is None or subject in limits]
    if not tasks:
        raise BenchError(f"no data set of {name} has a subject {', '.join(map(str, limits or ()))}")
    with reporting_full_disk(root):
        failed = prepare_subjects(work, tasks, cutting, workers, progress or (lambda done, total, text: None))
        if failed and not allow_missing:
            raise BenchError(_describe_missing(failed, name, len(tasks)), ENVIRONMENT)
        receipts = [read_receipt(work, *task) for task in tasks if task not in failed]
        return finish_corpus(name, root, work, [receipt for receipt in receipts if receipt], wanted, sorted(failed))


def from_pairs(root: Path, band: tuple[float, float] = BAND, source: str = PAIRED) -> Path:
    """Makes the corpus TRAIN_ONLY: trials of the prepared ImageNet-EEG in `root` whose part_item is "train".

    Trials that any split tests on are left out. Raises BenchError (exit 3) if that data set is not prepared.
    """
    from bench.data.recordings import normalise

    pairs, folder = root / source, root / CORPORA / TRAIN_ONLY
    try:
        about = json.loads((pairs / MANIFEST).read_text())
        check_hashes(pairs, about["files"],
                     [name for name in ("trials.csv", eeg_file(band)) if (pairs / name).is_file()])
        trials = read_trials(pairs)
        eeg = np.load(pairs / eeg_file(band), mmap_mode="r", allow_pickle=False)
        names = stated_names(about, eeg.shape[1])
        tested = (trials[[name for name in map(str, trials) if name.startswith("part_")]] == "test").any(axis=1)
        part = trials["part_item"].where(~tested, "test")
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(f"{pairs}: expected a prepared data set with a band of {band[0]:g}-{band[1]:g} Hz and a "
                         f"part_item of each trial ({error}); prepare it: bench data prepare {PAIRED} --from DIR",
                         ENVIRONMENT) from error
    cutting = Cutting(band, eeg.shape[2], None, eeg.shape[2])
    wanted = settings(cutting, [source]) | {"source": file_hash(pairs / MANIFEST)}
    if (folder / MANIFEST).is_file():
        return _check_settings(folder, wanted)
    if len(trials) != len(eeg):
        raise BenchError(f"{pairs}: {len(trials)} trials in trials.csv, {len(eeg)} rows of EEG; prepare it again",
                         ENVIRONMENT)
    work = open_work_folder(folder, cutting)
    receipts = []
    with reporting_full_disk(root):
        for subject in sorted(set(trials["subject"][part == "train"])):
            rows = np.flatnonzero((part == "train") & (trials["subject"] == subject))
            writer = ShardWriter(work, source, int(subject))
            for begin in range(0, len(rows), 64):
                batch = rows[begin : begin + 64]
                windows = normalise(np.asarray(eeg[batch], np.float32)).astype(np.float16)
                places = [("", str(trials["item"][row]), 0.0) for row in batch]
                writer.add(windows, places, float(about["sfreq"]), list(band), ch_names=names)
            receipts.append(writer.close(Counter(), Counter()))
        return finish_corpus(TRAIN_ONLY, root, work, receipts, wanted, [])


def list_unfinished(root: Path) -> list[tuple[str, int]]:
    """Returns the names of unfinished corpora, and how many subjects of each are done."""
    return [(folder.name.removesuffix(".partial"), sum(1 for _ in (folder / SUBJECTS).rglob("*.json")))
            for folder in sorted((root / CORPORA).glob("*.partial"))]


def settings(cutting: Cutting, datasets: Sequence[str], subjects: list[int] | None = None) -> dict[str, Any]:
    """Returns the settings of a corpus as its manifest states them."""
    window = asdict(cutting)
    return {"band": list(window.pop("band")), "datasets": sorted(datasets), "subjects": subjects, "window": window}


def _check_settings(folder: Path, wanted: dict[str, Any]) -> Path:
    """Returns the folder of an existing corpus. Raises BenchError if it was prepared with other settings."""
    manifest = read_manifest(folder)
    different = [key for key, value in wanted.items() if manifest.get(key) != value]
    if different:
        raise BenchError(f"{folder} was prepared with another {' and '.join(different)}; remove it, or name another "
                         "folder with --data DIR")
    return folder


def open_work_folder(folder: Path, cutting: Cutting) -> Path:
    """Returns the folder in which a corpus is made: a new one, or that of an interrupted call with the same cutting."""
    work = folder.with_name(folder.name + ".partial")
    options = json.dumps(asdict(cutting), sort_keys=True)
    try:
        (work / SUBJECTS).mkdir(parents=True, exist_ok=True)
        file = work / SUBJECTS / "cutting"
        if not file.is_file():
            file.write_text(options)
        elif file.read_text() != options:
            raise BenchError(f"{work} was started with {file.read_text()}, not {options}; repeat those settings, or "
                             "remove the folder")
    except OSError as error:
        raise BenchError(f"{work}: cannot write to this folder ({error.strerror}); name another with --data DIR",
                         ENVIRONMENT) from error
    return work


def prepare_subjects(work: Path, tasks: list[Task], cutting: Cutting, workers: int, progress: Progress,
                     job: Job = prepare_subject, is_done: Callable[[Task], bool] | None = None) -> dict[Task, str]:
    """Prepares all subjects by `job` that are not done (default: that have no receipt), and returns the reason for each
    that is unavailable."""
    left = [task for task in tasks if not (is_done(task) if is_done else read_receipt(work, *task))]
    failed: dict[Task, str] = {}
    offline: list[str] = []  # data sets in a row whose server does not answer
    count = len(tasks) - len(left)
    progress(count, len(tasks), f"{count} already prepared" if count else "")

    def reason_to_skip(task: Task) -> str:
        if task[0] in offline:
            return "not tried, because the server did not answer before"
        return f"not tried, because {MAX_OFFLINE} servers did not answer" if len(offline) >= MAX_OFFLINE else ""

    def finish(task: Task, error: Unavailable | None) -> None:
        nonlocal count
        count += 1
        if error is None:
            offline.clear()
        else:
            failed[task] = str(error)
            if error.is_offline and task[0] not in offline:
                offline.append(task[0])
        progress(count, len(tasks), f"{task[0]} subject {task[1]}" + (" FAILED" if error else ""))

    if workers < 2 or len(left) < 2:
        for task in left:
            try:
                if reason := reason_to_skip(task):
                    raise Unavailable(reason)
                job(work, *task, cutting)
                finish(task, None)
            except Unavailable as error:
                finish(task, error)
        return failed
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(left)), context, initializer=_start_worker)
    running: dict[Future[None], Task] = {}
    try:
        while left or running:
            while left and len(running) < workers:
                task = left.pop(0)
                if reason := reason_to_skip(task):
                    finish(task, Unavailable(reason))
                else:
                    running[pool.submit(job, work, *task, cutting)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                try:
                    future.result()
                    finish(running.pop(future), None)
                except Unavailable as error:
                    finish(running.pop(future), error)
    except BrokenProcessPool as error:
        current = "; ".join(f"{dataset} subject {subject}" for dataset, subject in running.values())
        raise BenchError(f"a worker process died (out of memory?) during: {current}; finished subjects are kept: give "
                         "the same command again, with fewer --workers", ENVIRONMENT) from error
    finally:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
    return failed


def _start_worker() -> None:
    """Prepares a worker process: the parent handles Ctrl-C, and the worker exits when the parent has exited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _describe_missing(failed: dict[Task, str], name: str, total: int) -> str:
    """Returns a message with a line for each incomplete data set, and what to do."""
    lines = []
    for dataset in dict.fromkeys(task[0] for task in failed):
        reasons = {subject: reason for (other, subject), reason in failed.items() if other == dataset}
        first = next(iter(reasons))
        lines.append(f"  {dataset}: {len(reasons)} subjects are unavailable; subject {first}: {reasons[first]}")
    return (f"{name} lacks {len(failed)} of {total} subjects; the others are prepared and kept\n" + "\n".join(lines)
            + "\n  MOABB downloads to MNE_DATA (--from DIR) and lists the source of each data set at "
            "https://moabb.neurotechx.com/docs/dataset_summary.html; give the same command again to resume, with "
            "--allow-missing for a corpus without these subjects, or with your own list of data sets")
