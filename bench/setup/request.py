"""The request: what to run, on which data, where, and how, as one value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, Literal

from bench.errors import BenchError
from bench.modules import shipped_results

DATA = Path(".bench-data")  # `bench data prepare` writes here
STORE = Path(".bench")
PRETRAIN_SEEDS = ("each", "one")
NULLS = ("full", "each")
SEEDS = 2**32  # torch's generator on a CPU uses 32 bits of a seed: larger ones repeat the numbers of smaller ones


@dataclass(frozen=True)
class Request:
    """An ablation at a scale, with its data, its folders, and the way it is run.

    Commands make one from their options, and `bench.run`, `bench.plan` and `bench.table` from their arguments. Library
    code takes a Request, never a parser's namespace. Defaults are those of `bench run`:

    >>> Request("mask_ratio", scale="micro", seeds=(0, 1, 2), device="cpu")

    What to run
        ablation         a name in ablations/, or the path of a .py file
        scale            a name in bench.experiment.scale.SCALES
        variants         names of rows; (): all rows that the scale can have
        subjects         every row once for each of these subjects alone; "all": for each subject of the data set;
                         (): once, for the scale's subjects together
        with_controls    every variant also with its EEG shuffled, replaced by a surrogate, and set to zero
        nulls            "full": Full also with shuffled EEG; "each": every row that uses the EEG, for its gain
        seeds            of training and sampling
        pretrain_seeds   "each": every seed has its own pre-training; "one": all seeds share that of seed 0; "": the
                         scale's choice
    On which data
        pairs            a prepared data set, by name; "": the scale's own
        corpus           a prepared pre-training corpus, by name; "": the scale's own
        judge            the classifier of images: a model of timm, or a file (bench.scoring.judges); "": the scale's
        architecture     timm's name of a judge's architecture, if its file does not say it
        fit              "crop" or "stretch": how that judge gets an image; "": timm's own crop
    Folders
        store            stored stages
        data             prepared data sets and corpora
        weights          pre-trained weights, searched before the libraries' caches; None: only the caches
        results          results files; with `reference`, those of the suite's own run in <results>/reference
    How
        device           "auto", "cpu", "cuda" or "mps"
        processes        processes of a data-parallel training
        workers          processes that build stages, on GPUs for each GPU; None: on a CPU one for each core, on GPUs
                         one for each, at scales tiny and micro several (docs/running.md)
        engine           "here", "slurm" or "ray"
        engine_settings  KEY=VALUE, or the path of a .toml file
        wait             Slurm: wait until all jobs have ended
        fail_fast        start no further stage after one has failed
        track            a tracker of bench.execute.trackers; "": none
        energy           "1" or a country code measures energy with codecarbon; "": off

    seeds, subjects and variants may be any sequence: a list, a range, a numpy array, a pandas Series (in the order of
    its values). Raises BenchError (exit 2) for seeds that are not distinct integers from 0 to 2**32 - 1, for subjects
    that are not integers, for variants that are not text, for other pretrain_seeds, and for fewer than 1 process. Names
    are looked up later, by `bench.setup.rows.plan_request`.
    """

    ablation: str = ""
    scale: str = "tiny"
    variants: tuple[str, ...] = ()
    subjects: tuple[int, ...] | Literal["all"] = ()
    with_controls: bool = False
    nulls: str = "full"
    seeds: tuple[int, ...] = (0,)
    pretrain_seeds: str = ""
    device: str = "auto"
    processes: int = 1
    pairs: str = ""
    corpus: str = ""
    judge: str = ""
    architecture: str = ""
    fit: str = ""
    store: Path = STORE
    data: Path = DATA
    weights: Path | None = None
    results: Path = Path("results")
    reference: bool = False
    workers: int | None = None
    engine: str = "here"
    engine_settings: tuple[str, ...] = ()
    wait: bool = False
    fail_fast: bool = False
    track: str = ""
    energy: str = ""

    def __post_init__(self) -> None:
        seeds = _whole_numbers("seeds", self.seeds)
        shown = ",".join(map(str, seeds))
        if not seeds or min(seeds) < 0:
            raise BenchError(f"--seeds {shown}: expected integers from 0 on, separated by commas")
        if max(seeds) >= SEEDS:
            raise BenchError(f"--seeds {shown}: {max(seeds)} is too large; expected integers from 0 to {SEEDS - 1}: "
                             "random generators use 32 bits of a seed, so that larger ones repeat smaller ones")
        if len(set(seeds)) < len(seeds):
            raise BenchError(f"--seeds {shown}: a seed is repeated; expected distinct seeds")
        object.__setattr__(self, "seeds", seeds)
        if self.pretrain_seeds not in ("", *PRETRAIN_SEEDS):
            raise BenchError(f"--pretrain-seeds {self.pretrain_seeds}: expected {' or '.join(PRETRAIN_SEEDS)}")
        if not isinstance(self.subjects, str):
            object.__setattr__(self, "subjects", _whole_numbers("subjects", self.subjects))
        elif self.subjects != "all":
            raise BenchError(f"--subjects {self.subjects}: expected all, or numbers of subjects")
        variants = in_order("variants", self.variants)
        if wrong := [name for name in variants if not isinstance(name, str)]:
            raise BenchError(f"--variants: {wrong[0]!r} is a {type(wrong[0]).__name__}; expected the names of rows")
        object.__setattr__(self, "variants", tuple(map(str, variants)))
        if self.nulls not in NULLS:
            raise BenchError(f"--nulls {self.nulls}: expected {' or '.join(NULLS)}")
        if not isinstance(self.processes, int) or self.processes < 1:
            raise BenchError(f"--processes {self.processes}: expected an integer of at least 1")

    @property
    def source_folder(self) -> Path:
        """The folder from which results are read: `results_folder`, or for the suite's own runs, if that does not
        exist, the part of them that is installed."""
        if self.reference and not self.results_folder.is_dir() and self.results == Path("results"):
            return shipped_results() / "reference" / self.scale / self.pairs
        return self.results_folder

    @property
    def results_folder(self) -> Path:
        """The folder of the results at this scale, on these pairs and by this judge."""
        judge = f"judge {Path(self.judge.removeprefix('hf-hub:')).stem}" if self.judge else ""
        return self.results / ("reference" if self.reference else "") / self.scale / self.pairs / judge


def in_order(name: str, values: Any) -> list[Any]:
    """Returns the values of a sequence. Raises BenchError for a single value, and for a set or a mapping."""
    if isinstance(values, (str, bytes, Mapping, set, frozenset)) or not isinstance(values, Iterable) or \
            getattr(values, "ndim", 1) != 1:
        shown = " ".join(str(values).split())[:80]
        raise BenchError(f"--{name} {shown} is a {type(values).__name__}; expected a sequence, such as a list")
    return list(values)


def _whole_numbers(name: str, values: Any) -> tuple[int, ...]:
    """Returns integers of any type, numpy's included, as int. Raises BenchError for other values."""
    numbers = []
    for value in in_order(name, values):
        try:
            if isinstance(value, bool):
                raise TypeError
            numbers.append(index(value))
        except TypeError as error:
            raise BenchError(f"--{name}: {value!r} is a {type(value).__name__}; expected integers from 0 on, separated "
                             "by commas") from error
    return tuple(numbers)
