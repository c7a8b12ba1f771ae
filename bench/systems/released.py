"""DreamDiffusion's released checkpoint (`bench import dreamdiffusion FILE`) as a system that trains nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from bench.errors import ENVIRONMENT, BenchError, NotAvailable
from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register
from bench.experiment.scale import Scale
from bench.experiment.stages import ORACLES, Items, Numerics, Sampling, Score, Weights
from bench.experiment.variant import refuse

IMPORTED = Path(".bench-weights/dreamdiffusion")  # `bench import dreamdiffusion` writes here
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Spec:
    """checkpoint: the folder of an imported checkpoint. steps: of PLMS without guidance (released code: 250). eeg_free:
    as in On. Raises BenchError for fewer steps than one."""

    name: str = field(default="released checkpoint", compare=False)
    checkpoint: str = str(IMPORTED)
    steps: int = 250
    eeg_free: bool = field(default=False, compare=False)

    system: ClassVar[str] = "released"

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise refuse(self, f"steps must be an integer of at least 1, not {self.steps!r}")


@dataclass(frozen=True)
class ReleasedPictures(Stage):
    """Images of a released checkpoint for the items' EEG, in Generate's format, and h's output (embedding.npy).
    schedule: the hash of the noise schedule's file."""

    condition: Weights
    unet: Weights
    vae: Weights
    schedule: str
    items: Items
    sampling: Sampling
    seed: int
    numerics: Numerics

    @property
    def samples(self) -> int:
        """Samples per item."""
        return self.sampling.samples


def plan(spec: Spec, items: Items, scale: Scale, seed: int) -> Score:
    """Plans the images. Raises NotAvailable if no checkpoint is imported or its EEG has another shape, and BenchError
    for an oracle, which has no EEG."""
    if items.eeg in ORACLES:
        raise refuse(spec, f"the control {items.eeg!r} has no EEG, which a trained encoder needs")
    folder = Path(spec.checkpoint)
    manifest = _read(spec, folder)
    given, expected = (items.trials.n_chans, items.trials.world.n_times), (manifest["channels"], manifest["times"])
    if given != expected:
        raise refuse(spec, f"its checkpoint takes EEG {list(expected)} (channels, samples), and these trials have "
                           f"{list(given)}", NotAvailable)
    parts = {name: Weights(f"dreamdiffusion/{name}", part["sha256"],
                           str(folder / name if name in ("unet", "vae") else folder / part["path"]))
             for name, part in manifest["parts"].items()}
    sampling = replace(scale.sampling, sampler="plms", steps=spec.steps, guidance=1.0)
    return scale.score(ReleasedPictures(parts["condition"], parts["unet"], parts["vae"], manifest["scheduler"], items,
                                        sampling, seed, scale.single_process), items)


def _read(spec: Spec, folder: Path) -> dict[str, Any]:
    """Reads an imported checkpoint's manifest."""
    path = folder / MANIFEST
    if not path.is_file():
        raise refuse(spec, f"no imported checkpoint in {folder}; download the generation checkpoint that the README of "
                           "bbaaii/DreamDiffusion links, and run: bench import dreamdiffusion FILE"
                     + (f" --to {folder}" if folder != IMPORTED else ""), NotAvailable, ENVIRONMENT)
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        if missing := {"parts", "channels", "times", "scheduler"} - set(manifest):
            raise KeyError(*sorted(missing))
        if set(manifest["parts"]) != {"condition", "unet", "vae"}:
            raise KeyError("parts")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path} is not the manifest of an imported checkpoint ({error!r}); remove {folder} and "
                         "import it again", ENVIRONMENT) from error
    return manifest


register({ReleasedPictures: Kind("bench.train.released:generate_images", "generate",
                                 forecast="bench.cost.systems.released:seconds",
                                 cost="bench.cost.systems.released:cost")})
