"""Paired data from a BIDS folder: epochs at the events that name an image, its class, and splits by image."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.data import bids, own, prepared, recordings, writing
from bench.data.bids import MISSING, Images, Run
from bench.data.bids_splits import assign_parts
from bench.data.listing import describe_counts, describe_names
from bench.data.prepared import PARTS, Array
from bench.data.recordings import MOST_FLAT
from bench.data.writing import TOKEN
from bench.errors import BenchError
from bench.files import writing as reporting_access
from bench.runtime import ignore

ITEMS = 100_000  # ids of each person
ONLY_CLASS = "image"  # the class where neither a column nor a folder tells one


@dataclass(frozen=True)
class Settings:
    """What is cut, and how; the same settings give the same data set.

    images: folder of the image files. event_column, class_column, block_column: of events.tsv; without a class_column
    an image's folder is its class. tmin, tmax: of an epoch, s from the onset. band in Hz; sfreq after resampling, None:
    the recordings' own. splits: SPLITS, item (by image) is always one. judge: class name to the judge's number.
    """

    images: Path
    event_column: str = "stim_file"
    class_column: str | None = None
    block_column: str | None = None
    tmin: float = 0.0
    tmax: float = 0.5
    band: tuple[float, float] = (5.0, 95.0)
    sfreq: float | None = None
    splits: tuple[str, ...] = ("item",)
    seed: int = 0
    size: int = 512
    subjects: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    judge: Mapping[str, int] | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """The trials that will be cut from a BIDS folder.

    trials: as `own.prepare` takes them; run, first: index in `runs` and first sample (at `sfreq`) of each. left_out:
    events by reason. files: of the images. band: as filtered. notes: about channels, runs, classes and images, a
    sentence each. warnings: of the readers; they are not in the manifest, as they depend on MNE's version.
    """

    settings: Settings
    runs: list[Run]
    trials: pd.DataFrame
    run: Array
    first: Array
    events: int
    left_out: Counter[str]
    files: list[Path]
    classes: dict[str, int]
    ch_names: list[str]
    sfreq: float
    band: tuple[float, float]
    n_times: int
    notes: list[str]
    warnings: list[str]


def make_plan(root: Path, settings: Settings) -> Plan:
    """Reads headers and tables of a BIDS folder, and plans the trials; no EEG is read.

    Raises BenchError: exit 3 without mne-bids; else for files that cannot be read, images that are absent, and
    settings that do not fit.
    """
    images = Images(settings.images)
    column, notes = settings.event_column, list[str]()
    recorded, skipped = bids.find_runs(root, settings.subjects, settings.sessions, settings.tasks)
    notes += [f"left out, {reason} ({len(names)}): {describe_names(names)}" for reason, names in skipped.items()]
    runs = [bids.read_run(recording, column) for recording in recorded]
    used = [run for run in _in_order(runs) if run.events is not None and column in run.events]
    if not used:
        columns = sorted({str(name) for run in runs if run.events is not None for name in run.events})
        raise BenchError(f"{root}: no events.tsv has the column {column}; name it with --event-column; there are: "
                         f"{', '.join(columns) or 'no events.tsv at all'}")
    if len(used) < len(runs):
        lacking = [run.name for run in runs if run not in used]
        notes.append(f"recordings left out, no column {column} in their events ({len(lacking)}): "
                     f"{describe_names(lacking)}")
    warned = Counter(text for run in used for text in run.warnings)
    warnings = [f"{text[:200]} ({number:,} of {len(used):,} recordings)" for text, number in warned.items()]
    sfreq = _common_rate(root, used, settings)
    ch_names = _common_channels(root, used, notes)
    low, high = settings.band
    band = low, min(high, sfreq / 2, *(run.sfreq / 2 for run in used))
    if band[0] >= band[1]:
        raise BenchError(f"--band {low:g},{high:g}: at {sfreq:g} Hz there is no frequency above {sfreq / 2:g} Hz")
    if band[1] < high:
        notes.append(f"the band ends at {band[1]:g} Hz, half the lowest sampling rate, not at {high:g} Hz")
    length = round((settings.tmax - settings.tmin) * sfreq, 6)
    n_times = int(length // TOKEN * TOKEN)
    if not n_times:
        raise BenchError(f"--tmin {settings.tmin:g} --tmax {settings.tmax:g}: {length:g} samples at {sfreq:g} Hz; "
                         f"expected at least {TOKEN}")
    if n_times != length:
        notes.append(f"{length:g} samples from tmin to tmax; the first {n_times} are used, a multiple of {TOKEN}")

    rows, left_out = _plan_trials(root, used, settings, sfreq, n_times, ch_names)
    if not len(rows):
        raise BenchError(f"{root}: no event can be used; left out: {describe_counts(left_out)}")
    located = {name: images.locate(name) for name in sorted(set(rows["image"]))}
    writing.check_present(list(located.values()), settings.images)
    files = sorted(set(located.values()))
    place = {file: number for number, file in enumerate(files)}
    rows["picture"] = [place[located[name]] for name in rows["image"]]
    classes, label = _find_classes(rows, files, settings, notes)
    content = [prepared.digest(file)["sha256"] for file in files]
    if copies := len(content) - len(set(content)):
        notes.append(f"images equal to another one byte for byte, in one part with it: {copies}")
    trials = pd.DataFrame({
        "item": rows["item"], "subject": rows["subject"], "picture": rows["picture"], "label": label,
        "block": rows["block"], "position": rows["position"], "participant": rows["participant"],
        **({"session": rows["session"].replace("", "none")} if rows["session"].any() else {}),
        "recording": rows["recording"], "start": rows["start"], "stop": rows["start"] + n_times,
        "image": rows["image"]})
    for split in dict.fromkeys(("item", *settings.splits)):
        trials[f"part_{split}"] = assign_parts(split, trials, content, settings.seed)
    return Plan(settings, used, trials, rows["run"].to_numpy(), rows["first"].to_numpy(),
                 len(rows) + sum(left_out.values()), left_out, files, classes, ch_names, sfreq, band, n_times, notes,
                 warnings)


def _in_order(runs: Sequence[Run]) -> list[Run]:
    """Returns the recordings by person and session; within a session by time if all dates differ, else by name."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.participant, run.session), []).append(run)
    for group in groups.values():
        dates = [run.date for run in group]
        if None not in dates and len(set(dates)) == len(dates):
            group.sort(key=lambda run: run.date)
    return [run for key in sorted(groups) for run in groups[key]]


def _common_rate(root: Path, runs: Sequence[Run], settings: Settings) -> float:
    rates = sorted({run.sfreq for run in runs})
    if settings.sfreq is None and len(rates) > 1:
        raise BenchError(f"{root}: recordings at {', '.join(f'{rate:g}' for rate in rates)} Hz; name a common rate "
                         f"with --sfreq, such as --sfreq {rates[0]:g}")
    return settings.sfreq or rates[0]


def _common_channels(root: Path, runs: Sequence[Run], notes: list[str]) -> list[str]:
    """Returns the EEG channels that all recordings have and that are not bad in all of them, in their order."""
    every = list(dict.fromkeys(name for run in runs for name in run.ch_names))
    lacking = {name: sum(name not in run.ch_names for run in runs) for name in every}
    always_bad = [name for name in every if not lacking[name] and all(name in run.bads for run in runs)]
    others = Counter[str]()
    for run in runs:
        others |= run.others  # the most of each type
    if undescribed := [run.name for run in runs if not run.is_described]:
        notes.append(f"recordings without a channels.tsv, where types of channels are those of the file and "
                     f"of their names ({len(undescribed)}): {describe_names(undescribed)}")
    if others:
        notes.append(f"channels left out, not EEG ({sum(others.values())}): {describe_counts(others)}")
    if partly := [name for name in every if lacking[name]]:
        notes.append(f"channels left out, not in every recording ({len(partly)}): {describe_names(partly)}")
    if always_bad:
        notes.append(f"channels left out, bad in every recording ({len(always_bad)}): {describe_names(always_bad)}")
    names = [name for name in every if not lacking[name] and name not in always_bad]
    if not names:
        raise BenchError(f"{root}: no EEG channel is in all {len(runs)} recordings and good in one")
    if some := sorted({name for run in runs for name in run.bads & set(names)}):
        notes.append(f"channels bad in some recordings, replaced there by the next good one ({len(some)}): "
                     f"{describe_names(some)}")
    return names


def _plan_trials(root: Path, runs: Sequence[Run], settings: Settings, sfreq: float, n_times: int,
                 ch_names: Sequence[str]) -> tuple[pd.DataFrame, Counter[str]]:
    """Returns a row for each event that can be used, and the number of the others by reason.

    start counts samples, and position events with an image, from the beginning of a person's session on; its
    recordings follow each other.
    """
    left_out: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    numbers = _number_people([folder.name for folder in root.glob("sub-*") if folder.is_dir()])
    blocks: dict[tuple[str, ...], int] = {}
    several = Counter((run.participant, run.session) for run in runs)
    items: Counter[str] = Counter()
    passed: Counter[tuple[str, str]] = Counter()  # samples of the session's earlier recordings
    positions: Counter[tuple[str, str]] = Counter()
    for index, run in enumerate(runs):
        assert run.events is not None
        for column in filter(None, (settings.class_column, settings.block_column)):
            if column not in run.events:
                raise BenchError(f"{run.events_file} has no column {column}; it has {', '.join(map(str, run.events))}")
        marked, unusable = _mask_marks(run, settings, sfreq), ""
        if len(run.bads & set(ch_names)) > MOST_FLAT * len(ch_names):
            unusable = f"more than {MOST_FLAT:.0%} of the recording's channels are bad"
        elif run.n_times < recordings.shortest(run.sfreq, settings.band, n_times, sfreq):
            unusable = "recording shorter than the filter"
        session = run.participant, run.session
        for event in run.events.to_dict("records"):
            items[run.participant] += 1
            reason, image = unusable, event[settings.event_column]
            onset = bids.read_number(event["onset"])
            if image in MISSING:
                left_out[f"no image ({settings.event_column} is n/a)"] += 1
                continue
            positions[session] += 1
            first = 0 if onset is None else round(round((onset + settings.tmin) * run.sfreq) * sfreq / run.sfreq)
            if onset is None:
                reason = reason or "no onset"
            elif first < 0 or first + n_times > len(marked):
                reason = reason or "epoch not inside the recording"
            elif marked[first : first + n_times].any():
                reason = reason or "BAD or a join within the filter's reach"
            for name, named in (("class", settings.class_column), ("block", settings.block_column)):
                if named and event[named] in MISSING:
                    reason = reason or f"no {name} ({named} is n/a)"
            if reason:
                left_out[reason] += 1
                continue
            key = (*session, run.name, event[settings.block_column] if settings.block_column else "")
            known = settings.block_column or several[session] > 1
            rows.append({
                "item": numbers[run.participant] * ITEMS + items[run.participant] - 1, "run": index, "first": first,
                "subject": numbers[run.participant], "participant": run.participant, "session": run.session,
                "recording": run.name, "block": blocks.setdefault(key, len(blocks)) if known else -1,
                "position": positions[session] - 1, "start": passed[session] + first, "image": image,
                "class": event[settings.class_column] if settings.class_column else ""})
        passed[session] += len(marked)
    return pd.DataFrame(rows), left_out


def _number_people(participants: Sequence[str]) -> dict[str, int]:
    """Returns the number of each participant of a folder: that in its name, such as sub-03; else its place in order."""
    labels = {name: name.removeprefix("sub-") for name in sorted(set(participants))}
    numbers = {name: int(label) for name, label in labels.items() if label.isdecimal()}
    if len(set(numbers.values())) == len(labels):
        return numbers
    return {name: number for number, name in enumerate(labels, 1)}


def _mask_marks(run: Run, settings: Settings, sfreq: float) -> Array:
    """Returns a mask of the samples [n] at `sfreq` within the filter's reach of a mark, as `recordings.band_pass`."""
    silent = np.zeros((1, run.n_times))
    return recordings.band_pass(silent, run.mask(), run.sfreq, settings.band, sfreq)[1]


def _find_classes(rows: pd.DataFrame, files: Sequence[Path], settings: Settings, notes: list[str]
                  ) -> tuple[dict[str, int], Array]:
    """Returns the judge's number of each class by its name, and the label [N] of each trial."""
    if settings.class_column:
        names = rows["class"].tolist()
    else:
        folders = ["" if file.parent == settings.images else file.parent.name for file in files]
        if not all(folders):
            if any(folders):
                raise BenchError(f"{settings.images}: some images are in a folder of their class, and "
                                 f"{folders.count('')} are in none; name a column with --class-column")
            notes.append(f"the images are in no folders, so that all are of one class, {ONLY_CLASS}; name a column "
                         "with --class-column")
        names = [folders[picture] or ONLY_CLASS for picture in rows["picture"]]
    judged, given = dict[str, int](), dict(settings.judge or {})
    if all(re.fullmatch(r"n[0-9]{8}", name) for name in names):
        from bench.data.imagenet_eeg import imagenet_classes

        known = imagenet_classes()
        count = Counter(known[name][1] for name in set(names) if name in known)  # crane: a bird, a machine
        titles = {name: known[name][1] + f" ({name})" * (count[known[name][1]] > 1)
                  for name in set(names) if name in known}
        judged = {title: known[name][0] for name, title in titles.items()}
        names = [titles.get(name, name) for name in names]
    if unknown := sorted(set(given) - set(names)):
        raise BenchError(f"--judge {unknown[0]}={given[unknown[0]]}: no trial has the class {unknown[0]}; there are "
                         f"{describe_names(sorted(set(names)))}")
    classes = {name: given.get(name, judged.get(name, -1)) for name in sorted(set(names))}
    if absent := [name for name, number in classes.items() if number < 0]:
        notes.append(f"classes without the judge's number, which a run needs (--judge NAME=NUMBER,...; {len(absent)} "
                     f"of {len(classes)}): {describe_names(absent)}")
    order = {name: number for number, name in enumerate(classes)}
    return classes, np.array([order[name] for name in names])


class _Windows(Sequence[Array]):
    """The epochs [C, T] of all trials in µV, one recording in memory at a time; NaN where samples are missing."""

    def __init__(self, plan: Plan):
        self._plan, self._run = plan, -1
        self._signal, self._gaps = np.empty((0, 0)), np.empty(0, bool)

    def __len__(self) -> int:
        return len(self._plan.trials)

    def __getitem__(self, row: Any) -> Any:
        if self._plan.run[row] != self._run:
            self._read(int(self._plan.run[row]))
        samples = slice(self._plan.first[row], self._plan.first[row] + self._plan.n_times)
        return np.where(self._gaps[samples], np.nan, self._signal[:, samples])

    def _read(self, number: int) -> None:
        plan, run = self._plan, self._plan.runs[number]
        raw = bids.open_recording(run.recording)[0].set_annotations(None)
        data, gaps = recordings.read_channels(raw, np.array([raw.ch_names.index(name) for name in plan.ch_names]))
        self._signal, self._gaps, _ = recordings.band_pass(data, gaps | run.mask(), run.sfreq, plan.settings.band,
                                                           plan.sfreq)
        self._signal[[name in run.bads for name in plan.ch_names]] = 0  # flat: replaced by the next one that is not
        self._run = number


def prepare(plan: Plan, out: Path, leaky: Mapping[str, str],
            progress: Callable[..., None] = ignore) -> Path:
    """Writes the prepared data set of a plan, by `own.prepare`, which checks everything.

    leaky: of each split. What was left out is in the manifest. Raises BenchError as `own.prepare` does.
    """
    settings = plan.settings
    with reporting_access(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    with (writing.reporting_full_disk(out.parent),
          tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-images-") as work):
        writing.write_images(Path(work) / "pictures.npy", plan.files, settings.size)
        pictures = np.load(Path(work) / "pictures.npy", mmap_mode="r")
        files = {name: file for run in plan.runs for name, file in run.files.items()}
        sources = {name: prepared.digest(file) for name, file in sorted(files.items())} | {
            "pictures": writing.describe_images(plan.files)}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(settings).items()
                  if name not in ("images", "judge")}
        return own.prepare(out, eeg=_Windows(plan), sfreq=plan.sfreq, band=plan.band, pictures=pictures,
                           trials=plan.trials, classes=plan.classes, leaky=leaky, ch_names=plan.ch_names,
                           progress=progress, about={
                               "left_out": dict(plan.left_out), "sources": sources,
                               "notes": plan.notes, "settings": values})


def describe(plan: Plan) -> str:
    """Describes a plan and what it leaves out, a line for each."""
    trials, runs = plan.trials, plan.runs
    sessions = {(run.participant, run.session) for run in runs}
    count = Counter(trials["label"])
    classes = [f"{name} {count[label]}" for label, name in enumerate(plan.classes)]
    start, stop = plan.settings.tmin, plan.settings.tmin + plan.n_times / plan.sfreq
    lines = [f"people      {len({run.participant for run in runs})}, sessions {len(sessions)}, recordings {len(runs)}, "
             f"{sum(run.n_times / run.sfreq for run in runs) / 3600:.2f} h",
             f"EEG         {len(plan.ch_names)} channels, {plan.sfreq:g} Hz, {plan.band[0]:g}-{plan.band[1]:g} Hz; "
             f"epochs of {plan.n_times} samples, {start:g} to {stop:g} s",
             f"events      {plan.events:,}; {len(trials):,} are trials",
             *(f"left out    {number:,}: {reason}" for reason, number in sorted(plan.left_out.items())),
             f"images      {len(plan.files):,}",
             f"classes     {len(classes):,}; trials of each: {describe_names(classes)}"]
    for split in [name for name in map(str, trials) if name.startswith("part_")]:
        parts = Counter(trials[split])
        lines.append(f"split       {split.removeprefix('part_')}: "
                     + ", ".join(f"{parts[part]:,} {part}" for part in PARTS)
                     + (f", {parts['']:,} in no part" if parts[""] else ""))
    return "\n".join([*lines, *(f"note        {note}" for note in plan.notes),
                      *(f"reader      {text}" for text in plan.warnings)])
