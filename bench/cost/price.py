"""What a plan costs before anything is spent: FLOPs counted on the meta device, GPU-hours, memory, disk, energy.

Counting imports torch, inside functions; it needs no weights, no data and no GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from bench.cost.counting import part_parameters
from bench.cost.flops import flops, naive
from bench.cost.memory import disk, memory
from bench.cost.networks import NETWORKS
from bench.cost.rates import EXA, GIGA, MATMUL, OTHERS, RATES, Rate, hours, rate
from bench.cost.sizes import size_of
from bench.errors import BenchError
from bench.experiment.graph import Row, needs, stages
from bench.experiment.key import Stage
from bench.experiment.kinds import frozen_parts, kind_of
from bench.experiment.scale import Scale
from bench.experiment.stages import Score, Trials, Weights
from bench.modules import import_object
from bench.runtime import GPUS, Gpu

NOT_COUNTED = ("elementwise operations, norms, optimisers and input", "losses on held-out windows", "readouts",
               "captions' text tower", "metrics on features")


@dataclass(frozen=True)
class KindPrice:
    """The stages of one kind. asked: once for every row that uses them; built: distinct ones; stored: of those.

    flops, hours (of a GPU) and disk (bytes) are of what is not stored; memory: bytes at the peak of the largest, at
    the micro-batch `micro` of `batch` samples; 0 where a GPU is hardly used.
    """

    kind: str
    asked: int
    built: int
    stored: int
    flops: int
    hours: float
    disk: int
    rate: Rate
    memory: int = 0
    micro: int = 0
    batch: int = 0


@dataclass(frozen=True)
class RowPrice:
    """One row: FLOPs of all its stages (alone), and of those that no row above has and that are not stored (added)."""

    variant: str
    seed: int
    alone: int
    added: int
    hours: float  # of what is added
    naive: int | None  # None: the released code has no such row
    naive_hours: float


@dataclass(frozen=True)
class Priced:
    """What a plan costs. beside: the stages that only what stands beside the table adds; longest: GPU-hours of the
    longest chain of stages, which no number of GPUs makes shorter unless a stage is spread over several."""

    scale: str
    gpu: Gpu
    gpus: int
    kinds: tuple[KindPrice, ...]
    rows: tuple[RowPrice, ...]
    beside: KindPrice
    weights: int
    longest: float
    exact: bool
    uncounted: tuple[str, ...]

    @property
    def flops(self) -> int:
        """Of the rows' stages that are not stored."""
        return sum(line.flops for line in self.kinds)

    @property
    def hours(self) -> float:
        """GPU-hours of the same."""
        return sum(line.hours for line in self.kinds)

    @property
    def disk(self) -> int:
        """Bytes of the same, and of the frozen parts."""
        return sum(line.disk for line in self.kinds) + self.weights

    @property
    def unshared(self) -> int:
        """FLOPs of the rows if each built all its stages for itself."""
        return sum(row.alone for row in self.rows)

    @property
    def naive(self) -> int:
        """FLOPs of the rows by `naive`, of those that it knows."""
        return sum(row.naive or 0 for row in self.rows)

    @property
    def naive_hours(self) -> float:
        """GPU-hours of the same, at the same rates."""
        return sum(row.naive_hours for row in self.rows)

    def energy(self, gpu_hours: float) -> float:
        """kWh at the full power of the board, without host and cooling."""
        return gpu_hours * self.gpu.watts / 1000

    def render(self) -> str:
        """The price as text: by kind of stage, by row, in total, and beside a naive plan."""
        gpu = self.gpu
        first = [["stage", "asked for", "distinct", "stored", "EFLOP", "share of rate", "GPU-hours", "kWh", "peak GB",
                  "micro-batch", "disk GB"]]
        for line in self.kinds:
            at = line.rate
            work = [_exa(line.flops), f"{at.share:.0%} ({at.source})", f"{line.hours:.2f}",
                    f"{self.energy(line.hours):.1f}"] if line.flops else ["-"] * 4
            fits = [f"{line.memory / GIGA:.1f}", f"{line.micro} of {line.batch}" if line.micro else "does not fit"] \
                if line.memory else ["-", "-"]
            first.append([line.kind, str(line.asked), str(line.built), str(line.stored), *work, *fits,
                          f"{line.disk / GIGA:.1f}" if line.disk else "-"])
        first.append(["rows", "", "", "", _exa(self.flops), "", f"{self.hours:.2f}", f"{self.energy(self.hours):.1f}",
                      "", "", f"{(self.disk - self.weights) / GIGA:.1f}"])
        beside = self.beside
        first.append(["beside", str(beside.asked), str(beside.built), str(beside.stored), _exa(beside.flops), "",
                      f"{beside.hours:.2f}", f"{self.energy(beside.hours):.1f}", "", "", f"{beside.disk / GIGA:.1f}"])
        second = [["row", "seed", "EFLOP alone", "EFLOP added", "GPU-hours added", "kWh added", "naive EFLOP",
                   "naive GPU-hours"]]
        second += [[row.variant, str(row.seed), _exa(row.alone), _exa(row.added), f"{row.hours:.2f}",
                    f"{self.energy(row.hours):.1f}"]
                   + (["-", "-"] if row.naive is None else [_exa(row.naive), f"{row.naive_hours:.2f}"])
                   for row in self.rows]
        compared = all(row.naive is not None for row in self.rows)
        second.append(["total", "", _exa(self.unshared), _exa(self.flops), f"{self.hours:.2f}",
                       f"{self.energy(self.hours):.1f}"]
                      + ([_exa(self.naive), f"{self.naive_hours:.2f}"] if compared else ["-", "-"]))
        wall = max((self.hours + beside.hours) / self.gpus, self.longest)
        lines = [
            f"price at scale {self.scale} on {self.gpus} x {gpu.name}: {gpu.tflops:g} TFLOP/s dense bfloat16, "
            f"{gpu.gigabytes:g} GB, {gpu.watts:g} W ({gpu.source})", "", *_columns(first), "", *_columns(second), "",
            f"in all {_exa(self.flops + beside.flops)} EFLOP, {self.hours + beside.hours:.1f} GPU-hours, "
            f"{self.energy(self.hours + beside.hours):.0f} kWh, {(self.disk + beside.disk) / GIGA:.0f} GB on disk, "
            f"{self.weights / GIGA:.1f} GB of them frozen parts; {wall:.1f} hours on {self.gpus} "
            f"GPU{'s' * (self.gpus != 1)} at best (longest chain of stages: {self.longest:.1f})",
        ]
        if self.flops:
            lines.append(
                f"the rows: {_exa(self.flops)} EFLOP; without sharing {_exa(self.unshared)}" + (
                    f"; as the released code would, nothing shared or stored, {_exa(self.naive)}: "
                    f"{self.naive / self.flops:.2f} times as many, {self.naive_hours - self.hours:.1f} GPU-hours more "
                    "at the same rates" if compared else ""))
        lines += [
            f"rate: {MATMUL.share:.0%} of the peak ({MATMUL.source}) for large matrix products, and a stage's share of "
            "it; a goal is what the suite is to reach (pre-training's: in batches of 1,024), and nothing of this was "
            "measured on a GPU" if not _measured() else
            f"rate: {MATMUL.share:.0%} of the peak ({MATMUL.source}) for large matrix products, and a stage's share",
            "FLOPs are counted on the meta device, 2 for a multiply-add; not counted: " + ", ".join(self.uncounted),
            "energy: board power times GPU-hours, without host and cooling; memory and micro-batch: estimates",
            "items: " + ("counted in the prepared data" if self.exact else "as published; the data are not prepared"),
        ]
        return "\n".join(lines)


def _measured() -> bool:
    return all(rate.source == "measured" for rate in (MATMUL, *RATES.values()))


def _exa(total: int) -> str:
    value = total / EXA
    return f"{value:.2f}" if value >= 0.1 or not total else f"{value:.4f}"


def _columns(cells: list[list[str]]) -> list[str]:
    """Lines of a table, the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) if not column else cell.rjust(width)
                      for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in cells]


def price(table: Iterable[Row], scale: Scale, gpu: str, gpus: int = 1,
          stored: Callable[[Stage], bool] = lambda stage: False) -> Priced:
    """What the rows of a table cost on so many GPUs of a kind of GPUS, less what is stored.

    Raises BenchError for an unknown GPU, for other numbers than bfloat16, and as `flops`.
    """
    if gpu not in GPUS:
        raise BenchError(f"no GPU {gpu!r}; there are: {', '.join(GPUS)}")
    if gpus < 1:
        raise BenchError(f"{gpus} GPUs: expected 1 or more")
    if scale.numerics.dtype != "bfloat16":
        raise BenchError(f"no price for {scale.numerics.dtype} at scale {scale.name}: GPUs are priced for bfloat16")
    table = list(table)
    own = [row for row in table if not row.beside]
    every = stages(row.stage for row in table)
    built = stages(row.stage for row in own)
    left = set(stages((row.stage for row in table), stored))
    cost = {stage: flops(stage) for stage in every}
    chosen = GPUS[gpu]
    asked = Counter(stage.kind for row in own for stage in stages([row.stage]))
    grouped: dict[str, list[Stage]] = {}
    for stage in built:
        grouped.setdefault(stage.kind, []).append(stage)
    lines = tuple(_line(name, asked[name], group, left, cost, chosen) for name, group in grouped.items())
    extra = [stage for stage in every if stage not in set(built)]
    beside = _line("beside", len(extra), extra, left, cost, chosen)
    rows, seen = [], set[Stage]()
    for row in own:
        needed = stages([row.stage])
        new = [stage for stage in needed if stage in left and stage not in seen]
        seen.update(new)
        others = any(kind_of(stage).cost for stage in needed)  # a system's own, which the released code has not
        simple = {} if others else {stage: naive(stage) for stage in needed}
        rows.append(RowPrice(row.variant, row.seed, sum(cost[stage] for stage in needed),
                             sum(cost[stage] for stage in new), sum(hours(stage, cost[stage], chosen) for stage in new),
                             None if others else sum(simple.values()),
                             sum(hours(stage, n, chosen) for stage, n in simple.items())))
    networks = {network.name for stage in every if isinstance(stage, Score) for network in stage.networks}
    also = dict.fromkeys(omits for stage in every if (omits := kind_of(stage).omits))
    return Priced(scale.name, chosen, gpus, lines, tuple(rows), beside, _frozen(every),
                  _longest(every, left, cost, chosen), all(size_of(s).exact for s in every if isinstance(s, Trials)),
                  (*NOT_COUNTED, *also, *sorted(networks - set(NETWORKS))))


def _frozen(every: Iterable[Stage]) -> int:
    """Bytes of the frozen parts: those of Stable Diffusion and the judge, and what else these stages hold."""
    held = {value.name for stage in every for f in fields(stage)  # type: ignore[arg-type]
            if isinstance(value := getattr(stage, f.name), Weights)}
    total = 4 * sum(map(part_parameters, ("stable_diffusion_unet", "stable_diffusion_vae", "clip", "judge")))
    own = [part.size for name, part in frozen_parts().items() if name in held and part.size]
    return total + sum(import_object(size)() for size in own)


def _line(name: str, asked: int, group: list[Stage], left: set[Stage], cost: dict[Stage, int], gpu: Gpu) -> KindPrice:
    todo = [stage for stage in group if stage in left]
    needed = [found for stage in todo if (found := memory(stage))] if name != "beside" else []
    largest = min(needed, key=lambda one: (one.micro(gpu) / one.batch, -one.peak(gpu)), default=None)
    return KindPrice(name, asked, len(group), len(group) - len(todo), sum(cost[stage] for stage in todo),
                     sum(hours(stage, cost[stage], gpu) for stage in todo), sum(map(disk, todo)), rate(group[0]) if group else OTHERS,
                     *((largest.peak(gpu), largest.micro(gpu), largest.batch) if largest else ()))


def _longest(every: list[Stage], left: set[Stage], cost: dict[Stage, int], gpu: Gpu) -> float:
    """GPU-hours of the longest chain; `every` has upstream first."""
    done: dict[Stage, float] = {}
    for stage in every:
        own = hours(stage, cost[stage], gpu) if stage in left else 0.0
        done[stage] = own + max((done[above] for above in needs(stage)), default=0.0)
    return max(done.values(), default=0.0)
