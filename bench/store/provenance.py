"""How a stage was built: code, packages, machine, attempts, memory, energy. Part of the manifest, never of the key."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import logging
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import ENVIRONMENT, BenchError
from bench.modules import DISTRIBUTION
from bench.runtime import peak_memory

PACKAGES = ("torch", "diffusers", "open_clip_torch", "timm", "torchmetrics", "mne", "moabb", "numpy", "scikit-learn")
ENERGY = "EEG2IMAGE_BENCH_ENERGY"  # environment variable: "1", or a country's ISO code of three letters
CLUSTER = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_PARTITION")
INTERVAL = 5  # s between two measurements of power
Values = dict[str, Any]


def collect(device: str) -> Values:
    """What is known before a stage is built; equal for all stages of one process except for the cluster's ids."""
    return {"code": code(), "packages": packages(), "python": platform.python_version(), "device": device,
            "hardware": hardware(device), "host": socket.gethostname(), "cluster": cluster()}


@cache
def code() -> Values:
    """version of the package; commit and dirty (whether tracked files differ from it) if the package is in its own git
    checkout, else "" and None."""
    values: Values = {"version": importlib.metadata.version(DISTRIBUTION), "commit": "", "dirty": None}
    package = Path(__file__).parents[1]
    git = ("git", "-C", str(package))
    if _output(*git, "rev-parse", "--show-prefix") == f"{package.name}/":  # else a checkout around an installed package
        commit = _output(*git, "describe", "--always", "--dirty")
        values |= {"commit": commit.removesuffix("-dirty"), "dirty": commit.endswith("-dirty") if commit else None}
    return values


def commit() -> str:
    """"1a2b3c4" or "1a2b3c4-dirty"; empty outside a git checkout."""
    return code()["commit"] + ("-dirty" if code()["dirty"] else "")


def _output(*command: str) -> str:
    """What a command prints; empty if it fails or is not installed."""
    with suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


@cache
def packages() -> dict[str, str]:
    """Versions of the libraries that results may depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@cache
def hardware(device: str) -> dict[str, str]:
    """name of the processor, or name, driver and CUDA version of the GPU; unknown values are ""."""
    if device != "cuda":
        return {"name": _processor()}
    name, runtime = ctypes.create_string_buffer(256), getattr(sys.modules.get("torch"), "version", None)
    with suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")  # unlike torch, it takes no memory on the GPU
        if driver.cuInit(0) == 0:
            driver.cuDeviceGetName(name, len(name), 0)  # 0: the first visible GPU
    return {"name": name.value.decode(), "driver": _driver(), "cuda": getattr(runtime, "cuda", None) or ""}


def _processor() -> str:
    return _read_proc("cpuinfo", "model name").partition(":")[2].strip() or platform.processor() or platform.machine()


def _read_proc(file: str, prefix: str) -> str:
    """The first line in /proc/`file` that begins with `prefix`; empty if there is none."""
    with suppress(OSError):
        return next((line for line in Path("/proc", file).read_text().splitlines() if line.startswith(prefix)), "")
    return ""


def _driver() -> str:
    if words := _read_proc("driver/nvidia/version", "").split():
        return next((word for word in words if word[0].isdigit() and "." in word), "")
    return _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0].strip()


def cluster() -> dict[str, str]:
    """The ids that Slurm or Ray gave this job; empty outside both."""
    ids = {name.lower(): os.environ[name] for name in CLUSTER if os.environ.get(name)}
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        context = ray.get_runtime_context()
        ids |= {"ray_job_id": str(context.get_job_id()), "ray_task_id": str(context.get_task_id() or "")}
    return ids


@contextmanager
def measuring(values: Values, device: str, alone: bool = True) -> Iterator[None]:
    """Adds to `values`, when the context ends: peak_rss_bytes of this process or of its largest child, peak_rss_of,
    peak_cuda_bytes, and if ENERGY is set energy_kwh, energy_by and (for a country) co2_kg.

    alone: whether this process does all the work; else the energy is the whole machine's. peak_rss_of: "stage", or
    "process" if the kernel keeps only one peak for the life of a process. Raises BenchError (exit 3) if energy is to be
    measured and codecarbon is missing.
    """
    meter = _start_meter(alone)
    is_fresh = _reset_peak()
    children = peak_memory(of_children=True)
    torch = sys.modules.get("torch") if device == "cuda" else None
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    try:
        yield
    finally:
        after = peak_memory(of_children=True)
        own = _peak_rss() or peak_memory()
        values["peak_rss_bytes"] = max(own, after if after > children else 0)
        values["peak_rss_of"] = "stage" if is_fresh else "process"
        if torch is not None and torch.cuda.is_initialized():
            values["peak_cuda_bytes"] = max(values.get("peak_cuda_bytes", 0), torch.cuda.max_memory_allocated())
        if meter is not None:
            values |= _read_meter(meter, alone)


def _reset_peak() -> bool:
    """Resets the kernel's peak of this process's memory; returns whether that worked."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _peak_rss() > 0


def _peak_rss() -> int:
    """The kernel's peak of this process's memory in bytes; 0 if unknown."""
    return int((_read_proc("self/status", "VmHWM:") or "VmHWM: 0").split()[1]) * 1024


def check_energy(wanted: str) -> None:
    """Raises BenchError for an unknown country code (exit 2), and if codecarbon is missing (exit 3)."""
    if not wanted:
        return
    if importlib.util.find_spec("codecarbon") is None:
        raise BenchError(f'--energy needs codecarbon: pip install "{DISTRIBUTION}[energy]"', ENVIRONMENT)
    import pycountry  # a dependency of codecarbon

    if wanted != "1" and (not wanted.isupper() or pycountry.countries.get(alpha_3=wanted) is None):
        raise BenchError(f"--energy {wanted}: expected the ISO code of a country, three letters such as FRA, or no "
                         "value to estimate energy only")


def _start_meter(alone: bool) -> Any:
    """A running tracker of codecarbon; None if ENERGY is not set. Offline: it sends and looks up nothing."""
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


def _read_meter(meter: Any, alone: bool) -> Values:
    meter.stop()
    data = meter.final_emissions_data
    scope = f"this {'process' if alone else 'machine'}: CPU {data.cpu_model}, GPU {data.gpu_model or 'none'}"
    values: Values = {"energy_kwh": data.energy_consumed,
                      "energy_by": f"codecarbon {data.codecarbon_version}, estimated for {scope}"}
    if os.environ.get(ENERGY) != "1":
        values |= {"co2_kg": data.emissions, "country": data.country_iso_code}
    return values
