"""One training in several processes: each computes its share of every batch, and gradients are averaged.

Every process draws the same batches, noise and masks and holds the same trained state. Only the first one writes.
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
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

import torch
from torch import Tensor, distributed

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.key import Stage, upstream
from bench.experiment.stages import Finetune, Numerics, Pretrain
from bench.runtime import Runtime, Stopped, defer_stop, ignore, is_stopping, stop
from bench.train import Inputs

TIMEOUT = timedelta(hours=1)  # for which processes wait for each other: the first one also evaluates and writes

Function = Callable[[Stage, Inputs, Path, Runtime], None]


def size() -> int:
    """The number of processes of this training."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def rows_of_process(batch: int, numerics: Numerics) -> slice:
    """This process's rows of a batch. Raises BenchError if the stage requires another number of processes."""
    if numerics.world_size != size():
        raise BenchError(f"the stage requires {numerics.world_size} processes but runs in {size()}; start it with "
                         "bench.train.parallel.launch")
    rows = batch // size()
    return slice(rank() * rows, (rank() + 1) * rows)


def average(tensors: list[Tensor]) -> None:
    """Replaces each tensor by its mean over all processes; all have one dtype."""
    if size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def broadcast(value: object) -> object:
    """Returns the first process's value in every process."""
    if size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def gather(value: object) -> list[object]:
    """Returns the values of all processes in every process."""
    if size() == 1:
        return [value]
    values: list[object] = [None] * size()
    distributed.all_gather_object(values, value)
    return values


def launch(function: Function, stage: Stage, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Runs function(stage, inputs, out, runtime): in this process, or in N if the Numerics of a training require N.
    On CUDA each process has its own GPU. `runtime` receives the first process's progress. Raises BenchError if the
    batch is not a multiple of N or there are fewer GPUs than N, and the error of a failed process after stopping the
    others."""
    if not isinstance(stage, (Pretrain, Finetune)) or stage.numerics.world_size == 1:
        function(stage, inputs, out, runtime)
        return
    number, batch, device = stage.numerics.world_size, stage.schedule.batch, torch.device(runtime.device)
    if number < 1 or batch % number:
        raise BenchError(f"a batch of {batch} cannot be divided evenly among {number} processes; choose a number that "
                         f"divides {batch}")
    if device.type == "cuda" and torch.cuda.device_count() < number:
        raise BenchError(f"{number} processes need a GPU each, but this machine has {torch.cuda.device_count()}; "
                         "request fewer processes", ENVIRONMENT)
    if device.type == "cuda":  # GPU memory that this process still holds would be missing in the others
        gc.collect()
        torch.cuda.empty_cache()
    paths = {above: inputs(above).absolute() for above in upstream(stage)}
    processes: dict[Connection, subprocess.Popen] = {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for process in range(number):
                own_device = f"cuda:{process}" if device.type == "cuda" else runtime.device
                quiet = replace(runtime, device=own_device, progress=ignore, note=ignore)
                ours, theirs = Pipe()
                processes[ours] = _start_process(theirs)
                theirs.close()
                ours.send((process, number, folder, function, stage, paths, out.absolute(), quiet))
            defer_stop(runtime.work is not None)
            _listen(stage, processes, runtime)
        finally:
            for connection, child in processes.items():
                connection.close()  # a process that still runs exits when it notices this
                if child.poll() is None:
                    child.kill()
                child.wait()


def _start_process(connection: Connection) -> subprocess.Popen:
    """Starts a process that has the other end; not by multiprocessing, whose daemonic workers cannot have children."""
    code = (f"import sys; sys.path[:] = {sys.path!r}; from bench.train import parallel; "
            f"parallel._run_process({connection.fileno()})")
    return subprocess.Popen([sys.executable, "-P", "-c", code], pass_fds=[connection.fileno()],
                            stdin=subprocess.DEVNULL)


def _listen(stage: Stage, processes: dict[Connection, subprocess.Popen], runtime: Runtime) -> None:
    """Forwards progress and notes until all processes are done, and forwards a stop to them."""
    order, running, stop_sent = list(processes), set(processes), False
    while running:
        if is_stopping() and not stop_sent:
            stop_sent = True
            for connection in processes:
                with suppress(OSError):  # it has just exited
                    connection.send("stop")
        for connection in wait(list(running), 0.5):
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
            except (EOFError, OSError):
                code, number = processes[connection].wait(), order.index(connection)
                cause = f"signal {-code}; out of memory?" if code < 0 else f"exit code {code}"
                raise BenchError(f"{stage.kind}: process {number} of {len(order)} died ({cause})") from None
            if isinstance(message, BaseException):
                raise message
            if message is None:
                running.discard(connection)
            else:
                kind, arguments, values = message
                (runtime.progress if kind == "progress" else runtime.note)(*arguments, **values)


def _run_process(descriptor: int) -> None:
    """The main function of each process."""
    for number in (signal.SIGTERM, signal.SIGUSR2):  # handled by the launching process, which stops this one
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(descriptor)
    process, world_size, folder, function, stage, inputs, out, runtime = connection.recv()

    def watch() -> None:
        try:
            connection.recv()
            with suppress(Stopped):
                stop()
            connection.recv()
        except (EOFError, OSError):
            os._exit(1)  # the launching process has exited

    threading.Thread(target=watch, daemon=True).start()

    def send(kind: str) -> Callable[..., None]:
        return lambda *arguments, **values: connection.send((kind, arguments, values)) if process == 0 else None

    try:
        device = torch.device(runtime.device)
        torch.set_num_threads(stage.numerics.threads)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        elif sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=process, world_size=world_size,
                                       init_method=f"file://{folder}/rendezvous", timeout=TIMEOUT)
        function(stage, inputs.__getitem__, out, replace(runtime, progress=send("progress"), note=send("note")))
        distributed.barrier()
        distributed.destroy_process_group()
        connection.send(None)
    except (BenchError, Stopped) as error:
        connection.send(error)
    except Exception as error:  # reported in any case: the other processes would wait for this one
        traceback.print_exc()
        connection.send(BenchError(f"{stage.kind}: process {process} of {world_size}: {type(error).__name__}: {error}"))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # does not wait for threads of the libraries
