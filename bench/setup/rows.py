"""From a table's rows to stages: what would run, what is stored, counted by kind."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from bench import runtime
from bench.errors import BenchError, NotHere
from bench.experiment import ablation as ablations
from bench.experiment.ablation import Ablation
from bench.experiment.graph import Row, stages
from bench.experiment.key import Stage
from bench.experiment.scale import Scale
from bench.experiment.stages import Finetune, Items, Pretrain, Readout, training
from bench.experiment.variant import FULL, On, Spec
from bench.setup import places
from bench.setup.request import Request
from bench.systems import captions, plan, retrieval


@dataclass(frozen=True)
class Beside:
    """What stands beside the rows of a table: Full's shuffled EEG and the class's name as text, each None where it says
    nothing. classifiers: of the EEG, and probes of pre-trained encoders. things: all pictures are of that protocol."""

    null: Spec | None
    ceiling: Spec | None
    classifiers: bool
    things: bool = False


def beside(variants: Iterable[Spec]) -> Beside:
    """What fits the rows. Of rows that are all on protocol things: the null where Full is among them, no classifiers of
    the class, since the tested ones are new. Beside retrieval alone: nothing, as no picture is drawn."""
    drawn = [v for v in variants if v.system != retrieval.Spec.system]
    things = [_on_things(v) for v in drawn]
    if not all(things):
        return Beside(On(FULL, FULL.name, eeg="shuffled"), captions.Spec(), True)
    if not drawn:
        return Beside(None, None, False)
    on = [thing for thing in things if thing]
    full = next((thing for thing in on if thing.of == FULL and thing.eeg == "real"), None)
    return Beside(full and replace(full, name=FULL.name, eeg="shuffled", checkpoint=None),
                  replace(on[0], of=(text := captions.Spec()), name=text.name, eeg="real", checkpoint=None,
                          eeg_free=False), False, True)


def _on_things(spec: Any) -> On | None:
    """What puts a row on protocol things."""
    while hasattr(spec, "of"):
        if isinstance(spec, On) and spec.protocol == "things":
            return spec
        spec = spec.of
    return None


def rows(variants: Iterable[Spec], scale: Scale, seeds: Iterable[int]) -> list[Row]:
    """The rows of a table and what stands `beside` them: Full's shuffled-EEG null, the ceiling, classifiers of the EEG,
    and a linear probe of every pre-trained encoder."""
    items, variants, seeds = scale.items(), list(variants), list(seeds)
    table = [Row(v.name, seed, getattr(v, "eeg", "real"), plan(v, items, scale, seed))
             for seed in seeds for v in variants]
    others = beside(variants)
    controls = []
    for seed in seeds:
        if others.null:
            with suppress(NotHere):  # a data set without a corpus: the table says that this was not run
                controls.append(Row(others.null.name, seed, "shuffled", plan(others.null, items, scale, seed), True))
        if others.ceiling:
            controls.append(Row(others.ceiling.name, seed, "captions", plan(others.ceiling, items, scale, seed), True))
    if not others.classifiers:
        return table + controls
    readouts = [Row(f"{classifier} classifier", seed, "readout", captions.readout(classifier, items, scale, seed), True)
                for classifier in ("ridge", "eegnet") for seed in seeds]
    return table + controls + readouts + _probes(table, items)


def _probes(table: Iterable[Row], items: Items) -> list[Row]:
    """A linear probe on these items of each pre-trained encoder that the rows use, named after the first that does."""
    found: dict[Stage, Row] = {}
    for row in table:
        finetune = getattr(getattr(row.stage, "pictures", None), "model", None)
        if isinstance(finetune, Finetune) and isinstance(finetune.start, Pretrain):
            numerics = replace(finetune.numerics, world_size=1)
            probe = Readout(training(items), items, "probe", finetune.start, 0, numerics)
            found.setdefault(probe, Row(row.variant, row.seed, "probe", probe, True))
    return list(found.values())


@dataclass(frozen=True)
class Plan:
    """What a request means: rows at a definite scale. variants: of the ablation, those that are asked for."""

    ablation: Ablation
    variants: tuple[Spec, ...]
    scale: Scale
    rows: tuple[Row, ...]


def plan_request(request: Request, needed: bool = True) -> Plan:
    """The rows that a request asks for. Raises BenchError for what does not exist; needed: also for data, weights and
    devices that are absent."""
    at = with_numerics(places.placed_scale(request, needed), request, needed)
    chosen = ablations.asked(request.ablation, ablations.chosen_subjects(request.subjects, at), request.with_controls)
    if not request.variants:
        chosen = possible(chosen, at)
    variants = tuple(chosen.chosen(request.variants) if request.variants else chosen.variants)
    table = rows(variants, at, request.seeds)
    if needed:
        places.complete(stages(row.stage for row in table), request)
    return Plan(chosen, variants, at, tuple(table))


def possible(chosen: Ablation, at: Scale, log: bool = True) -> Ablation:
    """The ablation with the variants that the scale can have; log: a line on standard error for each of the others."""
    found = []
    for variant in chosen.variants:
        try:
            plan(variant, at.items(), at, 0)
            found.append(variant)
        except NotHere as error:
            if log:
                named = f"variant {variant.name!r}: "
                print(f"bench: left out at scale {at.name}: {named}{str(error).removeprefix(named)}", file=sys.stderr)
    if not found:
        raise NotHere(f"ablation {chosen.name}: scale {at.name} can have none of its variants")
    there = {variant.name for variant in found}
    contrasts = tuple(pair for pair in chosen.contrasts if there.issuperset(pair))
    return replace(chosen, variants=tuple(found), contrasts=contrasts)


def with_numerics(at: Scale, request: Request, needed: bool = True) -> Scale:
    """The scale with the device and the number of processes of a request. Raises BenchError (exit 3) where there is no
    GPU and one is needed."""
    device, asked = at.numerics.device_class, request.device
    if request.engine != "here" and asked in runtime.DEVICES:  # GPUs of this machine do not count
        device = device if asked == "auto" else asked
    elif device == "cpu" or needed or asked != "auto":
        device = runtime.device(device if asked == "auto" and device == "cuda" else asked)
    for batch in (at.pretrain.batch, at.finetune.batch):
        if batch % request.processes:
            raise BenchError(f"--processes {request.processes}: a batch of {batch} cannot be shared evenly; those of "
                             f"scale {at.name} are of {at.pretrain.batch} and {at.finetune.batch}")
    return replace(at, numerics=replace(at.numerics, device_class=device, world_size=request.processes))
