"""Where stages are built other than by this machine's own workers, one file for each engine."""

from __future__ import annotations

from bench.execute.executor import Executor
from bench.setup.request import Request
from bench.store.store import Store

ENGINES = ("slurm", "ray")


def chosen(request: Request, store: Store) -> Executor | None:
    """The engine of a request; None: this machine's own workers. Raises BenchError for what it is asked and does not
    know, and (exit 3) where it is not to be had."""
    if request.engine == "slurm":
        from bench.execute.engines.slurm import Slurm

        return Slurm(store, request.engine_settings, request.wait)
    if request.engine == "ray":
        from bench.execute.engines.ray import Ray

        return Ray(store, request.engine_settings)
    return None


def found(engine: str) -> str:
    """What `bench doctor` says of an engine that is there. Raises BenchError (exit 3) where it is not."""
    if engine == "slurm":
        from bench.execute.engines import slurm

        return slurm.found()
    from bench.execute.engines import ray

    return f"ray {ray.imported().__version__}"
