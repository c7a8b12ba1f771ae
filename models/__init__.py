"""Torch modules and nothing else: no module here knows bench or ablations."""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType
from typing import Any


class _TorchaudioOfAnotherMinor:
    """Lets torchaudio be imported where it was built for another minor version of CUDA than torch.

    braindecode needs torchaudio, and diffusers and transformers import it wherever it is installed; it refuses where
    the minor versions differ, and then they fail, too. CUDA's minor versions are compatible within a major one, and
    what braindecode's models call of torchaudio is Python, but for IIR filters, which none has by default. Nothing is
    imported before its time, a check that passes is left as it is, and another major version is refused in torchaudio's
    own words.
    """

    checks = "torchaudio._extension.utils"  # the module that holds the check (torchaudio 2.0 to 2.11)

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        """The spec of the module that checks, which wraps the check once it is executed; None for any other."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == cls.checks else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_wrap(module: Any) -> None:
                execute(module)
                if hasattr(module, "_check_cuda_version"):
                    module._check_cuda_version = _by_major(module._check_cuda_version)

            spec.loader.exec_module = execute_and_wrap
        return spec


def _by_major(check: Any) -> Any:
    """torchaudio's check of CUDA's version, which raises where the major versions differ alone."""

    def checked() -> int | None:
        try:
            return check()
        except RuntimeError:
            import torch

            built_for = torch.ops._torchaudio.cuda_version()  # 13000 for 13.0
            if built_for // 1000 != int(torch.version.cuda.split(".")[0]):
                raise
            return built_for

    return checked


if _TorchaudioOfAnotherMinor not in sys.meta_path:
    sys.meta_path.insert(0, _TorchaudioOfAnotherMinor)
