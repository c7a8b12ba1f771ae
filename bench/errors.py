"""The errors that users read, the wording of their parts, and the exit codes of the command line."""

from __future__ import annotations

from collections.abc import Iterable

OK, SOME_FAILED, USAGE, ENVIRONMENT, RESUMABLE, INTERRUPTED = 0, 1, 2, 3, 75, 130


class BenchError(Exception):
    """An error with a one-line message: what is wrong, what was expected, what to do. exit_code: the exit code of the
    command line."""

    def __init__(self, message: str, exit_code: int = USAGE):
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), (str(self), self.exit_code)


class NotAvailable(BenchError):
    """A row that a scale's data set cannot have."""


def one_line(error: BaseException) -> str:
    """Returns an exception's message in one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def join_names(names: Iterable[str], most: int = 5) -> str:
    """Joins the first names, and says how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def count_of(count: int, noun: str) -> str:
    """Returns "1 trial" or "2 trials"; an addition to the noun follows " of ": "2 windows of the corpus"."""
    first, *rest = noun.split(" of ", 1)
    return " of ".join([f"{count} {first}{'s' * (count != 1)}", *rest])
