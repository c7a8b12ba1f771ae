"""Checks of the arrays, tables and names that a user gives to `bench.data.own.prepare`; each fault is one line.

pandas objects are taken in the order of their values. Their indices must be equal, because pandas would pair by index.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray

from bench.data import prepared
from bench.data.ranges import describe_conversion
from bench.errors import BenchError

MOST_CHANNELS = 512  # no EEG system has more; such arrays are [N, T, C]
LARGEST = np.iinfo(np.int64).max
NOT_NEGATIVE = ("item", "subject")  # columns; noise is drawn from the number of the item
AUDITED = ("session", "exemplar")  # further columns that the audit reads


def class_numbers(classes: Any) -> dict[str, int]:
    """Returns the judge's number of each class, in the given order. Raises BenchError for anything but a mapping of
    names to whole numbers from -1 on; warns of two classes with one number."""
    if isinstance(classes, pd.Series):
        if classes.index.has_duplicates:
            raise BenchError(f"classes name {classes.index[classes.index.duplicated()][0]!r} twice; expected each once")
        classes = classes.to_dict()
    if not isinstance(classes, Mapping):
        raise BenchError(f"classes are a {type(classes).__name__}; expected a dict with the judge's number of each "
                         "name, such as {'cat': 281, 'dog': 207}, or -1 for a class that the judge does not know")
    if not classes:
        raise BenchError("classes are empty; expected the judge's number of each name, such as {'cat': 281}")
    for name, judge in classes.items():
        _check_name(name, "class")
        if isinstance(judge, (bool, np.bool_)) or not isinstance(judge, (int, np.integer)) or judge < -1:
            raise BenchError(f"class {name!r} has the judge's number {judge!r}; expected a whole number from 0 on, or "
                             "-1 if the judge does not know the class")
    for number, count in Counter(classes.values()).items():
        if count > 1 and number >= 0:
            same = ", ".join(repr(name) for name, judge in classes.items() if judge == number)
            warnings.warn(f"classes {same} have the same judge's number {number}: the judge cannot tell them apart",
                          stacklevel=3)
    return {str(name): int(judge) for name, judge in classes.items()}


def channel_names(ch_names: Any) -> list[str]:
    """Returns the names of electrodes as a list of text. Raises BenchError for text instead of a list, for a name that
    is not text, is empty or has spaces around it, and for one that occurs twice (in any case)."""
    if isinstance(ch_names, str) or not hasattr(ch_names, "__iter__") or isinstance(ch_names, (Mapping, Set)):
        raise BenchError(f"ch_names are a {type(ch_names).__name__}; expected a list of names, in the order of the "
                         "channels")
    names = list(ch_names)
    for name in names:
        _check_name(name, "channel")
    counts = Counter(name.casefold() for name in names)
    if repeated := [name for name in names if counts[name.casefold()] > 1]:
        raise BenchError(f"{len(counts)} different ch_names for {len(names)} channels: {repeated[0]!r} is repeated; "
                         "expected a name of its own for each")
    return [str(name) for name in names]


def _check_name(name: Any, what: str) -> None:
    """Raises BenchError for a name that would not survive as one line of text."""
    if not isinstance(name, str):
        raise BenchError(f"the {what} name {name!r} is a {type(name).__name__}; expected text")
    if prepared.is_missing(name, names=True):
        raise BenchError(f"a {what} has the name {name!r}, which means a missing value; name it, or leave it out")
    if name != name.strip() or not name.isprintable():
        raise BenchError(f"the {what} name {name!r} has spaces around it or a line break in it; expected one line of "
                         "text: name.strip()")


def check_eeg(eeg: Any) -> Any:
    """Returns the trials' EEG, to be indexed by position. Raises BenchError for anything without length and index."""
    if isinstance(eeg, pd.Series):
        return eeg.to_list()
    hint = ", such as epochs.get_data(units='uV')" if hasattr(eeg, "get_data") else (
        ": list(...)" if isinstance(eeg, Iterator) else "")
    if hint or isinstance(eeg, (str, bytes, Mapping, pd.DataFrame)) or not (
            hasattr(eeg, "__len__") and hasattr(eeg, "__getitem__")):
        raise BenchError(f"eeg is a {type(eeg).__name__}; expected an array [trials, channels, time steps], or a list "
                         f"of arrays [channels, time steps]{hint}")
    return eeg


def check_shape(n_chans: int, n_times: int, ch_names: Sequence[str]) -> None:
    """Raises BenchError for more channels than EEG has, and for names that do not fit; warns of a shape that looks like
    [time steps, channels]."""
    turn = "expected [trials, channels, time steps]: eeg.transpose(0, 2, 1)"
    if n_chans > MOST_CHANNELS:
        raise BenchError(f"a trial of the EEG is [{n_chans}, {n_times}]: {n_chans} channels of {n_times} time steps, "
                         f"but no EEG has more than {MOST_CHANNELS} channels; {turn}")
    if ch_names and len(ch_names) != n_chans:
        turned = f"; as many as time steps: {turn}" if len(ch_names) == n_times else ""
        raise BenchError(f"{len(ch_names)} different ch_names for {n_chans} channels; expected one for each{turned}")
    if not ch_names and n_chans > n_times:
        warnings.warn(f"a trial of the EEG is [{n_chans}, {n_times}] and is taken as {n_chans} channels of {n_times} "
                      f"time steps; if it is the other way round: {turn}; ch_names end this warning", stacklevel=3)


def trial_table(trials: Any, eeg: Any) -> pd.DataFrame:
    """Returns the columns of the trials, each in the order of its values, with a new index.

    eeg: as given; the index of a Series counts too. Raises BenchError for indices that differ, for columns of unequal
    lengths, and for a column that has no order.
    """
    indices = {"eeg": eeg.index} if isinstance(eeg, pd.Series) else {}
    columns: dict[str, Any] = {}
    if isinstance(trials, pd.DataFrame):
        indices["trials"] = trials.index
        pairs = [(name, trials.iloc[:, place]) for place, name in enumerate(trials.columns)]
    elif isinstance(trials, Mapping):
        pairs = list(trials.items())
        indices |= {f"trials[{name!r}]": values.index for name, values in pairs if isinstance(values, pd.Series)}
    else:
        raise BenchError(f"trials are a {type(trials).__name__}; expected a dict of columns, or a DataFrame")
    for name, values in pairs:
        if str(name) in columns:
            raise BenchError(f"the trials have two columns {str(name)!r}; expected each once")
        columns[str(name)] = _in_order(str(name), values)
    try:
        table = pd.DataFrame(columns)
    except ValueError as error:
        raise BenchError(f"the columns of the trials do not fit together: {error}") from error
    _check_indices(indices)
    return table


def _in_order(name: str, values: Any) -> Any:
    """Returns a column's values without an index."""
    if isinstance(values, (pd.Series, pd.Index)):
        return values.array
    if isinstance(values, (Mapping, Set, pd.DataFrame)):
        raise BenchError(f"the trials' column {name} is a {type(values).__name__}; expected values in the order of the "
                         "trials")
    if isinstance(values, Iterator):
        return list(values)
    if hasattr(values, "__array__") and not isinstance(values, (np.ndarray, np.generic, ExtensionArray)):
        return np.asarray(values)  # a tensor
    return values


def _check_indices(indices: Mapping[str, pd.Index]) -> None:
    """Raises BenchError unless all indices are equal, element by element. Unequal lengths are another error."""
    names = list(indices)
    for other in names[1:]:
        first, second = indices[names[0]], indices[other]
        if len(first) == len(second) and not first.equals(second):
            pairs = enumerate(zip(first, second, strict=True))
            row = next((row for row, (a, b) in pairs if a != b), 0)  # 0: indices that differ in their type alone
            raise BenchError(f"{names[0]} and {other} have different indices, first in row {row} ({_show(first[row])} "
                             f"and {_show(second[row])}); values are taken in the order given, never by index: bring "
                             "them into one order, then pass .to_numpy() or .reset_index(drop=True)")


def whole_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with the columns prepared.COLUMNS as int64; `position` may be of floats. Raises BenchError for
    other values, missing ones included."""
    for name in prepared.COLUMNS:
        values = table[name].infer_objects()
        floats = name == "position"
        if pd.api.types.is_bool_dtype(values) or values.isna().any() or not (
                pd.api.types.is_integer_dtype(values) or (floats and pd.api.types.is_float_dtype(values))):
            row = next((row for row, value in enumerate(values) if not _is_number(value, floats)), 0)
            advice = {"subject": ": number the people, as pandas.factorize does",
                      "label": " from 0 on, in the order of `classes`"}.get(name, "")
            raise BenchError(f"the trials' column {name} holds {values.dtype}; expected whole numbers{advice}; trial "
                             f"{row} has {_show(values.iloc[row])}")
        if not np.isfinite(values.to_numpy(np.float64)).all():
            raise BenchError(f"the trials' column {name} has infinite values; expected numbers")
        outside = (values > LARGEST) | ((values < 0) & (name in NOT_NEGATIVE))
        if outside.any():
            row = int(np.argmax(outside))
            raise BenchError(f"trial {row} has {name} {values.iloc[row]}; expected 0 to {LARGEST}")
        table = table.assign(**{name: values.to_numpy(np.float64 if pd.api.types.is_float_dtype(values) else np.int64)})
    return table


def _show(value: Any) -> str:
    """Returns a value as in Python's source, numpy's without the name of its type."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def _is_number(value: Any, floats: bool) -> bool:
    if isinstance(value, (float, np.floating)):
        return floats and bool(np.isfinite(value))
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))


def further_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with missing values of further columns as "". Raises BenchError for a missing value in a column
    that the audit reads (AUDITED), and for a column's name that is not one line of text."""
    for name in map(str, table):
        if name in prepared.COLUMNS or name.startswith("part_"):
            continue
        if not name.isprintable() or not name.strip():
            raise BenchError(f"the trials have a column {name!r}; expected one line of text as its name")
        missing = np.array([name in AUDITED and prepared.is_missing(value) for value in table[name]], bool)
        if missing.any():
            row = int(np.argmax(missing))
            raise BenchError(f"trial {row} has the {name} {_show(table[name].iloc[row])}, which means a missing value, "
                             f"as {int(missing.sum())} of {len(table)} trials do; leave out these trials, or the "
                             "column")
        if table[name].isna().any():
            table = table.assign(**{name: table[name].astype(object).where(table[name].notna(), "")})
    return table


def describe_images(images: Any) -> str:
    """Returns what the images are instead of [P, side, side, 3] uint8, and how to convert them."""
    if not isinstance(images, np.ndarray):
        return f"{type(images).__name__}; expected an array"
    first = images.ndim == 4 and images.shape[1] == 3 != images.shape[3]
    advice = ": images.transpose(0, 2, 3, 1)" if first else describe_conversion(images)
    return f"{images.dtype} {list(images.shape)}; expected uint8 [images, side, side, 3]{advice}"
