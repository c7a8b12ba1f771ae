"""Reads published files that are pickles inside: tensors, arrays, numbers and text, and no code."""

from __future__ import annotations

import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np

from bench.errors import ENVIRONMENT, BenchError
from bench.files import describe_content

MAGIC = b"\x93NUMPY"


def load_torch(path: Path) -> Any:
    """Loads a .pth file on the CPU: tensors, numbers, text, lists, dicts; both the legacy format and the zip format.

    Raises BenchError: exit 2 for a file that is missing, truncated, of another format, or contains anything else
    (which is not run); exit 3 if memory is too small.
    """
    import torch

    with _reading(path, "a .pth file written by torch.save", "tensors, numbers, text, lists and dicts"):
        return torch.load(path, map_location="cpu", weights_only=True)


def load_checkpoint(path: Path) -> tuple[Any, list[str]]:
    """Loads a .pth file as `load_torch`, except that objects of foreign classes, such as a configuration, are skipped.

    Returns the content, in which a Skipped replaces each of these objects, and the names of their classes, sorted.
    Their code is neither imported nor run. Only the zip format is read. Errors as `load_torch`: a class of Python's own
    library, and a foreign function that is called, are refused.
    """
    import torch

    allowed = "tensors, numbers, text, lists, dicts and plain objects, which are skipped"
    skipped: dict[str, type] = {}

    class Unpickler(_Arrays):
        """Rebuilds tensors and arrays; replaces every foreign class."""

        def find_class(self, module: str, name: str) -> Any:
            if (module, name) == ("collections", "OrderedDict"):
                return OrderedDict
            if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")):
                return getattr(torch._utils, name)
            if (module, name) in (("torch", "device"), ("torch", "Size")):
                return getattr(torch, name)
            if module.split(".")[0] in {*sys.stdlib_module_names, "__builtin__", "numpy", "torch"}:
                return super().find_class(module, name)
            full = f"{module}.{name}"
            return skipped.setdefault(full, _NeverCalled(full, (Skipped,), {}))

    with _reading(path, "a .pth file written by torch.save", allowed):
        if not zipfile.is_zipfile(path):
            raise ValueError("no zip archive")
        # weights_only=True takes no unpickler and refuses a file with any foreign class. The Unpickler above admits the
        # same few names, so no code of the file runs; it replaces a foreign class instead of refusing the file.
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=False,
                             pickle_module=SimpleNamespace(__name__="pickle", Unpickler=Unpickler))
    return content, sorted(skipped)


def load_pickled_arrays(path: Path) -> Any:
    """Loads an .npy file of pickled arrays: numpy arrays, numbers, text, lists, dicts.

    Reads what `np.save(path, {...})` writes, and a plain pickle named .npy. Raises BenchError as `load_torch`.
    """
    with (_reading(path, "arrays pickled by numpy", "numpy arrays, numbers, text, lists and dicts"),
          path.open("rb") as file):
        saved = file.read(len(MAGIC)) == MAGIC
        file.seek(0)
        if saved and not _read_header(file).hasobject:
            raise BenchError(f"{path} is a plain array; expected a pickled dict of arrays")
        content = _Arrays(file, encoding="latin1").load()
    return content.item() if saved and isinstance(content, np.ndarray) and content.ndim == 0 else content


@contextmanager
def _reading(path: Path, expected: str, allowed: str) -> Iterator[None]:
    """Turns every error of reading a file into a BenchError."""
    if not path.is_file():
        raise BenchError(f"{path} does not exist; expected a file")
    file = f"{path} ({path.stat().st_size:,} bytes)"
    try:
        yield
    except BenchError:
        raise
    except MemoryError as error:
        raise BenchError(f"{file} does not fit into memory, where it is read as a whole; use a machine with more",
                         ENVIRONMENT) from error
    except Exception as error:  # a broken or foreign pickle raises nearly any exception
        message = " ".join(str(error).split())
        match = re.search(r"GLOBAL ([\w.]+)", message)
        if name := message if isinstance(error, _Forbidden) else match and match[1]:
            raise BenchError(f"{file} requires {name}, which could run code, and is not read; expected only {allowed}: "
                             "download the file again from its publisher") from error
        if isinstance(error, pickle.UnpicklingError) and "weights_only" in message:
            message = "not such a pickle"  # torch's own advice is to read it without protection
        kind = describe_content(path)
        cause = f"it is {kind}" if kind else f"{type(error).__name__}: {message}" if message else type(error).__name__
        raise BenchError(f"{file} cannot be read as {expected}: truncated, or another format ({cause[:200]}); download "
                         "it again and compare its size with the publisher's") from error


class _Forbidden(pickle.UnpicklingError):
    """The name that a pickle requires and that is not allowed."""


class _NeverCalled(type):
    """The type of classes that replace foreign ones: pickle may create an object of them, but not call them."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        raise _Forbidden(cls.__name__)


class Skipped(metaclass=_NeverCalled):
    """Replaces an object of a foreign class; its content is discarded."""

    def __new__(cls, *_: Any) -> Skipped:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def _encode(text: str, encoding: str) -> bytes:
    """Decodes bytes as pickles of protocol 2 hold them; allows no other codec."""
    if encoding not in ("latin1", "latin-1"):
        raise _Forbidden(f"_codecs.encode of {encoding}")
    return text.encode("latin1")


class _Arrays(pickle.Unpickler):
    """Rebuilds numpy arrays and allows no other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        module_now = module.replace("numpy.core.", "numpy._core.")
        if (module_now, name) in (("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar"),
                                  ("numpy._core.numeric", "_frombuffer")):
            return super().find_class(module_now, name)
        raise _Forbidden(f"{module}.{name}")


def _read_header(file: BinaryIO) -> np.dtype:
    """Reads the header of an .npy file and returns its dtype. Raises ValueError for a broken one."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format")
    return readers[version](file)[2]
