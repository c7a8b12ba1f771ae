"""The price of a plan: FLOPs counted on the meta device (no weights, data or GPU), GPU-hours, memory, disk, energy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from bench.cost.counting import part_parameters
from bench.cost.flops import flops, naive
from bench.cost.memory import disk, memory
from bench.cost.networks import NETWORKS
from bench.cost.rates import EXA, GIGA, OTHERS, PIXEL_METRICS, Rate, current, hours, rate
from bench.cost.schedule import simulate
from bench.cost.sizes import count_trials, samples_of, size_of
from bench.errors import BenchError
from bench.experiment.graph import Row, needs, stages
from bench.experiment.key import Stage
from bench.experiment.kinds import frozen_parts, kind_of
from bench.experiment.scale import Scale
from bench.experiment.stages import Score, Trials, Weights
from bench.modules import import_object
from bench.runtime import GPUS, Gpu, ignore

NOT_COUNTED = ("elementwise operations, norms, optimisers and input", "losses on held-out windows", "readouts",
               "captions' text tower", "metrics on features")


@dataclass(frozen=True)
class KindPrice:
    """The stages of one kind. uses: summed over rows; distinct: stages; stored: of those.

    flops, hours (of a GPU) and disk (bytes) are of what is not stored. memory: bytes at the peak of the stage that fits
    worst, at `micro` of `batch` samples; 0 where a GPU is hardly used.
    """

    kind: str
    uses: int
    distinct: int
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
    """One row. alone: FLOPs of all its stages; added: of those that no row above has and that are not stored."""

    variant: str
    seed: int
    alone: int
    added: int
    hours: float  # GPU-hours of `added`
    naive: int | None  # None: the released code has no such row
    naive_hours: float


@dataclass(frozen=True)
class Priced:
    """The price of a plan. controls: the stages that only the rows beside the table need.

    wall: hours until all is built on `gpus` GPUs (`schedule.simulate`). longest: GPU-hours of the longest chain of
    stages, which more GPUs do not shorten unless a stage uses several.
    """

    scale: str
    gpu: Gpu
    gpus: int
    kinds: tuple[KindPrice, ...]
    rows: tuple[RowPrice, ...]
    controls: KindPrice
    weights: int
    wall: float
    longest: float
    exact: bool
    uncounted: tuple[str, ...]
    cpu_hours: float  # of one core, for the pixel metrics of scores that are not stored

    @property
    def flops(self) -> int:
        """FLOPs of the rows' stages that are not stored."""
        return sum(line.flops for line in self.kinds)

    @property
    def hours(self) -> float:
        """GPU-hours of the rows' stages that are not stored."""
        return sum(line.hours for line in self.kinds)

    @property
    def total_hours(self) -> float:
        """GPU-hours of the rows and the controls."""
        return self.hours + self.controls.hours

    @property
    def disk(self) -> int:
        """Bytes of the rows' stages that are not stored, and of the frozen parts."""
        return sum(line.disk for line in self.kinds) + self.weights

    @property
    def unshared(self) -> int:
        """FLOPs if every row built all its stages itself."""
        return sum(row.alone for row in self.rows)

    @property
    def naive(self) -> int:
        """FLOPs of the rows in the released code."""
        return sum(row.naive or 0 for row in self.rows)

    @property
    def naive_hours(self) -> float:
        """GPU-hours of the rows in the released code, at the same rates."""
        return sum(row.naive_hours for row in self.rows)

    def energy(self, gpu_hours: float) -> float:
        """kWh at the board's full power, without host and cooling."""
        return gpu_hours * self.gpu.watts / 1000

    def render(self) -> str:
        """The price as text: by kind of stage, by row, in total, and compared with a naive plan."""
        gpu, controls = self.gpu, self.controls
        compared = all(row.naive is not None for row in self.rows)
        total, total_hours = self.flops + controls.flops, self.total_hours
        lines = [
            f"price at scale {self.scale} on {self.gpus} x {gpu.name}: {gpu.tflops:g} TFLOP/s dense bfloat16, "
            f"{gpu.gigabytes:g} GB, {gpu.watts:g} W ({gpu.source})", "",
            *_align(self._kind_cells()), "", *_align(self._row_cells(compared)), "",
            f"total: {_exa(total)} EFLOP, {total_hours:.1f} GPU-hours, {self.energy(total_hours):.0f} kWh, "
            f"{(self.disk + controls.disk) / GIGA:.0f} GB on disk ({self.weights / GIGA:.1f} GB of them frozen parts); "
            f"{self.wall:.1f} hours on {self.gpus} GPU{'s' * (self.gpus != 1)}, one stage on each (longest chain of "
            f"stages: {self.longest:.1f} hours)"]
        if self.flops:
            released = (f"; released code, nothing shared or stored: {_exa(self.naive)} "
                        f"({self.naive / self.flops:.2f} times as many, {self.naive_hours - self.hours:.1f} GPU-hours "
                        "more at the same rates)") if compared else ""
            lines.append(f"rows: {_exa(self.flops)} EFLOP; without sharing: {_exa(self.unshared)}{released}")
        rates = current()
        return "\n".join([
            *lines,
            f"rate: {rates.matmul.share:.0%} of the peak ({rates.matmul.source}) for large matrix products, times the "
            "stage's share" + ("" if rates.are_measured else
                               "; a goal is a share that the suite should reach (pretrain: with batches of 1,024); "
                               + ("the other rates were measured by bench selftest" if
                                  rates.matmul.source == "measured" else "no rate was measured on a GPU")),
            "FLOPs: counted on the meta device, 2 for a multiply-add; not counted: " + ", ".join(self.uncounted),
            f"CPU: {self.cpu_hours:.2f} hours of one core for SSIM, PSNR and PixCorr of the rows' and controls' scores "
            "(measured at 512 pixels), not in the GPU-hours; a GPU waits for it",
            "energy: board power times GPU-hours, without host and cooling; memory and micro-batch: estimates",
            "items: " + ("counted in the prepared data" if self.exact else "as published; the data are not prepared")])

    def _kind_cells(self) -> list[list[str]]:
        cells = [["stage", "uses", "distinct", "stored", "EFLOP", "share of rate", "GPU-hours", "kWh", "peak GB",
                  "micro-batch", "disk GB"]]
        for line in self.kinds:
            work = [_exa(line.flops), f"{line.rate.share:.0%} ({line.rate.source})", f"{line.hours:.2f}",
                    f"{self.energy(line.hours):.1f}"] if line.flops else ["-"] * 4
            fits = [f"{line.memory / GIGA:.1f}", f"{line.micro} of {line.batch}" if line.micro else "does not fit"] \
                if line.memory else ["-", "-"]
            cells.append([line.kind, str(line.uses), str(line.distinct), str(line.stored), *work, *fits,
                          f"{line.disk / GIGA:.1f}" if line.disk else "-"])
        cells.append(["rows", "", "", "", _exa(self.flops), "", f"{self.hours:.2f}", f"{self.energy(self.hours):.1f}",
                      "", "", f"{(self.disk - self.weights) / GIGA:.1f}"])
        line = self.controls
        return [*cells, ["controls", str(line.uses), str(line.distinct), str(line.stored), _exa(line.flops), "",
                         f"{line.hours:.2f}", f"{self.energy(line.hours):.1f}", "", "", f"{line.disk / GIGA:.1f}"]]

    def _row_cells(self, compared: bool) -> list[list[str]]:
        cells = [["row", "seed", "EFLOP alone", "EFLOP added", "GPU-hours added", "kWh added", "naive EFLOP",
                  "naive GPU-hours"]]
        total = RowPrice("total", 0, self.unshared, self.flops, self.hours, self.naive if compared else None,
                         self.naive_hours)
        cells += [[row.variant, str(row.seed), _exa(row.alone), _exa(row.added), f"{row.hours:.2f}",
                   f"{self.energy(row.hours):.1f}",
                   *(["-", "-"] if row.naive is None else [_exa(row.naive), f"{row.naive_hours:.2f}"])]
                  for row in (*self.rows, total)]
        cells[-1][1] = ""
        return cells


def _exa(total: int) -> str:
    value = total / EXA
    return f"{value:.2f}" if value >= 0.1 or not total else f"{value:.4f}"


def _align(cells: list[list[str]]) -> list[str]:
    """The lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.rjust(width) if column else cell.ljust(width)
                      for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in cells]


def price(table: Iterable[Row], scale: Scale, gpu: str, gpus: int = 1,
          stored: Callable[[Stage], bool] = lambda stage: False,
          progress: Callable[[int, int, str], None] = ignore) -> Priced:
    """The price of a table's rows on GPUs of a kind in GPUS, without what is stored.

    progress(number, total, kind): called before the FLOPs of each stage are counted.

    Raises BenchError for an unknown GPU, for another dtype than bfloat16, and as `flops`.
    """
    if gpu not in GPUS:
        raise BenchError(f"unknown GPU {gpu!r}; there are: {', '.join(GPUS)}")
    if gpus < 1:
        raise BenchError(f"{gpus} GPUs: expected 1 or more")
    if scale.numerics.dtype != "bfloat16":
        raise BenchError(f"scale {scale.name} has no price in {scale.numerics.dtype}; GPUs are priced for bfloat16")
    table, chosen = list(table), GPUS[gpu]
    rows = [row for row in table if not row.beside]
    every, of_rows = stages(row.stage for row in table), stages(row.stage for row in rows)
    left = set(stages((row.stage for row in table), stored))
    cost, released = {}, {}
    for number, stage in enumerate(every, 1):
        progress(number, len(every), stage.kind)
        cost[stage] = flops(stage)
        released[stage] = 0 if kind_of(stage).cost else naive(stage)
    uses = Counter(stage.kind for row in rows for stage in stages([row.stage]))
    grouped: dict[str, list[Stage]] = {}
    for stage in of_rows:
        grouped.setdefault(stage.kind, []).append(stage)
    extra = [stage for stage in every if stage not in set(of_rows)]
    priced, seen = [], set[Stage]()
    for row in rows:
        needed = stages([row.stage])
        new = [stage for stage in needed if stage in left and stage not in seen]
        seen.update(new)
        others = any(kind_of(stage).cost for stage in needed)  # stages of a system that the released code lacks
        simple = {} if others else {stage: released[stage] for stage in needed}
        priced.append(RowPrice(row.variant, row.seed, sum(cost[stage] for stage in needed),
                               sum(cost[stage] for stage in new),
                               sum(hours(stage, cost[stage], chosen) for stage in new),
                               None if others else sum(simple.values()),
                               sum(hours(stage, n, chosen) for stage, n in simple.items())))
    networks = {network.name for stage in every if isinstance(stage, Score) for network in stage.networks}
    omitted = dict.fromkeys(omits for stage in every if (omits := kind_of(stage).omits))
    return Priced(scale.name, chosen, gpus,
                  tuple(_price_kind(name, uses[name], group, left, cost, chosen) for name, group in grouped.items()),
                  tuple(priced), _price_kind("controls", len(extra), extra, left, cost, chosen), _weights_bytes(every),
                  simulate({stage: hours(stage, cost[stage], chosen) for stage in every if stage in left}, gpus),
                  _longest_chain(every, left, cost, chosen),
                  all(size_of(stage).exact for stage in every if isinstance(stage, Trials)),
                  (*NOT_COUNTED, *omitted, *sorted(networks - set(NETWORKS))), _scoring_hours(left))


def _scoring_hours(left: Iterable[Stage]) -> float:
    """CPU-hours of the pixel metrics of the scores among the stages."""
    return sum(count_trials(stage.items) * samples_of(stage.pictures) for stage in left
               if isinstance(stage, Score)) * PIXEL_METRICS / 3600


def _weights_bytes(every: Iterable[Stage]) -> int:
    """Bytes of the frozen parts: Stable Diffusion's, CLIP and the judge, and what these stages need in addition."""
    used = {value.name for stage in every for field in fields(stage)  # type: ignore[arg-type]
            if isinstance(value := getattr(stage, field.name), Weights)}
    total = 4 * sum(map(part_parameters, ("stable_diffusion_unet", "stable_diffusion_vae", "clip", "judge")))
    return total + sum(import_object(part.size)() for name, part in frozen_parts().items()
                       if name in used and part.size)


def _price_kind(name: str, uses: int, group: list[Stage], left: set[Stage], cost: dict[Stage, int],
                gpu: Gpu) -> KindPrice:
    todo = [stage for stage in group if stage in left]
    needed = [known for stage in todo if (known := memory(stage))] if name != "controls" else []
    worst = min(needed, key=lambda known: (known.micro(gpu) / known.batch, -known.peak(gpu)), default=None)
    return KindPrice(name, uses, len(group), len(group) - len(todo), sum(cost[stage] for stage in todo),
                     sum(hours(stage, cost[stage], gpu) for stage in todo), sum(map(disk, todo)),
                     rate(group[0]) if group else OTHERS,
                     *((worst.peak(gpu), worst.micro(gpu), worst.batch) if worst else ()))


def _longest_chain(every: list[Stage], left: set[Stage], cost: dict[Stage, int], gpu: Gpu) -> float:
    """GPU-hours of the longest chain; `every` has upstream stages first."""
    done: dict[Stage, float] = {}
    for stage in every:
        alone = hours(stage, cost[stage], gpu) if stage in left else 0.0
        done[stage] = alone + max((done[above] for above in needs(stage)), default=0.0)
    return max(done.values(), default=0.0)
