"""The lines of the self-test: for people, as JSON, and as a table beside what `bench plan` says."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

WIDTH = 100
HEADS = ("check", "", "ms", "plan ms", "peak GB", "plan GB", "TFLOP/s", "of matmul")
NOTES = (
    "ms: of a training step or of an image, the median between log lines; plan: what `bench plan` says for this GPU",
    "peak GB: of the GPU's memory; on a CPU of the whole process, which plan GB does not include",
    "of matmul: share of the rate of large matrix products measured above; in brackets the plan's share")


@dataclass
class Line:
    """The outcome of a check. state: "ok", "failed" or "not run"; reason: why it is not ok; values: measured."""

    name: str
    state: str
    values: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0

    def as_json(self, time: str) -> dict[str, Any]:
        """Returns the line's JSON object."""
        return {"check": self.name, "ok": self.state == "ok", "state": self.state, "seconds": round(self.seconds, 2),
                "time": time, **({"reason": self.reason} if self.reason else {}), **self.values}

    def __str__(self) -> str:
        """The line for people: outcome, check, its most important numbers, seconds."""
        text = self.reason or ", ".join(_describe(name, value) for name, value in self.values.items()
                                        if name in SHOWN and value is not None)
        return f"{self.state:8s}{self.name:24s}{self.seconds:6.1f} s  {text}"


SHOWN = {  # values that a line for people has: how they are written
    "name": "{}", "sizes": "{} sizes", "tflops": "{:.4g} TFLOP/s", "tflops_float32": "float32 {:.4g} TFLOP/s",
    "share_of_peak": "{:.0%} of the peak", "parts": "{}", "ms_per_step": "{:.4g} ms", "loss": "loss {:.4g}",
    "share_of_products": "{:.0%} of matmul", "seconds_of_batch": "{:.3g} s a batch", "worst": "at most {:.2g}",
    "launches_per_step": "{:.0f} launches a step", "operators_per_step": "{:.0f} operators a step",
    "waits_per_log_line": "{} waits a log line", "reads_per_log_line": "{} reads a log line",
    "resumed_at_step": "from step {}", "relative_difference": "difference {:.2g}"}


def _describe(name: str, value: Any) -> str:
    if name == "parts" and not isinstance(value, str):
        return f"{value:.0f} parts"
    return SHOWN[name].format(value)


def render(lines: Sequence[Line]) -> str:
    """Returns the table of all checks with its notes and a last line that counts them; at most WIDTH columns."""
    rows = [HEADS, *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    text = ["  ".join(cell.ljust(width) if column < 2 else cell.rjust(width)
                      for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
    for line in lines:
        if line.state == "failed":
            text += textwrap.wrap(f"failed: {line.name}: {line.reason}", WIDTH, subsequent_indent="  ")
    if left := [line.name for line in lines if line.state == "not run"]:
        text += textwrap.wrap(f"not run: {'; '.join(left)}; give it more --minutes", WIDTH, subsequent_indent="  ")
    for note in NOTES:
        text += textwrap.wrap(note, WIDTH, subsequent_indent="  ")
    counts = {state: sum(line.state == state for line in lines) for state in ("ok", "failed", "not run")}
    return "\n".join([*text, ", ".join(f"{count} {state}" for state, count in counts.items())])


def _cells(line: Line) -> tuple[str, ...]:
    values = line.values

    def number(name: str, pattern: str = "{:.4g}", scale: float = 1.0) -> str:
        value = values.get(name)
        return "-" if value is None else pattern.format(value * scale)

    share = number("share_of_products", "{:.0%}")
    if "planned_share" in values:
        share += f" ({values['planned_share']:.0%})"
    return (line.name, line.state, number("ms_per_step"), number("planned_ms_per_step"),
            number("peak_bytes", "{:.3g}", 1e-9), number("planned_bytes", "{:.2g}", 1e-9), number("tflops"), share)
