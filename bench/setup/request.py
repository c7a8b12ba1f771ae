"""What the user asks for, as one value: commands make it of their options, and `bench.run` of its arguments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.errors import BenchError

DATA = Path(".bench-data")  # where `bench data prepare` writes
STORE = Path(".bench")


@dataclass(frozen=True)
class Request:
    """An ablation at a scale, where its data and results are, and how it is run. Raises BenchError for seeds that are
    no whole numbers from 0 on, or are given twice.

    ablation         a name of ablations/, or the path of a .py file
    variants         names of rows; (): all
    subjects         every row once for each of these subjects alone; "all": the data set's; (): the scale's, together
    with_controls    beside each variant also its EEG shuffled, replaced by a surrogate, and set to zero
    device           "auto", "cpu" or "cuda"
    processes        data-parallel processes of a training
    pairs, corpus    names of a prepared data set and a prepared corpus; "": the scale's
    data             folder of prepared data
    weights          folder of pre-trained weights, looked into before the libraries' caches
    reference        results are the suite's own, in results/reference/
    workers          processes that build stages; None: one for each core, on a GPU one
    engine           "here", "slurm" or "ray"; engine_settings: FILE.toml or KEY=VALUE
    wait             on Slurm: stay until all jobs have ended
    fail_fast        begin nothing new after a stage has failed
    track            a tracker of bench.execute.trackers; "": none
    energy           "1", or a country's code, for codecarbon; "": not measured
    """

    ablation: str = ""
    scale: str = "tiny"
    variants: tuple[str, ...] = ()
    subjects: tuple[int, ...] | Literal["all"] = ()
    with_controls: bool = False
    seeds: tuple[int, ...] = (0,)
    device: str = "auto"
    processes: int = 1
    pairs: str = ""
    corpus: str = ""
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
        shown = ",".join(map(str, self.seeds))
        if not self.seeds or not all(isinstance(seed, int) and seed >= 0 for seed in self.seeds):
            raise BenchError(f"--seeds {shown}: whole numbers from 0 on, separated by commas, are expected")
        if len(set(self.seeds)) < len(self.seeds):
            raise BenchError(f"--seeds {shown}: a seed stands there twice")
        if self.processes < 1:
            raise BenchError(f"--processes {self.processes}: at least 1 is needed")

    @property
    def results_folder(self) -> Path:
        """Where the results of the ablations at this scale and on these pairs are."""
        return self.results / ("reference" if self.reference else "") / self.scale / self.pairs
