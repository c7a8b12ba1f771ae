"""`bench plan`: what a run would build, what is stored, and what it would cost on a GPU."""

from __future__ import annotations

import argparse

from rich.console import Console

from bench import errors
from bench.commands.options import add_request_options, request_of
from bench.cost import forecast
from bench.errors import BenchError
from bench.execute import runner
from bench.experiment.stages import World
from bench.setup.request import Request
from bench.tables import suite


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of a request, --gpu and --gpus."""
    add_request_options(parser)
    parser.add_argument("--gpu", metavar="NAME", help="what it would cost on an h200, h100, a100 or 4090")
    parser.add_argument("--gpus", type=int, metavar="N", help="on so many (default: 1)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints the plan; returns the exit code."""
    return show(request_of(options), options.gpu, options.gpus)


def show(request: Request, gpu: str | None = None, gpus: int | None = None) -> int:
    """Prints what would be built and what is stored, by kind of stage; gpu: also what it would cost on so many."""
    if gpus is not None and not gpu:
        raise BenchError(f"--gpus {gpus}: of which kind? --gpu NAME says it")
    planned = suite.plan(request)
    at = planned.plan.scale
    print(f"{planned.plan.ablation.name} at scale {at.name}: {len(planned.plan.variants)} variants, seeds "
          f"{','.join(map(str, request.seeds))}; store {request.store}")
    wide = max(12, *(len(name) + 2 for name, *_ in planned.counts))
    print(f"{'stage':{wide}s}{'rows':>6s}{'controls':>10s}{'stored':>8s}{'to build':>10s}")
    for name, own, extra, stored in planned.counts:
        print(f"{name:{wide}s}{own:6d}{extra:10d}{stored:8d}{own + extra - stored:10d}")
    workers = runner.workers(request.workers, at.numerics.device_class)
    known = isinstance(at.world, World)  # only there does the forecast know how long it takes
    print(f"a run now builds {len(planned.missing)} stages"
          + (f": {forecast.said(planned.missing, workers)}" if known else ""))
    if gpu:
        print("\n" + planned.price(gpu, 1 if gpus is None else gpus).render())
    return errors.OK
