"""Torch modules only; nothing here imports bench or ablations."""

from __future__ import annotations

import importlib.machinery
import sys
from functools import partial
from types import ModuleType
from typing import Any


class _TorchaudioOfAnotherMinor:
    """An import hook: torchaudio built for another minor version of CUDA than torch can be imported.

    braindecode needs torchaudio, and diffusers and transformers import it if it is installed; it refuses if the minor
    versions differ, and then they fail. CUDA's minor versions are compatible within a major one, and braindecode's
    models use only Python parts of torchaudio, except IIR filters, which no model has by default. The hook imports
    nothing early and keeps a check that passes; for another major version torchaudio's own error is raised.
    """

    checks = "torchaudio._extension.utils"  # the module that holds the check (torchaudio 2.0 to 2.11)

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        """The spec of the module with the check, which is wrapped after execution; None for any other module."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == cls.checks else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_wrap(module: Any) -> None:
                execute(module)
                if hasattr(module, "_check_cuda_version"):
                    module._check_cuda_version = partial(_check_major_version, module._check_cuda_version)

            spec.loader.exec_module = execute_and_wrap
        return spec


def _check_major_version(check: Any) -> int | None:
    """The result of torchaudio's check of CUDA's version, which raises here only if the major versions differ."""
    try:
        return check()
    except RuntimeError:
        import torch

        built_for = torch.ops._torchaudio.cuda_version()  # 13000 for 13.0
        if built_for // 1000 != int(torch.version.cuda.split(".")[0]):
            raise
        return built_for


if _TorchaudioOfAnotherMinor not in sys.meta_path:
    sys.meta_path.insert(0, _TorchaudioOfAnotherMinor)
