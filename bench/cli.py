# PYTHON_ARGCOMPLETE_OK
"""The command line: a table of commands; the file of a command in bench/commands/ is imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import keyword
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from bench import errors, modules
from bench.arguments import Parser
from bench.errors import BenchError

COMMANDS: dict[str, dict[str, str]] = {  # group -> command -> what it does
    "run": {
        "run": "build, score and tabulate an ablation",
        "plan": "show what `run` would build and what is stored",
        "status": "show running stages and the progress of an ablation",
        "logs": "show the log of a stage",
    },
    "look": {
        "list": "list ablations and their variants, encoders, systems and scales",
        "table": "print a table from its CSV",
        "figure": "draw a counterpart of the paper's Figure 3, 4, 5 or 6",
        "report": "write an HTML report of an ablation's results",
        "score": "score generated images against reference images",
        "score-embeddings": "score embeddings of the EEG by retrieval of the shown images",
        "audit": "find leaks between the parts of a data set",
    },
    "share": {
        "export": "write a variant's results as a submission that others can check",
        "verify": "check submissions: files, protocol, and numbers against items",
        "leaderboard": "compare submissions in a static HTML board",
        "protocol": "make a challenge with hidden labels, and score what participants send",
        "push": "share results and reports in a data set of the Hugging Face hub",
        "pull": "get shared results and reports, checked against their hashes",
    },
    "data": {
        "data": "prepare data sets and corpora, and show what is prepared",
        "fetch": "download a data set's published files, or the weights of scale paper",
        "import": "read a published checkpoint, as a row of a table",
    },
    "machine": {
        "doctor": "check whether a scale can run on this machine",
        "selftest": "run every stage for a few steps at real sizes, and measure the machine",
        "store": "list, show and verify stored stages",
        "gc": "remove stored stages that no result needs",
        "prior": "train the frozen parts of scale tiny, or check those that are shipped",
    },
}
HELP = """\
usage: bench COMMAND [options]

An ablation benchmark for EEG-to-image generation.

{commands}

options:
  -h, --help  show this help, or with a command its options
  --version   show the version, and the commit in a git checkout

examples:
  bench run --ablation mask_ratio              four rows of Table 2, minutes on two cores
  bench run --ablation table2 --seeds 0,1,2    all 15 rows, three seeds
  bench run --ablation mine.py --variants a,b  two variants of your own file
  bench table mask_ratio                       print the table again, from its CSV
"""


class _Commands(Parser):
    """The parser above all commands; its help lists them by group."""

    def format_help(self) -> str:
        return HELP.format(commands="\n\n".join(
            "\n".join([f"{group}:", *(f"  {name:18s}{help}" for name, help in commands.items())])
            for group, commands in COMMANDS.items()))


class _Version(argparse.Action):
    """Prints the version and the commit, and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from bench.store import provenance

        commit = provenance.commit()
        print(f"bench {provenance.code()['version']}" + (f" (commit {commit})" if commit else ""))
        parser.exit()


def parser(command: str | None = None) -> Parser:
    """The parser of all commands. Only `command` gets its options; None: every command."""
    top = _Commands(prog="bench")
    top.add_argument("--version", action=_Version, nargs=0)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, help in [entry for group in COMMANDS.values() for entry in group.items()]:
        inner = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
        if command in (None, name):
            module(name).add_options(inner)
    return top


def module(command: str) -> Any:
    """The file of a command, with add_options(parser) and main(options, console) -> exit code."""
    return importlib.import_module(f"bench.commands.{command.replace('-', '_')}{'_' * keyword.iskeyword(command)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code (0, 1, 2, 3, 75 or 130)."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    if os.name == "nt":  # into a file or a pipe Windows would write its code page, which lacks Greek letters
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    if "_ARGCOMPLETE" in os.environ:  # the shell asks how the line COMP_LINE can continue
        import argcomplete

        known = {name for group in COMMANDS.values() for name in group}
        words = os.environ["COMP_LINE"][:int(os.environ["COMP_POINT"])].split()[1:]
        argcomplete.autocomplete(parser(next((word for word in words if word in known), "")))
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        modules.check_packages()
        options = parser(next((word for word in words if not word.startswith("-")), "")).parse_args(words)
        from rich.console import Console  # not at the top: `bench --help` needs none

        return int(module(options.command).main(options, Console(soft_wrap=True)))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bench: interrupted; complete stages are kept, and the same command resumes", file=sys.stderr)
        return errors.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.OK
