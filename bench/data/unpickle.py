"""Reads files of others that are pickles inside: tensors, arrays, numbers and text, and never anything that runs."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bench.errors import ENVIRONMENT, BenchError

MAGIC = b"\x93NUMPY"


def load_torch(path: Path) -> Any:
    """What a .pth holds, on the CPU: tensors, numbers, text, lists, dicts. Both the legacy form and the zip form.

    Raises BenchError (exit 2) for a file that is missing, cut short or foreign, and for one that asks for anything
    else, which is not run; exit 3 where memory does not suffice.
    """
    size = _size(path)
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError as error:
        raise _too_large(path, size) from error
    except Exception as error:  # a foreign file makes the unpickler raise nearly anything
        if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise _refused(path, size, asked[1], "tensors, numbers, text, lists and dicts") from error
        raise _unreadable(path, size, "a .pth file written by torch.save", error) from error


def load_pickled_arrays(path: Path) -> Any:
    """What an .npy of pickled arrays holds: numpy arrays, numbers, text, lists, dicts.

    Both what `np.save(path, {...})` writes and a plain pickle under the name .npy. Raises BenchError as `load_torch`.
    """
    size = _size(path)
    expected = "arrays pickled by numpy"
    try:
        with path.open("rb") as file:
            saved = file.read(len(MAGIC)) == MAGIC
            file.seek(0)
            if saved and not _header(file).hasobject:
                raise BenchError(f"{path} ({size:,} bytes) is a plain array; a pickled dict of arrays is expected")
            found = _Arrays(file, encoding="latin1").load()
    except BenchError:
        raise
    except _Forbidden as error:
        raise _refused(path, size, str(error), "numpy arrays, numbers, text, lists and dicts") from error
    except MemoryError as error:
        raise _too_large(path, size) from error
    except Exception as error:  # a broken pickle raises anything
        raise _unreadable(path, size, expected, error) from error
    return found.item() if saved and isinstance(found, np.ndarray) and found.ndim == 0 else found


class _Forbidden(pickle.UnpicklingError):
    """The name that a pickle asked for."""


def _encode(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 hold bytes; no other codec is let through."""
    if encoding not in ("latin1", "latin-1"):
        raise _Forbidden(f"_codecs.encode of {encoding}")
    return text.encode("latin1")


class _Arrays(pickle.Unpickler):
    """An unpickler that rebuilds numpy arrays and knows no other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        place = module.replace("numpy.core.", "numpy._core.")
        if (place, name) in (("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar"),
                             ("numpy._core.numeric", "_frombuffer")):
            return super().find_class(place, name)
        raise _Forbidden(f"{module}.{name}")


def _header(file: BinaryIO) -> np.dtype:
    """Reads on to the end of an .npy's header. ValueError for a broken one."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"version {version} of the .npy format")
    return read[version](file)[2]


def _size(path: Path) -> int:
    if not path.is_file():
        raise BenchError(f"{path} is not there; a file is expected")
    return path.stat().st_size


def _refused(path: Path, size: int, asked: str, expected: str) -> BenchError:
    return BenchError(f"{path} ({size:,} bytes) asks for {asked}, which could run code, and is not read; {expected} "
                      "alone are expected: get the file anew from its publisher")


def _too_large(path: Path, size: int) -> BenchError:
    return BenchError(f"{path} ({size:,} bytes) does not fit into memory; it is read as a whole, once", ENVIRONMENT)


def _unreadable(path: Path, size: int, expected: str, error: Exception) -> BenchError:
    said = " ".join(str(error).split())
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in said:
        said = "no such pickle"  # torch's advice would be to read it without protection
    cause = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return BenchError(f"{path} ({size:,} bytes) cannot be read as {expected}; it is cut short or something else "
                      f"({cause[:160]}): get it anew and compare its size with the publisher's")
