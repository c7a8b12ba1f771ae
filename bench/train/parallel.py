"""One training in several processes: each computes its share of every batch, and gradients are averaged.

torch's launcher (torchrun) starts the processes, DistributedDataParallel averages. Every process draws the same
batches, noise and masks and holds the same trained state. Only the first one writes.
"""

from __future__ import annotations

import gc
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge, wait
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed, nn

from bench.errors import ENVIRONMENT, BenchError
from bench.experiment.key import Stage, upstream
from bench.experiment.stages import Finetune, Numerics, Pretrain
from bench.runtime import Runtime, Stopped, defer_stop, ignore, is_stopping, stop
from bench.train import Inputs

TIMEOUT = timedelta(hours=1)  # for which processes wait for each other: the first one also evaluates and writes
SETTLE = 3.0  # s after an error in which the death of another process, its cause, becomes known
CLOSE = 60.0  # s in which the launcher ends its processes
LAUNCHER = "BENCH_LAUNCHER"  # variable of the processes: the launching process's host, port and key

Function = Callable[[Stage, Inputs, Path, Runtime], None]
Loss = Callable[[slice], dict[str, Tensor]]


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


class _Closure(nn.Module):
    """Calls a loss that uses these parameters; DistributedDataParallel needs a module that holds them."""

    def __init__(self, parameters: list[nn.Parameter]):
        super().__init__()
        self._held = nn.ParameterList(parameters)

    def forward(self, loss: Loss, rows: slice) -> dict[str, Tensor]:
        return {name: value if name == "loss" else value.detach() for name, value in loss(rows).items()}


class Averaging:
    """Averages gradients over all processes during the backward pass (DistributedDataParallel).

    Parameters without a gradient are looked for in every step: a user's encoder may have some, and only then the
    gradients' buckets stay the same from the first step on. So a training that resumes adds in the same order.
    """

    def __init__(self, parameters: list[nn.Parameter]):
        self._parameters = parameters
        self._module = nn.parallel.DistributedDataParallel(
            _Closure(parameters), find_unused_parameters=True, gradient_as_bucket_view=True)

    def call(self, loss: Loss, rows: slice) -> dict[str, Tensor]:
        """Returns loss(rows), whose "loss" averages gradients in its backward pass; its other values are constants."""
        return self._module(loss, rows)

    def paused(self) -> AbstractContextManager[None]:
        """A context in which `call` and the backward pass keep this process's gradients, as sums."""
        return self._module.no_sync()

    def finish(self) -> None:
        """Averages the gradients that were kept while paused, by the backward pass of a loss that is zero."""
        with_gradient = [parameter for parameter in self._parameters if parameter.grad is not None]

        def zero(_: slice) -> dict[str, Tensor]:
            return {"loss": torch.stack([(parameter * 0).sum() for parameter in with_gradient]).sum()}

        self.call(zero, slice(0, 0))["loss"].backward()


def mean(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the means of scalars over all processes."""
    if size() == 1:
        return values
    flat = torch.stack(list(values.values()))
    distributed.all_reduce(flat)
    return dict(zip(values, flat / size(), strict=True))


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

    On CUDA each process has its own GPU. In a Slurm allocation of several nodes, the processes are divided evenly
    among them. `runtime` receives the first process's progress. Raises BenchError if the batch is not a multiple of N,
    N is not one of the number of nodes, or there are too few GPUs, and the error of a failed process after stopping
    the others.
    """
    if not isinstance(stage, (Pretrain, Finetune)) or stage.numerics.world_size == 1:
        function(stage, inputs, out, runtime)
        return
    number, batch, device = stage.numerics.world_size, stage.schedule.batch, torch.device(runtime.device)
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", 1))
    if number < 1 or batch % number:
        raise BenchError(f"a batch of {batch} cannot be divided evenly among {number} processes; choose a number that "
                         f"divides {batch}")
    if number % nodes:
        raise BenchError(f"{number} processes cannot be divided evenly among the {nodes} nodes of this Slurm job; "
                         "request other numbers of processes or nodes")
    if device.type == "cuda" and torch.cuda.device_count() < number // nodes:
        raise BenchError(f"{number // nodes} processes need a GPU each, but this machine has "
                         f"{torch.cuda.device_count()}; request fewer processes", ENVIRONMENT)
    if device.type == "cuda":  # GPU memory that this process still holds would be missing in the others
        gc.collect()
        torch.cuda.empty_cache()
    paths = {above: inputs(above).absolute() for above in upstream(stage)}
    arguments = function, stage, paths, out.absolute(), replace(runtime, progress=ignore, note=ignore)
    host, key = "127.0.0.1" if nodes == 1 else socket.gethostname(), secrets.token_bytes()
    with socket.create_server(("127.0.0.1" if nodes == 1 else "", 0), backlog=number) as server:
        launcher = _start_launcher(number, nodes, host, server.getsockname()[1], key)
        connections: dict[Connection, int] = {}
        died: int | None = None
        try:
            defer_stop(runtime.work is not None)
            died = _listen(number, server, key, arguments, launcher, connections, runtime)
        finally:
            report = _close(launcher, connections)
    if died is not None:
        _raise_death(stage, number, died, report)


def _start_launcher(number: int, nodes: int, host: str, port: int, key: bytes) -> subprocess.Popen[bytes]:
    """Starts `_run_launcher`: a process on this machine, or one on each node of the Slurm job."""
    with socket.create_server(("", 0)) as free:
        rendezvous = f"{host}:{free.getsockname()[1]}"
    command = [sys.executable, "-P", "-c", _code(f"_run_launcher({number}, {nodes}, {rendezvous!r})")]
    if nodes > 1:
        cpus = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        command = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1",
                   f"--cpus-per-task={cpus}", *command]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            env={"TORCH_CPP_LOG_LEVEL": "ERROR",  # warns of the search for parameters without gradient
                                 **os.environ, LAUNCHER: f"{host} {port} {key.hex()}"})


def _code(call: str) -> str:
    """The Python code of a process that calls a function of this file and imports from where this process does."""
    return f"import sys; sys.path[:] = {sys.path!r}; from bench.train import parallel; parallel.{call}"


def _run_launcher(number: int, nodes: int, rendezvous: str) -> None:
    """The main function of the launcher: torchrun's agent on this node, which runs `_run_process` number / nodes times.

    Prints the exit codes of failed processes by rank, as JSON. Ends when its standard input does: the launching process
    has exited, or closed it. Other signals are for the launching process, which stops this one.
    """
    import logging

    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for each in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the processes inherit this
    report = os.dup(1)
    os.dup2(2, 1)  # for what the processes print
    logging.disable(logging.CRITICAL)  # the launching process reports failures, once

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGUSR1)

    threading.Thread(target=watch, daemon=True).start()
    with suppress(SignalException), tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            nodes, nodes, number // nodes, run_id=rendezvous, rdzv_backend="c10d", rdzv_endpoint=rendezvous,
            local_addr="127.0.0.1" if nodes == 1 else socket.gethostname(), max_restarts=0, shutdown_timeout=0,
            signals_to_handle="SIGUSR1", logs_specs=DefaultLogsSpecs(log_dir=folder))
        try:
            elastic_launch(config, sys.executable)("-P", "-c", _code("_run_process()"))
        except ChildFailedError as error:
            codes = {process: failure.exitcode for process, failure in error.failures.items()}
            os.write(report, json.dumps(codes).encode() + b"\n")
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # all processes have ended


def _listen(number: int, server: socket.socket, key: bytes, arguments: tuple[Any, ...],
            launcher: subprocess.Popen[bytes], connections: dict[Connection, int], runtime: Runtime) -> int | None:
    """Forwards progress and notes until all processes are done, and forwards a stop to them. connections: the process
    of each, which this fills. Returns None, or the number of a process that died; -1 if it is not known."""
    done: set[Connection] = set()
    stop_sent, deadline, stopped = False, 0.0, None
    failure: tuple[BenchError, str] | None = None  # and its traceback
    while len(done) < number:
        if is_stopping() and not stop_sent and len(connections) == number:
            stop_sent = True
            for connection in connections:
                with suppress(OSError):  # it has just exited
                    connection.send("stop")
        if failure is not None and time.monotonic() > deadline:
            break
        assert launcher.stdout is not None
        awaited = wait([server, launcher.stdout, *(connections.keys() - done)], 0.5)
        if awaited == [launcher.stdout]:  # it prints exit codes, or has ended, and no process has sent a message
            return -1
        for ready in awaited:
            if ready is server:
                if (connection := _accept(server, key)) is not None:
                    connections[connection] = connection.recv()
                    connection.send(arguments)
                continue
            if not isinstance(ready, Connection):
                continue
            try:
                message = ready.recv()
            except (EOFError, OSError):
                return connections[ready]
            if isinstance(message, BenchError):
                raise message
            if message is None or isinstance(message, Stopped):  # the first process may still write its checkpoint
                stopped = stopped or message
                done.add(ready)
                continue
            kind, positional, named = message
            if kind == "failed":  # perhaps because another process died
                done.add(ready)
                failure, deadline = failure or positional, deadline or time.monotonic() + SETTLE
            else:
                (runtime.progress if kind == "progress" else runtime.note)(*positional, **named)
    if failure is not None:
        error, text = failure
        print(text, file=sys.stderr)
        raise error
    if stopped is not None:
        raise stopped
    return None


def _accept(server: socket.socket, key: bytes) -> Connection | None:
    """A new connection; None if the other side does not know the key."""
    accepted, _ = server.accept()
    connection = Connection(accepted.detach())
    try:
        deliver_challenge(connection, key)
        answer_challenge(connection, key)
    except (AuthenticationError, EOFError, OSError):
        connection.close()
        return None
    return connection


def _close(launcher: subprocess.Popen[bytes], connections: dict[Connection, int]) -> dict[int, int]:
    """Ends all processes; returns the exit codes of those that failed, by their number."""
    assert launcher.stdout is not None
    for connection in connections:
        connection.close()  # a process that still runs exits when it notices this
    wait([launcher.stdout], SETTLE)  # then the launcher notices, and reports
    try:
        output, _ = launcher.communicate(timeout=CLOSE)
    except subprocess.TimeoutExpired:
        launcher.kill()
        output, _ = launcher.communicate()
    return {int(process): code for line in output.splitlines() for process, code in json.loads(line).items()}


def _raise_death(stage: Stage, number: int, died: int, report: dict[int, int]) -> NoReturn:
    """Raises the error of a process that died; report: as of `_close`."""
    if died < 0 and not report:
        raise BenchError(f"{stage.kind}: torch's launcher ended before its {number} processes had started; see its "
                         "messages above")
    if died < 0:
        died = min(report)
    code = report.get(died)
    cause = "exit code unknown" if code is None else f"exit code {code}" if code >= 0 else (
        f"signal {-code}; out of memory?")
    raise BenchError(f"{stage.kind}: process {died} of {number} died ({cause})")


def _run_process() -> None:
    """The main function of each process."""
    host, port, key = os.environ.pop(LAUNCHER).split()
    connection = Client((host, int(port)), authkey=bytes.fromhex(key))
    process, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    connection.send(process)

    def watch() -> None:
        try:
            connection.recv()
            with suppress(Stopped):
                stop()
            connection.recv()
        except (EOFError, OSError):
            os._exit(1)  # the launching process has exited

    def send(kind: str) -> Callable[..., None]:
        return lambda *arguments, **values: connection.send((kind, arguments, values)) if process == 0 else None

    what = "training"
    try:
        function, stage, inputs, out, runtime = connection.recv()
        what = stage.kind
        threading.Thread(target=watch, daemon=True).start()
        torch.set_num_threads(stage.numerics.threads)
        is_cuda = torch.device(runtime.device).type == "cuda"
        device = f"cuda:{os.environ['LOCAL_RANK']}" if is_cuda else runtime.device
        if is_cuda:
            torch.cuda.set_device(device)
        elif host == "127.0.0.1" and sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        distributed.init_process_group("nccl" if is_cuda else "gloo", timeout=TIMEOUT)
        function(stage, inputs.__getitem__, out,
                 replace(runtime, device=device, progress=send("progress"), note=send("note")))
        distributed.barrier()
        distributed.destroy_process_group()
        connection.send(None)
    except (BenchError, Stopped) as error:
        connection.send(error)
    except Exception as error:  # reported in any case: the other processes would wait for this one
        text = f"{what}: process {process} of {world_size}: {type(error).__name__}: {error}"
        connection.send(("failed", (BenchError(text), traceback.format_exc()), {}))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # does not wait for threads of the libraries
