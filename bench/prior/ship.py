"""Ships the trained frozen parts with their provenance, and measures their quality gates."""

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
from bench.experiment.key import canonical
from bench.prior import recipe
from bench.prior.train import in_batches
from bench.runtime import Runtime
from bench.train import Inputs
from models import adapter as adapters
from models import captioner as captioners
from models import frozen

HELD_OUT, BATCH = 2_000, 125  # images of the gates, and how many are generated at once
STEPS, GUIDANCE = 10, 2.0  # of the gates' samples
LIBRARIES = ("torch", "diffusers", "open_clip_torch", "timm", "safetensors", "numpy")
LOADERS = {"judge": frozen.load_judge, "vae": frozen.load_vae, "clip": frozen.load_clip, "unet": frozen.load_unet,
           "adapter": adapters.load, "captioner": captioners.load_captioner}


@dataclass(frozen=True)
class Gate:
    """A required accuracy of a frozen part on `n` held-out cases."""

    name: str
    measured: float
    needed: float
    n: int

    @property
    def passed(self) -> bool:
        return self.measured >= self.needed


def check(folder: Path, runtime: Runtime) -> list[Gate]:
    """Measures the gates of the parts in `folder`, whose hashes must be those of its provenance.json.
    Raises frozen.MissingWeights or BadWeights, and BenchError (exit 3) if the provenance cannot be read."""
    entries = _read_provenance(folder, LOADERS)["parts"]
    torch.set_num_threads(1)  # faster for networks of this size
    return measure(runtime, _load(folder, entries, LOADERS))


@torch.inference_mode()
def measure(runtime: Runtime, parts: dict[str, Any], names: Collection[str] = tuple(LOADERS)) -> list[Gate]:
    """Measures the gates of the parts `names`, on held-out images and captions of all classes.
    parts: the loaded parts by the names of LOADERS; the gate of a part needs those before it."""
    device = runtime.device
    judge, vae, clip, unet = (parts[name].to(device) for name in ("judge", "vae", "clip", "unet"))
    scenes = pictures.draw_scenes(HELD_OUT, len(pictures.CLASSES), pictures.stream("held-out"))
    images, labels = pictures.render(scenes), torch.from_numpy(scenes.label).to(device)
    null = clip.text_tokens(clip.tokenize([""]).to(device))
    noise = torch.randn((HELD_OUT, *frozen.latent_shape(unet)), generator=torch.Generator().manual_seed(0)).to(device)

    def is_recognised(sample: Callable[[Tensor], Tensor]) -> Tensor:
        """Whether the judge recognises the class in the decoded latents of sample(rows): [N] bool."""
        predicted = []
        for rows in torch.arange(HELD_OUT).split(BATCH):
            predicted.append(judge.logits(vae.decode(sample(rows))).argmax(1))
            runtime.progress(int(rows[-1]) + 1, HELD_OUT)
        return torch.cat(predicted) == labels

    def is_classified(logits: Callable[[Tensor], Tensor]) -> Tensor:
        """Whether the largest of logits(images) is the class: [N] bool."""
        return in_batches(logits, images, device).argmax(1) == labels

    def check_clip() -> Tensor:
        classes = clip.embed_text(clip.tokenize([f"a {name}" for name in pictures.CLASSES]).to(device))
        return is_classified(lambda real: clip.embed_image(real) @ classes.T)

    def check_unet() -> Tensor:
        short = np.arange(HELD_OUT) % 2 == 0
        contexts = clip.text_tokens(clip.tokenize(pictures.captions(scenes, short)).to(device))
        return is_recognised(lambda rows: frozen.sample(unet, contexts[rows], null, noise[rows], STEPS, GUIDANCE))

    def check_adapter() -> Tensor:
        embeddings = in_batches(clip.embed_image, images, device)
        pipe = adapters.pipeline(vae, copy.deepcopy(unet), frozen.noise_schedule(), parts["adapter"])
        return is_recognised(lambda rows: adapters.draw(pipe, embeddings[rows], null.expand(len(rows), -1, -1), null,
                                                        noise[rows], STEPS, GUIDANCE))

    def check_captioner() -> Tensor:
        captions = parts["captioner"].to(device).captions(in_batches(clip.embed_image, images, device))
        return torch.from_numpy(np.array(captions) == np.array(pictures.captions(scenes, False)))

    gates = {
        "judge": ("judge recognises pictures", lambda: is_classified(judge.logits), 0.99),
        "vae": ("judge recognises VAE reconstructions",
                lambda: is_classified(lambda real: judge.logits(vae.decode(vae.encode(real)))), 0.97),
        "clip": ("CLIP names the class, zero-shot", check_clip, 0.95),
        "unet": ("judge recognises text-conditioned samples", check_unet, 0.95),
        "adapter": ("judge recognises samples from CLIP embeddings", check_adapter, 0.90),
        "captioner": ("captioner names shape, colour, background", check_captioner, 0.90)}
    return [Gate(gate, is_right().double().mean().item(), needed, HELD_OUT)
            for name, (gate, is_right, needed) in gates.items() if name in names]


def ship(parts: dict[str, recipe.Part], inputs: Inputs, folder: Path, runtime: Runtime) -> list[Gate]:
    """Exports the trained `parts` as float16 into `folder`, with provenance.json; returns their gates.
    Other parts in the folder, and their gates, are kept. Raises BenchError and replaces nothing if a gate fails, or if
    a kept part was trained on a part that would be replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = [name for name in LOADERS if name not in parts and (folder / f"{name}.safetensors").exists()]
    before = _read_provenance(folder, kept) if kept else {"gates": [], "parts": {}}
    if stale := [name for name in kept if before["parts"][name]["recipe"].keys() & parts.keys()]:
        raise BenchError(f"not shipped: {', '.join(stale)} in {folder} were trained on parts that are replaced; train "
                         "these as well, or remove them", SOME_FAILED)
    loaded = _load(folder, before["parts"], kept)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        # Export, and measure the exported files
        new = Path(temporary)
        for name, stage in parts.items():
            file = new / f"{name}.safetensors"
            trained = LOADERS[name](inputs(stage) / f"{name}.safetensors")
            (adapters if name == "adapter" else frozen).save(trained, file, torch.float16)
            loaded[name] = LOADERS[name](file)
        gates = measure(runtime, loaded, parts)
        if missed := [f"{g.name}: {g.measured:.1%}, needed {g.needed:.0%}" for g in gates if not g.passed]:
            raise BenchError("not shipped, gates not passed: " + "; ".join(missed), SOME_FAILED)

        # Provenance
        made_with = {"date": datetime.now(UTC).date().isoformat(),
                     "versions": {name: version(name) for name in LIBRARIES} | {"python": platform.python_version()}}
        entries = dict(before["parts"])
        for name, stage in parts.items():
            data, part = (new / f"{name}.safetensors").read_bytes(), loaded[name]
            tensors = part.values() if isinstance(part, dict) else part.parameters()
            entries[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data),
                             "parameters": sum(tensor.numel() for tensor in tensors),
                             "recipe": canonical(stage)} | (made_with if kept else {})
        measured = {gate.name: asdict(gate) for gate in gates}
        provenance = {
            **({name: before[name] for name in made_with} if kept else made_with),
            "gates": [measured.pop(gate["name"], gate) for gate in before["gates"]] + list(measured.values()),
            "parts": {name: entries[name] for name in LOADERS if name in entries},
        }
        (new / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")
        for file in (*(f"{name}.safetensors" for name in parts), "provenance.json"):
            os.replace(new / file, folder / file)
    return gates


def _read_provenance(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Reads provenance.json. Raises BenchError (exit 3) if it cannot be read or lacks one of these parts."""
    try:
        provenance = json.loads((folder / "provenance.json").read_text())
        provenance["gates"], [(entry["sha256"], entry["recipe"]) for entry in map(provenance["parts"].get, names)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{folder / 'provenance.json'} cannot be read ({error!r}); restore it, or run: bench prior",
                         ENVIRONMENT) from error
    return provenance


def _load(folder: Path, entries: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: LOADERS[name](folder / f"{name}.safetensors", entries[name]["sha256"]) for name in names}
