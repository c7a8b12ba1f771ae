"""Trackers: send the progress of stages to TensorBoard, Weights & Biases or trackio.

They run in the process that shows the run; workers and the store do not know them.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from contextvars import copy_context
from io import StringIO
from pathlib import Path
from typing import Any

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.graph import Row, report_stages, stages
from bench.experiment.key import Stage

PROJECT = "eeg2image-bench"
Labels = dict[str, Any]  # of a stage: variant, seed, items, kind, key
Run = tuple[Callable[[int, dict[str, float]], None], Callable[[bool], None]]  # log(step, scalars), end(failed)


class Tracker:
    """A Watcher that sends the scalars of stages to a tracker. Each stage is a run, named after the first row that
    needs it. A tracker that fails is switched off with a warning, so that no row fails."""

    def __init__(self, name: str, folder: Path, group: str, rows: Iterable[Row]):
        check(name)
        self._open, self._folder, self._group, self._name = TRACKERS[name], folder / name, group, name
        self._labels: dict[Stage, Labels] = {}
        for row in rows:
            for stage in stages(report_stages(row)):
                self._labels.setdefault(stage, {"variant": row.variant, "seed": row.seed, "items": row.items,
                                                "kind": stage.kind, "key": stage.key})
        self._runs: dict[Stage, Run] = {}
        self._is_off = False

    def advanced(self, stage: Stage, step: int, total: int, scalars: dict[str, float]) -> None:
        """Logs a step's scalars, and the share of the steps that are done."""
        def log() -> None:
            if stage not in self._runs:
                self._runs[stage] = self._open(self._folder, self._group, self._labels[stage])
            self._runs[stage][0](step, {"done": step / total if total else 0.0, **scalars})

        self._try(log)

    def ended(self, stage: Stage, failed: bool) -> None:
        """Ends the run of a stage."""
        if stage in self._runs:
            _, end = self._runs.pop(stage)
            self._try(lambda: end(failed))

    def close(self) -> None:
        """Ends the open runs, such as after Ctrl-C."""
        for stage in list(self._runs):
            self.ended(stage, True)

    def _try(self, action: Callable[[], None]) -> None:
        if self._is_off:
            return
        try:
            action()
        except Exception as error:  # whatever happens in a library or on a network
            self._is_off = True
            warnings.warn(f"{self._name} failed and is switched off for this run: {type(error).__name__}: {error}",
                          stacklevel=3)


def check(name: str) -> None:
    """Raises BenchError (exit 3) if the tracker's package is missing."""
    if importlib.util.find_spec(name) is None:
        raise BenchError(f'--track {name} needs a package that is not installed: pip install "eeg2image-bench[{name}]"',
                         ENVIRONMENT)


def title(labels: Labels) -> str:
    """"Full/finetune/seed 0", or "Full/generate/seed 0/shuffled"."""
    parts = [labels["variant"], labels["kind"], f"seed {labels['seed']}", labels["items"]]
    return "/".join(part.replace("/", "_") for part in parts if part != "real")


def _open_tensorboard(folder: Path, group: str, labels: Labels) -> Run:
    from tensorboard.summary import Writer

    writer = Writer(str(folder / group / title(labels)))

    def log(step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log, lambda failed: writer.close()


def _open_wandb(folder: Path, group: str, labels: Labels) -> Run:
    """Offline unless WANDB_MODE is set; `wandb sync` uploads the files later."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT), group=group, job_type=labels["kind"], name=title(labels),
        config=labels, dir=os.environ.get("WANDB_DIR", str(folder)), mode=os.environ.get("WANDB_MODE", "offline"),
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True))
    return lambda step, scalars: run.log(scalars, step=step), lambda failed: run.finish(exit_code=int(failed))


def _open_trackio(folder: Path, group: str, labels: Labels) -> Run:
    """On this machine's disk unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL is set."""
    os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import trackio

    with redirect_stdout(StringIO()):
        run = copy_context().run(  # in its own context, or it would end the previous run
            trackio.init, project=PROJECT, name=f"{group}/{title(labels)}", group=group, config=labels, embed=False,
            auto_log_gpu=False, auto_log_cpu=False)

    def end(failed: bool) -> None:
        with redirect_stdout(StringIO()):
            run.finish()

    return lambda step, scalars: run.log(scalars, step=step), end


TRACKERS: dict[str, Callable[[Path, str, Labels], Run]] = {
    "tensorboard": _open_tensorboard, "wandb": _open_wandb, "trackio": _open_trackio}
