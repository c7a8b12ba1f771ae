"""Ships the trained frozen parts with their provenance, and measures their gates."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data import pictures
from bench.errors import ENVIRONMENT, SOME_FAILED, BenchError
from bench.experiment.key import Stage, canonical
from bench.prior import recipe
from bench.prior.train import in_batches
from bench.runtime import Runtime
from models import adapter as adapters
from models import captioner as captioners
from models import frozen

HELD_OUT, BATCH = 2_000, 125  # pictures of the gates, and how many are drawn at once
STEPS, GUIDANCE = 10, 2.0  # of the gates' samples
LIBRARIES = ("torch", "diffusers", "open_clip_torch", "timm", "safetensors", "numpy")
LOADERS = {
    "judge": frozen.load_judge,
    "vae": frozen.load_vae,
    "clip": frozen.load_clip,
    "unet": frozen.load_unet,
    "adapter": adapters.load,
    "captioner": captioners.load_captioner,
}


@dataclass(frozen=True)
class Gate:
    """What a frozen part must be able to do before anything may be built on it: shares of `n` held-out cases."""

    name: str
    measured: float
    needed: float
    n: int

    @property
    def passed(self) -> bool:
        return self.measured >= self.needed


def check(folder: Path, runtime: Runtime) -> list[Gate]:
    """The gates of the parts in `folder`, whose files must be those that its provenance.json names.

    Raises frozen.MissingWeights, frozen.BadWeights; BenchError (exit 3) where the provenance cannot be read.
    """
    entries = _provenance(folder, LOADERS)["parts"]
    torch.set_num_threads(1)  # networks so small lose time on several
    return measure(runtime, _load(folder, entries, LOADERS))


@torch.inference_mode()
def measure(runtime: Runtime, parts: dict[str, Any], of: Collection[str] = tuple(LOADERS)) -> list[Gate]:
    """The gates of the parts named in `of`, on pictures and captions of the held-out stream, over all classes.

    parts: all that are there, by the names of LOADERS; the gates of one part need those that come before it.
    """
    device = runtime.device
    judge, vae, clip, unet = (parts[name].to(device) for name in ("judge", "vae", "clip", "unet"))
    scenes = pictures.draw_scenes(HELD_OUT, len(pictures.CLASSES), pictures.stream("held-out"))
    images, labels = pictures.render(scenes), torch.from_numpy(scenes.label).to(device)
    empty = clip.text_tokens(clip.tokenize([""]).to(device))
    noise = torch.randn((HELD_OUT, *frozen.latent_shape(unet)), generator=torch.Generator().manual_seed(0)).to(device)

    def gate(name: str, right: Tensor, needed: float) -> Gate:
        return Gate(name, right.double().mean().item(), needed, HELD_OUT)

    def recognised(draw: Callable[[Tensor], Tensor]) -> Tensor:
        """Whether the judge sees the class in what is decoded from draw(rows): [N] bool."""
        found = []
        for rows in torch.arange(HELD_OUT).split(BATCH):
            found.append(judge.logits(vae.decode(draw(rows))).argmax(1))
            runtime.progress(int(rows[-1]) + 1, HELD_OUT)
        return torch.cat(found) == labels

    def judged() -> Gate:
        logits = in_batches(judge.logits, images, device)
        return gate("judge recognises pictures", logits.argmax(1) == labels, 0.99)

    def reconstructed() -> Gate:
        logits = in_batches(lambda real: judge.logits(vae.decode(vae.encode(real))), images, device)
        return gate("judge recognises VAE reconstructions", logits.argmax(1) == labels, 0.97)

    def named() -> Gate:
        classes = clip.embed_text(clip.tokenize([f"a {name}" for name in pictures.CLASSES]).to(device))
        logits = in_batches(lambda real: clip.embed_image(real) @ classes.T, images, device)
        return gate("CLIP names the class, zero-shot", logits.argmax(1) == labels, 0.95)

    def told() -> Gate:
        short = np.arange(HELD_OUT) % 2 == 0
        contexts = clip.text_tokens(clip.tokenize(pictures.captions(scenes, short)).to(device))
        right = recognised(lambda rows: frozen.sample(unet, contexts[rows], empty, noise[rows], STEPS, GUIDANCE))
        return gate("judge recognises text-conditioned samples", right, 0.95)

    def shown() -> Gate:
        embeddings = in_batches(clip.embed_image, images, device)
        pipe = adapters.pipeline(vae, copy.deepcopy(unet), frozen.noise_schedule(), parts["adapter"])
        right = recognised(lambda rows: adapters.draw(pipe, embeddings[rows], empty.expand(len(rows), -1, -1), empty,
                                                      noise[rows], STEPS, GUIDANCE))
        return gate("judge recognises samples from CLIP embeddings", right, 0.90)

    def captioned() -> Gate:
        embeddings = in_batches(clip.embed_image, images, device)
        said = parts["captioner"].to(device).captions(embeddings)
        right = torch.from_numpy(np.array(said) == np.array(pictures.captions(scenes, False)))
        return gate("captioner names shape, colour, background", right, 0.90)

    gates = {"judge": judged, "vae": reconstructed, "clip": named, "unet": told, "adapter": shown,
             "captioner": captioned}
    return [look() for name, look in gates.items() if name in of]


def ship(
    parts: dict[str, recipe.Part], inputs: Callable[[Stage], Path], folder: Path, runtime: Runtime
) -> list[Gate]:
    """Exports the trained `parts` (recipe.recipe(), or some of it) as float16 into `folder`, with provenance.json.

    The gates are those of the exported files; parts that are not exported, and their gates, stay as they are there.
    Raises BenchError, and replaces nothing, when a gate is not passed, or when a part that stays was trained on one
    that would not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = [name for name in LOADERS if name not in parts and (folder / f"{name}.safetensors").exists()]
    before = _provenance(folder, kept) if kept else {"gates": [], "parts": {}}
    if stale := [name for name in kept if before["parts"][name]["recipe"].keys() & parts.keys()]:
        raise BenchError(f"not shipped: {', '.join(stale)} in {folder} would be left of parts that are replaced; train "
                         "these, too, or remove them", SOME_FAILED)
    loaded = _load(folder, before["parts"], kept)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary)
        for name, stage in parts.items():
            file = made / f"{name}.safetensors"
            trained = LOADERS[name](inputs(stage) / f"{name}.safetensors")
            (adapters if name == "adapter" else frozen).save(trained, file, torch.float16)
            loaded[name] = LOADERS[name](file)
        gates = measure(runtime, loaded, parts)
        if missed := [f"{g.name}: {g.measured:.1%}, needed {g.needed:.0%}" for g in gates if not g.passed]:
            raise BenchError("not shipped, gates not passed: " + "; ".join(missed), SOME_FAILED)
        made_with = {"date": datetime.now(UTC).date().isoformat(),
                     "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}}
        new = {gate.name: asdict(gate) for gate in gates}
        entries = before["parts"] | {
            name: {
                "sha256": hashlib.sha256((made / f"{name}.safetensors").read_bytes()).hexdigest(),
                "bytes": (made / f"{name}.safetensors").stat().st_size,
                "parameters": sum(parameter.numel() for parameter in _parameters(loaded[name])),
                "recipe": canonical(stage),
            }
            | (made_with if kept else {})
            for name, stage in parts.items()
        }
        provenance = {
            **({name: before[name] for name in made_with} if kept else made_with),
            "gates": [new.pop(gate["name"], gate) for gate in before["gates"]] + list(new.values()),
            "parts": {name: entries[name] for name in LOADERS if name in entries},
        }
        (made / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")
        for file in (*(f"{name}.safetensors" for name in parts), "provenance.json"):
            os.replace(made / file, folder / file)
    return gates


def _provenance(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """provenance.json. Raises BenchError (exit 3) where it cannot be read, or lacks one of these parts."""
    try:
        provenance = json.loads((folder / "provenance.json").read_text())
        provenance["gates"], [(entry["sha256"], entry["recipe"]) for entry in map(provenance["parts"].get, names)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder / 'provenance.json'} is no readable provenance ({error!r}); restore it, or: bench prior"
        raise BenchError(message, ENVIRONMENT) from error
    return provenance


def _load(folder: Path, entries: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: LOADERS[name](folder / f"{name}.safetensors", entries[name]["sha256"]) for name in names}


def _parameters(part: Any) -> Iterable[Tensor]:
    return part.values() if isinstance(part, dict) else part.parameters()
