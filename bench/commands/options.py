"""Options that several commands share, and the Request that they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich import progress as bars
from rich.console import Console

from bench.arguments import names, seeds
from bench.errors import BenchError
from bench.execute.engines import ENGINES
from bench.experiment import ablation
from bench.experiment.scale import SCALES
from bench.runtime import DEVICES
from bench.setup.request import DATA, NULLS, PRETRAIN_SEEDS, STORE, Request

Options = argparse._ActionsContainer  # a parser, or a named group of its options


def add_request_options(parser: argparse.ArgumentParser, ablation_needed: bool = True) -> None:
    """Adds the options that choose the rows of a table, their scale and data, and folders."""
    rows = parser.add_argument_group("rows")
    add_ablation(rows, "--ablation", required=ablation_needed, help="the ablation: a name, or a path to a .py file")
    rows.add_argument("--variants", metavar="A,B", help="only these variants (default: all)")
    rows.add_argument("--subjects", metavar="1,2|all", help="every row once for each of these subjects "
                      "(default: once for the scale's subjects together)")
    rows.add_argument("--with-controls", action="store_true",
                      help="every row also with its EEG shuffled, replaced by a surrogate, and set to zero")
    complete(rows.add_argument("--nulls", default=NULLS[0], metavar="each|full", help="also with shuffled EEG: "
                               "each row, which gives its gain over this null, or Full alone (default: full)"),
             lambda: NULLS)
    add_seeds(rows)
    add_pretrain_seeds(rows)
    setting = parser.add_argument_group("scale, data and device")
    add_scale(setting)
    setting.add_argument("--pairs", metavar="NAME", help="a prepared data set (default: the scale's)")
    setting.add_argument("--corpus", metavar="NAME", help="a prepared pre-training corpus (default: the scale's)")
    setting.add_argument("--judge", default="", metavar="NAME|FILE", help="another classifier of images: "
                         "efficientnet_lite0, a timm model in the hub's cache (NAME or hf-hub:ORG/NAME), a timm "
                         "checkpoint or folder (default: the scale's)")
    setting.add_argument("--arch", dest="architecture", default="", metavar="NAME",
                         help="timm's architecture of a checkpoint that does not say it (default: the file's)")
    setting.add_argument("--fit", default="", metavar="crop|stretch", help="how that judge gets an image: timm's own "
                         "crop, or the whole image resized (default: crop)")
    add_device(setting)
    setting.add_argument("--processes", type=int, default=1, metavar="N", help="processes of a data-parallel training")
    add_places(parser)


def add_places(parser: argparse.ArgumentParser, *, store: bool = True) -> None:
    """Adds --store, --data and --weights."""
    places = parser.add_argument_group("folders")
    if store:
        add_store(places)
    places.add_argument("--data", default=str(DATA), metavar="DIR", help="prepared data")
    places.add_argument("--weights", metavar="DIR", help="pre-trained weights (default: the libraries' caches)")


def add_ablation(options: Options, name: str, **settings: Any) -> None:
    """Adds an option or argument that takes an ablation."""
    complete(options.add_argument(name, metavar="NAME|FILE", **settings), ablation.names)


def add_scale(options: Options) -> None:
    complete(options.add_argument("--scale", default="tiny", metavar="NAME", help=f"one of {', '.join(SCALES)}"),
             lambda: SCALES)


def add_seeds(options: Options) -> None:
    options.add_argument("--seeds", default="0", metavar="0,1,2", help="seeds of training and sampling")


def add_pretrain_seeds(options: Options) -> None:
    options.add_argument("--pretrain-seeds", choices=PRETRAIN_SEEDS, metavar="|".join(PRETRAIN_SEEDS),
                         help="each: every seed has its own pre-training; one: all share one (default: the scale's)")


def add_device(options: Options) -> None:
    help = "cpu, cuda, mps (a Mac's GPU; scales tiny and micro), or auto: cuda if the driver shows a GPU"
    complete(options.add_argument("--device", default="auto", metavar="NAME", help=help), lambda: DEVICES)


def add_store(options: Options) -> None:
    options.add_argument("--store", default=str(STORE), metavar="DIR", help="stored stages")


def output_file(name: str) -> Path:
    """Returns the path of a file to write. Raises BenchError if its folder does not exist, before anything is
    computed."""
    path = Path(name)
    if not path.absolute().parent.is_dir():
        raise BenchError(f"no folder {path.parent} to write {path.name} into")
    return path


def complete(action: argparse.Action, values: Callable[[], Iterable[str]]) -> None:
    """Lets the shell complete the value of an option; other values stay possible."""
    action.completer = lambda **_: list(values())  # type: ignore[attr-defined]


def read_subjects(text: str) -> Any:
    """"1,2" -> (1, 2), "all" -> "all". Raises BenchError for anything else."""
    parts = names(text)
    if text != "all" and not all(part.isdecimal() and len(part) <= 20 for part in parts):
        raise BenchError(f"--subjects {text}: all, or numbers of subjects, separated by commas, are expected")
    return text if text == "all" else tuple(map(int, parts))


def read_band(text: str) -> tuple[float, float]:
    """"5,95" -> (5.0, 95.0). Raises BenchError for anything but two ascending numbers in Hz above 0."""
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise BenchError(f"--band {text}: two numbers in Hz are expected, such as 5,95") from error
    if not 0 < low < high < float("inf"):
        raise BenchError(f"--band {text}: the second must be above the first, and both above 0")
    return low, high


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[..., None]]:
    """Shows a progress bar on a terminal; elsewhere a line for each step that has a text."""
    bar = bars.Progress(bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(),
                        bars.TimeElapsedColumn(), bars.TextColumn("left"), bars.TimeRemainingColumn(),
                        console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("preparing")

    def advance(done: int, total: int, text: str = "") -> None:
        bar.update(task, completed=done, total=total, description=text or "preparing")
        if text and not console.is_terminal:
            print(f"[{done}/{total}] {text}")

    with bar:
        yield advance


READERS: dict[str, Callable[[str], Any]] = {  # for options whose field of a Request is not text
    "variants": names, "seeds": seeds, "subjects": read_subjects, "store": Path, "data": Path, "weights": Path,
    "results": Path}


def request_of(options: argparse.Namespace) -> Request:
    """The request that a command's options make. An option that is absent or empty leaves the field's default."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    for engine in ENGINES:
        if given.get(engine) and given["on"] != engine:
            raise BenchError(f"--{engine} {given[engine][0]} needs --on {engine}")
    known = {field.name for field in fields(Request)}
    values = {name: READERS.get(name, lambda value: value)(value) for name, value in given.items()
              if name in known and value != ""}
    if "on" in given:
        values |= {"engine": given["on"], "engine_settings": tuple(given.get(given["on"], ()))}
    return Request(**values)
