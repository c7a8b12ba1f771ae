# PYTHON_ARGCOMPLETE_OK
"""`python -m bench` and the command `bench`: the command line, unless another package has replaced its files."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs the command line and returns its exit code; 3 if bench/__init__.py or bench/cli.py is another package's."""
    from bench import errors, modules

    try:
        from bench.cli import COMMANDS  # noqa: F401  (another package's cli.py has no such table)
        from bench.cli import main as run
    except ImportError as error:
        line = modules.describe_replacement("bench/cli.py", errors.one_line(error))
    else:
        if modules.is_complete():
            return run()
        line = modules.describe_replacement("bench/__init__.py", "it lacks this project's names")
    print(f"bench: {line}", file=sys.stderr)
    return errors.ENVIRONMENT


if __name__ == "__main__":
    sys.exit(main())
