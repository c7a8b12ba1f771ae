"""`bench import`: reads a published checkpoint and stores its parts for a row of a table."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from bench import errors
from bench.errors import BenchError
from bench.setup.released import CONFIGS, import_checkpoint
from bench.systems.released import IMPORTED

HEADS = 16  # of the released encoder


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", choices=["dreamdiffusion"], help="what the file is: dreamdiffusion, "
                        "the generation checkpoint that its release links")
    parser.add_argument("file", metavar="FILE", help="the checkpoint, a .pth file")
    parser.add_argument("--to", metavar="DIR", default=str(IMPORTED), help="the folder to write to; a row takes "
                        "another one by released.Spec(checkpoint=DIR)")
    parser.add_argument("--ema", action="store_true", help="take the U-Net from the moving average of its weights "
                        "(default: the weights themselves)")
    parser.add_argument("--heads", metavar="N", type=int, default=HEADS, help="heads of the EEG encoder's attention, "
                        "which the tensors do not show")
    parser.add_argument("--like", metavar="DIR", help=f"a folder with {', '.join(CONFIGS)}, which the "
                        "checkpoint must fit (default: Stable Diffusion 1.5)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Imports the checkpoint and prints what it used, skipped and set aside; returns the exit code.

    Raises BenchError as `import_checkpoint`.
    """
    if options.heads < 1:
        raise BenchError(f"--heads {options.heads}: expected an integer of at least 1")
    folder = Path(options.to)
    manifest = import_checkpoint(Path(options.file), folder, Path(options.like) if options.like else None,
                                 options.heads, options.ema)
    counts = manifest["tensors"]
    lines = [f"imported into {folder}: U-Net {counts['unet']} tensors, VAE {counts['vae']}, condition stage "
             f"{counts['condition']}; EEG {manifest['channels']} channels x {manifest['times']} samples"]
    if manifest["skipped"]:
        lines.append(f"skipped without running their code: objects of {', '.join(manifest['skipped'])}")
    for reason, names in manifest["unused"].items():
        shown = ", ".join(names[:4]) + ", ..." * (len(names) > 4)
        lines.append(f"not used, {reason}: {len(names)} tensors ({shown})")
    lines.append("then: bench run --ablation released_checkpoint --scale paper")
    for line in lines:
        console.print(line, highlight=False, markup=False)
    return errors.OK
