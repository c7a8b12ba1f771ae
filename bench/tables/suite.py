"""The suite's main paths from a request: what would be built, and building, recording and tabulating it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console

from bench import files, modules
from bench.cost import forecast
from bench.execute import engines, runner, trackers
from bench.execute.pool import Pool
from bench.execute.progress import Display, Watcher
from bench.experiment import encoders
from bench.experiment.ablation import Ablation
from bench.experiment.graph import Row, counts, shown, stages
from bench.experiment.key import Stage
from bench.experiment.scale import Scale
from bench.experiment.stages import Finetune, Items, Score, World
from bench.setup.request import Request
from bench.setup.rows import Plan, plan_request, possible, rows
from bench.store import provenance
from bench.store.store import Store
from bench.tables import model, results, sheet
from bench.tables.build import table as build_table
from bench.tables.record import about, gather, note
from bench.train import items

if TYPE_CHECKING:
    from bench.cost.price import Priced

SAMPLES, COLUMNS = 2, 20  # of each item, and items at most, on a contact sheet


@dataclass(frozen=True, eq=False)
class Done:
    """What a run left. table: None where nothing is recorded yet; sheet: the contact sheet, None where none is drawn."""

    outcome: runner.Outcome
    csv: Path
    table: model.Table | None
    sheet: Path | None


@dataclass(frozen=True, eq=False)
class Planned:
    """What a run would build. counts: (kind, stages of the rows, stages that only the controls add, how many of both
    are stored) in building order; missing: the stages that a run would build now."""

    plan: Plan
    counts: list[tuple[str, int, int, int]]
    missing: list[Stage]
    stored: Callable[[Stage], bool]

    @property
    def stages(self) -> pd.DataFrame:
        """A row for each kind of stage, columns kind, rows, controls, stored, to_build."""
        frame = pd.DataFrame(self.counts, columns=["kind", "rows", "controls", "stored"])
        return frame.assign(to_build=frame["rows"] + frame["controls"] - frame["stored"])

    @property
    def rows(self) -> pd.DataFrame:
        """A row for each row of the table, columns variant, seed, items, stage (the key of its last stage), stored."""
        return pd.DataFrame([{"variant": row.variant, "seed": row.seed, "items": row.items, "stage": row.stage.key,
                              "stored": self.stored(row.stage)} for row in self.plan.rows])

    def price(self, gpu: str, gpus: int = 1) -> Priced:
        """What the rows cost on so many GPUs of a kind. Errors as bench.cost.price.price."""
        from bench.cost.price import price

        return price(self.plan.rows, self.plan.scale, gpu, gpus, self.stored)


def plan(request: Request) -> Planned:
    """What a run of the request would build; nothing is built, and data and weights may be absent."""
    planned, store = plan_request(request, needed=False), Store(request.store, create=False)
    missing = stages((stage for row in planned.rows for stage in shown(row)), store.has)
    return Planned(planned, counts(planned.rows, store.has), missing, store.has)


def run(request: Request, console: Console) -> Done:
    """Builds what the rows of a request need, and records each as soon as it is scored. Raises BenchError for what does
    not exist, and (exit 75) on a full disk; a stage that fails fails its rows alone, and the outcome says why."""
    if request.track:
        trackers.check(request.track)
    if request.energy:
        provenance.check_energy(request.energy)
        os.environ[provenance.ENERGY] = request.energy  # which the workers inherit
    planned = plan_request(request)
    chosen, at, table = planned.ablation, planned.scale, list(planned.rows)
    folder = request.results_folder
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    if any((folder / f"{chosen.name}{ending}").exists() for ending in (".csv", ".sha256")):
        results.read(folder, chosen.name)
    workers = runner.workers(request.workers, at.numerics.device_class)
    store = Store(request.store)
    engine = engines.chosen(request, store)
    every = stages(row.stage for row in table)
    for source in {source for stage in every for source in modules.users_files(stage)}:
        encoders.keep(source, store.encoders)
    todo = stages((stage for row in table for stage in shown(row)), store.has)
    _check(todo)
    console.print(f"{chosen.name} at scale {at.name}, seeds {','.join(map(str, request.seeds))}: {len(every)} stages, "
                  f"{len(every) - len(todo)} stored, {len(todo)} to build on "
                  + (request.engine if engine else f"{workers} workers")
                  + (f", {forecast.said(todo, workers)}" if todo and not engine and isinstance(at.world, World)
                     else ""), highlight=False)

    def record(done: Sequence[Row]) -> None:
        gathered = [gather(row, store, at, chosen) for row in done]
        if gathered:
            results.record(folder, chosen.name, pd.concat([numbers for numbers, _ in gathered]),
                           pd.concat([each for _, each in gathered]))

    executor = engine or Pool(min(workers, max(len(todo), 1)), store.root, at.numerics.device_class)
    with watching(request.track, store, f"{chosen.name}-{at.name}", table) as watcher:
        display = Display(console, None if engine else workers, watcher)
        outcome = runner.run(table, store, executor, record, display, request.fail_fast)
    if outcome.failed:
        failures = [results.failure(cause.split(" (log: ")[0], **about(row, at, chosen))
                    for row, cause in outcome.failed.items()]
        results.record(folder, chosen.name, pd.concat(failures), pd.DataFrame())
    there = results.runs(folder, chosen.name)
    noted = set(zip(there["variant"], there["seed"], there["items"], there["stage"], strict=True))
    new = [row for row in table if row.stage in outcome.built or (
        row not in outcome.failed and row not in outcome.waiting
        and (row.variant, str(row.seed), row.items, row.stage.key[:16]) not in noted)]
    if new:
        results.note_runs(folder, chosen.name, [note(row, store) for row in new])
    console.print(f"built {len(outcome.built)} stages, reused {outcome.reused}, in {outcome.seconds:.0f} s\n",
                  highlight=False)
    if outcome.queued:
        console.print(f"{len(outcome.queued)} stages are queued on {request.engine}, and {len(outcome.waiting)} rows "
                      f"wait for them; look: bench status --store {request.store}; the same command records the rows "
                      "that are complete by then, and with --wait stays until all are\n", highlight=False)
    csv = folder / f"{chosen.name}.csv"
    if not csv.exists():
        return Done(outcome, csv, None, None)
    return Done(outcome, csv, build_table(folder, chosen.name, chosen), pictures(folder, chosen, at, store))


@contextmanager
def watching(track: str, store: Store, group: str, table: list[Row]) -> Iterator[Watcher | None]:
    """The tracker of that name, while stages are built."""
    if not track:
        yield None
        return
    tracker = trackers.Tracker(track, store.root / "tracking", group, table)
    try:
        yield tracker
    finally:
        tracker.close()


def _check(todo: Iterable[Stage]) -> None:
    """Raises BenchError for a model of braindecode that cannot take the EEG, or the weights, that it is planned for."""
    found = {stage.start for stage in todo if isinstance(stage, Finetune)}
    if wanted := [start for start in found if isinstance(start, encoders.Braindecode)]:
        from bench.train import encoder  # imports braindecode: some seconds

        for start in wanted:
            encoder.check(start)


def pictures(folder: Path, chosen: Ablation, at: Scale, store: Store) -> Path | None:
    """The contact sheet of the lowest recorded seed: of each class the first test item of the first row, and what every
    row with the same split and part that is in the store made of it."""
    first = int(results.read(folder, chosen.name).rows["seed"].min())
    drawn: dict[str, np.ndarray] = {}
    shown_items = None
    for row in rows(possible(chosen, at, log=False).variants, at, [first]):
        if isinstance(row.stage, Score) and store.has(row.stage) and store.sound(row.stage.pictures):
            shown_items = shown_items or row.stage.items
            if _stimuli(row.stage.items) != _stimuli(shown_items):
                continue  # other pictures
            name = {"shuffled": "shuffled", "captions": "as text"}[row.items] if row.beside else row.variant
            drawn.setdefault(name, np.load(store.path(row.stage.pictures) / "pictures.npy", mmap_mode="r"))
    if shown_items is None or not store.sound(shown_items.trials):
        return None
    stimuli = items.load(shown_items, store.path(shown_items.trials))
    which = sheet.first_of_each(stimuli.label, most=COLUMNS)
    path = folder / f"{chosen.name}.png"
    sheet.sheet(path, stimuli.pictures[which], stimuli.label[which],
                {name: made[which, :SAMPLES] for name, made in drawn.items()}, stimuli.names)
    return path


def _stimuli(items: Items) -> tuple[Any, ...]:
    """What decides which pictures are shown."""
    return items.trials.split, items.trials.subjects, items.part
