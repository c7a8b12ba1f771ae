"""What the command lines share: a parser that says what is wrong in one line, and lists separated by commas."""

from __future__ import annotations

import argparse
from typing import NoReturn

from bench.errors import BenchError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise BenchError(f"{message} (see: {self.prog} --help)")


def seeds(text: str) -> tuple[int, ...]:
    """"0,1,2" -> (0, 1, 2). Raises BenchError for what is no whole number from 0 on."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise BenchError(f"--seeds {text}: whole numbers from 0 on, separated by commas, are expected")
    return tuple(int(part) for part in parts)


def names(text: str) -> tuple[str, ...]:
    """"a, b" -> ("a", "b")."""
    return tuple(name.strip() for name in text.split(",")) if text else ()
