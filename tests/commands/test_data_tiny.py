"""`bench data tiny`: the generated world's files and their Croissant metadata."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import cli
from bench.commands import data_tiny
from bench.data import croissant
from bench.errors import BenchError
from bench.experiment.scale import MICRO, TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "micro"
    assert cli.main(["data", "tiny", "--out", str(out), "--scale", "micro"]) == 0
    return out


@pytest.fixture
def document(folder):
    return json.loads((folder / croissant.FILE).read_text())


def test_the_files_are_those_that_the_suite_uses(folder, micro):
    store = micro.path(MICRO.items().trials)
    for name in ("eeg.npy", "pictures.npy", "trials.csv", "classes.csv"):
        assert (folder / name).read_bytes() == (store / name).read_bytes(), name


def test_every_file_is_described_with_its_own_hash_and_size(folder, document):
    files = {entry["@id"]: entry for entry in document["distribution"]}
    assert set(files) == {path.name for path in folder.iterdir()} - {croissant.FILE}
    for name, entry in files.items():
        content = (folder / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["contentSize"] == f"{len(content)} B"
        assert entry["contentUrl"] == name
    assert str(list(np.load(folder / "eeg.npy").shape)) in files["eeg.npy"]["description"]


def test_every_column_is_a_field_of_the_right_type_and_every_reference_exists(folder, document):
    sets = {entry["@id"]: entry for entry in document["recordSet"]}
    assert set(sets) == {"trials", "classes"}
    fields = {}
    for name, entry in sets.items():
        table = pd.read_csv(folder / f"{name}.csv")
        assert [field["name"] for field in entry["field"]] == list(table)
        fields |= {field["@id"]: field for field in entry["field"]}
        assert not table[entry["key"]["@id"].split("/")[1]].duplicated().any()
        for field in entry["field"]:
            numbers = table[field["name"]].dtype.kind == "i"
            assert field["dataType"] == ("sc:Integer" if numbers else "sc:Text"), field["@id"]
            assert field["source"] == {"fileObject": {"@id": f"{name}.csv"}, "extract": {"column": field["name"]}}
            assert field["description"]
    assert fields["trials/label"]["references"] == {"field": {"@id": "classes/label"}}


def test_the_properties_that_croissant_requires_are_there_or_are_named_as_missing(folder, document, tmp_path, capsys):
    assert document["@type"] == "sc:Dataset"
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert croissant.missing(document) == ["url", "datePublished"], "the files are not published"
    out = tmp_path / "published"
    arguments = ["--scale", "micro", "--seed", "3", "--url", "https://example.org/world", "--date", "2026-12-01"]
    assert cli.main(["data", "tiny", "--out", str(out), *arguments]) == 0
    published = json.loads((out / croissant.FILE).read_text())
    assert croissant.missing(published) == []
    assert "requires" not in capsys.readouterr().out
    assert published["name"] == "eeg2image-bench-micro-world-3"
    assert (out / "eeg.npy").read_bytes() != (folder / "eeg.npy").read_bytes()


def test_mlcroissant_reads_the_tables(folder):
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is missing: pip install -e '.[test]'")
    dataset = mlcroissant.Dataset(str(folder / croissant.FILE))
    for name in ("trials", "classes"):
        table = pd.read_csv(folder / f"{name}.csv")
        found = pd.DataFrame(list(dataset.records(name))).rename(columns=lambda column: column.split("/")[1])
        texts = [column for column in found if column in croissant.TEXTS]
        found[texts] = found[texts].map(bytes.decode)
        assert found.astype(str).equals(table.astype(str))


def test_a_column_without_a_description_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    table = pd.read_csv(tmp_path / "copy/trials.csv").assign(mood=1)
    table.to_csv(tmp_path / "copy/trials.csv", index=False)
    with pytest.raises(BenchError, match="no description of the columns mood; there are: item"):
        croissant.describe(tmp_path / "copy", {})


def test_an_existing_folder_and_a_bad_seed_are_refused(folder, tmp_path, capsys):
    before = sorted(path.name for path in folder.iterdir())
    assert cli.main(["data", "tiny", "--out", str(folder), "--scale", "micro"]) == 2
    assert "exists; name a new folder with --out" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == before
    assert cli.main(["data", "tiny", "--out", str(tmp_path / "new"), "--seed", "-1"]) == 2
    assert "--seed must be 0 or above, not -1" in capsys.readouterr().err


def test_the_datasheets_numbers_are_those_of_the_world():
    page = (Path(__file__).parents[2] / "docs" / "datasheet.md").read_text()
    world = TINY.world
    assert f"{world.pictures:,} images" in page
    assert f"[{world.pictures}, {world.n_chans}, {world.n_times}]" in page
    assert f"{world.recordings} recordings" in page
    assert f"{world.sfreq:g} Hz" in page
    assert data_tiny.describe(TINY.items().trials, "tiny")["license"]["name"] in page
