"""Corpora of unlabelled EEG for pre-training, pinned by name; MOABB is the source of recordings and nothing else."""

from __future__ import annotations

import csv
import difflib
import errno
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data.prepared import MANIFEST, Shards
from bench.data.shards import CORPORA, INDEX, find, read_manifest
from bench.errors import ENVIRONMENT, BenchError
from bench.store import disk_full

if TYPE_CHECKING:
    from moabb.datasets.base import BaseDataset

    from bench.data.recordings import Segments

Array = np.ndarray

# What MOABB 0.4.6 (the paper's time) has with 30 EEG channels or more, by its tables; without MAMEM1 and MAMEM2, which
# have 256. The paper: MOABB's with more than 30 channels, "over 400 subjects"; which ones was never published.
MOABB_V046 = (
    "BI2014b", "BI2015a", "BI2015b", "BNCI2015_004", "Cho2017", "EPFLP300", "GrosseWentrup2009", "Huebner2017",
    "Huebner2018", "Lee2019_ERP", "Lee2019_MI", "Lee2019_SSVEP", "Ofner2017", "PhysionetMI", "Schirrmeister2017",
    "Shin2017A", "Shin2017B", "Sosulski2019", "Wang2016", "Weibo2014",
)
# The same of MOABB 1.7.2; without MAMEM1, MAMEM2 and Wu2020 (132 channels listed).
MOABB_ALL = (
    "BCIComp2020UpperLimb", "BCIComp2020WalkingERP", "BI2014b", "BI2015a", "BI2015b", "BNCI2003_004",
    "BNCI2015_004", "BNCI2015_006", "BNCI2015_007", "BNCI2015_008", "BNCI2015_009", "BNCI2015_010", "BNCI2015_012",
    "BNCI2015_013", "BNCI2016_002", "BNCI2019_001", "BNCI2020_001", "BNCI2020_002", "BNCI2022_001", "BNCI2024_001",
    "BNCI2025_001", "BNCI2025_002", "Beetl2021_A", "Beetl2021_B", "Brandl2020", "CastillosBurstVEP100",
    "CastillosBurstVEP40", "CastillosCVEP100", "CastillosCVEP40", "Chang2025", "Chen2017SingleFlicker", "Cho2017",
    "EPFLP300", "ErpCore2021_ERN", "ErpCore2021_LRP", "ErpCore2021_MMN", "ErpCore2021_N170", "ErpCore2021_N2pc",
    "ErpCore2021_N400", "ErpCore2021_P3", "Forenzo2023", "Gao2026", "GrosseWentrup2009", "GuttmannFlury2025_ME",
    "GuttmannFlury2025_MI", "GuttmannFlury2025_P300", "GuttmannFlury2025_SSVEP", "Han2024Fatigue", "HefmiIch2025",
    "Hinss2021", "Huebner2017", "Huebner2018", "Jeong2020", "Kaneshiro2015", "Kim2025BetaRange", "Kojima2024A",
    "Kojima2024B", "Lee2019_ERP", "Lee2019_MI", "Lee2019_SSVEP", "Lee2021Mobile_ERP", "Lee2021Mobile_SSVEP",
    "Lee2024_BS", "Lee2024_DL", "Lee2024_EL", "Lee2024_TV", "Liu2020BETA", "Liu2022EldBETA", "Liu2025", "Ma2020",
    "Mainsah2025_A", "Mainsah2025_C", "Mainsah2025_D", "Mainsah2025_O", "Mainsah2025_P", "Mainsah2025_Q",
    "Mainsah2025_R", "Mainsah2025_S1", "Mainsah2025_S2", "Nguyen2017_L", "Nguyen2017_S", "Nguyen2017_SL",
    "Nguyen2017_V", "Nieto2022", "Ofner2017", "PhysionetMI", "Rozado2015", "Schirrmeister2017", "Shin2017A",
    "Shin2017B", "Sosulski2019", "Speier2017", "Stieger2021", "Tavakolan2017", "Thielen2015", "Wang2016",
    "Wang2021Combined", "Wang2026", "Weibo2014", "Yang2025", "Yi2025", "Zhang2025", "Zheng2020", "Zhou2020", "Zuo2025",
)
FAKE = ("Fake003", "Fake032", "Fake062", "Fake128")  # MOABB's made-up data set at several sizes: needs no download
FAKES = {"Fake003": (3, 128.0, 20, 2), "Fake032": (32, 160.0, 40, 6), "Fake062": (62, 250.0, 40, 2),
         "Fake128": (128, 512.0, 20, 2)}  # channels, Hz, seconds, people
CORPORA_BY_NAME = {"moabb_v046": MOABB_V046, "moabb_all": MOABB_ALL, "fake": FAKE}
TRAIN_ONLY = "imagenet_eeg_train_only"
PAIRED = "imagenet_eeg"  # from which that one is taken

# Data sets of the same people under the same numbers: a person is in one part alone, whatever the data set.
FAMILIES = ("Castillos", "ErpCore2021_", "GuttmannFlury2025_", "Kojima2024", "Lee2019_", "Lee2021Mobile_", "Lee2024_",
            "Mainsah2025_", "Nguyen2017_", "Shin2017")

N_CHANS, N_TIMES = 128, 512  # to which channels are replicated, samples of a window (Sec. 4.1)
BAND = (5.0, 95.0)  # Hz (Sec. 4.1)
HELD_OUT = 6  # one person in six is held out
SESSION = 40  # minutes that a session is taken to last, where nothing says how long it is
SESSIONS = 4  # at most, for an estimate: MOABB counts short blocks as sessions, too
RATE = 1e7  # samples of channels that one core prepares in a second, about
AT_ONCE = 2  # data sets that do not answer, one after the other, before the rest is not tried
FULL = (errno.ENOSPC, errno.EDQUOT)
SUBJECTS = ".subjects"  # in the folder at work: what is finished

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Cutting:
    """How recordings become windows: everything that a shard's bytes depend on beside the recording.

    per_subject: windows that are kept of each subject of a data set, evenly over its recordings; None: all.
    """

    band: tuple[float, float] = BAND
    n_times: int = N_TIMES
    sfreq: float | None = None  # to which all are resampled; None: each keeps its own
    stride: int = N_TIMES
    per_subject: int | None = None


@dataclass(frozen=True)
class Listed:
    """What MOABB's tables say of a data set; seconds: of one person, the suite's guess. Counts after loading differ."""

    name: str
    people: int
    sessions: int
    n_chans: int
    sfreq: float
    licence: str
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """About what a corpus takes: windows, bytes on disk, bytes to download, seconds of one core."""

    people: int
    windows: int
    disk: int
    download: int
    seconds: float


def members(name: str) -> tuple[str, tuple[str, ...]]:
    """A corpus's name and its data sets, by one of CORPORA_BY_NAME, a list "A,B", or a .txt file with one on a line.

    Raises BenchError for an empty or unreadable list.
    """
    if name in CORPORA_BY_NAME:
        return name, CORPORA_BY_NAME[name]
    if name.endswith(".txt"):
        try:
            lines = Path(name).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BenchError(f"{name}: a text file with one data set on a line is expected ({error})") from error
        found = [line.split("#")[0].strip() for line in lines]
        title = Path(name).stem
    else:
        found = [part.strip() for part in name.split(",")]
        title = "+".join(sorted({part for part in found if part}))
    chosen = tuple(sorted({part for part in found if part}))
    if not chosen:
        raise BenchError(f"{name!r} names no data set; {_known()}")
    if len(title) > 60:
        title = "moabb_" + hashlib.sha256(title.encode()).hexdigest()[:8]
    if title in (*CORPORA_BY_NAME, TRAIN_ONLY) or title.startswith("."):
        raise BenchError(f"{name}: a corpus of your own has a name of its own; give the file another than {title}.txt")
    return title, chosen


def check(names: Sequence[str]) -> None:
    """Raises BenchError for data sets that MOABB does not have, with near names. Imports MOABB; downloads nothing."""
    there = _classes()
    for name in names:
        if name not in there and name not in FAKES:
            near = difflib.get_close_matches(name, [*there, *FAKES], 4, 0.5) or [
                other for other in there if name.lower()[:4] == other.lower()[:4]][:4]
            hint = f"near it: {', '.join(near)}" if near else "see: moabb.datasets"
            raise BenchError(f"MOABB {_version()} has no data set {name!r}; {hint}. {_known()}")


def _known() -> str:
    return f"Corpora by name: {', '.join((*CORPORA_BY_NAME, TRAIN_ONLY))}; or a list: Cho2017,Lee2019_MI; or FILE.txt"


def dataset(name: str) -> BaseDataset:
    """MOABB's data set of that name, or one of FAKES. Downloads nothing."""
    if name not in FAKES:
        found: BaseDataset = _classes()[name]()
        return found
    import mne
    from moabb.datasets.fake import FakeDataset

    channels, sfreq, seconds, people = FAKES[name]
    with _silence():
        montage = mne.channels.make_standard_montage("standard_1005").ch_names
    fake = FakeDataset(n_sessions=1, n_runs=1, n_subjects=people, channels=tuple(montage[:channels]),
                       seed=1000 * channels, sfreq=sfreq, duration=seconds, n_events=2, event_list=("one", "two"))
    place = f"MNE_DATASETS_{fake.code.upper()}_PATH"  # it makes a folder that nothing is written to
    if os.path.isdir(os.environ.get(place, "")):
        os.rmdir(os.environ.pop(place))
    return fake


@contextmanager
def _silence() -> Iterator[None]:
    """Without the warnings and the log of readers, which say the same of every file."""
    import mne

    with warnings.catch_warnings(), mne.use_log_level("error"):
        warnings.simplefilter("ignore")
        yield


def _classes() -> dict[str, Any]:
    """MOABB's data sets by the name of their class."""
    from moabb.datasets import utils

    if not utils.dataset_dict:
        utils._init_dataset()
    return {name: found for name, found in utils.dataset_dict.items() if not name.startswith("Fake")}


def _version() -> str:
    import moabb

    return str(moabb.__version__)


def listed(names: Sequence[str]) -> list[Listed]:
    """What MOABB says of each data set, without a download."""
    found = []
    for name in names:
        source = dataset(name)
        people = len(source.subject_list)
        if name in FAKES:
            channels, sfreq, seconds, _ = FAKES[name]
            found.append(Listed(name, people, 1, channels, sfreq, "-", float(seconds)))
            continue
        about = source.metadata
        sessions = int(source.n_sessions)
        found.append(Listed(name, people, sessions, int(about.acquisition.channel_types["eeg"]),
                            float(about.acquisition.sampling_rate), str(about.documentation.license or "not stated"),
                            60.0 * SESSION * min(sessions, SESSIONS)))
    return found


def person(name: str, subject: int) -> tuple[str, int]:
    """Who a subject of a data set is, across the data sets of one family."""
    return next((family for family in FAMILIES if name.startswith(family)), name), subject


def people(names: Sequence[str], counts: Sequence[int]) -> int:
    """How many people are in data sets of so many subjects each, those of one family counted once."""
    return len({person(name, subject) for name, n in zip(names, counts, strict=True) for subject in range(1, n + 1)})


def estimate(names: Sequence[str], cutting: Cutting, subjects: Sequence[int] | None = None) -> Estimate:
    """About what a corpus takes: MOABB states neither durations nor sizes, so no better than a factor of three."""
    windows = disk = download = 0
    work, count = 0.0, 0
    for about in listed(names):
        n = about.people if subjects is None else sum(subject <= about.people for subject in subjects)
        count += n
        samples = n * about.seconds * about.sfreq
        download += 0 if about.name in FAKES else round(samples * about.n_chans * 4)
        if 30 <= about.n_chans <= N_CHANS:
            own = int(samples * (cutting.sfreq or about.sfreq) / about.sfreq / cutting.stride)
            own = min(own, n * cutting.per_subject) if cutting.per_subject else own
            windows += own
            disk += own * about.n_chans * cutting.n_times * 2
            work += samples * about.n_chans / RATE
    return Estimate(count, windows, disk, download, work)


def table(names: Sequence[str]) -> str:
    """A Markdown table of data sets with people, EEG channels and sampling rate, all by MOABB's tables."""
    rows = listed(names)
    lines = ["| data set | people | sessions | EEG channels | Hz | band, Hz | licence |",
             "| :-- | --: | --: | --: | --: | :-- | :-- |"]
    for row in rows:
        band = "5-95" if row.sfreq > 190 else "5 and above"
        lines.append(f"| {row.name} | {row.people} | {row.sessions} | {row.n_chans} | {row.sfreq:g} | {band} | "
                     f"{row.licence} |")
    total = people([row.name for row in rows], [row.people for row in rows])
    return "\n".join([*lines, "", f"{len(rows)} data sets, {sum(row.people for row in rows)} subjects, {total} people "
                      "(data sets of one family have the same)."])


def prepare(name: str, root: Path, datasets: Sequence[str], subjects: Sequence[int] | None = None, *,
            workers: int = 1, progress: Progress | None = None, cutting: Cutting = Cutting(),
            allow_missing: bool = False) -> Shards:
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
        receipts = [_receipt(work, one, subject) for one, subject in todo if (one, subject) not in failed]
        return _finish(name, root, work, [r for r in receipts if r], wanted, sorted(failed))


def from_pairs(root: Path, band: tuple[float, float] = BAND, source: str = PAIRED) -> Shards:
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
            made = _Shards(work, source, int(subject))
            for begin in range(0, len(rows), 64):
                own = rows[begin : begin + 64]
                windows = normalised(np.asarray(eeg[own], np.float32)).astype(np.float16)
                places = [("", str(trials["item"][row]), 0.0) for row in own]
                made.add(windows, places, float(about["sfreq"]), list(band))
            receipts.append(made.close(Counter(), Counter()))
        return _finish(TRAIN_ONLY, root, work, receipts, wanted, [])


def partial(root: Path) -> list[tuple[str, int]]:
    """Names of unfinished corpora, and how many subjects of each are done."""
    return [(folder.name.removesuffix(".partial"), sum(1 for _ in (folder / SUBJECTS).rglob("*.json")))
            for folder in sorted((root / CORPORA).glob("*.partial"))]


def _window(cutting: Cutting) -> dict[str, Any]:
    return {name: value for name, value in asdict(cutting).items() if name != "band"}


def _already(name: str, root: Path, wanted: dict[str, Any]) -> Shards:
    """A corpus that is there; the same that is asked for, or BenchError."""
    there = read_manifest(root / CORPORA / name)
    other = [key for key, value in wanted.items() if there.get(key) != value]
    if other:
        raise BenchError(f"{root / CORPORA / name} is prepared with another {' and '.join(other)}: remove it, or give "
                         "another folder with --data DIR")
    return find(name, root)


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
    done = [task for task in todo if _receipt(work, *task)]
    left = [task for task in todo if task not in set(done)]
    count, silent = len(done), list[str]()
    tell(count, len(todo), f"{count} there already" if count else "")

    def skipped(task: tuple[str, int]) -> str:
        if task[0] in silent:
            return "not tried after the first"
        return "not tried: no other answered" if len(silent) >= AT_ONCE else ""

    def ended(task: tuple[str, int], error: _Absent | None) -> None:
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
                ended(task, _Absent(reason))
                continue
            try:
                prepare_subject(work, *task, cutting)
                ended(task, None)
            except _Absent as error:
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
                    ended(task, _Absent(reason))
                else:
                    running[pool.submit(prepare_subject, work, *task, cutting)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                try:
                    future.result()
                    ended(running.pop(future), None)
                except _Absent as error:
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


class _Absent(Exception):
    """Recordings that could not be had or read; unreachable: for want of a connection."""

    def __init__(self, reason: str, unreachable: bool = False):
        super().__init__(reason, unreachable)
        self.unreachable = unreachable

    def __str__(self) -> str:
        return str(self.args[0])


def prepare_subject(work: Path, name: str, subject: int, cutting: Cutting) -> None:
    """The shards of one person, and the receipt that says they are complete. Raises _Absent with the reason."""
    with _silence():
        try:
            sessions = _recordings(name, subject)
        except Exception as error:  # MOABB and its readers raise all there is
            if getattr(error, "errno", None) in FULL:
                raise
            raise _Absent(_reason(error), _unreachable(error)) from error
        cut_subject(work, name, subject, sessions, cutting)


def cut_subject(work: Path, name: str, subject: int, sessions: dict[str, dict[str, Any]], cutting: Cutting) -> None:
    """The shards of one person from mne Raws by session and run, which are let go one by one. Raises _Absent."""
    from bench.data.recordings import segments

    made = _Shards(work, name, subject)
    rejected, repaired = Counter[str](), Counter[str]()
    for session in list(sessions):
        for run in list(sessions[session]):
            raw = sessions[session].pop(run)
            try:
                found: Segments = segments(raw, cutting.band, cutting.n_times, cutting.sfreq, cutting.stride)
            except (OSError, RuntimeError, ValueError, EOFError, MemoryError) as error:
                raise _Absent(f"session {session}, run {run}: {_reason(error)}") from error
            del raw
            rejected.update(found.rejected)
            repaired.update(found.repaired)
            if len(found.windows):
                made.add(found.windows, [(str(session), str(run), float(onset)) for onset in found.onsets],
                         found.sfreq, list(found.band), found.rejected, found.repaired)
    made.close(rejected, repaired, cutting.per_subject)


def _recordings(name: str, subject: int) -> dict[str, dict[str, Any]]:
    """MOABB's recordings of a person: {session: {run: Raw}}. numpy's global generator is as it was afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        found: dict[str, dict[str, Any]] = dataset(name).get_data(subjects=[subject])[subject]
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return found


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _unreachable(error: BaseException) -> bool:
    """Whether an error came of a connection or a download, by the names of its kinds: MOABB has many."""
    kinds = {kind.__name__ for link in (error, error.__cause__, error.__context__) if link
             for kind in type(link).__mro__}
    return bool(kinds & {"ConnectionError", "Timeout", "TimeoutError", "HTTPError", "URLError", "gaierror",
                         "NemarDownloadError", "DatasetDownloadError"})


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


class _Shards:
    """The shards of one person while they are written: one for each number of channels (and native sampling rate)."""

    def __init__(self, work: Path, name: str, subject: int):
        self.work, self.name, self.subject = work, name, subject
        self.groups: dict[tuple[int, float], dict[str, Any]] = {}
        (work / name).mkdir(parents=True, exist_ok=True)

    def add(self, windows: Array, places: list[tuple[str, str, float]], sfreq: float, band: list[float | None],
            rejected: Counter[str] | None = None, repaired: Counter[str] | None = None) -> None:
        """Windows [n, C, T] float16 with (session, run, onset in s) of each."""
        key = (windows.shape[1], sfreq)
        if key not in self.groups:
            path = self.work / self.name / f"sub-{self.subject:03d}_C{key[0]:03d}_{sfreq:g}Hz.part"
            self.groups[key] = {"path": path, "file": path.open("wb"), "n": 0, "shape": windows.shape[1:],
                                "places": [], "band": band, "rejected": Counter(), "repaired": Counter()}
        group = self.groups[key]
        windows.astype("<f2", copy=False).tofile(group["file"])
        group["n"] += len(windows)
        group["places"] += places
        group["rejected"].update(rejected or {})
        group["repaired"].update(repaired or {})

    def close(self, rejected: Counter[str], repaired: Counter[str], per_subject: int | None = None) -> dict[str, Any]:
        """Puts the shards to their places, with so many windows in all, and writes the receipt, last."""
        shards = []
        several = Counter(channels for channels, _ in self.groups)
        n = sum(group["n"] for group in self.groups.values())
        left: Array = np.unique(np.linspace(0, max(n - 1, 0), min(n, per_subject or n)).round().astype(np.int64))
        for (channels, sfreq), group in sorted(self.groups.items()):
            group["file"].close()
            kept = left[left < group["n"]]
            left = left[len(kept):] - group["n"]
            rate = f"_{sfreq:g}Hz" if several[channels] > 1 else ""
            final = self.work / self.name / f"sub-{self.subject:03d}_C{channels:03d}{rate}.npy"
            if not len(kept):
                group["path"].unlink()
                continue
            _write(group["path"], (group["n"], *group["shape"]), kept, final)
            with final.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            shards.append({"file": f"{self.name}/{final.name}", "n": len(kept), "channels": channels,
                           "dataset": self.name, "subject": self.subject, "sfreq_native": sfreq,
                           "effective_band": group["band"], "sha256": digest, "bytes": final.stat().st_size,
                           "rejected": dict(sorted(group["rejected"].items())),
                           "repaired": dict(sorted(group["repaired"].items())),
                           "places": [group["places"][row] for row in kept]})
        receipt = {"dataset": self.name, "subject": self.subject, "shards": shards,
                   "rejected": dict(rejected), "repaired": dict(repaired)}
        target = _receipt_file(self.work, self.name, self.subject)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_suffix(".part").write_text(json.dumps(receipt))
        os.replace(target.with_suffix(".part"), target)
        return receipt


def _write(part: Path, shape: tuple[int, ...], rows: Array, final: Path) -> None:
    """Some rows of a file of bare float16 windows as .npy, whole or not at all; the file is gone afterwards."""
    found = np.memmap(part, "<f2", "r", shape=shape)
    new = final.with_suffix(".new")
    with new.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False,
                                                    "shape": (len(rows), *shape[1:])})
        for begin in range(0, len(rows), 256):
            found[rows[begin : begin + 256]].tofile(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, final)
    part.unlink()


def _receipt_file(work: Path, name: str, subject: int) -> Path:
    return work / SUBJECTS / name / f"sub-{subject:03d}.json"


def _receipt(work: Path, name: str, subject: int) -> dict[str, Any] | None:
    """What was finished of a subject; None where it was not, or a shard is not as long as it was written."""
    try:
        receipt: dict[str, Any] = json.loads(_receipt_file(work, name, subject).read_text())
        whole = all((work / shard["file"]).stat().st_size == shard["bytes"] for shard in receipt["shards"])
    except (OSError, ValueError, KeyError):
        return None
    return receipt if whole else None


def parts(subjects: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Part of each (data set, subject), "train" or "held_out": by person, one in HELD_OUT of whom is held out.

    Raises BenchError for one person alone.
    """
    everyone = sorted({person(*one) for one in subjects})
    if len(everyone) < 2:
        raise BenchError("a corpus needs windows of two people at least: one is held out")
    turn = {family: hashlib.sha256(family.encode()).digest()[0] for family, _ in everyone}
    held_out = {one for one in everyone if (one[1] + turn[one[0]]) % HELD_OUT == 0}
    if not held_out:
        held_out = {everyone[-1]}
    elif len(held_out) == len(everyone):
        held_out.discard(everyone[0])
    return {one: "held_out" if person(*one) in held_out else "train" for one in subjects}


def _finish(name: str, root: Path, work: Path, receipts: list[dict[str, Any]], wanted: dict[str, Any],
            missing: list[tuple[str, int]]) -> Shards:
    """Writes index and manifest and moves the folder to its place in one step."""
    shards = sorted((shard for receipt in receipts for shard in receipt["shards"]), key=lambda shard: shard["file"])
    if not shards:
        reasons = Counter[str]()
        for receipt in receipts:
            reasons.update(receipt["rejected"])
        raise BenchError(f"{name}: no recording gave a window; rejected: "
                         + ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items())))
    part = parts([(shard["dataset"], shard["subject"]) for shard in shards])
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("window", "shard", "row", "dataset", "subject", "session", "run", "onset_s", "part"))
    window = 0
    for number, shard in enumerate(shards):
        for row, (session, run, onset) in enumerate(shard.pop("places")):
            one = shard["dataset"], shard["subject"]
            rows.writerow((window, number, row, *one, session, run, f"{onset:.6g}", part[one]))
            window += 1
    index = text.getvalue().encode()
    manifest = {
        "schema": 1, "kind": "corpus", "name": name, **wanted, "n_chans": N_CHANS,
        "windows": window, "missing": [list(one) for one in missing], "shards": shards,
        "datasets_found": [_found(one, receipts, shards) for one in sorted({r["dataset"] for r in receipts})],
        "files": {INDEX: {"sha256": hashlib.sha256(index).hexdigest(), "bytes": len(index)}},
    }
    (work / INDEX).write_bytes(index)
    (work / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    keep = {shard["file"] for shard in shards} | {INDEX, MANIFEST}
    for file in [file for file in work.rglob("*") if file.is_file()]:
        at = file.relative_to(work)
        if at.as_posix() not in keep and at.parts[0] != SUBJECTS:  # of a subject that was interrupted or left out
            file.unlink()
    folder = root / CORPORA / name
    try:
        os.rename(work, folder)
    except OSError as error:
        raise BenchError(f"{folder} is in the way of a finished corpus ({error.strerror}): it has no {MANIFEST}; "
                         "remove it and give the same command again") from error
    shutil.rmtree(folder / SUBJECTS)
    for empty in [one for one in folder.iterdir() if one.is_dir() and not any(one.iterdir())]:
        empty.rmdir()
    return find(name, root)


def _found(name: str, receipts: list[dict[str, Any]], shards: list[dict[str, Any]]) -> dict[str, Any]:
    """What became of a data set: its subjects, windows, and what was rejected and repaired."""
    rejected, repaired = Counter[str](), Counter[str]()
    own = [receipt for receipt in receipts if receipt["dataset"] == name]
    for receipt in own:
        rejected.update(receipt["rejected"])
        repaired.update(receipt["repaired"])
    return {"dataset": name, "subjects": len(own), "windows": sum(s["n"] for s in shards if s["dataset"] == name),
            "rejected": dict(sorted(rejected.items())), "repaired": dict(sorted(repaired.items()))}
