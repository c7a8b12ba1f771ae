"""What a stage was built with: code, packages, machine, attempts, memory, energy.

It stands in the stage's manifest and is never part of its key.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import platform
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import ENVIRONMENT, BenchError

DISTRIBUTION = "eeg2image-bench"
PACKAGES = ("torch", "diffusers", "open_clip_torch", "timm", "torchmetrics", "mne", "moabb", "numpy", "scikit-learn")
ENERGY = "EEG2IMAGE_BENCH_ENERGY"  # in the environment: "1", or a country's ISO code of three letters
CLUSTER = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_PARTITION")
INTERVAL = 5  # s between two looks at the power
Found = dict[str, Any]


def collect(device: str) -> Found:
    """What is known before a stage is built; the same for all stages of one process but for the cluster's ids."""
    return {"code": code(), "packages": packages(), "python": platform.python_version(), "device": device,
            "hardware": hardware(device), "host": socket.gethostname(), "cluster": cluster()}


@cache
def code() -> dict[str, Any]:
    """version of the package; commit and dirty (tracked files differ from it) where it runs in its own git checkout,
    else "" and None."""
    found: dict[str, Any] = {"version": importlib.metadata.version(DISTRIBUTION), "commit": "", "dirty": None}
    room = Path(__file__).parent
    if _git(room, "rev-parse", "--show-prefix") == f"{room.name}/":  # not some other project around an installed bench
        commit = _git(room, "describe", "--always", "--dirty")
        found |= {"commit": commit.removesuffix("-dirty"), "dirty": commit.endswith("-dirty") if commit else None}
    return found


def commit() -> str:
    """"1a2b3c4" or "1a2b3c4-dirty"; empty outside a git checkout."""
    return code()["commit"] + ("-dirty" if code()["dirty"] else "")


def _git(folder: Path, *arguments: str) -> str:
    with suppress(OSError):  # no git on this machine
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


@cache
def packages() -> dict[str, str]:
    """Versions of the libraries that numbers may depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@cache
def hardware(device: str) -> dict[str, str]:
    """name of the GPU or the processor; of a GPU also driver and CUDA version. What cannot be had is ""."""
    if device != "cuda":
        return {"name": _processor()}
    name, runtime = ctypes.create_string_buffer(256), getattr(sys.modules.get("torch"), "version", None)
    with suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")  # unlike torch it names a GPU without taking memory on it
        if driver.cuInit(0) == 0:
            driver.cuDeviceGetName(name, len(name), 0)  # 0: the first one that this process sees
    return {"name": name.value.decode(), "driver": _driver(), "cuda": getattr(runtime, "cuda", None) or ""}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str:
    with suppress(OSError):
        words = Path("/proc/driver/nvidia/version").read_text().partition("\n")[0].split()
        return next((word for word in words if word[0].isdigit() and "." in word), "")
    with suppress(OSError):
        done = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                              capture_output=True, text=True, check=False)
        return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""
    return ""


def cluster() -> dict[str, str]:
    """The ids that Slurm or Ray gave this job; empty where neither runs it."""
    found = {name.lower(): os.environ[name] for name in CLUSTER if os.environ.get(name)}
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        context = ray.get_runtime_context()
        found |= {"ray_job_id": str(context.get_job_id()), "ray_task_id": str(context.get_task_id() or "")}
    return found


@contextmanager
def measuring(found: Found, device: str, alone: bool = True) -> Iterator[None]:
    """Puts into `found` what is used meanwhile: peak_rss_bytes of this process, or of one that it started and that took
    more; peak_cuda_bytes; with ENERGY in the environment energy_kwh, co2_kg (of a named country) and how it was had.

    alone: whether this process does the work itself; else the energy is that of the whole machine.
    peak_rss_of is "stage", or "process" where the system keeps but one peak for a process's whole life. Raises
    BenchError (exit 3) where energy is asked for and codecarbon absent.
    """
    meter = _meter(alone)
    fresh = _forget_peak()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    torch = sys.modules.get("torch") if device == "cuda" else None
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    try:
        yield
    finally:
        after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        found["peak_rss_bytes"] = max(_peak(), after * _UNIT if after > children else 0)
        found["peak_rss_of"] = "stage" if fresh else "process"
        if torch is not None and torch.cuda.is_initialized():
            found["peak_cuda_bytes"] = max(found.get("peak_cuda_bytes", 0), torch.cuda.max_memory_allocated())
        if meter is not None:
            found |= _read(meter, alone)


_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes


def _forget_peak() -> bool:
    """Whether the kernel began a new peak of this process's memory."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _high_water() is not None
    except OSError:
        return False


def _high_water() -> int | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def _peak() -> int:
    peak = _high_water()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT if peak is None else peak


def check_energy(wanted: str) -> None:
    """Raises BenchError for what is no country's code (exit 2), and where codecarbon is absent (exit 3)."""
    if not wanted:
        return
    if importlib.util.find_spec("codecarbon") is None:
        raise BenchError(f'--energy needs codecarbon: pip install "{DISTRIBUTION}[energy]"', ENVIRONMENT)
    import pycountry  # which codecarbon needs

    if wanted != "1" and (not wanted.isupper() or pycountry.countries.get(alpha_3=wanted) is None):
        raise BenchError(f"--energy {wanted}: the ISO code of a country is expected, three letters such as FRA, or "
                         "nothing for the energy alone")


def _meter(alone: bool) -> Any:
    """codecarbon's tracker, started; None where energy is not asked for. Offline: nothing is sent or looked up."""
    wanted = os.environ.get(ENERGY, "")
    if not wanted:
        return None
    check_energy(wanted)
    import codecarbon

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    meter = codecarbon.OfflineEmissionsTracker(
        country_iso_code=None if wanted == "1" else wanted, tracking_mode="process" if alone else "machine",
        allow_multiple_runs=True, output_methods=[], log_level="critical", measure_power_secs=INTERVAL)
    meter.start()
    return meter


def _read(meter: Any, alone: bool) -> Found:
    meter.stop()
    data = meter.final_emissions_data
    of = f"this {'process' if alone else 'machine'}: CPU {data.cpu_model}, GPU {data.gpu_model or 'none'}"
    found: Found = {"energy_kwh": data.energy_consumed,
                    "energy_by": f"codecarbon {data.codecarbon_version}, estimated for {of}"}
    if os.environ.get(ENERGY) != "1":
        found |= {"co2_kg": data.emissions, "country": data.country_iso_code}
    return found
