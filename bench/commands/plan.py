"""`bench plan`: shows what a run would build, what is stored, and what the run would cost on a GPU."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench import errors
from bench.commands.options import add_request_options, complete, request_of
from bench.cost import forecast, rates
from bench.errors import BenchError
from bench.execute.devices import choose_layout
from bench.experiment.stages import World
from bench.runtime import GPUS
from bench.setup.request import PRETRAIN_SEEDS, Request

if TYPE_CHECKING:
    from bench.cost.price import Priced
    from bench.tables.suite import Planned


def add_options(parser: argparse.ArgumentParser) -> None:
    add_request_options(parser)
    cost = parser.add_argument_group("cost")
    help = f"show the cost on this GPU, one of {', '.join(GPUS)}"
    complete(cost.add_argument("--gpu", metavar="NAME", help=help), lambda: GPUS)
    cost.add_argument("--gpus", type=int, metavar="N", help="number of these GPUs (default: 1)")
    cost.add_argument("--rates", metavar="FILE", help="rates measured on this GPU, the file of `bench selftest` "
                      "(default: goals and assumptions)")


def main(options: argparse.Namespace, console: Console) -> int:
    """Prints the plan; returns the exit code."""
    request = request_of(options)
    if options.rates is None:
        return show(request, options.gpu, options.gpus)
    if not options.gpu:
        raise BenchError(f"--rates {options.rates} needs --gpu NAME, the kind of GPU that it was measured on")
    with rates.using(rates.read(Path(options.rates), options.gpu)):
        return show(request, options.gpu, options.gpus)


def show(request: Request, gpu: str | None = None, gpus: int | None = None) -> int:
    """Prints what would be built and what is stored, by kind of stage; with `gpu` also the cost on `gpus` of them."""
    if gpus is not None and not gpu:
        raise BenchError(f"--gpus {gpus} needs --gpu NAME, the kind of GPU")
    from bench.tables import suite  # not at the top: --help and completion need no pandas

    planned = suite.plan(request)
    scale = planned.plan.scale
    print(f"{planned.plan.ablation.name} at scale {scale.name}: {len(planned.plan.variants)} variants, seeds "
          f"{','.join(map(str, request.seeds))}; store {request.store}")
    wide = max(12, *(len(name) + 2 for name, *_ in planned.counts))
    print(f"{'stage':{wide}s}{'rows':>6s}{'controls':>10s}{'stored':>8s}{'to build':>10s}")
    for name, rows, controls, stored in planned.counts:
        print(f"{name:{wide}s}{rows:6d}{controls:10d}{stored:8d}{rows + controls - stored:10d}")
    print(describe_work(request, planned))
    if gpu:
        with Console(stderr=True).status(f"price on {gpu}: counting FLOPs") as status:
            price = planned.price(gpu, 1 if gpus is None else gpus, lambda number, total, kind: status.update(
                f"price on {gpu}: counting FLOPs of stage {number} of {total} ({kind})"))
        print("\n" + price.render())
        if any(line.kind == "pretrain" for line in price.kinds):
            print("\n" + describe_designs(planned, price, gpu))
    return errors.OK


def describe_work(request: Request, planned: Planned) -> str:
    """Describes how many stages a run builds, on which workers or which engine, and on a CPU how long it takes."""
    scale, device = planned.plan.scale, planned.plan.scale.numerics.device_class
    text = f"a run now builds {len(planned.missing)} stages"
    if request.engine != "here":
        return f"{text} on {request.engine}"
    layout = choose_layout(request.workers, device, isinstance(scale.world, World))
    if device == "cuda" and not layout.gpus:
        return f"{text}; it needs a GPU, and the driver shows none on this machine"
    text = f"{text} on {layout.describe()}"
    if layout.gpus or not isinstance(scale.world, World):
        return text
    return f"{text}: {forecast.describe_duration(planned.missing, layout.width)}"


def describe_designs(planned: Planned, price: Priced, gpu: str) -> str:
    """Returns the GPU-hours of the plan with each choice of pretrain_seeds, and what each choice answers."""
    answers = {"each": "verdicts include the spread of pre-training",
               "one": "no verdict about pre-training, mask ratio or size"}
    chosen, lines = planned.plan.scale.pretrain_seeds, []
    for choice in PRETRAIN_SEEDS:
        other = price if choice == chosen else replace(
            planned, plan=planned.plan.with_pretrain_seeds(choice)).price(gpu, price.gpus)
        built = sum(line.distinct - line.stored for line in other.kinds if line.kind == "pretrain")
        lines.append(f"pretrain seeds {choice:4s} {'(chosen)' if choice == chosen else '':8s} {built:3d} pre-trainings "
                     f"to build, {other.total_hours:6.1f} GPU-hours in all; {answers[choice]}")
    return "\n".join([*lines, "choose with --pretrain-seeds"])
