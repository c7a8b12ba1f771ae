"""What `bench run` does around the building: says what it will do, records rows as they come, prints the table."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from bench import (
    ablation,
    audit,
    cost,
    encoders,
    engines,
    errors,
    items,
    modules,
    places,
    prior_parts,
    provenance,
    results,
    run,
    sheet,
    tables,
    trackers,
)
from bench.ablation import Ablation
from bench.data import prepared
from bench.data.shards import first_channels
from bench.data.tiny_things import TinyThings
from bench.key import Stage, digest, key
from bench.plan import Row, counts, output, rows, shown, stages, trained
from bench.plan import plan as planned
from bench.pool import Pool
from bench.progress import Display, Watcher
from bench.runtime import Runtime
from bench.scale import PRIOR, Scale, shipped
from bench.stages import (
    Corpus,
    Finetune,
    Items,
    Numerics,
    Prepared,
    Pretrain,
    Readout,
    Score,
    Scored,
    Shards,
    Trials,
    World,
)
from bench.store import Store
from bench.variant import Spec

SAMPLES, COLUMNS = 2, 20  # of each item, and items at most, on a contact sheet


def prepare(options: argparse.Namespace, needed: bool = True) -> tuple[Ablation, list[Spec], Scale, list[Row]]:
    """What the options of `run` and `plan` mean. Raises BenchError for what does not exist; needed: also for data,
    weights and devices that are absent."""
    at = places.asked(options, needed)
    at = numbered(at, options, needed)
    chosen = ablation.asked(options.ablation, ablation.subjects(options.subjects, at), options.with_controls)
    names = [name.strip() for name in options.variants.split(",")] if options.variants else None
    if not names:
        chosen = _possible(chosen, at)
    variants = chosen.chosen(names) if names else list(chosen.variants)
    table = rows(variants, at, seeds(options.seeds))
    if needed:
        places.complete(stages(row.stage for row in table), options)
    return chosen, variants, at, table


def _possible(chosen: Ablation, at: Scale, said: bool = True) -> Ablation:
    """The ablation with the variants that the scale can have; of the others a line is said."""
    found = []
    for variant in chosen.variants:
        try:
            planned(variant, at.items(), at, 0)
            found.append(variant)
        except errors.NotHere as error:
            if said:
                named = f"variant {variant.name!r}: "
                print(f"bench: left out at scale {at.name}: {named}{str(error).removeprefix(named)}", file=sys.stderr)
    if not found:
        raise errors.NotHere(f"ablation {chosen.name}: scale {at.name} can have none of its variants")
    there = {variant.name for variant in found}
    contrasts = tuple(pair for pair in chosen.contrasts if there.issuperset(pair))
    return replace(chosen, variants=tuple(found), contrasts=contrasts)


def numbered(at: Scale, options: argparse.Namespace, needed: bool = True) -> Scale:
    """The scale with the device and the number of processes that the options ask for. Raises BenchError (exit 3) where
    there is no GPU and one is needed."""
    device = at.numerics.device_class
    if getattr(options, "on", "here") != "here" and options.device in run.DEVICES:  # GPUs of this machine do not count
        device = device if options.device == "auto" else options.device
    elif device == "cpu" or needed or options.device != "auto":
        device = run.device(device if options.device == "auto" and device == "cuda" else options.device)
    processes = getattr(options, "processes", None) or 1
    if processes < 1:
        raise errors.BenchError(f"--processes {processes}: at least 1 is needed")
    for batch in (at.pretrain.batch, at.finetune.batch):
        if batch % processes:
            raise errors.BenchError(f"--processes {processes}: a batch of {batch} cannot be shared evenly; those of "
                                    f"scale {at.name} are of {at.pretrain.batch} and {at.finetune.batch}")
    return replace(at, numerics=replace(at.numerics, device_class=device, world_size=processes))


def seeds(text: str) -> list[int]:
    """"0,1,2" -> [0, 1, 2]. Raises BenchError for what is no whole number from 0 on, or stands there twice."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise errors.BenchError(f"--seeds {text}: whole numbers from 0 on, separated by commas, are expected")
    numbers = [int(part) for part in parts]
    if len(set(numbers)) < len(numbers):
        raise errors.BenchError(f"--seeds {text}: a seed stands there twice")
    return numbers


def plan(options: argparse.Namespace, console: Console) -> int:
    """Prints what would be built and what is stored, by kind of stage."""
    gpu, gpus = getattr(options, "gpu", None), getattr(options, "gpus", None)
    if gpus is not None and not gpu:
        raise errors.BenchError(f"--gpus {gpus}: of which kind? --gpu NAME says it")
    chosen, variants, at, table = prepare(options, needed=False)
    store = Store(Path(options.store), create=False)
    print(f"{chosen.name} at scale {at.name}: {len(variants)} variants, seeds {options.seeds}; store {options.store}")
    counted = counts(table, store.has)
    wide = max(12, *(len(name) + 2 for name, *_ in counted))
    print(f"{'stage':{wide}s}{'rows':>6s}{'controls':>10s}{'stored':>8s}{'to build':>10s}")
    for name, own, extra, stored in counted:
        print(f"{name:{wide}s}{own:6d}{extra:10d}{stored:8d}{own + extra - stored:10d}")
    todo = stages((stage for row in table for stage in shown(row)), store.has)
    workers = run.workers(getattr(options, "workers", None), at.numerics.device_class)
    known = isinstance(at.world, World)  # only there does `cost` know how long it takes
    print(f"a run now builds {len(todo)} stages" + (f": {cost.said(todo, workers)}" if known else ""))
    if gpu:
        from bench import price

        print("\n" + price.price(table, at, gpu, 1 if gpus is None else gpus, store.has).render())
    return errors.OK


def go(options: argparse.Namespace, console: Console) -> int:
    """Builds, records, prints; returns the exit code."""
    if options.track:
        trackers.check(options.track)
    if options.energy:
        provenance.check_energy(options.energy)
        os.environ[provenance.ENERGY] = options.energy  # which the workers inherit
    chosen, _, at, table = prepare(options)
    folder = results_folder(options, at)
    with results.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    if any((folder / f"{chosen.name}{ending}").exists() for ending in (".csv", ".sha256")):
        results.read(folder, chosen.name)
    workers = run.workers(options.workers, at.numerics.device_class)
    store = Store(Path(options.store))
    engine = engines.chosen(options, store)
    every = stages(row.stage for row in table)
    for source in {source for stage in every for source in modules.own(stage)}:
        encoders.keep(source, store.encoders)
    todo = stages((stage for row in table for stage in shown(row)), store.has)
    _check(todo)
    console.print(f"{chosen.name} at scale {at.name}, seeds {options.seeds}: {len(every)} stages, "
                  f"{len(every) - len(todo)} stored, {len(todo)} to build on "
                  + (options.on if engine else f"{workers} workers")
                  + (f", {cost.said(todo, workers)}" if todo and not engine and isinstance(at.world, World) else ""),
                  highlight=False)

    def record(done: Sequence[Row]) -> None:
        gathered = [gather(row, store, at, chosen) for row in done]
        if gathered:
            results.record(folder, chosen.name, pd.concat([numbers for numbers, _ in gathered]),
                           pd.concat([each for _, each in gathered]))

    executor = engine or Pool(min(workers, max(len(todo), 1)), store.root, at.numerics.device_class)
    with watching(options, store, f"{chosen.name}-{at.name}", table) as watcher:
        display = Display(console, None if engine else workers, watcher)
        outcome = run.run(table, store, executor, record, display, options.fail_fast)
    if outcome.failed:
        failures = [results.failure(cause.split(" (log: ")[0], **about(row, at, chosen))
                    for row, cause in outcome.failed.items()]
        results.record(folder, chosen.name, pd.concat(failures), pd.DataFrame())
    there = results.runs(folder, chosen.name)
    noted = set(zip(there["variant"], there["seed"], there["items"], there["stage"], strict=True))
    new = [row for row in table if row.stage in outcome.built or (
        row not in outcome.failed and row not in outcome.waiting
        and (row.variant, str(row.seed), row.items, key(row.stage)[:16]) not in noted)]
    if new:
        results.note_runs(folder, chosen.name, [note(row, store) for row in new])
    console.print(f"built {len(outcome.built)} stages, reused {outcome.reused}, in {outcome.seconds:.0f} s\n",
                  highlight=False)
    if outcome.queued:
        console.print(f"{len(outcome.queued)} stages are queued on {options.on}, and {len(outcome.waiting)} rows wait "
                      f"for them; look: bench status --store {options.store}; the same command records the rows that "
                      "are complete by then, and with --wait stays until all are\n", highlight=False)
    if (folder / f"{chosen.name}.csv").exists():
        print(tables.table(folder, chosen.name, chosen).render())
        picture = pictures(folder, chosen, at, store)
        print(f"\nnumbers: {folder / chosen.name}.csv" + (f"\npictures: {picture}" if picture else ""))
    for line in run.said(outcome.failed):
        print(f"bench: failed: {line}", file=sys.stderr)
    return errors.SOME_FAILED if outcome.failed else errors.OK


@contextmanager
def watching(options: argparse.Namespace, store: Store, group: str, table: list[Row]) -> Iterator[Watcher | None]:
    """What --track asks for, while stages are built."""
    if not options.track:
        yield None
        return
    tracker = trackers.Tracker(options.track, store.root / "tracking", group, table)
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


def results_folder(options: argparse.Namespace, at: Scale) -> Path:
    """Where results lie: the user's own, or with --reference the suite's."""
    return Path(options.results) / ("reference" if options.reference else "") / at.name / (options.pairs or "")


def about(row: Row, at: Scale, chosen: Ablation) -> dict[str, Any]:
    """What stands in every line of a row, as far as its settings tell."""
    said: dict[str, Any] = {name: "" for name in results.ABOUT if name != results.FAILED} | {
        "variant": row.variant, "seed": row.seed, "items": row.items, "scale": at.name,
        "world": _world(row),
        "numerics": f"{at.numerics.device_class}, {at.numerics.dtype}, {at.numerics.threads} thread",
        "config": digest(at), "pretrain_seeds": at.pretrain_seeds, "stage": key(row.stage)[:16]}
    if isinstance(row.stage, Score):
        judge = row.stage.reference.judge
        said["judge"] = f"{judge.name}@{judge.sha256[:12]}"
    if not row.beside:
        variant = next(v for v in chosen.variants if v.name == row.variant)
        said |= {"spec": digest(variant), "paper_params": _label(variant, at)}
    return said


def _world(row: Row) -> str:
    """What a row's EEG was recorded of."""
    world = tested(row).trials.world
    if isinstance(world, TinyThings):
        return f"tiny things, seed {world.seed}"
    return f"tiny, seed {world.seed}" if isinstance(world, World) else world.name


def _label(variant: Spec, at: Scale) -> str:
    """The paper's label of an encoder's size; of one whose dimensions the paper does not state, that."""
    label = getattr(variant, "size", "")
    return f"{label} (dimensions inferred)" if label and at.size(label).inferred else label


def gather(row: Row, store: Store, at: Scale, chosen: Ablation) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row's numbers, and those of its items, with what a table must say about them."""
    said = about(row, at, chosen) | {"leaky": leak(row, store), "versions": versions(row.stage, store)}
    lines: list[dict[str, Any]] = []

    def line(metric: str, key: str, value: float, n: int) -> None:
        lines.append({"metric": metric, "key": key, "value": value, "n": n, "extractor": "", "extractor_sha256": "",
                      "comparable": 1, results.FAILED: ""})

    if isinstance(row.stage, Scored) and (behind := summaries(row.stage, store)):
        said["params"] = next((own["encoder_parameters"] for own in behind.values() if "encoder_parameters" in own), "")
        line("trained_parameters", "in all", sum(sum(own.get("trained_parameters", {}).values())
                                                 for own in behind.values()), 1)
    numbers, each = results.gather(store.path(row.stage), **said)
    start = _start(row)
    if isinstance(start, Pretrain):
        summary = json.loads((store.path(start) / "pretrain.json").read_text())
        for name in tables.MASKED:
            if name in summary:
                line(name, f"mask {start.mask_ratio:g}, held-out recordings", summary[name],
                     summary["held_out_windows"])
    if lines:
        numbers = pd.concat([numbers, pd.DataFrame([each_line | said for each_line in lines])])
    return numbers, each


def summaries(score: Scored, store: Store) -> dict[Stage, dict[str, Any]]:
    """What the trainings behind what a row made say of themselves, in finetune.json or a system's summary.json."""
    found = {}
    for stage in trained(score):
        path = store.path(stage) / ("finetune.json" if isinstance(stage, Finetune) else "summary.json")
        if path.is_file():
            found[stage] = json.loads(path.read_text())
    return found


def tested(row: Row) -> Items:
    """The items that a row is about."""
    assert isinstance(row.stage, (Scored, Readout))
    return row.stage.test if isinstance(row.stage, Readout) else row.stage.items


_leaks: dict[str, str] = {}


def _start(row: Row) -> Any:
    """What the row's fine-tuning began with; None where nothing is fine-tuned."""
    made = output(row.stage) if isinstance(row.stage, Scored) else None
    return getattr(getattr(made, "model", None), "start", None)


def leak(row: Row, store: Store) -> str:
    """The audit's verdict on a row's trials, and on what its system was trained with: "no", or "yes: ..."."""
    start = _start(row)
    corpus = start.corpus if isinstance(start, Pretrain) and isinstance(start.corpus.world, Shards) else None
    verdict = leak_of(tested(row).trials, store, corpus)
    if isinstance(row.stage, Scored) and (own := audit.trained_on(row.stage)):
        return f"{verdict}; {own}" if verdict.startswith("yes") else f"yes: {own}"
    return verdict


def leak_of(trials: Trials, store: Store, corpus: Corpus | None = None) -> str:
    """What is known of a prepared data set, or the audit's verdict on those trials: "no", or "yes: ..."."""
    path = store.path(trials)
    name = path.name + (key(corpus) if corpus else "")
    if name not in _leaks:
        known = prepared.leaky(trials.world, trials.split) if isinstance(trials.world, Prepared) else "no"
        windows = first_channels(store.path(corpus)) if corpus else None
        _leaks[name] = audit.read(path, windows, known, audit.claimed(trials)).verdict
    return _leaks[name]


def versions(stage: Stage, store: Store) -> str:
    """"torch 2.15.0, ...": what a stage was built with."""
    packages = store.manifest(stage)["packages"]
    return ", ".join(f"{name} {packages[name]}" for name in ("torch", "diffusers", "open_clip_torch", "timm"))


def note(row: Row, store: Store) -> dict[str, object]:
    """What differs from run to run: when, where and how long."""
    def seconds(those: Iterable[Stage]) -> float:
        return round(sum(store.manifest(stage)["wall_s"] for stage in those if store.has(stage)), 1)

    pictures = row.stage.pictures if isinstance(row.stage, Score) else None
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "variant": row.variant, "seed": row.seed,
            "items": row.items, "stage": key(row.stage)[:16], "seconds": seconds(stages([row.stage])),
            "training_s": seconds(trained(row.stage)) if isinstance(row.stage, Scored) else "",
            "sampling_s": seconds([pictures]) if pictures else "", "host": socket.gethostname(),
            "commit": provenance.commit(), **used(row.stage, store)}


def used(stage: Stage, store: Store) -> dict[str, object]:
    """Peak memory (GB) of the largest of the stages that a row is made of, and the energy (kWh) and CO2 (kg) of all;
    "" where one of those that are there has none noted."""
    noted = [store.manifest(one).get("measured", {}) for one in stages([stage]) if store.has(one)]

    def all_of(name: str) -> list[float]:
        found = [one.get(name) for one in noted]
        return [] if None in found else found  # type: ignore[return-value]

    cuda = [one["peak_cuda_bytes"] for one in noted if "peak_cuda_bytes" in one]  # not every stage uses a GPU
    return {"peak_rss_gb": round(max(all_of("peak_rss_bytes"), default=0) / 1e9, 3) or "",
            "peak_cuda_gb": round(max(cuda, default=0) / 1e9, 3) or "",
            "energy_kwh": sum(all_of("energy_kwh")) or "", "co2_kg": sum(all_of("co2_kg")) or ""}


def pictures(folder: Path, chosen: Ablation, at: Scale, store: Store) -> Path | None:
    """The contact sheet of the lowest recorded seed: of each class the first test item of the first row, and what every
    row with the same split and part that is in the store made of it."""
    first = int(results.read(folder, chosen.name).rows["seed"].min())
    drawn: dict[str, np.ndarray] = {}
    shown_items = None
    for row in rows(_possible(chosen, at, said=False).variants, at, [first]):
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


def prior(options: argparse.Namespace, console: Console) -> int:
    """Trains the frozen parts, or those of options.parts beside the shipped others, as far as the store lacks them, and
    ships them; or checks those that are shipped."""
    if options.check and options.parts is not None:
        raise errors.BenchError("--check looks at all parts and trains none: leave --parts out")
    device, folder = run.device(options.device), PRIOR / "tiny"
    failed = errors.OK
    if not options.check:
        parts = prior_parts.chosen(options.parts, lambda name: shipped(folder, name), Numerics(device_class=device))
        store = Store(Path(options.store))
        table = [Row(name, 0, "prior", stage) for name, stage in parts.items()]
        executor = Pool(run.workers(None, device), store.root, device)
        outcome = run.run(table, store, executor, lambda done: None, Display(console))
        if outcome.failed:
            for line in run.said(outcome.failed):
                print(f"bench: failed: {line}", file=sys.stderr)
            return errors.SOME_FAILED
    from bench.train import prior as training

    runtime = Runtime(device)
    try:
        gates = training.check(folder, runtime) if options.check else training.ship(parts, store.path, folder, runtime)
    except (training.frozen.MissingWeights, training.frozen.BadWeights) as error:
        raise errors.BenchError(str(error), errors.ENVIRONMENT) from error
    for gate in gates:
        print(f"{gate.name:45s} {gate.measured:7.2%}  needed {gate.needed:.0%}  n = {gate.n}  "
              f"{'passed' if gate.passed else 'NOT PASSED'}")
        failed = failed if gate.passed else errors.SOME_FAILED
    if not options.check:
        print(f"shipped to {folder}")
    return failed
