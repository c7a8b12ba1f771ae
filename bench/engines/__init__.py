"""Where stages are built other than by this machine's own workers, one file for each engine."""

from __future__ import annotations

import argparse

from bench.errors import BenchError
from bench.executor import Executor
from bench.store import Store

ENGINES = ("slurm", "ray")


def add_options(parser: argparse.ArgumentParser) -> None:
    """--on, --wait, --slurm, --ray."""
    parser.add_argument("--on", choices=("here", *ENGINES), default="here",
                        help="where stages are built (default: here; docs/clusters.md)")
    parser.add_argument("--wait", action="store_true", help="on slurm: stay until all jobs have ended")
    for engine in ENGINES:
        parser.add_argument(f"--{engine}", action="append", default=[], metavar="FILE.toml|KEY=VALUE",
                            help=f"what is asked of {engine.capitalize()}, such as gpus=1 or score.gpus=0")


def chosen(options: argparse.Namespace, store: Store) -> Executor | None:
    """The engine that the options ask for; None: this machine's own workers. Raises BenchError for what it is asked and
    does not know, and (exit 3) where it is not to be had."""
    for engine in ENGINES:
        if getattr(options, engine) and options.on != engine:
            raise BenchError(f"--{engine} {getattr(options, engine)[0]} is for --on {engine}")
    if options.on == "slurm":
        from bench.engines.slurm import Slurm

        return Slurm(store, options.slurm, options.wait)
    if options.on == "ray":
        from bench.engines.ray import Ray

        return Ray(store, options.ray)
    return None


def found(engine: str) -> str:
    """What `bench doctor` says of an engine that is there. Raises BenchError (exit 3) where it is not."""
    if engine == "slurm":
        from bench.engines import slurm

        return slurm.found()
    from bench.engines import ray

    return f"ray {ray.imported().__version__}"
