"""What a report reads beside the results: costs from recorded runs, and logs, times and images from the store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bench.cost import forecast
from bench.data.pictures import CLASSES
from bench.experiment.graph import Row, stages, trainings
from bench.experiment.key import Stage
from bench.experiment.scale import SCALES
from bench.experiment.stages import Score, Scored, World
from bench.setup.request import Request
from bench.setup.rows import Plan, plan_request
from bench.store import journal
from bench.store.store import Store
from bench.tables import results
from bench.tables.columns import counted, listed
from bench.tables.figure import Page, row_label, stages_of_figure
from bench.tables.report.answers import Answer
from bench.tables.report.charts import Curve

POINTS = 200  # of a training curve, at most
QUESTION = "What did it cost?"


@dataclass(frozen=True, eq=False)
class Stored:
    """The planned rows of a table, those whose images are in the store, and why others are not."""

    plan: Plan
    store: Store
    shown: tuple[Row, ...]
    missing: tuple[str, ...]

    @property
    def page(self) -> Page:
        return Page(self.plan.ablation, self.plan.scale, self.store, self.shown)

    @property
    def stages(self) -> list[Stage]:
        """Returns every stage of the table, each once."""
        return stages(row.stage for row in self.plan.rows)


def open_stored(request: Request, recorded: results.Results, seeds: Sequence[int]) -> Stored:
    """Plans the recorded rows and finds their stages in the request's store, which may be absent.

    A row is shown if its key is the recorded one and its images are stored and intact. seeds: of the images.
    """
    rows = recorded.rows
    has_nulls = rows["variant"].str.endswith(" / EEG shuffled") & (rows["items"] == "shuffled")
    nulls = "each" if has_nulls.any() else "full"
    every = sorted(set(rows["seed"].astype(int)))
    planned = plan_request(replace(request, seeds=tuple(every), nulls=nulls, variants=()), needed=False)
    keys = {(line.variant, line.seed, line.items): line.stage for line in
            rows.drop_duplicates(["variant", "seed", "items"]).itertuples()}
    store, shown, missing = Store(request.store, create=False), list[Row](), list[str]()
    for row in planned.rows:
        if not isinstance(row.stage, Score) or row.seed not in seeds or (row.variant, row.seed, row.items) not in keys:
            continue
        if keys[row.variant, row.seed, row.items] != row.stage.key[:16]:
            missing.append(f"{row_label(row)} (recorded with other settings)")
        elif all(map(store.is_intact, stages_of_figure(6, row))):
            shown.append(row)
        else:
            missing.append(row_label(row))
    recorded_rows = tuple(row for row in planned.rows
                          if keys.get((row.variant, row.seed, row.items)) == row.stage.key[:16])
    return Stored(replace(planned, rows=recorded_rows), store, tuple(shown), tuple(dict.fromkeys(missing)))


def class_names(request: Request, stored: Stored | None = None) -> Mapping[int, str]:
    """Returns names of the judge's classes: those of the stored data set, else of the tiny world; others have none."""
    if stored is not None and stored.shown:
        return stored.page.judged(stored.shown[0])
    scale = SCALES.get(request.scale)
    return dict(enumerate(CLASSES)) if scale is not None and isinstance(scale.world, World) else {}


def training_curves(stored: Stored, seeds: Sequence[int]) -> dict[str, dict[str, Curve]]:
    """Returns the losses in logs and in summaries by kind of curve, and by the names of the rows that use the stage."""
    users: dict[Stage, list[str]] = {}
    for row in stored.plan.rows:
        if isinstance(row.stage, Scored) and row.seed in seeds and not row.beside:
            for stage in trainings(row.stage):
                users.setdefault(stage, []).append(row.variant if len(seeds) == 1 else f"{row.variant} ({row.seed})")
    curves: dict[str, dict[str, Curve]] = {}
    for stage, rows in users.items():
        steps = {line["step"]: line["loss"] for line in journal.read(journal.path(stored.store.root, stage.key))[0]
                 if line["event"] == "progress" and isinstance(line.get("loss"), float)}
        held_out = [(point["step"], point["held_out"]) for point in _summary(stored.store, stage).get("curve", [])]
        for kind, points in ((stage.kind, sorted(steps.items())), (f"{stage.kind}, held-out recordings", held_out)):
            if points:
                curves.setdefault(kind, {})[listed(rows)] = points[::-(-len(points) // POINTS)]
    return curves


def _summary(store: Store, stage: Stage) -> dict[str, Any]:
    """Returns the summary of a stored pre-training, which holds its loss on held-out recordings; else nothing."""
    path = store.path(stage) / "pretrain.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def row_costs(stored: Stored | None, runs: pd.DataFrame, table_means: Mapping[str, Mapping[str, float]]
              ) -> tuple[dict[str, float], str]:
    """Returns a cost of each row by its name, and its unit: seconds of training and sampling from the store or from the
    recorded runs, else the parameters that the row trains."""
    if stored is not None:
        seconds: dict[str, list[float]] = {}
        for row in stored.plan.rows:
            if not row.beside and isinstance(row.stage, Score):
                needed = [*trainings(row.stage), row.stage.pictures]
                if all(map(stored.store.has, needed)):
                    seconds.setdefault(row.variant, []).append(_seconds(stored.store, needed))
        if seconds:
            return {name: sum(each) / len(each) for name, each in seconds.items()}, \
                "training and sampling of the row, seconds (mean over seeds)"
    known = runs[(runs["training_s"] != "") & (runs["sampling_s"] != "") & (runs["items"] == "real")]
    if len(known):
        last = known.groupby(["variant", "seed"])[["training_s", "sampling_s"]].last().astype(float).sum(axis=1)
        return {str(name): float(mean) for name, mean in last.groupby("variant").mean().items()}, \
            "training and sampling of the row, seconds (mean over seeds)"
    sizes = {name: means["trained_parameters"] for name, means in table_means.items() if "trained_parameters" in means}
    return sizes, "trained parameters (no times are recorded)"


def cost(stored: Stored | None, runs: pd.DataFrame, recorded: results.Results, request: Request) -> Answer:
    """Answers what the table cost: measured times and energy from the store, else from recorded runs, else a forecast.
    """
    details = []
    if stored is not None and (known := [stage for stage in stored.stages if stored.store.has(stage)]):
        manifests = [stored.store.manifest(stage) for stage in known]
        absent = len(stored.stages) - len(known)
        details += _energy([manifest.get("measured", {}).get("energy_kwh") for manifest in manifests])
        details.append(f"Machine: {listed(sorted({_machine(manifest) for manifest in manifests}))}.")
        if absent:
            details.append(f"{counted(absent, 'stage')} of {len(stored.stages)} are not in the store and not counted.")
        return Answer(QUESTION, f"{_duration(_seconds(stored.store, known))} of computing for "
                      f"{counted(len(known), 'stage')}: preparation, training, sampling, scoring, each counted once.",
                      tuple(details))
    if len(known_runs := runs[runs["seconds"] != ""]):
        last = known_runs.groupby(["variant", "seed", "items"]).last()
        own = last[["training_s", "sampling_s"]].replace("", "0").astype(float).to_numpy().sum()
        details += _energy([float(value) if value else None for value in last["energy_kwh"]])
        details.append(f"Hosts: {listed(sorted(set(last['host'])))}.")
        return Answer(QUESTION, f"{_duration(float(own))} of training and sampling, over {counted(len(last), 'row')} "
                      "and seeds (a training that rows share counts in each).", tuple(details))
    return Answer(QUESTION, "Not recorded: these results hold no times, and their stages are not in the store.",
                  tuple(_forecast(recorded, request)))


def _forecast(recorded: results.Results, request: Request) -> Iterable[str]:
    """Yields what a run would take on one CPU core, for the synthetic world at full scale."""
    scale = SCALES.get(request.scale)
    if scale is None or not isinstance(scale.world, World) or request.pairs:
        return
    seeds = tuple(sorted(set(recorded.rows["seed"].astype(int))))
    planned = plan_request(replace(request, seeds=seeds), needed=False)
    every = stages(row.stage for row in planned.rows)
    yield (f"Forecast, not measured: about {_duration(sum(map(forecast.seconds, every)))} on one CPU core for "
           f"{counted(len(every), 'stage')} (bench plan).")


def _energy(values: Sequence[float | None]) -> list[str]:
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return ["Energy was not recorded (bench run --energy)."]
    return [f"Energy: {sum(known):.3g} kWh, estimated by codecarbon."]


def _seconds(store: Store, needed: Iterable[Stage]) -> float:
    return float(sum(store.manifest(stage)["wall_s"] for stage in needed))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} hours"


def _machine(manifest: Mapping[str, Any]) -> str:
    hardware = manifest.get("hardware", {}).get("name") or "unknown processor"
    return f"{manifest.get('host', 'unknown host')} ({hardware}, {manifest.get('device', 'unknown device')})"


def describe_code(stored: Stored | None, runs: pd.DataFrame) -> list[tuple[str, str]]:
    """Returns (name, value) of the code and machines that made the results, as far as they are recorded."""
    manifests = [stored.store.manifest(stage) for stage in stored.stages if stored.store.has(stage)] if stored else []
    if manifests:
        codes = [manifest.get("code", {}) for manifest in manifests]
        return [("code", listed(sorted({f"bench {code.get('version', '')} {code.get('commit', '')}"
                                        f"{'-dirty' if code.get('dirty') else ''}".strip() for code in codes}))),
                ("Python", listed(sorted({manifest.get("python", "") for manifest in manifests}))),
                ("machine", listed(sorted({_machine(manifest) for manifest in manifests})))]
    if len(runs):
        return [("commit", listed(sorted(set(runs["commit"]) - {""})) or "not recorded"),
                ("host", listed(sorted(set(runs["host"]) - {""}))),
                ("dates", f"{min(runs['date'])} to {max(runs['date'])}")]
    return [("commit and machine", "not recorded: these results have no .runs.csv, and their stages are not in the "
             "store")]

