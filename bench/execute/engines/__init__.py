"""Engines: executors that build stages outside this machine's worker pool, one file each."""

from __future__ import annotations

from bench.execute.executor import Executor
from bench.setup.request import Request
from bench.store.store import Store

ENGINES = ("slurm", "ray")


def engine_for(request: Request, store: Store) -> Executor | None:
    """The engine of a request; None: this machine's workers. Raises BenchError for an invalid setting, and (exit 3) if
    the engine is not available."""
    if request.engine == "slurm":
        from bench.execute.engines.slurm import Slurm

        return Slurm(store, request.engine_settings, request.wait)
    if request.engine == "ray":
        from bench.execute.engines.ray import Ray

        return Ray(store, request.engine_settings)
    return None


def describe_engine(engine: str) -> str:
    """The versions of an engine, for `bench doctor`. Raises BenchError (exit 3) if it is not available."""
    if engine == "slurm":
        from bench.execute.engines import slurm

        return slurm.describe()
    from bench.execute.engines import ray

    return f"ray {ray.import_ray().__version__}"
