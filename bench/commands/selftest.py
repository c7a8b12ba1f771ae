"""`bench selftest`: runs every stage for a few steps at real sizes, and measures it beside what `bench plan` says."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench import errors, runtime
from bench.commands.options import complete, output_file
from bench.errors import ENVIRONMENT, BenchError
from bench.selftest.run import run
from bench.selftest.table import Line, render

OUT = "selftest.jsonl"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry", action="store_true", help="the same checks with small networks, also without a GPU; "
                        "its numbers say nothing about real sizes (default: real sizes)")
    help = "cpu (with --dry only) or cuda (default: cuda; with --dry the GPU if the driver shows one, else the CPU)"
    complete(parser.add_argument("--device", metavar="NAME", help=help), lambda: runtime.DEVICES)
    parser.add_argument("--minutes", type=float, default=8.0, metavar="M", help="stop after so many minutes; the table "
                        "names the checks that were not run")
    parser.add_argument("--out", default=OUT, metavar="FILE", help="one JSON line for each check as it ends; "
                        "`bench plan --rates FILE` uses the rates in it; - writes the lines to standard output")
    parser.add_argument("--scratch", metavar="DIR", help="folder for weights and stages, which are removed at the end; "
                        "45 GB at real sizes (default: the system's temporary folder)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Runs the checks. Returns 0, or 1 if one failed."""
    device = _choose_device(options.device, options.dry)
    if not options.minutes > 0:
        raise BenchError(f"--minutes {options.minutes:g}: a number above 0 is expected")
    if options.scratch and not Path(options.scratch).is_dir():
        raise BenchError(f"--scratch {options.scratch}: no such folder")
    people = sys.stderr if options.out == "-" else sys.stdout

    def show(line: Line) -> None:
        print(line, file=people, flush=True)

    scratch = Path(options.scratch) if options.scratch else None
    if options.out == "-":
        lines = run(device, not options.dry, options.minutes, sys.stdout, scratch, show)
    else:
        with output_file(options.out).open("w", encoding="utf-8") as file:
            lines = run(device, not options.dry, options.minutes, file, scratch, show)
    print(f"\n{render(lines)}", file=people)
    if options.out != "-":
        print(f"lines: {options.out}" + ("" if options.dry or device == "cpu" else
                                         f"; use the rates with: bench plan --rates {options.out} --gpu NAME ..."),
              file=people)
    return errors.SOME_FAILED if any(line.state == "failed" for line in lines) else errors.OK


def _choose_device(name: str | None, is_dry: bool) -> str:
    """Returns "cuda" or "cpu". Raises BenchError for real sizes on a CPU, and (exit 3) for an absent GPU."""
    if name not in (None, *runtime.DEVICES):
        return runtime.device(str(name))  # raises
    if name == "mps":
        raise BenchError("--device mps: bench selftest runs on cpu (with --dry) or cuda")
    if is_dry:
        return runtime.device(name or "auto")
    if name == "cpu":
        raise BenchError("--device cpu: real sizes need a GPU; for small networks on a CPU: bench selftest --dry")
    if runtime.device("auto") != "cuda":
        raise BenchError("the driver shows no GPU on this machine, and real sizes need one; for small networks on a "
                         "CPU: bench selftest --dry", ENVIRONMENT)
    return "cuda"
