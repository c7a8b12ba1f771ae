"""One training on several processes: each takes its share of every batch, and gradients are averaged.

Every process draws the same batches, noise and masks; the state that trains is the same in all of them. The first one
alone writes.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

import torch
from torch import Tensor, distributed

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.key import Stage, upstream
from bench.experiment.stages import Finetune, Numerics, Pretrain
from bench.runtime import Runtime, Stopped, keeps, silent, stop, stopping, unheard

TIMEOUT = timedelta(hours=1)  # that processes wait for one another: the first one also evaluates and writes

Function = Callable[[Stage, Callable[[Stage], Path], Path, Runtime], None]


def size() -> int:
    """How many processes share this training."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0 on."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def share(batch: int, numerics: Numerics) -> slice:
    """This process's rows of a batch. Raises BenchError where the stage asks for other processes than there are."""
    if numerics.world_size != size():
        raise BenchError(f"the stage asks for {numerics.world_size} processes and runs in {size()}: start it with "
                         "bench.train.parallel.launch")
    rows = batch // size()
    return slice(rank() * rows, (rank() + 1) * rows)


def average(tensors: list[Tensor]) -> None:
    """Puts the mean over all processes in the place of each tensor, all of one dtype."""
    if size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def agreed(value: object) -> object:
    """What the first process says, in all of them."""
    if size() == 1:
        return value
    said = [value]
    distributed.broadcast_object_list(said)
    return said[0]


def gathered(value: object) -> list[object]:
    """What every process says, in all of them."""
    if size() == 1:
        return [value]
    said: list[object] = [None] * size()
    distributed.all_gather_object(said, value)
    return said


@dataclass(frozen=True)
class Task:
    """What a process is told: which of `size` it is, and what to run."""

    rank: int
    size: int
    folder: str  # of the rendezvous
    function: Function
    stage: Stage
    inputs: dict[Stage, Path]
    out: Path
    runtime: Runtime


def launch(function: Function, stage: Stage, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """function(stage, inputs, out, runtime): here, or, for a training whose Numerics ask for N, in N processes.

    On CUDA each has a GPU of its own. `runtime` hears the first one. Raises BenchError where the batch is no
    multiple of N or the GPUs are fewer, and what a process raised; the others are then stopped.
    """
    if not isinstance(stage, (Pretrain, Finetune)) or stage.numerics.world_size == 1:
        function(stage, inputs, out, runtime)
        return
    number, batch, device = stage.numerics.world_size, stage.schedule.batch, torch.device(runtime.device)
    if number < 1 or batch % number:
        raise BenchError(f"a batch of {batch} cannot be shared evenly by {number} processes: choose a number that "
                         f"divides {batch}")
    if device.type == "cuda" and torch.cuda.device_count() < number:
        raise BenchError(f"{number} processes need a GPU each, and {torch.cuda.device_count()} are there: ask for "
                         "fewer", ENVIRONMENT)
    if device.type == "cuda":  # what this process still holds would be missing there
        gc.collect()
        torch.cuda.empty_cache()
    paths = {above: inputs(above).absolute() for above in upstream(stage)}
    processes: dict[Connection, subprocess.Popen] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number_of in range(number):
                place = f"cuda:{number_of}" if device.type == "cuda" else runtime.device
                quiet = replace(runtime, device=place, progress=silent, note=unheard)
                ours, theirs = Pipe()
                processes[ours] = _start(theirs)
                theirs.close()
                ours.send(Task(number_of, number, folder, function, stage, paths, out.absolute(), quiet))
            keeps(runtime.work is not None)
            _listen(stage, processes, runtime)
        finally:
            for connection, process in processes.items():
                connection.close()  # a process that still runs ends itself when it finds that
                if process.poll() is None:
                    process.kill()
                process.wait()


def _start(connection: Connection) -> subprocess.Popen:
    """A new process at the other end of a connection. No multiprocessing: a daemonic worker may have no children."""
    code = (f"import sys; sys.path[:] = {sys.path!r}; from bench.train import parallel; "
            f"parallel._take_part({connection.fileno()})")
    return subprocess.Popen([sys.executable, "-P", "-c", code], pass_fds=[connection.fileno()],
                            stdin=subprocess.DEVNULL)


def _listen(stage: Stage, processes: dict[Connection, subprocess.Popen], runtime: Runtime) -> None:
    """Hands on what the processes say until all are done, and to them that they shall stop."""
    order, left, told = list(processes), set(processes), False
    while left:
        if stopping() and not told:
            told = True
            for connection in processes:
                with suppress(OSError):  # it has just ended
                    connection.send("stop")
        for connection in wait(list(left), 0.5):
            assert isinstance(connection, Connection)
            try:
                said = connection.recv()
            except (EOFError, OSError):
                code = processes[connection].wait()
                cause = f"signal {-code}; out of memory?" if code < 0 else f"exit code {code}"
                raise BenchError(f"{stage.kind}: process {order.index(connection)} of {len(order)} died "
                                 f"({cause})") from None
            if isinstance(said, BaseException):
                raise said
            if said is None:
                left.discard(connection)
            else:
                what, given, values = said
                (runtime.progress if what == "progress" else runtime.note)(*given, **values)


def _take_part(descriptor: int) -> None:
    """The life of one of the processes."""
    for number in (signal.SIGTERM, signal.SIGUSR2):  # meant for whoever launched this, whose end is its end
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(descriptor)
    task: Task = connection.recv()

    def watch() -> None:
        try:
            connection.recv()
            with suppress(Stopped):
                stop()
            connection.recv()
        except (EOFError, OSError):
            os._exit(1)  # whoever launched this is gone

    threading.Thread(target=watch, daemon=True).start()

    def progress(*given: int, **scalars: float) -> None:
        if task.rank == 0:
            connection.send(("progress", given, scalars))

    def note(*given: str, **values: float) -> None:
        if task.rank == 0:
            connection.send(("note", given, values))

    try:
        _join(task)
        task.function(task.stage, task.inputs.__getitem__, task.out,
                      replace(task.runtime, progress=progress, note=note))
        distributed.barrier()
        distributed.destroy_process_group()
        connection.send(None)
    except (BenchError, Stopped) as error:
        connection.send(error)
    except Exception as error:  # whatever it was, the others are told, who would wait for this one
        traceback.print_exc()
        connection.send(BenchError(f"{task.stage.kind}: process {task.rank} of {task.size}: "
                                   f"{type(error).__name__}: {error}"))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # past whatever threads the libraries hold


def _join(task: Task) -> None:
    device = torch.device(task.runtime.device)
    torch.set_num_threads(task.stage.numerics.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo",
                                   init_method=f"file://{task.folder}/rendezvous", rank=task.rank,
                                   world_size=task.size, timeout=TIMEOUT)
