"""Describes the files of a paired data set in the format Croissant 1.0 (JSON-LD): hashes, tables and columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.prepared import digest
from bench.errors import BenchError

FILE = "croissant.json"
CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
REQUIRED = ("@context", "@type", "conformsTo", "name", "description", "license", "url", "creator", "datePublished",
            "distribution")
CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo",
    "citeAs": "cr:citeAs", "column": "cr:column", "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "extract": "cr:extract", "field": "cr:field", "fileObject": "cr:fileObject", "key": "cr:key",
    "recordSet": "cr:recordSet", "references": "cr:references", "source": "cr:source"}
FORMATS = {".npy": "application/octet-stream", ".csv": "text/csv"}
TABLES = {"trials": "item", "classes": "label"}  # a table and its key
REFERENCES = {"trials/label": "classes/label"}
FIELDS = {
    "item": "number of the trial; the row of eeg.npy in the order of the table",
    "subject": "number of the simulated person", "picture": "row of pictures.npy that was shown",
    "part": "train, val or test", "block": "run of trials in the recording",
    "position": "place of the trial in the subject's recording", "label": "number of the class",
    "name": "name of the class", "judge": "number of the class among those of the judge",
    "shown": "1 if the class is among those that are shown"}
TEXTS = ("part", "name")


def describe(folder: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON-LD of a folder with arrays (.npy) and the tables trials.csv and classes.csv.

    about: name, description, license, creator and version, and url and datePublished if the files are published;
    without these two it lacks properties that Croissant 1.0 requires (`missing`). Raises BenchError for a column
    without a description.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in FORMATS)
    return {"@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": CONFORMS_TO, **about,
            "distribution": [_describe_file(path) for path in files],
            "recordSet": [_describe_table(folder / f"{name}.csv", key) for name, key in TABLES.items()]}


def missing(document: Mapping[str, Any]) -> list[str]:
    """Returns the properties that Croissant 1.0 requires of a data set and that the document lacks."""
    return [name for name in REQUIRED if not document.get(name)]


def write(folder: Path, about: Mapping[str, Any]) -> list[str]:
    """Writes croissant.json into the folder; returns what is `missing`."""
    document = describe(folder, about)
    (folder / FILE).write_text(json.dumps(document, indent=1) + "\n")
    return missing(document)


def _describe_file(path: Path) -> dict[str, Any]:
    facts = digest(path)
    text = "table" if path.suffix == ".csv" else _describe_array(path)
    return {"@type": "cr:FileObject", "@id": path.name, "name": path.name, "description": text,
            "contentUrl": path.name, "encodingFormat": FORMATS[path.suffix], "sha256": facts["sha256"],
            "contentSize": f"{path.stat().st_size} B"}


def _describe_array(path: Path) -> str:
    array = np.load(path, mmap_mode="r")
    return f"numpy array {list(array.shape)} of {array.dtype}"


def _describe_table(path: Path, key: str) -> dict[str, Any]:
    with path.open(newline="") as lines:
        columns: Sequence[str] = next(csv.reader(lines))
    if unknown := [column for column in columns if column not in FIELDS]:
        raise BenchError(f"{path}: no description of the columns {', '.join(unknown)}; there are: {', '.join(FIELDS)}")
    table = path.stem
    return {"@type": "cr:RecordSet", "@id": table, "name": table, "key": {"@id": f"{table}/{key}"},
            "field": [_describe_field(table, column) for column in columns]}


def _describe_field(table: str, column: str) -> dict[str, Any]:
    name = f"{table}/{column}"
    field = {"@type": "cr:Field", "@id": name, "name": column, "description": FIELDS[column],
             "dataType": "sc:Text" if column in TEXTS else "sc:Integer",
             "source": {"fileObject": {"@id": f"{table}.csv"}, "extract": {"column": column}}}
    return field | ({"references": {"field": {"@id": REFERENCES[name]}}} if name in REFERENCES else {})
