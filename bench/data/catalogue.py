"""The data sets of MOABB in each corpus, and estimates of their size."""

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


# MOABB 0.4.6 (the paper's time), by its tables: at least 30 EEG channels; without MAMEM1 and MAMEM2 (256 channels).
# The paper: MOABB's with more than 30 channels, "over 400 subjects"; the list was never published.
MOABB_V046 = (
    "BI2014b", "BI2015a", "BI2015b", "BNCI2015_004", "Cho2017", "EPFLP300", "GrosseWentrup2009", "Huebner2017",
    "Huebner2018", "Lee2019_ERP", "Lee2019_MI", "Lee2019_SSVEP", "Ofner2017", "PhysionetMI", "Schirrmeister2017",
    "Shin2017A", "Shin2017B", "Sosulski2019", "Wang2016", "Weibo2014",
)
# The same for MOABB 1.7.2, which has these in addition; also without Wu2020 (132 channels listed).
MOABB_ALL = tuple(sorted((
    *MOABB_V046, "BCIComp2020UpperLimb", "BCIComp2020WalkingERP", "BNCI2003_004", "BNCI2015_006", "BNCI2015_007",
    "BNCI2015_008", "BNCI2015_009", "BNCI2015_010", "BNCI2015_012", "BNCI2015_013", "BNCI2016_002", "BNCI2019_001",
    "BNCI2020_001", "BNCI2020_002", "BNCI2022_001", "BNCI2024_001", "BNCI2025_001", "BNCI2025_002", "Beetl2021_A",
    "Beetl2021_B", "Brandl2020", "CastillosBurstVEP100", "CastillosBurstVEP40", "CastillosCVEP100", "CastillosCVEP40",
    "Chang2025", "Chen2017SingleFlicker", "ErpCore2021_ERN", "ErpCore2021_LRP", "ErpCore2021_MMN", "ErpCore2021_N170",
    "ErpCore2021_N2pc", "ErpCore2021_N400", "ErpCore2021_P3", "Forenzo2023", "Gao2026", "GuttmannFlury2025_ME",
    "GuttmannFlury2025_MI", "GuttmannFlury2025_P300", "GuttmannFlury2025_SSVEP", "Han2024Fatigue", "HefmiIch2025",
    "Hinss2021", "Jeong2020", "Kaneshiro2015", "Kim2025BetaRange", "Kojima2024A", "Kojima2024B", "Lee2021Mobile_ERP",
    "Lee2021Mobile_SSVEP", "Lee2024_BS", "Lee2024_DL", "Lee2024_EL", "Lee2024_TV", "Liu2020BETA", "Liu2022EldBETA",
    "Liu2025", "Ma2020", "Mainsah2025_A", "Mainsah2025_C", "Mainsah2025_D", "Mainsah2025_O", "Mainsah2025_P",
    "Mainsah2025_Q", "Mainsah2025_R", "Mainsah2025_S1", "Mainsah2025_S2", "Nguyen2017_L", "Nguyen2017_S",
    "Nguyen2017_SL", "Nguyen2017_V", "Nieto2022", "Rozado2015", "Speier2017", "Stieger2021", "Tavakolan2017",
    "Thielen2015", "Wang2021Combined", "Wang2026", "Yang2025", "Yi2025", "Zhang2025", "Zheng2020", "Zhou2020",
    "Zuo2025",
)))
FAKE = ("Fake003", "Fake032", "Fake062", "Fake128")  # MOABB's synthetic data set in several sizes; no download
FAKES = {"Fake003": (3, 128.0, 20, 2), "Fake032": (32, 160.0, 40, 6), "Fake062": (62, 250.0, 40, 2),
         "Fake128": (128, 512.0, 20, 2)}  # channels, Hz, seconds, people
CORPORA_BY_NAME = {"moabb_v046": MOABB_V046, "moabb_all": MOABB_ALL, "fake": FAKE}
TRAIN_ONLY = "imagenet_eeg_train_only"

# Data sets of the same people under the same numbers: a person is in one part only, whatever the data set.
FAMILIES = ("Castillos", "ErpCore2021_", "GuttmannFlury2025_", "Kojima2024", "Lee2019_", "Lee2021Mobile_", "Lee2024_",
            "Mainsah2025_", "Nguyen2017_", "Shin2017")
N_CHANS, N_TIMES = 128, 512  # channels after replication, samples of a window (Sec. 4.1)
BAND = (5.0, 95.0)  # Hz (Sec. 4.1)
SESSION_MINUTES = 40  # assumed length of a session, which MOABB's tables do not state
MAX_SESSIONS = 4  # in an estimate: MOABB counts short blocks as sessions, too
RATE = 1e7  # channel samples that one core prepares in a second, about


@dataclass(frozen=True)
class Cutting:
    """How recordings become windows: with the recording, all that the bytes of a shard depend on.

    sfreq: common rate in Hz; None: each recording keeps its own. per_subject: number of windows to keep of each subject
    of a data set, evenly over its recordings; None: all.
    """

    band: tuple[float, float] = BAND
    n_times: int = N_TIMES
    sfreq: float | None = None
    stride: int = N_TIMES
    per_subject: int | None = None


@dataclass(frozen=True)
class Estimate:
    """Approximate size of a corpus: windows, bytes on disk, bytes to download, seconds of one core."""

    people: int
    windows: int
    disk: int
    download: int
    seconds: float


def parse_corpus(name: str) -> tuple[str, tuple[str, ...]]:
    """Returns a corpus's name and data sets. name: one of CORPORA_BY_NAME, a list "A,B", or a .txt file, one a line.

    Raises BenchError for an empty or unreadable list.
    """
    if name in CORPORA_BY_NAME:
        return name, CORPORA_BY_NAME[name]
    if name.endswith(".txt"):
        try:
            lines = Path(name).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BenchError(f"{name}: expected a text file with one data set on a line ({error})") from error
        chosen = sorted({line.split("#")[0].strip() for line in lines} - {""})
        title = Path(name).stem
    else:
        chosen = sorted({part.strip() for part in name.split(",")} - {""})
        title = "+".join(chosen)
    if not chosen:
        raise BenchError(f"{name!r} names no data set; {_describe_choices()}")
    if len(title) > 60:
        title = "moabb_" + hashlib.sha256(title.encode()).hexdigest()[:8]
    if title in (*CORPORA_BY_NAME, TRAIN_ONLY) or title.startswith("."):
        raise BenchError(f"{name}: {title!r} cannot name your own corpus; give the file another name than {title}.txt")
    return title, tuple(chosen)


def check_names(names: Sequence[str]) -> None:
    """Raises BenchError for data sets that MOABB does not have, with similar names. Downloads nothing."""
    import moabb

    known = _classes()
    for name in names:
        if name not in known and name not in FAKES:
            similar = difflib.get_close_matches(name, [*known, *FAKES], 4, 0.5) or [
                other for other in known if name.lower()[:4] == other.lower()[:4]][:4]
            hint = f"similar: {', '.join(similar)}" if similar else "see moabb.datasets"
            raise BenchError(f"MOABB {moabb.__version__} has no data set {name!r} ({hint}); {_describe_choices()}")


def is_dataset(name: str) -> bool:
    """Whether MOABB has a data set of that name, or it is one of FAKES."""
    return name in (*MOABB_ALL, *FAKES) or name in _classes()


def _describe_choices() -> str:
    return (f"expected a corpus ({', '.join((*CORPORA_BY_NAME, TRAIN_ONLY))}), a list such as Cho2017,Lee2019_MI, a "
            "file FILE.txt, or your own recordings: FOLDER --name NAME")


def load_dataset(name: str) -> BaseDataset:
    """Returns MOABB's data set of that name, or one of FAKES. Downloads nothing."""
    if name not in FAKES:
        known: BaseDataset = _classes()[name]()
        return known
    import mne
    from moabb.datasets.fake import FakeDataset

    channels, sfreq, seconds, people = FAKES[name]
    with quiet():
        montage = mne.channels.make_standard_montage("standard_1005").ch_names
    fake = FakeDataset(n_sessions=1, n_runs=1, n_subjects=people, channels=tuple(montage[:channels]),
                       seed=1000 * channels, sfreq=sfreq, duration=seconds, n_events=2, event_list=("one", "two"))
    variable = f"MNE_DATASETS_{fake.code.upper()}_PATH"  # names a folder that MOABB makes and never uses
    if os.path.isdir(os.environ.get(variable, "")):
        os.rmdir(os.environ.pop(variable))
    return fake


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses the warnings and logs of readers, which repeat for every file."""
    import mne

    with warnings.catch_warnings(), mne.use_log_level("error"):
        warnings.simplefilter("ignore")
        yield


def _classes() -> dict[str, Any]:
    """Returns MOABB's data sets by class name."""
    from moabb.datasets import utils

    if not utils.dataset_dict:
        utils._init_dataset()
    return {name: kind for name, kind in utils.dataset_dict.items() if not name.startswith("Fake")}


def identify_person(name: str, subject: int) -> tuple[str, int]:
    """Returns who a subject of a data set is: the family of the data set (or its name), and the number."""
    return next((family for family in FAMILIES if name.startswith(family)), name), subject


def estimate_size(names: Sequence[str], cutting: Cutting, subjects: Sequence[int] | None = None) -> Estimate:
    """Estimates the size of a corpus to a factor of about three: MOABB states neither durations nor sizes."""
    windows = disk = download = 0
    work, count = 0.0, 0
    for name in names:
        source = load_dataset(name)
        people = len(source.subject_list)
        people = people if subjects is None else sum(subject <= people for subject in subjects)
        if name in FAKES:
            n_chans, sfreq, seconds = FAKES[name][:3]
        else:
            n_chans = int(source.metadata.acquisition.channel_types["eeg"])
            sfreq = float(source.metadata.acquisition.sampling_rate)
            seconds = 60 * SESSION_MINUTES * min(int(source.n_sessions), MAX_SESSIONS)
        count += people
        samples = people * seconds * sfreq
        download += 0 if name in FAKES else round(samples * n_chans * 4)
        if 30 <= n_chans <= N_CHANS:
            n = int(samples * (cutting.sfreq or sfreq) / sfreq / cutting.stride)
            n = min(n, people * cutting.per_subject) if cutting.per_subject else n
            windows += n
            disk += n * n_chans * cutting.n_times * 2
            work += samples * n_chans / RATE
    return Estimate(count, windows, disk, download, work)
