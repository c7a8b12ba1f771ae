"""Which data sets of MOABB a corpus is made of, and about how much they are."""

from __future__ import annotations

import difflib
import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from moabb.datasets.base import BaseDataset


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

# Data sets of the same people under the same numbers: a person is in one part alone, whatever the data set.
FAMILIES = ("Castillos", "ErpCore2021_", "GuttmannFlury2025_", "Kojima2024", "Lee2019_", "Lee2021Mobile_", "Lee2024_",
            "Mainsah2025_", "Nguyen2017_", "Shin2017")
N_CHANS, N_TIMES = 128, 512  # to which channels are replicated, samples of a window (Sec. 4.1)
BAND = (5.0, 95.0)  # Hz (Sec. 4.1)
SESSION = 40  # minutes that a session is taken to last, where nothing says how long it is
SESSIONS = 4  # at most, for an estimate: MOABB counts short blocks as sessions, too
RATE = 1e7  # samples of channels that one core prepares in a second, about


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
            raise BenchError(f"MOABB {moabb_version()} has no data set {name!r}; {hint}. {_known()}")


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
    with silenced():
        montage = mne.channels.make_standard_montage("standard_1005").ch_names
    fake = FakeDataset(n_sessions=1, n_runs=1, n_subjects=people, channels=tuple(montage[:channels]),
                       seed=1000 * channels, sfreq=sfreq, duration=seconds, n_events=2, event_list=("one", "two"))
    place = f"MNE_DATASETS_{fake.code.upper()}_PATH"  # it makes a folder that nothing is written to
    if os.path.isdir(os.environ.get(place, "")):
        os.rmdir(os.environ.pop(place))
    return fake


@contextmanager
def silenced() -> Iterator[None]:
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


def moabb_version() -> str:
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
