"""Imports what workers need: the process from which the pool forks its workers imports this module (pool.py).

It stops when the parent process exits, and leaves out what cannot be imported: the workers then report the reason.
"""

from __future__ import annotations

import importlib
import os
import signal
from contextlib import suppress

MODULES = ("torch", "torchvision", "diffusers", "bench.execute.build", *(
    f"bench.train.{name}" for name in ("trials", "corpus", "targets", "reference", "pretrain", "finetune", "generate",
                                       "score", "readout")))

for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # for a process group; the pool stops each worker
    signal.signal(_number, signal.SIG_IGN)
_parent = os.getppid()
for _name in MODULES:
    if os.getppid() != _parent:
        raise SystemExit
    with suppress(Exception):
        importlib.import_module(_name)
