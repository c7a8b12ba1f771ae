"""What a plan costs before anything is spent: FLOPs counted on the meta device, GPU-hours, memory, disk, energy.

Counting imports torch, inside functions; it needs no weights, no data and no GPU.
"""

from __future__ import annotations

import csv
import functools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.tiny_things import LEFT_OUT, part_in
from bench.errors import ENVIRONMENT, BenchError
from bench.key import Stage, kind
from bench.plan import Row, needs, stages
from bench.runtime import Runtime
from bench.scale import Scale
from bench.stages import (
    Corpus,
    Decoder,
    Encoder,
    Finetune,
    Generate,
    Items,
    Prepared,
    Pretrain,
    Reference,
    Score,
    Targets,
    Trials,
    Trivial,
    Weights,
)
from bench.variant import OPENS

if TYPE_CHECKING:
    from torch import Tensor, nn

EXA, GIGA = 10**18, 10**9


@dataclass(frozen=True)
class Gpu:
    """tflops: peak of dense bfloat16 matrix products; gigabytes: of memory, decimal; watts: board power."""

    name: str
    tflops: float
    gigabytes: float
    watts: float
    source: str


GPUS = {
    "h200": Gpu("H200", 989, 141, 700, "NVIDIA H200 Tensor Core GPU data sheet, SXM; without sparsity"),
    "h100": Gpu("H100", 989, 80, 700, "NVIDIA H100 Tensor Core GPU data sheet, SXM; without sparsity"),
    "a100": Gpu("A100 80GB", 312, 80, 400, "NVIDIA A100 Tensor Core GPU data sheet, 80GB SXM; without sparsity"),
    "4090": Gpu("RTX 4090", 165.2, 24, 450, "NVIDIA Ada GPU architecture white paper, FP32 accumulate; without "
                                            "sparsity"),
}


@dataclass(frozen=True)
class Rate:
    """share: of the rate of large matrix products that a stage reaches. source: "goal", "assumption" or "measured"."""

    share: float
    source: str


MATMUL = Rate(0.80, "assumption")  # of the peak: what large bfloat16 matrix products reach
RATES = {  # of MATMUL; pretrain's goal is for batches of 1,024, and the protocol's 100 will reach less
    "pretrain": Rate(0.40, "goal"),
    "finetune": Rate(0.30, "goal"),
    "generate": Rate(0.30, "goal"),
    "targets": Rate(0.25, "assumption"),
    "reference": Rate(0.25, "assumption"),
    "score": Rate(0.25, "assumption"),
    "trivial": Rate(0.25, "assumption"),
    "imagetoimage": Rate(0.30, "goal"),
}
OTHERS = Rate(0.10, "assumption")  # of a system's own small networks, which a large GPU waits for


def rate(name: str) -> Rate:
    """The rate of a kind of stage."""
    return RATES.get(name, OTHERS)


NOT_COUNTED = ("elementwise operations, norms, optimisers and input", "losses on held-out windows", "readouts",
               "captions' text tower", "metrics on features")
GUIDED = {  # parts of ATM with guided diffusion: bytes of each parameter, and its networks in models.configurations
    "turbo": (2, ("sdxl_unet", "sdxl_vae", "sdxl_text")),
    "clip_h": (4, ("clip_h",)),
    "captioner": (4, ("git",)),
}
HEADROOM = 0.9  # of a GPU's memory that a plan may fill
AUTOCAST = 1.5  # sums and inputs of norms stay in float32: saved bytes over those with everything in bfloat16; assumed
ALIVE = 4  # tensors of the largest one's size, in float32, at the peak of a forward pass; assumed
MEASURED_AT_ONCE = 50  # pictures that scoring and the reference look at
TARGETS_AT_ONCE = 16  # pictures of 512 pixels that Targets takes at a time
PLMS_STEPS = 250  # of the released code


@dataclass(frozen=True)
class Size:
    """How much data there is: distinct pictures, trials of each part, classes. exact: counted in the prepared files."""

    pictures: int
    trials: dict[str, int]
    classes: int
    exact: bool


PUBLISHED = {  # by data set: pictures; trials of each part and subject; classes
    "imagenet_eeg": (2000, {"train": 1600, "val": 200, "test": 200}, 40),  # Sec. 4.1, in shares of 80, 10, 10 %
    "things_eeg2": (16_740, {"train": 62_160, "val": 4_000, "test": 200}, 1854),  # val: 100 concepts of 10 pictures
}
PUBLISHED_SHOWN = {"imagenet_eeg": {"train": 1600, "val": 200, "test": 200},  # pictures of each part
                   "things_eeg2": {"train": 15_540, "val": 1_000, "test": 200}}
PUBLISHED_WINDOWS = 120_000  # of pre-training's corpus (Sec. 4.1)


def size(world: Any, subjects: tuple[int, ...], split: str = "item") -> Size:
    """How much data those subjects' trials are: counted in trials.csv of a prepared data set, else as published.

    A split by blocks is taken to have parts as large as that by pictures. Raises BenchError for a world that was not
    prepared (exit 2), and for an absent one of which nothing is published here (exit 3).
    """
    if not isinstance(world, Prepared):
        raise BenchError(f"no price for the world of scale tiny: prepared data sets have one, such as "
                         f"{', '.join(PUBLISHED)}")
    if world.path:
        rows = _parted(world, subjects, split)
        return Size(len({row["picture"] for row in rows}), dict(Counter(row["part"] for row in rows)),
                    len({row["label"] for row in rows}), True)
    if world.name not in PUBLISHED:
        raise BenchError(f"no price for {world.name}, whose size is not known: bench data prepare {world.name}",
                         ENVIRONMENT)
    pictures, parts, classes = PUBLISHED[world.name]
    things = split in LEFT_OUT and world.name == "things_eeg2"
    people = [part_in(split, part, one == subjects[-1]) if things else part for part in parts for one in subjects]
    return Size(pictures, {part: n * people.count(part) for part, n in parts.items()}, classes, False)


def _parted(world: Prepared, subjects: tuple[int, ...], split: str) -> list[dict[str, str]]:
    """The rows of those subjects in a prepared data set's trials.csv that are in a part, which is their `part`."""
    rows = [row for row in _rows(Path(world.path) / "trials.csv") if int(row["subject"]) in subjects]
    if rows and "part_concept" in rows[0] and split in ("subject", "subject_seen"):  # depends on who takes part
        rows = [row | {"part": part_in(split, row["part_concept"], int(row["subject"]) == subjects[-1])}
                for row in rows]
    else:
        column = f"part_{split}" if rows and f"part_{split}" in rows[0] else "part_item"
        rows = [row | {"part": row[column]} for row in rows]
    return [row for row in rows if row["part"]]


@functools.cache
def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _size(trials: Trials) -> Size:
    return size(trials.world, trials.subjects, trials.split)


def trials(items: Items) -> int:
    """How many trials that part has."""
    found = _size(items.trials).trials
    if items.part not in found:
        raise BenchError(f"no part {items.part!r} among those of the data set: {', '.join(sorted(found))}")
    return found[items.part]


def shown(items: Items) -> int:
    """How many different pictures that part shows; as `trials`."""
    own = items.trials
    if isinstance(own.world, Prepared) and own.world.path:
        rows = _parted(own.world, own.subjects, own.split)
        return len({row["picture"] for row in rows if row["part"] == items.part})
    trials(items)  # raises where nothing is known
    return PUBLISHED_SHOWN[own.world.name][items.part]  # type: ignore[union-attr]


def _padded(n: int, batch: int) -> int:
    return math.ceil(n / batch) * batch


def _known(*parts: Weights) -> None:
    """Raises BenchError for a part whose configuration does not stand in models.configurations."""
    for part in parts:
        if part.name not in ("vae", "unet", "clip", "judge", "turbo/vae", "clip_h"):
            raise BenchError(f"no price for the part {part.name}: priced are those of scale paper")


def counted(forward: Callable[[], Tensor], backward: bool) -> tuple[int, int]:
    """FLOPs of `forward`, and of that with the backward pass from its sum (0 without): matrix products and
    convolutions, 2 for each multiply-add; attention as two matrix products forward and four backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.set_grad_enabled(backward), sdpa(), FlopCounterMode(display=False) as counter:
        result = forward()
        once = int(counter.get_total_flops())
        if backward:
            result.sum().backward()
    return once, int(counter.get_total_flops()) if backward else 0


def sdpa() -> Any:
    """A context in which attention is its two matrix products, whatever kernels a machine has."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def meta(*shape: int, **options: Any) -> Tensor:
    """A tensor that has a shape and nothing else."""
    import torch

    return torch.empty(*shape, device="meta", **options)


@functools.cache
def _part(name: str) -> Any:
    """A module of models.configurations on the meta device, frozen, in evaluation mode."""
    import torch

    from models import configurations

    with torch.device("meta"):
        part: nn.Module = getattr(configurations, name)()
    return part.eval().requires_grad_(False)


@functools.cache
def _encoder(value: Encoder, n_chans: int, n_times: int) -> Any:
    """An encoder on the meta device, and the shape [L, width] of what it makes of a trial."""
    import torch

    from bench.train.encoder import build

    with torch.device("meta"):
        encoder = build(value, n_chans, n_times, Runtime())
        with torch.no_grad():
            tokens = encoder.eval()(torch.empty(1, n_chans, n_times))
    return encoder, tuple(tokens.shape[1:])


@functools.cache
def _autoencoder(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int) -> Any:
    """The masked autoencoder of a pre-training, on the meta device, and how many tokens it has."""
    import torch

    from models.mae import MaskedAutoencoder

    module, _ = _encoder(encoder, n_chans, n_times)
    with torch.device("meta"):
        with torch.no_grad():
            tokens, width = module.tokenize(torch.empty(1, n_chans, n_times)).shape[1:]
        model = MaskedAutoencoder(module, n_chans, n_times, width, tokens, decoder.width, decoder.depth, decoder.heads,
                                  decoder.mlp_ratio)
    return model, tokens


def _masking(tokens: int, mask_ratio: float, batch: int = 1) -> Any:
    import torch

    from models.masking import random_masking

    with torch.device("cpu"):
        return random_masking(batch, tokens, mask_ratio, torch.Generator()).to("meta")


@functools.cache
def autoencoder_flops(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int, mask_ratio: float,
                      batch: int = 1) -> tuple[int, int]:
    """FLOPs of a step of masked pre-training: (forward, forward and backward)."""
    model, tokens = _autoencoder(encoder, decoder, n_chans, n_times)
    masking = _masking(tokens, mask_ratio, batch)
    model.train().requires_grad_(True)
    return counted(lambda: model(meta(batch, n_chans, n_times), masking), True)


@functools.cache
def released_autoencoder_flops(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int,
                               mask_ratio: float) -> tuple[int, int]:
    """The same as the released code has it, for one window: all patches are embedded, a class token goes through
    encoder and decoder, and every token reaches the head."""
    import torch

    model, tokens = _autoencoder(encoder, decoder, n_chans, n_times)
    visible = tokens - int(tokens * mask_ratio)
    model.train().requires_grad_(True)

    def step() -> Tensor:
        embedded = model.encoder.tokenize(meta(1, n_chans, n_times))
        seen = model.embed(model.encoder.encode(embedded[:, [0, *range(visible)]]))
        hidden = torch.cat([seen, model.mask_token.expand(1, tokens - visible, -1)], 1)
        for block in model.blocks:
            hidden = block(hidden)
        prediction: Tensor = model.head(model.norm(hidden))
        return prediction

    return counted(step, True)


@functools.cache
def encoder_flops(encoder: Encoder, n_chans: int, n_times: int) -> tuple[int, int]:
    """FLOPs of an encoder on one trial: (forward, forward and backward to all its parameters)."""
    module, _ = _encoder(encoder, n_chans, n_times)
    module.train().requires_grad_(True)
    return counted(lambda: module(meta(1, n_chans, n_times)), True)


@functools.cache
def condition_flops(tokens: int, width: int, trained: bool, through: bool) -> int:
    """FLOPs of tau on the tokens [L, width] of one trial. trained: with the gradients of its parameters; through: of
    its input, too."""
    tau = _tau(tokens, width).requires_grad_(trained)
    return max(counted(lambda: tau(meta(1, tokens, width, requires_grad=through)), trained or through))


def _tau(tokens: int, width: int) -> Any:
    """tau for the context of Stable Diffusion 1.5."""
    import torch

    from models import configurations
    from models.condition import Tau

    with torch.device("meta"):
        return Tau(tokens, width, torch.empty(configurations.TOKENS, configurations.WIDTH),
                   torch.nn.LayerNorm(configurations.WIDTH))


def _head(aligned: str, tokens: int, width: int, out: int) -> Any:
    """h, of the context or (aligned="latent") of the encoder's tokens [L, width]."""
    import torch

    from models import configurations
    from models.condition import Head, LatentHead

    with torch.device("meta"):
        return LatentHead(tokens, width, out) if aligned == "latent" else Head(configurations.WIDTH, out)


@functools.cache
def head_flops(aligned: str, tokens: int, width: int, out: int, through: bool) -> int:
    """FLOPs of h on one trial, with the gradients of its parameters; through: of its input, too."""
    from models import configurations

    shape = (tokens, width) if aligned == "latent" else (configurations.TOKENS, configurations.WIDTH)
    head = _head(aligned, tokens, width, out)
    return max(counted(lambda: head(meta(1, *shape, requires_grad=through)), True))


def _unet(opens: frozenset[str], time: bool = False, checkpointed: bool = False) -> Any:
    """The U-Net with gradients in what `opens` names: "A", "norm2", or "all"; time: conditioned through the time step
    also, by a map that trains."""
    import torch

    from models import configurations, frozen

    unet = _part("stable_diffusion_unet")
    if time:
        with torch.device("meta"):
            unet = configurations.stable_diffusion_unet()
    unet.requires_grad_("all" in opens)
    if opens & {"A", "norm2"}:
        frozen.open_for_tuning(unet, norm2="norm2" in opens)
    if time:
        unet.time_condition = _time_condition()
        unet.time_condition.attach(unet)
    (unet.enable_gradient_checkpointing if checkpointed else unet.disable_gradient_checkpointing)()
    return unet.train()


def _time_condition() -> Any:
    import torch

    from models import configurations
    from models.condition import TimeCondition

    with torch.device("meta"):
        return TimeCondition(configurations.TOKENS, configurations.WIDTH,
                             _part("stable_diffusion_unet").time_embedding.linear_2.out_features)


def _denoised(unet: Any, context: bool, batch: int = 1, dtype: Any = None) -> Tensor:
    """What the U-Net makes of a latent; with `context` the gradient flows to the condition."""
    import torch

    from models import configurations

    latents = meta(batch, unet.config["in_channels"], *[unet.config["sample_size"]] * 2, dtype=dtype)
    condition = meta(batch, configurations.TOKENS, configurations.WIDTH, dtype=dtype, requires_grad=context)
    prediction: Tensor = unet(latents, meta(batch, dtype=torch.int64), condition).sample
    return prediction


@functools.cache
def unet_flops(opens: frozenset[str], context: bool, time: bool = False, checkpointed: bool = False,
               batch: int = 1) -> tuple[int, int]:
    """FLOPs of the U-Net on one latent: (forward, forward and backward to what `opens` names and, with `context`, to
    the condition; 0 without either).

    time: the condition comes through the time step, too. checkpointed: every residual and transformer block is run
    forward again.
    """
    from torch.utils.checkpoint import set_checkpoint_early_stop

    unet = _unet(opens, time, checkpointed)
    with set_checkpoint_early_stop(False):
        return counted(lambda: _denoised(unet, context, batch), bool(opens or context))


def evaluation_flops(time: bool = False) -> int:
    """FLOPs of one pass of the U-Net for one picture, with which a step of Full's fine-tuning begins, too."""
    return unet_flops(frozenset({"A"}), True, time)[0]


@functools.cache
def vae_flops(direction: str) -> int:
    """FLOPs of the VAE on one picture of 512 pixels: "encode" or "decode"."""
    from models import configurations

    vae, side = _part("stable_diffusion_vae"), configurations.PIXELS
    if direction == "encode":
        return counted(lambda: vae.encode(meta(1, 3, side, side)), False)[0]
    return counted(lambda: vae.decode(meta(1, 4, side // 8, side // 8)), False)[0]


@functools.cache
def clip_flops(name: str = "clip") -> tuple[int, int]:
    """FLOPs of a CLIP's image tower on one picture: (forward, forward and backward to all its parameters)."""
    clip = _part(name).requires_grad_(True)
    return counted(lambda: clip.encode_image(meta(1, 3, 224, 224)), True)


@functools.cache
def looked(name: str, side: int) -> int:
    """FLOPs of a network of models.configurations on one picture of that side."""
    net = _part(name)
    return counted(lambda: net(meta(1, 3, side, side)), False)[0]


NETWORKS: dict[str, Callable[[], tuple[int, int]]] = {  # of Score.networks: FLOPs of a picture, and of a pair
    "inception": lambda: (looked("inception", 299), 0),
    "alexnet": lambda: (looked("alexnet", 256), 0),
    "lpips": lambda: (0, 2 * looked("alexnet", 512)),
}


@dataclass(frozen=True)
class Cost:
    """What a system says of one of its own stages: FLOPs of building it, memory on the GPU, bytes that it leaves."""

    flops: int
    memory: Memory | None
    disk: int


def system_cost(stage: Stage) -> Cost | None:
    """What the file of a system says of its own stage, by its function `cost`; None for every other stage."""
    return _system_cost(stage) if type(stage).__module__.startswith("bench.systems.") else None


@functools.cache
def _system_cost(stage: Stage) -> Cost | None:
    found: Cost | None = sys.modules[type(stage).__module__].cost(stage)  # type: ignore[attr-defined]
    return found


def flops(stage: Stage) -> int:
    """All FLOPs of building a stage, 2 for each multiply-add; what NOT_COUNTED lists is left out.

    Raises BenchError for frozen parts whose configuration is not known, and for data whose size is not.
    """
    if own := system_cost(stage):
        return own.flops
    if isinstance(stage, Pretrain):
        world = stage.corpus.world
        return stage.schedule.steps * stage.schedule.batch * autoencoder_flops(
            stage.encoder, stage.decoder, world.n_chans, world.n_times, stage.mask_ratio)[1]
    if isinstance(stage, Targets):
        _known(stage.clip, stage.vae)
        return _size(stage.trials).pictures * (stage.views * vae_flops("encode") + clip_flops(stage.clip.name)[0])
    if isinstance(stage, Finetune):
        return _finetune(stage)
    if isinstance(stage, Generate):
        return _generate(stage)
    if isinstance(stage, Trivial):
        _known(stage.vae)
        return trials(stage.items) * (vae_flops("encode") + vae_flops("decode")) * (stage.source == "vae")
    if isinstance(stage, Reference):
        _known(stage.judge)
        return _reference(stage) * looked("judge", 224)
    if isinstance(stage, Score):
        _known(stage.reference.judge, stage.clip)
        items, samples = trials(stage.items), _samples(stage.pictures)
        costs = [NETWORKS[network.name]() for network in stage.networks if network.name in NETWORKS]
        once = looked("judge", 224) + clip_flops()[0] + sum(picture for picture, _ in costs)
        return items * (1 + samples) * once + items * samples * sum(pair for _, pair in costs)
    return 0


def _samples(stage: Stage) -> int:
    """How many pictures there are of each item."""
    return stage.sampling.samples if isinstance(stage, Generate) else getattr(stage, "samples", 1)


def _reference(stage: Reference) -> int:
    """How many real pictures the judge looks at: the training pictures of a data set, `pictures` at most."""
    if isinstance(stage.world, Prepared) and stage.world.path:
        rows = _rows(Path(stage.world.path) / "trials.csv")
        return min(stage.pictures, len({row["picture"] for row in rows if row["part_item"] == "train"}))
    return min(stage.pictures, size(stage.world, (1,)).trials["train"])


def _start(stage: Finetune) -> Encoder:
    return stage.start.encoder if isinstance(stage.start, Pretrain) else stage.start


def _shape(items: Items) -> tuple[int, int]:
    return items.trials.world.n_chans, items.trials.world.n_times


def _finetune(stage: Finetune) -> int:
    """A frozen encoder sees every trial once; a trained one in every step."""
    _known(stage.unet, stage.clip, stage.targets.vae)
    encoder, shape, opens = _start(stage), _shape(stage.items), OPENS[stage.tune]
    _, (tokens, width) = _encoder(encoder, *shape)
    once, sample = 0, condition_flops(tokens, width, "tau" in opens, "E" in opens)
    if "E" in opens:
        sample += encoder_flops(encoder, *shape)[1]
    else:
        once = trials(stage.items) * encoder_flops(encoder, *shape)[0]
    through = bool(opens & {"E", "tau"})
    if stage.align:
        sample += head_flops(stage.aligned, tokens, width, _out(stage),
                             "E" in opens if stage.aligned == "latent" else through)
    if stage.sd_loss:
        sample += max(unet_flops(frozenset(opens & {"A", "norm2"}), through, stage.time_condition))
    if stage.targets.views == 0:
        sample += vae_flops("encode")
    return once + stage.schedule.steps * stage.schedule.batch * sample


def _out(stage: Finetune) -> int:
    """Dimensions that h maps to: CLIP's, or as many as there are classes."""
    from models import configurations

    return configurations.EMBEDDING if stage.align == "clip" else _size(stage.items.trials).classes


def evaluations(stage: Generate) -> int:
    """Forward passes of the U-Net for one picture: PLMS begins with one more, guidance doubles them."""
    steps = stage.sampling.steps + (stage.sampling.sampler == "plms")
    return steps * (2 if stage.sampling.guidance != 1 else 1)


def _generate(stage: Generate) -> int:
    """The last batch is padded."""
    _known(stage.vae, stage.model.unet)
    items, time = trials(stage.items), isinstance(stage.model, Finetune) and stage.model.time_condition
    drawn = _padded(items * stage.sampling.samples, stage.sampling.batch)
    total = drawn * (evaluations(stage) * evaluation_flops(time) + vae_flops("decode"))
    if isinstance(stage.model, Finetune):
        shape, encoder = _shape(stage.items), _start(stage.model)
        _, (tokens, width) = _encoder(encoder, *shape)
        total += _padded(items, stage.sampling.batch) * (encoder_flops(encoder, *shape)[0]
                                                         + condition_flops(tokens, width, False, False))
    return total


def naive(stage: Stage) -> int:
    """FLOPs of a stage as DreamDiffusion's released code spends them, under this stage's schedule, data and samples.

    Pretrain    a class token, and every token through the decoder's head
    Finetune    in every step the picture through the VAE and, with L_clip, through CLIP with gradients; gradients of
                encoder and tau whatever is tuned, and of the whole U-Net, whose blocks are checkpointed and so run
                forward twice
    Generate    PLMS of 250 steps without guidance, which are 251 passes of the U-Net
    Score       ViT-H/14 at 518 pixels on both pictures of every pair, LPIPS of every picture with every real one
    else        0: there are no stored Targets and no Reference
    Nothing is shared: a naive plan is the sum over rows of all their stages. What the released code spends on pictures
    of the test set while it trains is not in it.
    """
    if isinstance(stage, Pretrain):
        world = stage.corpus.world
        return stage.schedule.steps * stage.schedule.batch * released_autoencoder_flops(
            stage.encoder, stage.decoder, world.n_chans, world.n_times, stage.mask_ratio)[1]
    if isinstance(stage, Finetune):
        _known(stage.unet, stage.clip, stage.targets.vae)
        shape, encoder = _shape(stage.items), _start(stage)
        _, (tokens, width) = _encoder(encoder, *shape)
        sample = encoder_flops(encoder, *shape)[1] + condition_flops(tokens, width, True, True) \
            + (head_flops(stage.aligned, tokens, width, _out(stage), True) if stage.align else 0) \
            + (clip_flops()[1] if stage.align == "clip" else 0)
        if stage.sd_loss:
            sample += vae_flops("encode") + unet_flops(frozenset({"all"}), True, stage.time_condition, True)[1]
        return stage.schedule.steps * stage.schedule.batch * sample
    if isinstance(stage, Generate):
        _known(stage.vae, stage.model.unet)
        passes = (PLMS_STEPS + 1) * evaluation_flops() + vae_flops("decode")
        return trials(stage.items) * stage.sampling.samples * passes
    if isinstance(stage, Score):
        items, samples = trials(stage.items), _samples(stage.pictures)
        return items * samples * (2 * looked("released_judge", 518) + items * 2 * looked("alexnet", 512))
    return 0


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak: `fixed`, and `sample` for each of a micro-batch; `batch` is the whole one."""

    fixed: int
    sample: int
    batch: int

    def micro(self, gpu: Gpu) -> int:
        """The largest of equal parts of the batch that fits; 0 where not one sample does."""
        most = int((HEADROOM * gpu.gigabytes * GIGA - self.fixed) // max(self.sample, 1))
        return 0 if most < 1 else math.ceil(self.batch / math.ceil(self.batch / most))

    def peak(self, gpu: Gpu) -> int:
        """Bytes at that micro-batch, or at one sample where it does not fit."""
        return self.fixed + self.sample * max(1, self.micro(gpu))


def memory(stage: Stage) -> Memory | None:
    """A stage's memory on the GPU; None where it needs next to none.

    Trained parameters: 18 bytes each (float32 value, gradient, AdamW's two, a bfloat16 copy); others 2 (bfloat16),
    those that measure 4; a system's own stages as it says. A training step keeps what autograd saves, counted on the
    meta device in bfloat16 with fused attention, times AUTOCAST; a forward pass ALIVE tensors of its largest one's size
    in float32.
    """
    if own := system_cost(stage):
        return own.memory
    if isinstance(stage, Pretrain):
        shape = stage.corpus.world.n_chans, stage.corpus.world.n_times
        parameters, saved = _pretrain_memory(stage.encoder, stage.decoder, *shape, stage.mask_ratio)
        return Memory(18 * parameters, saved, stage.schedule.batch)
    if isinstance(stage, Finetune):
        trained, others = sum(trained_parameters(stage).values()), _frozen_parameters(stage)
        return Memory(18 * trained + 2 * others, _finetune_memory(stage), stage.schedule.batch)
    if isinstance(stage, Generate):
        return Memory(2 * (_parameters("stable_diffusion_unet") + _parameters("stable_diffusion_vae")),
                      ALIVE * _largest("decode"), stage.sampling.batch)
    if isinstance(stage, Targets):
        return Memory(2 * (_parameters("clip") + _parameters("stable_diffusion_vae")), ALIVE * _largest("encode"),
                      TARGETS_AT_ONCE)
    if isinstance(stage, (Score, Reference)):
        names = ["judge", "clip", "inception", "alexnet"] if isinstance(stage, Score) else ["judge"]
        return Memory(4 * sum(map(_parameters, names)), ALIVE * _largest("judge"), MEASURED_AT_ONCE)
    return None


def _parameters(name: str) -> int:
    return count(_part(name))


def trained_parameters(stage: Finetune) -> dict[str, int]:
    """How many parameters fine-tuning trains: of the encoder, tau (with the map to the time step), head and U-Net."""
    encoder, (tokens, width) = _encoder(_start(stage), *_shape(stage.items))
    opens = OPENS[stage.tune]
    parts: dict[str, list[nn.Module]] = {
        "encoder": [encoder] if "E" in opens else [], "tau": [], "head": [], "unet": []}
    if "tau" in opens:
        parts["tau"] = [_tau(tokens, width), *([_time_condition()] if stage.time_condition else [])]
    if stage.align:
        parts["head"] = [_head(stage.aligned, tokens, width, _out(stage))]
    found = {name: sum(map(count, modules)) for name, modules in parts.items()}
    if stage.sd_loss and opens & {"A", "norm2"}:
        unet = _unet(frozenset(opens & {"A", "norm2"}))
        found["unet"] = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    return found


def _frozen_parameters(stage: Finetune) -> int:
    unet = _parameters("stable_diffusion_unet") - trained_parameters(stage)["unet"] if stage.sd_loss else 0
    return unet + (_parameters("stable_diffusion_vae") if stage.targets.views == 0 else 0)


def saved(module: nn.Module, run: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps of one forward pass in bfloat16, beside the parameters, times AUTOCAST."""
    import torch

    kept: dict[int, Tensor] = {}
    torch.nn.Module.to(module, torch.bfloat16)  # diffusers' own would warn
    own = {p.untyped_storage()._cdata for p in module.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), _fused():
            result = run()
        total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        del result
    finally:
        torch.nn.Module.to(module, torch.float32)
    return int(AUTOCAST * total)


def count(net: nn.Module) -> int:
    """Of its parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


def another(net: nn.Module, run: Callable[[int], Tensor]) -> int:
    """Bytes that autograd keeps in float32 of one more sample; `run` takes so many, in bfloat16. The first ones have
    weights among what is kept."""
    net.train()
    return round(2 * (saved(net, lambda: run(3)) - saved(net, lambda: run(2))) / AUTOCAST)


def training(flops: int, trained: nn.Module, kept: nn.Module, sample: int, batch: int, held: int = 0) -> Cost:
    """Of a training in float32: in memory `held` bytes, 16 for each parameter (value, gradient and the optimiser's two)
    and `sample` for each sample of a batch; on the disk the parameters of `kept`."""
    return Cost(flops, Memory(held + 16 * count(trained), sample, batch), 4 * count(kept))


def _fused() -> Any:
    """A context in which attention on the meta device keeps and makes what a fused kernel does: no [L, L] weights."""
    import torch
    from torch.overrides import TorchFunctionMode

    def fused(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]

    class Fused(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.nn.functional.scaled_dot_product_attention:
                return fused(*args, **(kwargs or {}))
            return function(*args, **(kwargs or {}))

    return Fused()


@functools.cache
def _pretrain_memory(encoder: Encoder, decoder: Decoder, n_chans: int, n_times: int,
                     mask_ratio: float) -> tuple[int, int]:
    """Parameters of the masked autoencoder, and bytes saved for one window."""
    import torch

    model, tokens = _autoencoder(encoder, decoder, n_chans, n_times)
    masking = _masking(tokens, mask_ratio)
    model.train().requires_grad_(True)
    return count(model), saved(
        model, lambda: model(meta(1, n_chans, n_times, dtype=torch.bfloat16), masking))


@functools.cache
def _encoder_memory(encoder: Encoder, n_chans: int, n_times: int) -> int:
    import torch

    module = _encoder(encoder, n_chans, n_times)[0].train().requires_grad_(True)
    return saved(module, lambda: module(meta(1, n_chans, n_times, dtype=torch.bfloat16)))


@functools.cache
def _unet_memory(opens: frozenset[str], context: bool, time: bool) -> int:
    import torch

    unet = _unet(opens, time)
    return saved(unet, lambda: _denoised(unet, context, dtype=torch.bfloat16))


def _finetune_memory(stage: Finetune) -> int:
    """Bytes saved for one trial; tau and h add next to nothing."""
    opens = OPENS[stage.tune]
    through = bool(opens & {"E", "tau"})
    saved = _encoder_memory(_start(stage), *_shape(stage.items)) if "E" in opens else 0
    if stage.sd_loss:
        saved += _unet_memory(frozenset(opens & {"A", "norm2"}), through, stage.time_condition)
    return max(saved, ALIVE * _largest("encode")) if stage.targets.views == 0 else saved


@functools.cache
def _largest(what: str) -> int:
    """Bytes in float32 of the largest tensor of one picture's way through the VAE ("encode", "decode") or the judge."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Largest(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if not {id(leaf) for leaf in tree_leaves(args)} & {id(leaf) for leaf in tree_leaves(result)}:
                self.found = max([self.found, *(4 * leaf.numel() for leaf in tree_leaves(result)
                                                if isinstance(leaf, torch.Tensor) and leaf.ndim == 4)])
            return result

    runs: dict[str, Callable[[], object]] = {
        "encode": lambda: _part("stable_diffusion_vae").encode(meta(1, 3, 512, 512)),
        "decode": lambda: _part("stable_diffusion_vae").decode(meta(1, 4, 64, 64)),
        "judge": lambda: _part("judge")(meta(1, 3, 224, 224))}
    with torch.no_grad(), _fused(), Largest() as largest:
        runs[what]()
    return largest.found


def disk(stage: Stage) -> int:
    """Bytes that a stage leaves on the disk, its large files alone. A corpus: at most, as its shards are un-padded."""
    side = 512
    if own := system_cost(stage):
        return own.disk
    if isinstance(stage, Corpus):
        return PUBLISHED_WINDOWS * stage.world.n_chans * stage.world.n_times * 2
    if isinstance(stage, Trials):
        found = _size(stage)
        return sum(found.trials.values()) * stage.world.n_chans * stage.world.n_times * 2 + found.pictures * side**2 * 3
    if isinstance(stage, Pretrain):
        encoder, _ = _encoder(stage.encoder, stage.corpus.world.n_chans, stage.corpus.world.n_times)
        return 4 * count(encoder)
    if isinstance(stage, Targets):
        number = 4 if stage.views == 1 else 2  # bytes of mean and standard deviation
        return _size(stage.trials).pictures * (stage.views * 2 * 4 * (side // 8)**2 * number + 768 * 4)
    if isinstance(stage, Finetune):
        return 4 * sum(trained_parameters(stage).values()) * stage.checkpoints
    if isinstance(stage, (Generate, Trivial)):
        return trials(stage.items) * _samples(stage) * side**2 * 3
    return _reference(stage) * 1024 * 4 if isinstance(stage, Reference) else 0


def hours(stage: Stage, total: int, gpu: Gpu) -> float:
    """GPU-hours of a stage of that many FLOPs."""
    if not total:
        return 0.0
    return total / (gpu.tflops * 1e12 * MATMUL.share * rate(kind(stage)).share) / 3600


@dataclass(frozen=True)
class KindPrice:
    """The stages of one kind. asked: once for every row that uses them; built: distinct ones; stored: of those.

    flops, hours (of a GPU) and disk (bytes) are of what is not stored; memory: bytes at the peak of the largest, at
    the micro-batch `micro` of `batch` samples; 0 where a GPU is hardly used.
    """

    kind: str
    asked: int
    built: int
    stored: int
    flops: int
    hours: float
    disk: int
    memory: int = 0
    micro: int = 0
    batch: int = 0


@dataclass(frozen=True)
class RowPrice:
    """One row: FLOPs of all its stages (alone), and of those that no row above has and that are not stored (added)."""

    variant: str
    seed: int
    alone: int
    added: int
    hours: float  # of what is added
    naive: int | None  # None: the released code has no such row
    naive_hours: float


@dataclass(frozen=True)
class Priced:
    """What a plan costs. beside: the stages that only what stands beside the table adds; longest: GPU-hours of the
    longest chain of stages, which no number of GPUs makes shorter unless a stage is spread over several."""

    scale: str
    gpu: Gpu
    gpus: int
    kinds: tuple[KindPrice, ...]
    rows: tuple[RowPrice, ...]
    beside: KindPrice
    weights: int
    longest: float
    exact: bool
    uncounted: tuple[str, ...]

    @property
    def flops(self) -> int:
        """Of the rows' stages that are not stored."""
        return sum(line.flops for line in self.kinds)

    @property
    def hours(self) -> float:
        """GPU-hours of the same."""
        return sum(line.hours for line in self.kinds)

    @property
    def disk(self) -> int:
        """Bytes of the same, and of the frozen parts."""
        return sum(line.disk for line in self.kinds) + self.weights

    @property
    def unshared(self) -> int:
        """FLOPs of the rows if each built all its stages for itself."""
        return sum(row.alone for row in self.rows)

    @property
    def naive(self) -> int:
        """FLOPs of the rows by `naive`, of those that it knows."""
        return sum(row.naive or 0 for row in self.rows)

    @property
    def naive_hours(self) -> float:
        """GPU-hours of the same, at the same rates."""
        return sum(row.naive_hours for row in self.rows)

    def energy(self, gpu_hours: float) -> float:
        """kWh at the full power of the board, without host and cooling."""
        return gpu_hours * self.gpu.watts / 1000

    def render(self) -> str:
        """The price as text: by kind of stage, by row, in total, and beside a naive plan."""
        gpu = self.gpu
        first = [["stage", "asked for", "distinct", "stored", "EFLOP", "share of rate", "GPU-hours", "kWh", "peak GB",
                  "micro-batch", "disk GB"]]
        for line in self.kinds:
            at = rate(line.kind)
            work = [_exa(line.flops), f"{at.share:.0%} ({at.source})", f"{line.hours:.2f}",
                    f"{self.energy(line.hours):.1f}"] if line.flops else ["-"] * 4
            fits = [f"{line.memory / GIGA:.1f}", f"{line.micro} of {line.batch}" if line.micro else "does not fit"] \
                if line.memory else ["-", "-"]
            first.append([line.kind, str(line.asked), str(line.built), str(line.stored), *work, *fits,
                          f"{line.disk / GIGA:.1f}" if line.disk else "-"])
        first.append(["rows", "", "", "", _exa(self.flops), "", f"{self.hours:.2f}", f"{self.energy(self.hours):.1f}",
                      "", "", f"{(self.disk - self.weights) / GIGA:.1f}"])
        beside = self.beside
        first.append(["beside", str(beside.asked), str(beside.built), str(beside.stored), _exa(beside.flops), "",
                      f"{beside.hours:.2f}", f"{self.energy(beside.hours):.1f}", "", "", f"{beside.disk / GIGA:.1f}"])
        second = [["row", "seed", "EFLOP alone", "EFLOP added", "GPU-hours added", "kWh added", "naive EFLOP",
                   "naive GPU-hours"]]
        second += [[row.variant, str(row.seed), _exa(row.alone), _exa(row.added), f"{row.hours:.2f}",
                    f"{self.energy(row.hours):.1f}"]
                   + (["-", "-"] if row.naive is None else [_exa(row.naive), f"{row.naive_hours:.2f}"])
                   for row in self.rows]
        compared = all(row.naive is not None for row in self.rows)
        second.append(["total", "", _exa(self.unshared), _exa(self.flops), f"{self.hours:.2f}",
                       f"{self.energy(self.hours):.1f}"]
                      + ([_exa(self.naive), f"{self.naive_hours:.2f}"] if compared else ["-", "-"]))
        wall = max((self.hours + beside.hours) / self.gpus, self.longest)
        lines = [
            f"price at scale {self.scale} on {self.gpus} x {gpu.name}: {gpu.tflops:g} TFLOP/s dense bfloat16, "
            f"{gpu.gigabytes:g} GB, {gpu.watts:g} W ({gpu.source})", "", *_columns(first), "", *_columns(second), "",
            f"in all {_exa(self.flops + beside.flops)} EFLOP, {self.hours + beside.hours:.1f} GPU-hours, "
            f"{self.energy(self.hours + beside.hours):.0f} kWh, {(self.disk + beside.disk) / GIGA:.0f} GB on disk, "
            f"{self.weights / GIGA:.1f} GB of them frozen parts; {wall:.1f} hours on {self.gpus} "
            f"GPU{'s' * (self.gpus != 1)} at best (longest chain of stages: {self.longest:.1f})",
        ]
        if self.flops:
            lines.append(
                f"the rows: {_exa(self.flops)} EFLOP; without sharing {_exa(self.unshared)}" + (
                    f"; as the released code would, nothing shared or stored, {_exa(self.naive)}: "
                    f"{self.naive / self.flops:.2f} times as many, {self.naive_hours - self.hours:.1f} GPU-hours more "
                    "at the same rates" if compared else ""))
        lines += [
            f"rate: {MATMUL.share:.0%} of the peak ({MATMUL.source}) for large matrix products, and a stage's share of "
            "it; a goal is what the suite is to reach (pre-training's: in batches of 1,024), and nothing of this was "
            "measured on a GPU" if not _measured() else
            f"rate: {MATMUL.share:.0%} of the peak ({MATMUL.source}) for large matrix products, and a stage's share",
            "FLOPs are counted on the meta device, 2 for a multiply-add; not counted: " + ", ".join(self.uncounted),
            "energy: board power times GPU-hours, without host and cooling; memory and micro-batch: estimates",
            "items: " + ("counted in the prepared data" if self.exact else "as published; the data are not prepared"),
        ]
        return "\n".join(lines)


def _measured() -> bool:
    return all(rate.source == "measured" for rate in (MATMUL, *RATES.values()))


def _exa(total: int) -> str:
    value = total / EXA
    return f"{value:.2f}" if value >= 0.1 or not total else f"{value:.4f}"


def _columns(cells: list[list[str]]) -> list[str]:
    """Lines of a table, the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) if not column else cell.rjust(width)
                      for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in cells]


def price(table: Iterable[Row], scale: Scale, gpu: str, gpus: int = 1,
          stored: Callable[[Stage], bool] = lambda stage: False) -> Priced:
    """What the rows of a table cost on so many GPUs of a kind of GPUS, less what is stored.

    Raises BenchError for an unknown GPU, for other numbers than bfloat16, and as `flops`.
    """
    if gpu not in GPUS:
        raise BenchError(f"no GPU {gpu!r}; there are: {', '.join(GPUS)}")
    if gpus < 1:
        raise BenchError(f"{gpus} GPUs: expected 1 or more")
    if scale.numerics.dtype != "bfloat16":
        raise BenchError(f"no price for {scale.numerics.dtype} at scale {scale.name}: GPUs are priced for bfloat16")
    table = list(table)
    own = [row for row in table if not row.beside]
    every = stages(row.stage for row in table)
    built = stages(row.stage for row in own)
    left = set(stages((row.stage for row in table), stored))
    cost = {stage: flops(stage) for stage in every}
    chosen = GPUS[gpu]
    asked = Counter(kind(stage) for row in own for stage in stages([row.stage]))
    grouped: dict[str, list[Stage]] = {}
    for stage in built:
        grouped.setdefault(kind(stage), []).append(stage)
    lines = tuple(_line(name, asked[name], group, left, cost, chosen) for name, group in grouped.items())
    extra = [stage for stage in every if stage not in set(built)]
    beside = _line("beside", len(extra), extra, left, cost, chosen)
    rows, seen = [], set[Stage]()
    for row in own:
        needed = stages([row.stage])
        new = [stage for stage in needed if stage in left and stage not in seen]
        seen.update(new)
        others = any(type(stage).__module__.startswith("bench.systems.") for stage in needed)
        simple = {} if others else {stage: naive(stage) for stage in needed}
        rows.append(RowPrice(row.variant, row.seed, sum(cost[stage] for stage in needed),
                             sum(cost[stage] for stage in new), sum(hours(stage, cost[stage], chosen) for stage in new),
                             None if others else sum(simple.values()),
                             sum(hours(stage, n, chosen) for stage, n in simple.items())))
    networks = {network.name for stage in every if isinstance(stage, Score) for network in stage.networks}
    also = ["what GIT says"] * any(kind(stage) == "guidedcaptions" for stage in every)
    return Priced(scale.name, chosen, gpus, lines, tuple(rows), beside, _frozen(every),
                  _longest(every, left, cost, chosen), all(_size(s).exact for s in every if isinstance(s, Trials)),
                  (*NOT_COUNTED, *also, *sorted(networks - set(NETWORKS))))


def _frozen(every: Iterable[Stage]) -> int:
    """Bytes of the frozen parts: those of Stable Diffusion and the judge, and what else these stages hold."""
    from models import pins

    held = {value.name for stage in every for f in fields(stage)  # type: ignore[arg-type]
            if isinstance(value := getattr(stage, f.name), Weights)}
    total = 4 * sum(map(_parameters, ("stable_diffusion_unet", "stable_diffusion_vae", "clip", "judge")))
    total += sum(each * sum(map(_parameters, nets)) for name, (each, nets) in GUIDED.items() if name in held)
    return total + (pins.part("adapter").files[0].bytes or 0) * ("adapter" in held)


def _line(name: str, asked: int, group: list[Stage], left: set[Stage], cost: dict[Stage, int], gpu: Gpu) -> KindPrice:
    todo = [stage for stage in group if stage in left]
    needed = [found for stage in todo if (found := memory(stage))] if name != "beside" else []
    largest = min(needed, key=lambda one: (one.micro(gpu) / one.batch, -one.peak(gpu)), default=None)
    return KindPrice(name, asked, len(group), len(group) - len(todo), sum(cost[stage] for stage in todo),
                     sum(hours(stage, cost[stage], gpu) for stage in todo), sum(map(disk, todo)),
                     *((largest.peak(gpu), largest.micro(gpu), largest.batch) if largest else ()))


def _longest(every: list[Stage], left: set[Stage], cost: dict[Stage, int], gpu: Gpu) -> float:
    """GPU-hours of the longest chain; `every` has upstream first."""
    done: dict[Stage, float] = {}
    for stage in every:
        own = hours(stage, cost[stage], gpu) if stage in left else 0.0
        done[stage] = own + max((done[above] for above in needs(stage)), default=0.0)
    return max(done.values(), default=0.0)
