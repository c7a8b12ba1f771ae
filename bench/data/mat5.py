"""Checks the structure of MATLAB's files (version 5), as EEGLAB writes them, before a library reads them.

scipy.io.loadmat (1.17) uses the type code of an element without a check: a damaged code ends the process (SIGSEGV).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}  # bytes, by type
MATRIX, COMPRESSED = 14, 15  # types
CELL, STRUCT, OBJECT, CHAR, SPARSE, FUNCTION, OPAQUE = 1, 2, 3, 4, 5, 16, 17  # classes of matrices; 6 to 15: numbers
UTF8 = 16
HEADER = 128  # bytes
DEEPEST = 100  # matrices inside each other


def check(path: Path) -> None:
    """Raises ValueError if a file of this version is truncated or has an element of a type that cannot be there. Other
    files, such as those of version 7.3 (HDF5), are not looked at."""
    with path.open("rb") as file:
        head = file.read(HEADER)
        little = head[126:127] == b"I"
        if len(head) == HEADER and 0 not in head[:4] and head[124 + little] == 1:  # neither version 4 nor 7.3
            _check_elements(memoryview(file.read()), "<" if little else ">")


def _check_elements(data: memoryview, order: str) -> None:
    """Checks the variables of a file."""
    for code, content in _elements(data, order, padded=False):
        if code == COMPRESSED:
            try:
                content = memoryview(zlib.decompress(content))
            except zlib.error as error:
                raise ValueError(f"a compressed variable is damaged ({error})") from error
            for inner, matrix in _elements(content, order, padded=False):
                _check_matrix(inner, matrix, order)
        else:
            _check_matrix(code, content, order)


def _check_matrix(code: int, data: memoryview, order: str, depth: int = 0) -> None:
    """Checks a matrix and all that it holds."""
    _expect(code == MATRIX, f"an element has the type {code}, where a matrix is expected")
    _expect(depth <= DEEPEST, f"more than {DEEPEST} matrices are inside each other")
    if not len(data):  # an empty matrix
        return
    parts = list(_elements(data, order))
    kind = struct.unpack(f"{order}I", parts[0][1][:4])[0] & 0xFF if parts and len(parts[0][1]) == 8 else 0
    if kind == OPAQUE:  # a string, a table, a map: three texts and a matrix, without dimensions
        _expect([inner for inner, _ in parts] == [6, 1, 1, 1, MATRIX], "an object of MATLAB without its content")
        _check_matrix(*parts[-1], order, depth + 1)
        return
    _expect([inner for inner, _ in parts[:2]] == [6, 5] and len(parts[0][1]) == 8 and len(parts) > 2
            and parts[2][0] in (1, UTF8), "a matrix does not begin with its class, dimensions and name")
    dims = np.frombuffer(parts[1][1], f"{order}i4") if len(parts[1][1]) % 4 == 0 else np.array([-1])
    _expect(len(dims) >= 2 and bool((dims >= 0).all()), "a matrix has no dimensions")
    count, parts = math.prod(dims.tolist()), parts[3:]
    if kind in (STRUCT, OBJECT):
        head, parts = parts[:kind], parts[kind:]  # of an object the name of its class comes first
        _expect([inner for inner, _ in head[-2:]] == [5, 1] and len(head[-2][1]) == 4, "a struct without its fields")
        length = struct.unpack(f"{order}i", head[-2][1])[0]
        _expect(length > 0 and len(head[-1][1]) % length == 0, "the names of a struct's fields have another length")
        count *= len(head[-1][1]) // length
    if kind == FUNCTION:
        count = 1
    if kind in (CELL, STRUCT, OBJECT, FUNCTION):
        _expect(len(parts) == count, f"{len(parts)} elements for {count} places")
        for inner, content in parts:
            _check_matrix(inner, content, order, depth + 1)
    elif kind == CHAR:
        _expect(len(parts) == 1 or not count, "a text without its characters")
        for inner, content in parts:
            _expect(inner in SIZES, f"text of the type {inner}")
            actual = len(bytes(content).decode()) if inner == UTF8 else len(content) / SIZES[inner]
            _expect(actual == count, f"{actual:g} characters for {count} places")
    elif kind == SPARSE:
        _expect(len(parts) in (3, 4), "a sparse matrix without its places and numbers")
        for inner, content in parts:
            _expect(inner in SIZES and len(content) % SIZES[inner] == 0,
                    f"{len(content)} bytes of the type {inner} in a sparse matrix")
    else:
        _expect(SPARSE < kind < FUNCTION, f"a matrix of the class {kind}, which does not exist")
        _expect(len(parts) in (1, 2), "a matrix without its numbers")
        for inner, content in parts:
            _expect(inner in SIZES and len(content) == count * SIZES[inner],
                    f"{len(content)} bytes of the type {inner} for {count} numbers")


def _expect(condition: bool, fault: str) -> None:
    if not condition:
        raise ValueError(f"damaged: {fault}")


def _elements(data: memoryview, order: str, padded: bool = True) -> Iterator[tuple[int, memoryview]]:
    """Yields type and content of each element. Raises ValueError if one ends after the data."""
    place = 0
    while place < len(data):
        if len(data) - place < 8:
            raise ValueError("truncated inside an element")
        code, size = struct.unpack(f"{order}II", data[place : place + 8])
        if small := code >> 16:
            code, size, begin, end = code & 0xFFFF, small, place + 4, place + 8
        else:
            begin, end = place + 8, place + 8 + size
            end += -size % 8 if padded else 0
        if begin + size > min(end, len(data)):
            raise ValueError("truncated inside an element, or an element with another size")
        yield code, data[begin : begin + size]
        place = end
