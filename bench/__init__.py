"""An ablation benchmark for EEG-to-image generation: what an ablation file and a notebook need of it.

>>> table = bench.run("mask_ratio", scale="tiny", seeds=[0, 1, 2])
>>> table.rows, table.contrasts, table.scores  # pandas DataFrames
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.modules import MovedModules

if TYPE_CHECKING:
    from bench.experiment.variant import FULL, On, Variant
    from bench.scoring.compare import Comparison
    from bench.systems import captions, own, retrieval, trivial
    from bench.tables.model import Table
    from bench.tables.suite import Planned

__all__ = ["FULL", "On", "Variant", "captions", "own", "plan", "replace", "retrieval", "run", "score", "table",
           "trivial"]

_HOMES = {"FULL": "bench.experiment.variant", "On": "bench.experiment.variant", "Variant": "bench.experiment.variant"}
_SYSTEMS = ("captions", "own", "retrieval", "trivial")

if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
    sys.meta_path.append(MovedModules())


def __getattr__(name: str) -> Any:
    """Names that are imported when they are first used: `bench --help` needs none of them."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _SYSTEMS:
        return importlib.import_module(f"bench.systems.{name}")
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def run(ablation: str | Path, *, scale: str = "tiny", seeds: Sequence[int] = (0,), variants: Sequence[str] = (),
        store: str | Path = ".bench", results: str | Path = "results", **options: Any) -> Table:
    """Runs an ablation, as `bench run` does, and returns its table.

    ablation: a name of ablations/, or the path of a .py file. options: other fields of
    `bench.setup.request.Request`, such as device="cuda", workers=2, with_controls=True. What is stored is not built
    again; a row that fails stands in the table as failed. Raises BenchError for what does not exist.
    """
    from rich.console import Console

    from bench.tables import suite

    done = suite.run(_request(ablation, scale=scale, seeds=seeds, variants=variants, store=store, results=results,
                              **options), Console(soft_wrap=True))
    return done.table or table(ablation, scale=scale, results=results)


def plan(ablation: str | Path, *, scale: str = "tiny", seeds: Sequence[int] = (0,), variants: Sequence[str] = (),
         store: str | Path = ".bench", **options: Any) -> Planned:
    """What `run` would build, and what is stored, as `bench plan` shows it: `.stages` and `.rows` are DataFrames, and
    `.price(gpu)` what it would cost. Arguments and errors as of `run`."""
    from bench.tables import suite

    return suite.plan(_request(ablation, scale=scale, seeds=seeds, variants=variants, store=store, **options))


def table(ablation: str | Path, *, scale: str = "tiny", results: str | Path = "results", reference: bool = False,
          pairs: str = "", subjects: Sequence[int] | Literal["all"] = (), with_controls: bool = False) -> Table:
    """The table of an ablation from its CSV, as `bench table` prints it. reference: the suite's own run.

    Raises BenchError where there are no results, or where they were changed by hand.
    """
    from bench.experiment import ablation as ablations
    from bench.experiment.scale import scale as named_scale
    from bench.tables.build import table as tabulate

    request = _request(ablation, scale=scale, results=results, reference=reference, pairs=pairs, subjects=subjects,
                       with_controls=with_controls)
    people = ablations.chosen_subjects(request.subjects, named_scale(scale))
    chosen = ablations.asked(request.ablation, people, with_controls)
    return tabulate(request.results_folder, chosen.name, chosen)


def score(generated: str | Path, reference: str | Path, *, labels: str | Path | None = None,
          metrics: Sequence[str] | None = None, judge: str = "tiny", device: str = "auto") -> Comparison:
    """Scores generated images against reference images, as `bench score` does; `.summary` is a DataFrame.

    generated, reference: folders of images with the same names, or .npy or .npz files. labels: a CSV with columns name
    and label. metrics: these alone. Raises BenchError for input that cannot be read or paired.
    """
    from bench.runtime import device as available
    from bench.scoring.compare import compare

    return compare(Path(generated), Path(reference), Path(labels) if labels else None, metrics, judge, available(device))


def _request(ablation: str | Path, **fields: Any) -> Any:
    from bench.setup.request import Request

    paths = {name: Path(fields[name]) for name in ("store", "results", "data", "weights") if fields.get(name)}
    lists = {name: tuple(fields[name]) for name in ("seeds", "variants", "engine_settings") if name in fields}
    subjects = fields.get("subjects", ())
    given: dict[str, Any] = fields | paths | lists
    return Request(ablation=str(ablation), **given | {"subjects": subjects if subjects == "all" else tuple(subjects)})
