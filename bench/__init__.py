"""An ablation benchmark for EEG-to-image generation: the names that ablation files use, and the entries for notebooks.

>>> table = bench.run("mask_ratio", scale="tiny", seeds=[0, 1, 2])
>>> table.rows, table.contrasts, table.scores  # pandas DataFrames
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from bench.modules import MovedModules, check_packages, find_foreign

if not find_foreign():  # otherwise the commands and `run` say whose they are
    import models  # noqa: F401  (before diffusers and torchmetrics, which would import torchaudio)

if TYPE_CHECKING:
    from bench.experiment.variant import FULL, On, Variant
    from bench.scoring.compare import Comparison
    from bench.setup.request import Request
    from bench.systems import captions, own, retrieval, trivial
    from bench.tables.model import Table
    from bench.tables.suite import Planned

__all__ = ["FULL", "On", "Variant", "captions", "own", "plan", "replace", "retrieval", "run", "score", "table",
           "trivial"]

_VARIANTS, _SYSTEMS = ("FULL", "On", "Variant"), ("captions", "own", "retrieval", "trivial")
AnyPath = str | Path
Subjects = Sequence[int] | Literal["all"]

if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
    sys.meta_path.insert(0, MovedModules())  # before the finder that would load a second copy of a submodule


def __getattr__(name: str) -> Any:
    """Imports a name when it is first used: `bench --help` needs none of them."""
    if name in _VARIANTS:
        return getattr(importlib.import_module("bench.experiment.variant"), name)
    if name in _SYSTEMS:
        return importlib.import_module(f"bench.systems.{name}")
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def run(ablation: AnyPath, *, scale: str = "tiny", seeds: Sequence[int] = (0,), variants: Sequence[str] = (),
        subjects: Subjects = (), with_controls: bool = False, pretrain_seeds: str = "", device: str = "auto",
        processes: int = 1, workers: int | None = None, pairs: str = "", corpus: str = "", judge: str = "",
        architecture: str = "", fit: str = "", store: AnyPath = ".bench", data: AnyPath = ".bench-data",
        weights: AnyPath | None = None, results: AnyPath = "results", reference: bool = False,
        nulls: Literal["full", "each"] = "full") -> Table:
    """Runs an ablation, as `bench run` does, and returns its table. Stored stages are not built again.

    Worker processes import the calling script: there, call this below `if __name__ == "__main__":`.

    Parameters
        ablation       a name of ablations/, or the path of a .py file
        scale          "tiny", "micro", "rehearsal", "paper", "paper-short" or "laptop"
        seeds          seeds of training and sampling, whole numbers from 0 to 2**32 - 1
        variants       names of rows; (): all
        subjects       every row once for each of these subjects; "all": the data set's; (): once for all together
        with_controls  every row also with its EEG shuffled, replaced by a surrogate, and set to zero
        pretrain_seeds "each" seed has its own pre-training, or "one" is shared by all; "": the scale's choice
        device         "cpu", "cuda", "mps", or "auto": cuda if the driver shows a GPU
        processes      processes of a data-parallel training
        workers        processes that build stages; None: on a CPU one for each core, on a GPU one
        pairs, corpus  names of a prepared data set and a prepared corpus; "": the scale's
        judge          another classifier of images, as of `score`; "": the scale's. architecture, fit: as of `score`
        store          folder of stored stages
        data, weights  folders of prepared data and of pre-trained weights; weights=None: the libraries' caches
        results        folder of the results; reference: in it reference/, the suite's own runs
        nulls          also with shuffled EEG: "each" row, which gives its gain over this null, or "full": Full alone

    Returns
        The table of every recorded row of the ablation; `.rows`, `.contrasts` and `.scores` are DataFrames, `.render()`
        is text. A row that failed is in it as failed.

    Raises
        BenchError for an unknown name, missing data or weights, and a full disk; `exit_code` is that of `bench run`.
    """
    request = _request(**locals())
    from rich.console import Console

    from bench.tables import suite

    done = suite.run(request, Console(soft_wrap=True))
    return done.table or table(ablation, scale=scale, results=results, reference=reference, pairs=pairs, judge=judge)


def plan(ablation: AnyPath, *, scale: str = "tiny", seeds: Sequence[int] = (0,), variants: Sequence[str] = (),
         subjects: Subjects = (), with_controls: bool = False, pretrain_seeds: str = "", device: str = "auto",
         processes: int = 1, pairs: str = "", corpus: str = "", judge: str = "", architecture: str = "",
         fit: str = "", store: AnyPath = ".bench", data: AnyPath = ".bench-data", weights: AnyPath | None = None,
         nulls: Literal["full", "each"] = "full") -> Planned:
    """Plans a run, as `bench plan` does, and builds nothing. Parameters and errors are those of `run`.

    Returns
        `.stages`, a DataFrame of the kinds of stages, columns kind, rows, controls, stored, to_build; `.rows`, a
        DataFrame of the table's rows; `.price(gpu)`, the cost on a GPU ("h200", "h100", "a100" or "4090").
    """
    request = _request(**locals())
    from bench.tables import suite

    return suite.plan(request)


def table(ablation: AnyPath, *, scale: str = "tiny", results: AnyPath = "results", reference: bool = False,
          pairs: str = "", judge: str = "", subjects: Subjects = (), with_controls: bool = False) -> Table:
    """Reads the table of an ablation from its CSV, as `bench table` does. Parameters are those of `run`.

    Returns
        The table; `.rows`, `.contrasts` and `.scores` are DataFrames, `.render("md")` is Markdown.

    Raises
        BenchError if there are no results, or if the CSV was edited by hand.
    """
    request = _request(**locals())
    from bench.tables.named import requested

    return cast("Table", requested(request))


def score(generated: AnyPath, reference: AnyPath, *, labels: AnyPath | None = None,
          metrics: Sequence[str] | None = None, judge: str = "tiny", device: str = "auto",
          train: AnyPath | None = None, architecture: str = "", fit: str = "") -> Comparison:
    """Scores generated images against reference images, as `bench score` does.

    Parameters
        generated, reference  folders of images with the same names, or .npy or .npz files
        labels                a CSV with columns name and label, the judge's class number
        metrics               names of metrics; None: all that the judge allows
        judge                 "tiny", "none", "efficientnet_lite0", or a timm model (docs/metrics.md)
        device                "cpu", "cuda", "mps", or "auto"
        train                 the system's training images, to measure memorisation
        architecture          timm's name of a checkpoint's architecture, if the file does not say it
        fit                   "crop" or "stretch": how a timm judge gets an image; "": timm's own crop

    Returns
        The comparison; `.summary` is a DataFrame with a row for each metric.

    Raises
        BenchError for images that cannot be read or paired, unknown metrics, and missing weights.
    """
    check_packages()
    from bench.runtime import device as available
    from bench.scoring.compare import compare
    from bench.setup.request import in_order

    names = None if metrics is None else in_order("metrics", metrics)
    return compare(Path(generated), Path(reference), Path(labels) if labels else None, names, judge, available(device),
                   train=Path(train) if train else None, architecture=architecture, fit=fit)


def _request(ablation: AnyPath, **fields: Any) -> Request:
    """The request of an entry's parameters, with folders as Paths."""
    check_packages()
    from bench.setup.request import Request

    folders = {name: Path(fields[name]) for name in ("store", "results", "data", "weights") if fields.get(name)}
    return Request(**fields | folders, ablation=str(ablation))
