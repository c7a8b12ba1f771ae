"""The errors that users read, and the exit codes of the command line."""

from __future__ import annotations

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
