"""From a request to the rows of a table, and to the stages that they need."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from bench import runtime
from bench.errors import BenchError, NotAvailable
from bench.experiment import ablation as ablations
from bench.experiment.ablation import Ablation
from bench.experiment.graph import Row, stages
from bench.experiment.key import Stage
from bench.experiment.scale import Scale
from bench.experiment.stages import Finetune, Items, Pretrain, Readout, World, training
from bench.experiment.variant import FULL, On, Spec
from bench.setup import places
from bench.setup.request import Request
from bench.systems import captions, known, plan, retrieval


@dataclass(frozen=True)
class Plan:
    """The rows of a request at a resolved scale. variants: the chosen ones of the ablation."""

    ablation: Ablation
    variants: tuple[Spec, ...]
    scale: Scale
    rows: tuple[Row, ...]

    def with_pretrain_seeds(self, choice: str) -> Plan:
        """Returns the same rows at the same seeds with "each" or "one" as the scale's pretrain_seeds."""
        scale = replace(self.scale, pretrain_seeds=choice)
        seeds = dict.fromkeys(row.seed for row in self.rows if not row.beside)
        return replace(self, scale=scale, rows=tuple(rows(self.variants, scale, seeds)))


def plan_request(request: Request, needed: bool = True) -> Plan:
    """Plans the rows of a request. Raises BenchError for unknown names. needed: also for data, weights and devices that
    are absent (exit 3)."""
    scale = with_numerics(places.resolve_scale(request, needed), request, needed)
    subjects = ablations.resolve_subjects(request.subjects, scale)
    ablation = ablations.load(request.ablation, subjects, request.with_controls)
    if not request.variants:
        ablation = keep_available(ablation, scale)
    variants = tuple(ablation.select(request.variants) if request.variants else ablation.variants)
    table = rows(variants, scale, request.seeds, request.nulls == "each")
    if needed:
        places.require_data(stages(row.stage for row in table), request)
    return Plan(ablation, variants, scale, tuple(table))


def keep_available(ablation: Ablation, scale: Scale, log: bool = True) -> Ablation:
    """Returns the ablation with the variants that the scale can have. log: prints the others to standard error. Raises
    NotAvailable if there are none."""
    available = []
    for variant in ablation.variants:
        try:
            plan(variant, scale.items(), scale, 0)
            available.append(variant)
        except NotAvailable as error:
            if log:
                prefix = f"variant {variant.name!r}: "
                print(f"bench: left out at scale {scale.name}: {prefix}{str(error).removeprefix(prefix)}",
                      file=sys.stderr)
    if not available:
        raise NotAvailable(f"ablation {ablation.name}: scale {scale.name} can have none of its variants")
    names = {variant.name for variant in available}
    contrasts = tuple(pair for pair in ablation.contrasts if names.issuperset(pair))
    return replace(ablation, variants=tuple(available), contrasts=contrasts)


def with_numerics(scale: Scale, request: Request, needed: bool = True) -> Scale:
    """Returns the scale with the device and the number of processes of a request. Raises BenchError for a batch that
    the processes cannot share evenly, and for what mps cannot compute; needed: also (exit 3) for an absent GPU."""
    device, wanted = scale.numerics.device_class, request.device
    if request.engine != "here" and wanted in runtime.DEVICES:  # this machine's GPUs do not matter
        device = device if wanted == "auto" else wanted
    elif device == "cpu" or needed or wanted != "auto":
        device = runtime.device(device if wanted == "auto" and device == "cuda" else wanted)
    if device == "mps":
        _check_mps(scale, request)
    for batch in (scale.pretrain.batch, scale.finetune.batch):
        if batch % request.processes:
            raise BenchError(f"--processes {request.processes}: a batch of {batch} cannot be shared evenly; scale "
                             f"{scale.name} has batches of {scale.pretrain.batch} and {scale.finetune.batch}")
    return replace(scale, numerics=replace(scale.numerics, device_class=device, world_size=request.processes))


def _check_mps(scale: Scale, request: Request) -> None:
    """Raises BenchError for what a Mac's GPU does not compute: other dtypes than float32, real sizes, several
    processes, another machine's stages."""
    if scale.numerics.dtype != "float32":
        raise BenchError(f"--device mps: scale {scale.name} computes in {scale.numerics.dtype}, mps only in float32; "
                         "use --device cuda, or scale tiny")
    if not isinstance(scale.world, World):
        raise BenchError(f"--device mps: scale {scale.name} has real data; only scales tiny and micro run on mps; use "
                         "--device cpu or cuda")
    if request.processes > 1:
        raise BenchError(f"--processes {request.processes}: mps is one GPU; use one process, or --device cpu")
    if request.engine != "here":
        raise BenchError(f"--on {request.engine}: mps is the GPU of this machine; leave out --on, or use --device cuda")


def rows(variants: Iterable[Spec], scale: Scale, seeds: Iterable[int], has_own_nulls: bool = False) -> list[Row]:
    """Returns the rows of a table with its baselines: null, ceiling, classifiers of the EEG, and linear probes.
    has_own_nulls: also the null of each row (`own_nulls`)."""
    items, variants, seeds = scale.items(), list(variants), list(seeds)
    table = [Row(v.name, seed, getattr(v, "eeg", "real"), plan(v, items, scale, seed))
             for seed in seeds for v in variants]
    baselines = choose_baselines(variants)
    others = []
    for seed in seeds:
        if null := baselines.null:
            with suppress(NotAvailable):  # a data set without a corpus: the table says that the null was not run
                others.append(Row(null.name, seed, "shuffled", plan(null, items, scale, seed), True))
        if ceiling := baselines.ceiling:
            others.append(Row(ceiling.name, seed, "captions", plan(ceiling, items, scale, seed), True))
    for null in own_nulls(variants, baselines.null is not None) if has_own_nulls else []:
        with suppress(NotAvailable):
            others += [Row(null.name, seed, "shuffled", plan(null, items, scale, seed), True) for seed in seeds]
    if not baselines.classifiers:
        return table + others
    readouts = [Row(f"{classifier} classifier", seed, "readout", captions.readout(classifier, items, scale, seed), True)
                for classifier in ("ridge", "eegnet") for seed in seeds]
    return table + others + readouts + _probes(table, items)


def own_nulls(variants: Iterable[Spec], has_full: bool) -> list[Spec]:
    """Returns the null of each row that uses the EEG: the row with shuffled EEG. Nulls that are already rows are left
    out. has_full: Full's null is in the table already."""
    variants = list(variants)
    known = {variant.name for variant in variants}
    nulls = [ablations.control_of(variant, "shuffled") for variant in variants
             if ablations.has_controls(variant) and not getattr(variant, "eeg_free", False)
             and not (has_full and variant.name == FULL.name)]
    return [null for null in nulls if null.name not in known]


@dataclass(frozen=True)
class Baselines:
    """The baselines of a table.

    null         Full with shuffled EEG; None: not informative for these rows
    ceiling      the class name as text; None: not informative for these rows
    classifiers  whether there are classifiers of the EEG and probes of pre-trained encoders
    things       whether all images are of protocol things
    """

    null: Spec | None
    ceiling: Spec | None
    classifiers: bool
    things: bool = False


def choose_baselines(variants: Iterable[Spec]) -> Baselines:
    """Chooses the baselines of these rows. If all rows that generate images are on protocol things, the null needs Full
    among them, and there are no classifiers, because the tested concepts are new. Retrieval alone, also by the
    probe of worlds with known answers, has no baselines, because it has no images."""
    generating = [v for v in variants if v.system not in (retrieval.Spec.system, known.Spec.system)]
    settings = [_things_setting(v) for v in generating]
    if not all(settings):
        return Baselines(On(FULL, FULL.name, eeg="shuffled"), captions.Spec(), True)
    if not generating:
        return Baselines(None, None, False)
    things = [setting for setting in settings if setting]
    full = next((setting for setting in things if setting.of == FULL and setting.eeg == "real"), None)
    text = captions.Spec()
    return Baselines(full and replace(full, name=FULL.name, eeg="shuffled", checkpoint=None),
                     replace(things[0], of=text, name=text.name, eeg="real", checkpoint=None, eeg_free=False),
                     False, True)


def _things_setting(spec: Any) -> On | None:
    """Returns the On that puts a row on protocol things, if there is one."""
    while hasattr(spec, "of"):
        if isinstance(spec, On) and spec.protocol == "things":
            return spec
        spec = spec.of
    return None


def _probes(table: Iterable[Row], items: Items) -> list[Row]:
    """Returns a linear probe of each encoder before fine-tuning, in its own world and on its own electrodes, with the
    name of the first row that uses it. The probe of an encoder without pre-training is the zero of what pre-training
    brings.
    """
    tuned = [(row, model) for row in table
             if isinstance(model := getattr(getattr(row.stage, "pictures", None), "model", None), Finetune)]
    probes: dict[Stage, Row] = {}
    for row, model in tuned:
        trials, untrained = model.items.trials, not isinstance(model.start, Pretrain)
        name, seed = (f"{row.variant}, untrained encoder", row.seed) if untrained else (row.variant, 0)
        world = items.trials.world
        if type(world) is World is type(trials.world):
            world = replace(world, seed=trials.world.seed)
        tested = replace(items, trials=replace(items.trials, world=world, channels=trials.channels))
        probe = Readout(training(tested), tested, "probe", model.start, seed, replace(model.numerics, world_size=1))
        probes.setdefault(probe, Row(name, row.seed, "probe", probe, True))
    return list(probes.values())
