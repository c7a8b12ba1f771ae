"""Trackers: send the progress of stages to TensorBoard, Weights & Biases or trackio.

They run in the process that shows the run; workers and the store do not know them.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from contextvars import copy_context
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.graph import Row, report_stages, stages
from bench.experiment.key import Stage

if TYPE_CHECKING:
    import pandas as pd

PROJECT = "eeg2image-bench"
Labels = dict[str, Any]  # of a stage: variant, seed, items, kind, key
Run = tuple[Callable[[int, dict[str, float]], None], Callable[[bool], None]]  # log(step, scalars), end(failed)
RESULT = "results"  # the run that holds the final table and the images


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

    def publish(self, table: pd.DataFrame, images: Mapping[str, bytes]) -> None:
        """Sends the final table, and images as PNG files by their titles, to a run named RESULT."""
        self._try(lambda: PUBLISH[self._name](self._folder, self._group, table, images))

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


def _start_wandb(folder: Path, group: str, name: str, kind: str, labels: Labels) -> Any:
    """Starts a run, offline unless WANDB_MODE is set; `wandb sync` uploads the files later."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT), group=group, job_type=kind, name=name, config=labels,
        dir=os.environ.get("WANDB_DIR", str(folder)), mode=os.environ.get("WANDB_MODE", "offline"),
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True))


def _open_wandb(folder: Path, group: str, labels: Labels) -> Run:
    run = _start_wandb(folder, group, title(labels), labels["kind"], labels)
    return lambda step, scalars: run.log(scalars, step=step), lambda failed: run.finish(exit_code=int(failed))


def _start_trackio(folder: Path, name: str, group: str, labels: Labels) -> Any:
    """Starts a run, on this machine's disk unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL is set."""
    os.environ.setdefault("TRACKIO_DIR", str(folder.absolute()))
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import trackio

    with redirect_stdout(StringIO()):
        return copy_context().run(  # in its own context, or it would end the previous run
            trackio.init, project=PROJECT, name=name, group=group, config=labels, embed=False,
            auto_log_gpu=False, auto_log_cpu=False)


def _open_trackio(folder: Path, group: str, labels: Labels) -> Run:
    run = _start_trackio(folder, f"{group}/{title(labels)}", group, labels)

    def end(failed: bool) -> None:
        with redirect_stdout(StringIO()):
            run.finish()

    return lambda step, scalars: run.log(scalars, step=step), end


TRACKERS: dict[str, Callable[[Path, str, Labels], Run]] = {
    "tensorboard": _open_tensorboard, "wandb": _open_wandb, "trackio": _open_trackio}


def _publish_tensorboard(folder: Path, group: str, table: pd.DataFrame, images: Mapping[str, bytes]) -> None:
    """Logs the table as Markdown text, and the images as PNG files."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.plugins.text.metadata import create_summary_metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    lines = [list(map(str, table)), ["--"] * len(table.columns),
             *table.astype(str).itertuples(index=False, name=None)]
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    values = [Summary.Value(tag="table", metadata=create_summary_metadata("table", ""), tensor=TensorProto(
        dtype="DT_STRING", string_val=[text.encode()]))]
    for name, data in images.items():
        width, height = (int.from_bytes(data[start:start + 4], "big") for start in (16, 20))  # of a PNG's header
        values.append(Summary.Value(tag=name, image=Summary.Image(
            width=width, height=height, colorspace=3, encoded_image_string=data)))
    writer = EventFileWriter(str(folder / group / RESULT))
    writer.add_event(Event(step=0, summary=Summary(value=values)))
    writer.close()


def _publish_wandb(folder: Path, group: str, table: pd.DataFrame, images: Mapping[str, bytes]) -> None:
    import wandb
    from PIL import Image

    run = _start_wandb(folder, group, RESULT, "results", {})
    run.log({"table": wandb.Table(dataframe=table.astype(str))}
            | {name: wandb.Image(Image.open(BytesIO(data))) for name, data in images.items()})
    run.finish()


def _publish_trackio(folder: Path, group: str, table: pd.DataFrame, images: Mapping[str, bytes]) -> None:
    run = _start_trackio(folder, f"{group}/{RESULT}", group, {})
    import trackio
    from PIL import Image

    with redirect_stdout(StringIO()):
        run.log({"table": trackio.Table(dataframe=table.astype(str))}
                | {name: trackio.Image(Image.open(BytesIO(data))) for name, data in images.items()})
        run.finish()


PUBLISH: dict[str, Callable[[Path, str, pd.DataFrame, Mapping[str, bytes]], None]] = {
    "tensorboard": _publish_tensorboard, "wandb": _publish_wandb, "trackio": _publish_trackio}
