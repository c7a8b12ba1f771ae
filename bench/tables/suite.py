"""Plans or runs a request: builds its stages, records its rows and builds its table."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console

from bench import files, modules
from bench.cost import forecast
from bench.errors import BenchError
from bench.execute import engines, runner, trackers
from bench.execute.devices import choose_layout
from bench.execute.pool import Pool
from bench.execute.progress import Display, Watcher
from bench.experiment import encoders
from bench.experiment.ablation import Ablation
from bench.experiment.graph import Row, counts, report_stages, stages
from bench.experiment.key import Stage
from bench.experiment.scale import Scale
from bench.experiment.stages import Finetune, Items, Score, World
from bench.runtime import ignore
from bench.setup.request import Request
from bench.setup.rows import Plan, keep_available, plan_request, rows
from bench.store import provenance
from bench.store.store import Store
from bench.tables import model, plots, results, sheet
from bench.tables.build import table as build_table
from bench.tables.named import table_command
from bench.tables.record import describe_row, describe_run, gather_row
from bench.train import items

if TYPE_CHECKING:
    from bench.cost.price import Priced

SAMPLES, COLUMNS = 2, 20  # of each item, and items at most, on a contact sheet


@dataclass(frozen=True, eq=False)
class Done:
    """The result of a run. table: None if nothing is recorded yet; sheet: the contact sheet, None if none was drawn."""

    outcome: runner.Outcome
    csv: Path
    table: model.Table | None
    sheet: Path | None


@dataclass(frozen=True, eq=False)
class Planned:
    """What a run would build.

    counts   (kind, stages of the rows, stages that only the controls add, stored ones of both), in build order
    missing  the stages that a run would build now
    """

    plan: Plan
    counts: list[tuple[str, int, int, int]]
    missing: list[Stage]
    stored: Callable[[Stage], bool]

    @property
    def stages(self) -> pd.DataFrame:
        """Returns a row for each kind of stage, columns kind, rows, controls, stored, to_build."""
        frame = pd.DataFrame(self.counts, columns=["kind", "rows", "controls", "stored"])
        return frame.assign(to_build=frame["rows"] + frame["controls"] - frame["stored"])

    @property
    def rows(self) -> pd.DataFrame:
        """Returns a row for each row of the table, columns variant, seed, items, stage (its last key), stored."""
        return pd.DataFrame([{"variant": row.variant, "seed": row.seed, "items": row.items, "stage": row.stage.key,
                              "stored": self.stored(row.stage)} for row in self.plan.rows])

    def price(self, gpu: str, gpus: int = 1, progress: Callable[[int, int, str], None] = ignore) -> Priced:
        """Returns the cost of the rows on a number of GPUs of one kind. progress, errors: as bench.cost.price.price."""
        from bench.cost.price import price

        return price(self.plan.rows, self.plan.scale, gpu, gpus, self.stored, progress)


def plan(request: Request) -> Planned:
    """Plans a run of the request; builds nothing. Data and weights may be absent."""
    planned, store = plan_request(request, needed=False), Store(request.store, create=False)
    missing = stages((stage for row in planned.rows for stage in report_stages(row)), store.has)
    return Planned(planned, counts(planned.rows, store.has), missing, store.has)


def run(request: Request, console: Console) -> Done:
    """Builds the stages of a request's rows, and records each row as soon as it is scored.

    A failed stage fails only its rows; the outcome holds the reasons. Raises BenchError for what does not exist, and on
    a full disk (exit 75).
    """
    if request.track:
        trackers.check(request.track)
    if request.energy:
        provenance.check_energy(request.energy)
        os.environ[provenance.ENERGY] = request.energy  # the workers inherit it
    planned = plan_request(request)
    ablation, scale, table = planned.ablation, planned.scale, list(planned.rows)
    folder = request.results_folder
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    if any((folder / f"{ablation.name}{ending}").exists() for ending in (".csv", ".sha256")):
        results.read(folder, ablation.name)
    layout = choose_layout(request.workers, scale.numerics.device_class, isinstance(scale.world, World))
    store = Store(request.store)
    engine = engines.engine_for(request, store)
    every = stages(row.stage for row in table)
    for source in {source for stage in every for source in modules.find_user_files(stage)}:
        encoders.keep(source, store.encoders)
    todo = stages((stage for row in table for stage in report_stages(row)), store.has)
    _check(todo)
    timed = todo and not engine and not layout.gpus and isinstance(scale.world, World)
    console.print(f"{ablation.name} at scale {scale.name}, seeds {','.join(map(str, request.seeds))}: {len(every)} "
                  f"stages, {len(every) - len(todo)} stored, {len(todo)} to build on "
                  + (request.engine if engine else layout.describe())
                  + (f", {forecast.describe_duration(todo, layout.width)}" if timed else ""), highlight=False)

    def record(done: Sequence[Row]) -> None:
        gathered = [gather_row(row, store, scale, ablation) for row in done]
        if gathered:
            results.record(folder, ablation.name, pd.concat([numbers for numbers, _ in gathered]),
                           pd.concat([each for _, each in gathered]))

    executor = engine or Pool(layout, store.root, todo, scale.numerics.device_class)
    group = f"{ablation.name}-{scale.name}"
    with watching(request.track, store, group, table) as watcher:
        display = Display(console, None if engine else layout.width, watcher)
        outcome = runner.run(table, store, executor, record, display, request.fail_fast)
    if outcome.failed:
        failures = [results.failure(cause.split(" (log: ")[0], **describe_row(row, scale, ablation))
                    for row, cause in outcome.failed.items()]
        results.record(folder, ablation.name, pd.concat(failures), pd.DataFrame())
    runs = results.runs(folder, ablation.name)
    noted = set(zip(runs["variant"], runs["seed"], runs["items"], runs["stage"], strict=True))
    new = [row for row in table if row.stage in outcome.built or (
        row not in outcome.failed and row not in outcome.waiting
        and (row.variant, str(row.seed), row.items, row.stage.key[:16]) not in noted)]
    if new:
        results.note_runs(folder, ablation.name, [describe_run(row, store) for row in new])
    console.print(f"built {len(outcome.built)} stages, reused {outcome.reused}, in {outcome.seconds:.0f} s\n",
                  highlight=False)
    if outcome.queued:
        console.print(f"queued {len(outcome.queued)} stages on {request.engine}; {len(outcome.waiting)} rows wait for "
                      f"them. Progress: bench status --store {request.store}. Run the same command again to record the "
                      "complete rows; with --wait it stays until all are complete\n", highlight=False)
    csv = folder / f"{ablation.name}.csv"
    if not csv.exists():
        return Done(outcome, csv, None, None)
    done = Done(outcome, csv, build_table(folder, ablation.name, ablation, command=table_command(request)),
                contact_sheet(folder, ablation, scale, store))
    if request.track:
        publish(request.track, store, group, done)
    return done


def publish(track: str, store: Store, group: str, done: Done) -> None:
    """Sends the final table, the contact sheet and the forest plot to a tracker."""
    assert done.table
    printed = done.table.document.complete.blocks[0]
    images = {} if done.sheet is None else {"contact sheet": done.sheet.read_bytes()}
    with suppress(BenchError):  # no row has a result: there is nothing to draw
        images["forest"] = plots.render(plots.draw_forest(done.table), ".png")
    tracker = trackers.Tracker(track, store.root / "tracking", group, [])
    tracker.publish(pd.DataFrame({column.header: column.cells for column in printed}), images)
    tracker.close()


@contextmanager
def watching(track: str, store: Store, group: str, table: list[Row]) -> Iterator[Watcher | None]:
    """Opens the tracker of that name while stages are built; None for ""."""
    if not track:
        yield None
        return
    tracker = trackers.Tracker(track, store.root / "tracking", group, table)
    try:
        yield tracker
    finally:
        tracker.close()


def _check(todo: Iterable[Stage]) -> None:
    """Raises BenchError for a braindecode model that cannot take the planned EEG or weights."""
    starts = {stage.start for stage in todo if isinstance(stage, Finetune)}
    if models := [start for start in starts if isinstance(start, encoders.Braindecode)]:
        from bench.train import encoder  # imports braindecode: some seconds

        for start in models:
            encoder.check(start)


def contact_sheet(folder: Path, ablation: Ablation, scale: Scale, store: Store) -> Path | None:
    """Draws the contact sheet of the lowest recorded seed and returns its path; None if no image is stored.

    It shows the first test item of each class of the first row, and the images of every stored row with the same split
    and part.
    """
    seed = int(results.read(folder, ablation.name).rows["seed"].min())
    drawn: dict[str, np.ndarray] = {}
    first = None
    for row in rows(keep_available(ablation, scale, log=False).variants, scale, [seed]):
        if isinstance(row.stage, Score) and store.has(row.stage) and store.is_intact(row.stage.pictures):
            first = first or row.stage.items
            if _stimuli(row.stage.items) != _stimuli(first):
                continue  # other images
            name = {"shuffled": "shuffled", "captions": "as text"}[row.items] if row.beside else row.variant
            drawn.setdefault(name, np.load(store.path(row.stage.pictures) / "pictures.npy", mmap_mode="r"))
    if first is None or not store.is_intact(first.trials):
        return None
    stimuli = items.load(first, store.path(first.trials))
    shown = sheet.first_of_each(stimuli.label, most=COLUMNS)
    path = folder / f"{ablation.name}.png"
    sheet.sheet(path, stimuli.pictures[shown], stimuli.label[shown],
                {name: made[shown, :SAMPLES] for name, made in drawn.items()}, stimuli.names)
    return path


def _stimuli(items: Items) -> tuple[Any, ...]:
    """Returns what determines the images that are shown; a world's seed draws them."""
    world = items.trials.world
    return items.trials.split, items.trials.subjects, items.part, getattr(world, "seed", None)
