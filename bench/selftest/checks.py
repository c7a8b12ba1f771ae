"""The checks of the self-test, most valuable first; each returns what it measured, or raises Failed."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from bench import FULL, systems
from bench.cost import rates
from bench.cost.flops import flops
from bench.cost.memory import memory
from bench.execute.build import build
from bench.experiment import graph
from bench.experiment.key import Stage
from bench.experiment.scale import Scale
from bench.experiment.stages import Finetune, Generate, Pretrain, Score
from bench.runtime import GPUS
from bench.selftest import faults, inputs, parity
from bench.selftest.probe import Enough, Probe, measure_products, stage_name
from bench.store import journal
from bench.store.store import Store
from bench.systems import guided
from models.mae import MaskedAutoencoder

Values = dict[str, Any]
SIDES = {True: 8192, False: 512}  # of the matrices whose products are timed, at real and small sizes
LARGE = {True: 1024, False: 32}  # the second batch of pre-training
KNOWN = ("pretrain", "guidedencoder", "guidedprior", "guidedlowlevel")  # kinds whose cost holds for small sizes too
GREY_LEVELS = 5.0  # of 255: the tolerance of bfloat16, since other batch sizes round otherwise
NEVER = 1_000_000  # steps of a training that ends by Enough, so that no evaluation falls into the measurement


class Failed(Exception):
    """Reports that a check failed; the message is the reason."""


@dataclass
class Machine:
    """What the checks share. is_real: sizes of scale paper; folder: for inputs and stages; products: TFLOP/s of large
    bfloat16 matrix products, once measured; scale: once its inputs are made."""

    device: str
    is_real: bool
    folder: Path
    products: float = 0.0
    gpu: str = ""  # a key of GPUS
    _scale: Scale | None = None
    _guided: Scale | None = None

    @property
    def store(self) -> Store:
        """The store of the stages."""
        return Store(self.folder / "store")

    @property
    def scale(self) -> Scale:
        """The scale, whose inputs are made at the first use."""
        if self._scale is None:
            self._scale = inputs.make_scale(self.folder, self.device, self.is_real)
        return self._scale

    @property
    def score(self) -> Score:
        """The last stage of DreamDiffusion's Full."""
        score = systems.plan(FULL, self.scale.items(), self.scale, 0)
        assert isinstance(score, Score)
        return score

    @property
    def generated(self) -> Generate:
        """Full's images."""
        pictures = self.score.pictures
        assert isinstance(pictures, Generate)
        return pictures

    @property
    def tuned(self) -> Finetune:
        """Full's fine-tuning."""
        model = self.generated.model
        assert isinstance(model, Finetune)
        return model

    @property
    def pretrained(self) -> Pretrain:
        """Full's pre-training."""
        start = self.tuned.start
        assert isinstance(start, Pretrain)
        return start

    @property
    def guided(self) -> Score:
        """The last stage of ATM with guided diffusion, with the low-level path and captions."""
        if self._guided is None:
            self._guided = inputs.add_guided(self.scale, self.folder, self.device, self.is_real)
        scale = self._guided
        score = systems.plan(guided.Spec(low_level=True, caption=True), scale.items(), scale, 0)
        assert isinstance(score, Score)
        return replace(score, pictures=inputs.shorten(score.pictures, inputs.EPOCHS[self.is_real]))

    def build(self, stage: Stage, probe: Probe | None = None, store: Store | None = None) -> Values:
        """Builds a stage, and before it what it needs; returns its manifest."""
        store = store or self.store
        for above in graph.stages([stage], store.has):
            if above != stage:
                build(above, store, self.device)
        build(stage, store, self.device, progress=probe or Probe())
        return store.manifest(stage)


def check_device(machine: Machine) -> Values:
    """Names the device and the versions of driver and library."""
    values: Values = {"sizes": "real" if machine.is_real else "small", "torch": torch.__version__, "gpu": ""}
    if machine.device == "cpu":
        return values | {"name": platform.processor() or platform.machine(), "cores": torch.get_num_threads()}
    about = torch.cuda.get_device_properties(0)
    machine.gpu = rates.find_gpu(about.name)
    return values | {"name": about.name, "gpu": machine.gpu, "cuda": torch.version.cuda or "",
                     "memory_bytes": about.total_memory, "capability": f"{about.major}.{about.minor}",
                     "processors": about.multi_processor_count}


def check_products(machine: Machine) -> Values:
    """Measures large matrix products, of the stages' dtype and in float32 without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    side, dtype = SIDES[machine.is_real], inputs.DTYPES[machine.device]
    machine.products = measure_products(machine.device, getattr(torch, dtype), side)
    values: Values = {"side": side, "dtype": dtype, "tflops": machine.products,
                      "tflops_float32": measure_products(machine.device, torch.float32, side)}
    if machine.gpu:
        share = machine.products / GPUS[machine.gpu].tflops
        values |= {"share_of_peak": share, "planned_share_of_peak": rates.MATMUL.share,
                   "rates": {rates.PRODUCTS: share}}
    return values


def check_inputs(machine: Machine) -> Values:
    """Writes small data and DreamDiffusion's parts with random weights in the published formats."""
    parts = {part.name: part.path for part in machine.scale.parts}
    written = sum(file.stat().st_size for path in parts.values() for file in Path(path).rglob("*") if file.is_file())
    return {"parts": ", ".join(parts), "bytes": written}


def check_guided_inputs(machine: Machine) -> Values:
    """Writes the guided system's parts with random weights in the published formats."""
    machine.guided  # noqa: B018  # makes them at the first use
    return {"parts": ", ".join(inputs.GUIDED)}


def check_pretrain(machine: Machine) -> Values:
    """Pre-trains for a few steps with the batch size of the protocol."""
    return measure(machine, machine.pretrained)


def check_finetune(machine: Machine) -> Values:
    """Fine-tunes for a few steps with the batch size of the protocol."""
    return measure(machine, machine.tuned)


def check_generate(machine: Machine) -> Values:
    """Generates batches of 32 images; the time is that of the second batch."""
    stage, probe = machine.generated, Probe()
    values = measure(machine, stage, probe)
    batch = stage.sampling.batch
    if probe.seconds_per_step:
        values |= {"images": batch, "sampling_steps": stage.sampling.steps,
                   "seconds_of_batch": batch * probe.seconds_per_step}
    return values


def check_parity(dtype: str, tolerance: float) -> Callable[[Machine], Values]:
    """Returns the check that compares the networks on the device with those on the CPU in float32."""
    def check(machine: Machine) -> Values:
        errors = parity.compare(machine.pretrained, machine.tuned, machine.generated, machine.device, dtype)
        values: Values = {"tolerance": tolerance, "worst": max(errors.values()), **errors}
        if far := {name: error for name, error in errors.items() if not error <= tolerance}:
            text = ", ".join(f"{name} {error:.2g}" for name, error in far.items())
            raise Failed(f"relative difference from the CPU above {tolerance:g}: {text}")
        return values

    return check


def check_launches(stage_of: Callable[[Machine], Stage]) -> Callable[[Machine], Values]:
    """Returns the check that counts launches and waits between two log lines of a training."""
    def check(machine: Machine) -> Values:
        stage: Any = stage_of(machine)
        stage = replace(stage, schedule=replace(stage.schedule, steps=NEVER), seed=1)
        probe = Probe(profiled=True)
        try:
            machine.build(stage, probe)
        except Enough:
            return probe.counts()
        raise Failed("the training ended before its second log line")

    return check


def check_large_batch(machine: Machine) -> Values:
    """Pre-trains for a few steps with a larger batch, at real sizes 1,024 windows."""
    stage = machine.pretrained
    large = replace(stage.schedule, batch=LARGE[machine.is_real], steps=41)
    return {name: value for name, value in measure(machine, replace(stage, schedule=large)).items() if name != "rates"}


def check_split(machine: Machine) -> Values:
    """Runs out of memory in pre-training on purpose: the batch must be split, with the same losses."""
    stage = machine.pretrained
    stage = replace(stage, schedule=replace(stage.schedule, steps=41), seed=2)
    whole, split = Probe(), Probe()
    peak = machine.build(stage, whole)["measured"].get("peak_cuda_bytes", 0)
    with faults.short_of_memory(machine.device, peak, stage.schedule.batch,
                                lambda network: isinstance(network, MaskedAutoencoder) and network.training):
        machine.build(stage, split, Store(machine.folder / "split"))
    parts = max(split.values("parts"))
    before, after = whole.values("loss")[-1], split.values("loss")[-1]
    if parts < 2:
        raise Failed("the memory was limited, but no batch was split")
    if not abs(after - before) <= 0.02 * abs(before):
        raise Failed(f"the loss of split batches is {after:.5g}, that of whole ones {before:.5g}")
    return {"parts": parts, "loss_whole": before, "loss_split": after}


def check_split_images(machine: Machine) -> Values:
    """Lets the memory end in sampling on purpose: the batch must be split, with the same images but for rounding."""
    stage, split = machine.generated, Store(machine.folder / "split")
    record = machine.build(stage)
    for above in graph.stages([stage], split.has):  # before the memory is limited
        if above != stage:
            build(above, split, machine.device)
    with faults.short_of_memory(machine.device, record["measured"].get("peak_cuda_bytes", 0), stage.sampling.batch,
                                lambda network: isinstance(network, UNet2DConditionModel)):
        build(stage, split, machine.device)
    notes = journal.read(journal.path(split.root, stage.key))[0]
    parts = max((line["parts"] for line in notes if line.get("event") == "note" and "parts" in line), default=1)
    before, after = (np.load(store.path(stage) / "pictures.npy").astype(float) for store in (machine.store, split))
    difference = float(np.abs(after - before).mean())
    if parts < 2:
        raise Failed("the memory was limited, but no batch was split")
    if not difference <= GREY_LEVELS:
        raise Failed(f"images of split batches differ from those of whole ones by {difference:.3g} grey levels on "
                     f"average, limit {GREY_LEVELS:g}")
    return {"parts": parts, "grey_levels": difference}


def check_resume(machine: Machine) -> Values:
    """Stops a pre-training, kills its second process and completes it: the encoder must equal that of one run."""
    stage = machine.pretrained
    stage = replace(stage, schedule=replace(stage.schedule, steps=401), seed=3)
    machine.build(stage.corpus)
    resumed_at = faults.stop_and_kill(stage, machine.store, machine.device)
    machine.build(stage)
    whole = Store(machine.folder / "whole")
    machine.build(stage, store=whole)
    error = faults.compare_encoders(machine.store.path(stage), whole.path(stage))
    limit = 0.0 if machine.device == "cpu" else 0.05  # some operations of a GPU are not deterministic
    if not error <= limit:
        raise Failed(f"the resumed encoder differs from that of one run by {error:.2g} of its norm, limit {limit:g}")
    return {"resumed_at_step": resumed_at, "relative_difference": error}


def check_stage(stage_of: Callable[[Machine], Stage]) -> Callable[[Machine], Values]:
    """Returns the check that builds one more stage."""
    return lambda machine: measure(machine, stage_of(machine))


def measure(machine: Machine, stage: Stage, probe: Probe | None = None) -> Values:
    """Builds a stage; returns time a step, memory and rate, each beside what `bench plan` says."""
    probe = probe or Probe()
    record = machine.build(stage, probe)
    measured = record["measured"]
    is_gpu = machine.device == "cuda"
    values: Values = {"stage": stage_name(stage), "stage_seconds": record["wall_s"],
                      "peak_bytes": measured["peak_cuda_bytes" if is_gpu else "peak_rss_bytes"]}
    if losses := probe.values("loss"):
        values["loss"] = losses[-1]
    if (seconds := probe.seconds_per_step) is not None:
        values["ms_per_step"] = 1000 * seconds
    if not machine.is_real and stage.kind not in KNOWN:
        return values  # costs of frozen parts are those of the real ones
    if known := memory(stage):
        values["planned_bytes"] = known.peak_of(known.batch)
    total = flops(stage)
    if not total or seconds is None:
        return values
    step = total / probe.total
    values["tflops"] = step / seconds / 1e12
    values["share_of_products"] = step / seconds / 1e12 / machine.products if machine.products else None
    if machine.gpu:
        values["planned_ms_per_step"] = 3.6e6 * rates.hours(stage, int(step), GPUS[machine.gpu])
        values["planned_share"] = rates.rate(stage).share
        if machine.products and machine.is_real:
            values["rates"] = {stage.kind: values["share_of_products"]}
    return values


@dataclass(frozen=True)
class Check:
    """A check and its name."""

    name: str
    run: Callable[[Machine], Values]


def _guided(kind: str) -> Callable[[Machine], Stage]:
    """Returns the function that finds the stage of this kind among those of the guided system."""
    return lambda machine: next(stage for stage in graph.stages([machine.guided]) if stage.kind == kind and (
        kind != "targets" or stage == machine.guided.pictures.encoder.targets))  # type: ignore[attr-defined]


CHECKS = (
    Check("device", check_device),
    Check("matrix products", check_products),
    Check("inputs", check_inputs),
    Check("pretrain", check_pretrain),
    Check("targets", check_stage(lambda machine: machine.tuned.targets)),
    Check("finetune", check_finetune),
    Check("generate", check_generate),
    Check("parity, float32", check_parity("float32", 1e-4)),
    Check("parity, bfloat16", check_parity("bfloat16", 2e-2)),
    Check("pretrain, large batch", check_large_batch),
    Check("launches, pretrain", check_launches(lambda machine: machine.pretrained)),
    Check("launches, finetune", check_launches(lambda machine: machine.tuned)),
    Check("out of memory", check_split),
    Check("resume", check_resume),
    Check("out of memory, generate", check_split_images),
    Check("reference", check_stage(lambda machine: machine.score.reference)),
    Check("score", check_stage(lambda machine: machine.score)),
    Check("guided: inputs", check_guided_inputs),
    *(Check(f"guided: {name}", check_stage(_guided(kind))) for name, kind in (
        ("targets", "targets"), ("encoder", "guidedencoder"), ("prior", "guidedprior"),
        ("low level", "guidedlowlevel"), ("captions", "guidedcaptions"), ("images", "guidedpictures"),
        ("score", "score"))),
)
