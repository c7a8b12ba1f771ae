"""Trackers: what stages say of their progress, to TensorBoard, Weights & Biases or trackio, where that is asked for.

They run in the process that shows the run; workers and what they write know nothing of them.
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
from typing import Any, Protocol

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.graph import Row, shown, stages
from bench.experiment.key import Stage

PROJECT = "eeg2image-bench"


class Run(Protocol):
    """One stage's scalars in a tracker."""

    def log(self, step: int, scalars: dict[str, float]) -> None: ...

    def end(self, failed: bool) -> None: ...


class Tracker:
    """Sends the scalars of stages to a tracker; every stage is a run, named after the first row that needs it.

    A tracker that fails is given up with a warning: no row fails for it.
    """

    def __init__(self, name: str, folder: Path, group: str, rows: Iterable[Row]):
        check(name)
        self._open, self._folder, self._group, self._name = TRACKERS[name], folder / name, group, name
        self._names: dict[Stage, dict[str, Any]] = {}
        for row in rows:
            for stage in stages(shown(row)):
                self._names.setdefault(stage, {"variant": row.variant, "seed": row.seed, "items": row.items,
                                               "kind": stage.kind, "key": stage.key})
        self._runs: dict[Stage, Run] = {}
        self._given_up = False

    def started(self, stage: Stage) -> None:
        """Nothing yet: a stage that says nothing has no run."""

    def advanced(self, stage: Stage, step: int, total: int, scalars: dict[str, float]) -> None:
        def log() -> None:
            if stage not in self._runs:
                self._runs[stage] = self._open(self._folder, self._group, self._names[stage])
            self._runs[stage].log(step, {"done": step / total if total else 0.0, **scalars})

        self._try(log)

    def ended(self, stage: Stage, failed: bool) -> None:
        if stage in self._runs:
            run = self._runs.pop(stage)
            self._try(lambda: run.end(failed))

    def close(self) -> None:
        """Ends what is open, such as after Ctrl-C."""
        for stage in list(self._runs):
            self.ended(stage, True)

    def _try(self, action: Callable[[], None]) -> None:
        if self._given_up:
            return
        try:
            action()
        except Exception as error:  # networks and services of others: nothing of theirs is worth a row
            self._given_up = True
            warnings.warn(f"{self._name} is given up for this run: {type(error).__name__}: {error}", stacklevel=3)


def check(name: str) -> None:
    """Raises BenchError (exit 3) where the tracker's package is absent."""
    if importlib.util.find_spec(name) is None:
        raise BenchError(f'--track {name} needs a package that is not here: pip install "eeg2image-bench[{name}]"',
                         ENVIRONMENT)


def title(about: dict[str, Any]) -> str:
    """"Full/finetune/seed 0", or "Full/generate/seed 0/shuffled"."""
    parts = [about["variant"], about["kind"], f"seed {about['seed']}", about["items"]]
    return "/".join(part.replace("/", "_") for part in parts if part != "real")


class _TensorBoard:
    def __init__(self, folder: Path, group: str, about: dict[str, Any]):
        from tensorboard.summary import Writer

        self._writer = Writer(str(folder / group / title(about)))

    def log(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, failed: bool) -> None:
        self._writer.close()


class _Wandb:
    """Offline unless WANDB_MODE says otherwise; `wandb sync` sends it later."""

    def __init__(self, folder: Path, group: str, about: dict[str, Any]):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), group=group, job_type=about["kind"], name=title(about),
            config=about, dir=os.environ.get("WANDB_DIR", str(folder)), mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True))

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self._run.log(scalars, step=step)

    def end(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Trackio:
    """On this machine's disk unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say otherwise."""

    def __init__(self, folder: Path, group: str, about: dict[str, Any]):
        os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        import trackio

        def begin() -> Any:
            return trackio.init(project=PROJECT, name=f"{group}/{title(about)}", group=group, config=about,
                                embed=False, auto_log_gpu=False, auto_log_cpu=False)

        with redirect_stdout(StringIO()):
            self._run = copy_context().run(begin)  # in a context of its own, or it would end the run before it

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self._run.log(scalars, step=step)

    def end(self, failed: bool) -> None:
        with redirect_stdout(StringIO()):
            self._run.finish()


TRACKERS: dict[str, Callable[[Path, str, dict[str, Any]], Run]] = {
    "tensorboard": _TensorBoard, "wandb": _Wandb, "trackio": _Trackio}
