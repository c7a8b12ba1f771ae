"""Options that several commands share, and the Request that they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from bench.arguments import names, seeds
from bench.errors import BenchError
from bench.execute.engines import ENGINES
from bench.experiment.scale import SCALES
from bench.setup.request import DATA, STORE, Request


def add_request_options(parser: argparse.ArgumentParser, ablation_needed: bool = True) -> None:
    """Which rows, at which scale, on which data."""
    parser.add_argument("--ablation", required=ablation_needed, metavar="NAME|FILE")
    add_scale(parser)
    parser.add_argument("--variants", metavar="A,B", help="these rows alone (default: all)")
    parser.add_argument("--subjects", metavar="1,2|all", help="every row once for each of these subjects alone")
    parser.add_argument("--with-controls", action="store_true",
                        help="beside every variant also its EEG shuffled, replaced by a surrogate, and set to zero")
    add_seeds(parser)
    add_device(parser)
    parser.add_argument("--pairs", metavar="NAME", help="a prepared data set (default: the scale's)")
    parser.add_argument("--corpus", metavar="NAME", help="a prepared corpus for pre-training (default: the scale's)")
    parser.add_argument("--processes", type=int, metavar="N", help="data parallel over N processes (default: 1)")
    add_store(parser)
    add_places(parser)


def add_scale(parser: argparse.ArgumentParser) -> None:
    """--scale."""
    parser.add_argument("--scale", default="tiny", help=f"one of {', '.join(SCALES)} (default: tiny)")


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """--seeds."""
    parser.add_argument("--seeds", default="0", metavar="0,1,2", help="default: 0")


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device."""
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def add_store(parser: argparse.ArgumentParser) -> None:
    """--store."""
    parser.add_argument("--store", default=str(STORE), metavar="DIR",
                        help=f"where stages are kept (default: {STORE})")


def add_places(parser: argparse.ArgumentParser) -> None:
    """--data, --weights."""
    parser.add_argument("--data", metavar="DIR", help=f"where prepared data lie (default: {DATA})")
    parser.add_argument("--weights", metavar="DIR", help="where weights lie, before the libraries' own caches")


READERS: dict[str, Callable[[str], Any]] = {  # of options that are text and fields that are not
    "variants": names, "seeds": seeds, "subjects": lambda text: read_subjects(text), "store": Path, "data": Path,
    "weights": Path, "results": Path}


def read_subjects(text: str) -> Any:
    """"1,2" -> (1, 2), "all" -> "all". Raises BenchError for anything else."""
    parts = text.split(",")
    if text != "all" and not all(part.strip().isdecimal() for part in parts):
        raise BenchError(f"--subjects {text}: all, or numbers of subjects, separated by commas, are expected")
    return text if text == "all" else tuple(map(int, parts))


def request_of(options: argparse.Namespace) -> Request:
    """The request that a command's options make; what they do not say keeps its default."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    for engine in ENGINES:
        if given.get(engine) and given["on"] != engine:
            raise BenchError(f"--{engine} {given[engine][0]} is for --on {engine}")
    known = {field.name for field in fields(Request)}
    made = {name: READERS.get(name, lambda value: value)(value) for name, value in given.items() if name in known
            and value != ""}
    if "on" in given:
        made |= {"engine": given["on"], "engine_settings": tuple(given.get(given["on"], ()))}
    return Request(**made)
