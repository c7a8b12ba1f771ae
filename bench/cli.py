"""The command line: a table of commands, each a file of bench/commands/ that is imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from bench import errors
from bench.arguments import Parser
from bench.errors import BenchError

COMMANDS: dict[str, dict[str, str]] = {  # by group: a command and what it does
    "run": {
        "run": "build, score and tabulate an ablation",
        "plan": "what `run` would build, and what is stored",
        "status": "what runs in a store, and how far the rows of an ablation are",
        "logs": "the log of a stage: its attempts, progress and failures",
    },
    "look": {
        "list": "what there is: ablations with their variants, encoders, scales",
        "table": "print a table from its CSV",
        "figure": "draw a counterpart of the paper's Figure 3, 4, 5 or 6 from the store",
        "score": "score a folder of pictures, made by anybody, against the real ones",
        "audit": "leaks between the parts of a data set: what a decoder could use beside the stimulus",
    },
    "data": {
        "data": "prepare data sets and corpora for the paper's scale, and say what is prepared",
        "fetch": "download the pinned weights of the paper's scale",
    },
    "machine": {
        "doctor": "whether a scale can run here: Python, packages, GPU, disk, weights, data",
        "store": "what lies in the store",
        "gc": "remove from the store what no result stands on",
        "prior": "train the frozen parts and put them into bench/prior/, or check those that are shipped",
    },
}
EXAMPLES = """examples:
  bench run --ablation mask_ratio                 Table 2's rows on the mask ratio, minutes on two cores
  bench run --ablation table2 --seeds 0,1,2       all 15 rows, three seeds
  bench run --ablation mine.py --variants a,b     two variants of your own file
  bench table mask_ratio                          the table again, from its CSV
"""


def parser(command: str | None = None) -> Parser:
    """All commands, with the options of that one, or of all where it is None."""
    top = Parser(prog="bench", description="An ablation benchmark for EEG-to-image generation.", epilog=EXAMPLES,
                 formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in COMMANDS.values():
        for name, help in group.items():
            own = commands.add_parser(name, help=help, description=help)
            if command in (None, name):
                module(name).add_options(own)
    return top


def module(command: str) -> Any:
    """The file of a command: add_options(parser) and main(options, console) -> exit code."""
    return importlib.import_module(f"bench.commands.{command}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code (0, 1, 2, 3, 75 or 130)."""
    from rich.console import Console

    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    words = sys.argv[1:] if arguments is None else list(arguments)
    named = next((word for word in words if not word.startswith("-")), "")
    try:
        options = parser(named).parse_args(words)
        return int(module(options.command).main(options, Console(soft_wrap=True)))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bench: interrupted; what is complete is kept, and the same command goes on from there", file=sys.stderr)
        return errors.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.OK
