"""Shared by all command lines: a parser with one-line errors, its help texts, and lists separated by commas."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from bench.errors import BenchError


class Help(argparse.RawDescriptionHelpFormatter):
    """Help that states the default of each option once, after its text."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        has_default = action.option_strings and action.default not in (None, False, "", [], argparse.SUPPRESS)
        return f"{text} (default: %(default)s)" if has_default and "(default" not in text else text


class Parser(argparse.ArgumentParser):
    """A parser that raises BenchError with one line instead of printing its usage."""

    def __init__(self, **options: Any):
        super().__init__(**{"formatter_class": Help} | options)

    def error(self, message: str) -> NoReturn:
        raise BenchError(f"{message} (see: {self.prog} --help)")


def seeds(text: str) -> tuple[int, ...]:
    """"0,1,2" -> (0, 1, 2). Raises BenchError if a part is not a whole number from 0 on, of at most 20 digits."""
    parts = names(text) or ("",)
    if not all(part.isascii() and part.isdecimal() and len(part) <= 20 for part in parts):
        raise BenchError(f"--seeds {text}: whole numbers from 0 on, separated by commas, are expected")
    return tuple(int(part) for part in parts)


def numbers(text: str, option: str, least: int) -> tuple[int, ...]:
    """"1,5" -> (1, 5). Raises BenchError if a part is not a whole number from `least` on, of at most 9 digits."""
    parts = names(text) or ("",)
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 and int(part) >= least for part in parts):
        raise BenchError(f"{option} {text}: whole numbers from {least} on, separated by commas, are expected")
    return tuple(sorted({int(part) for part in parts}))


def names(text: str) -> tuple[str, ...]:
    """"a, b" -> ("a", "b"); "" -> ()."""
    return tuple(name.strip() for name in text.split(",")) if text else ()
