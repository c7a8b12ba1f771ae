"""What the tests of `bench fetch` share: the command in this process, and its refusals."""

from __future__ import annotations

import argparse
import io
from contextlib import contextmanager

import pytest
from rich.console import Console

from bench.commands import fetch
from bench.errors import ENVIRONMENT, BenchError


def run(*arguments):
    """Returns the exit code and the text of `bench fetch` with these arguments."""
    parser = argparse.ArgumentParser()
    fetch.add_options(parser)
    console = Console(file=io.StringIO(), soft_wrap=True)
    code = fetch.main(parser.parse_args(arguments), console)
    return code, console.file.getvalue()


@contextmanager
def refused(match, code=ENVIRONMENT):
    """Expects a BenchError of one line that matches, has this exit code, and tells no secret."""
    with pytest.raises(BenchError, match=match) as error:
        yield
    assert error.value.exit_code == code
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
