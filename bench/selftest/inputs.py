"""Makes the self-test's inputs in the published formats: small data, and random weights of the real or a small size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bench.data import corpora, imagenet_eeg
from bench.experiment import datasets
from bench.experiment.scale import PAPER, REHEARSAL, Scale
from bench.experiment.stages import Numerics, Sampling, Weights
from bench.setup.rehearsal import files
from bench.setup.rehearsal import weights as small
from bench.systems import guided

Net = TypeVar("Net")
NAME = "selftest"
CORPUS = ("Fake032", "Fake128")  # MOABB's synthetic recordings
DTYPES = {"cuda": "bfloat16", "cpu": "float32"}  # a CPU without bfloat16 units takes 40 times as long in it
CLASSES, PER_CLASS = 4, 12  # images of each class: 32 trials train, 8 validate, 8 are tested
STEPS = {"pretrain": 61, "finetune": 41}  # at 20 and 10 steps a log line: three intervals between lines or more
EPOCHS = {True: 101, False: 2}  # of the guided system's trainings at real (two log lines) and small sizes
DREAMDIFFUSION = ("vae", "unet", "clip", "judge")
GUIDED = ("turbo", "adapter", "clip_h", "captioner")
PUBLISHED_WORDS = 30_522  # of BERT's vocabulary, which GIT uses


def make_scale(folder: Path, device: str, is_real: bool, per_class: int = PER_CLASS,
               classes: int = CLASSES) -> Scale:
    """Makes data, corpus and DreamDiffusion's weights; returns scale paper on them, with schedules of a few steps.

    is_real: sizes of scale paper, else of scale rehearsal. per_class: images of each of the classes.
    """
    like, side = (PAPER, 512) if is_real else (REHEARSAL, small.SIDE)
    source = folder / "source"
    files.write_imagenet_eeg(source, (4,), files.WNIDS[:classes], per_class, serialisation="zip", side=side, missing=0)
    imagenet_eeg.prepare(source, folder / "imagenet_eeg", pictures=source / "images", size=side)
    corpora.prepare(NAME, folder, CORPUS)
    parts = write_parts(folder / "weights", DREAMDIFFUSION, device, is_real)
    sampling = Sampling(steps=25, guidance=1.0, samples=8, batch=32) if is_real else \
        replace(like.sampling, samples=8, batch=32)
    return replace(
        like, name=NAME, sizes_like=like.sizes_like or like.name, people=(4,), subjects=(4,),
        world=datasets.find_pairs("imagenet_eeg", folder), corpus=datasets.find_corpus(NAME, folder), things=None,
        parts=parts, networks=(), sampling=sampling, numerics=Numerics(device, DTYPES[device]),
        pretrain=replace(like.pretrain, steps=STEPS["pretrain"], warmup=2),
        finetune=replace(like.finetune, steps=STEPS["finetune"]))


def add_guided(scale: Scale, folder: Path, device: str, is_real: bool) -> Scale:
    """Makes the weights of ATM with guided diffusion; returns the scale with them."""
    return replace(scale, parts=(*scale.parts, *write_parts(folder / "weights", GUIDED, device, is_real)))


def shorten(stage: Any, epochs: int) -> Any:
    """Returns a stage of the guided system with trainings of so many epochs or steps, also in the stages it needs.

    An epoch of the few trials is a step or two.
    """
    changes: dict[str, Any] = {}
    for name in stage.__dataclass_fields__:
        value: Any = getattr(stage, name)
        if isinstance(value, guided.PriorSchedule):
            changes[name] = replace(value, steps=epochs, warmup=1)
        elif isinstance(value, (guided.EncoderSchedule, guided.LowLevelSchedule, guided.CaptionSchedule)):
            changes[name] = replace(value, epochs=epochs)
        elif type(value).__name__.startswith("Guided"):
            changes[name] = shorten(value, epochs)
    return replace(stage, **changes)


def write_parts(folder: Path, names: Iterable[str], device: str, is_real: bool) -> tuple[Weights, ...]:
    """Writes frozen parts with random weights in the formats of their libraries; device: draws the random numbers."""
    names = tuple(names)
    if is_real:
        _write_real(folder, names, device)
    elif not (folder / small.PROVENANCE).is_file():
        small.write_rehearsal(folder, 0)
    return tuple(Weights(name, f"{NAME}: random", str(folder / small.FOLDERS[name])) for name in names)


def _write_real(folder: Path, names: tuple[str, ...], device: str) -> None:
    import open_clip
    import torch

    from models import configurations as real

    def make(build: Callable[[], Net], dtype: torch.dtype = torch.float32) -> Callable[[], Net]:
        return functools.partial(draw_network, build, device, dtype)

    def write_clip(name: str, architecture: str, quick_gelu: bool) -> None:
        config = open_clip.get_model_config(architecture) | {"quick_gelu": quick_gelu}
        small.write_open_clip(folder / small.FOLDERS[name], config,
                              lambda **config: make(functools.partial(open_clip.CLIP, **config))())

    if "unet" in names:
        small.write_stable_diffusion(folder / small.FOLDERS["unet"].split("/")[0], make(real.stable_diffusion_vae),
                                     make(real.stable_diffusion_unet))
    if "clip" in names:
        write_clip("clip", "ViT-L-14", True)
    if "judge" in names:
        small.write_timm(folder / small.FOLDERS["judge"], make(real.judge)(), 224)
    if "turbo" in names:
        half = torch.float16
        unet = small.write_sdxl(folder / small.FOLDERS["turbo"], make(real.sdxl_vae, half), make(real.sdxl_unet, half),
                                make(real.sdxl_text, half)())
        small.write_adapter(folder / small.FOLDERS["adapter"], unet, guided.EMBEDDING)
        del unet
    if "clip_h" in names:
        write_clip("clip_h", "ViT-H-14", False)
    if "captioner" in names:
        words = [*small.SPECIAL.values()]
        words += [f"word{number}" for number in range(PUBLISHED_WORDS - len(words))]
        small.write_git(folder / small.FOLDERS["captioner"], make(real.git)(), words)


def draw_network(build: Callable[[], Any], device: str, dtype: Any) -> Any:
    """Builds a network on the CPU with random weights that keep activations of order 1; device: draws the numbers.

    Matrices and kernels are normal with variance 1 / fan-in, norms 1, biases 0. A constructor's own initialisation
    takes minutes for two billion parameters.
    """
    import torch

    with torch.device("meta"):
        net = build()
    torch.nn.Module.to(net, dtype).to_empty(device="cpu")  # diffusers' own `to` would warn
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim > 1:
                values = torch.empty(parameter.shape, device=device)
                parameter.copy_(values.normal_(0, parameter[0].numel() ** -0.5, generator=generator))
            elif name.endswith("logit_scale"):
                parameter.fill_(2.66)  # ln(1 / 0.07), CLIP's at the start
            else:
                parameter.fill_(float(name.endswith("weight")))
        for buffer in net.buffers():
            buffer.zero_()
    return net.eval()
