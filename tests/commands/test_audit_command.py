"""What `bench audit` prints and writes."""

import json

import numpy as np
import pandas as pd
import pytest

from bench.cli import main
from bench.experiment.scale import MICRO
from bench.store.store import Store


@pytest.fixture
def folder(tmp_path):
    """200 windows of 128 samples, one every 16, split at random."""
    rng, starts = np.random.default_rng(0), 16 * np.arange(200)
    signal = rng.standard_normal((3, 16 * 200 + 128))
    np.save(tmp_path / "eeg.npy", signal[:, starts[:, None] + np.arange(128)].swapaxes(0, 1).astype(np.float32))
    pd.DataFrame({"item": np.arange(200), "subject": 1, "picture": np.arange(200), "label": rng.integers(0, 5, 200),
                  "part": rng.permutation(np.repeat(["train", "test"], [150, 50])), "block": 0,
                  "position": np.arange(200)}).to_csv(tmp_path / "trials.csv", index=False)
    return tmp_path


def test_the_whole_report_is_printed_as_json(folder, capsys):
    assert main(["audit", "--trials", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["schema"], report["audited"], report["leaky"]) == (1, str(folder), True)
    assert report["trials"] == {"train": 150, "test": 50}
    findings = {finding["name"]: finding for finding in report["findings"]}
    overlap = findings["overlapping EEG in two parts"]
    assert overlap["severity"] == "leak"
    assert overlap["count"] > 300
    assert overlap["reason"] in report["verdict"]
    assert overlap["example"].startswith(f"{overlap['count']} in train and test; test item ")
    assert findings["test trial inside the corpus"] == {
        "name": "test trial inside the corpus", "severity": "not checked", "count": None,
        "example": "no corpus was given", "reason": ""}


def test_json_in_a_file_comes_beside_the_text(folder, capsys):
    assert main(["audit", "--trials", str(folder), "--json", str(folder / "report.json")]) == 1
    out = capsys.readouterr().out
    report = json.loads((folder / "report.json").read_text())
    assert out.endswith(f"leaky: {report['verdict']}\n")
    for finding in report["findings"]:
        assert finding["name"] in out
    assert main(["audit", "--trials", str(folder), "--json", str(folder / "none" / "report.json")]) == 2
    assert "to write report.json into" in capsys.readouterr().err


def test_the_rows_of_an_ablation_and_what_was_not_checked_of_their_trials_are_in_the_json(tmp_path, capsys):
    store, trials = Store(tmp_path / "store"), MICRO.items().trials
    named = ["audit", "--ablation", "systems", "--scale", "micro", "--store", str(store.root), "--json"]
    assert main(named) == 1
    report = json.loads(capsys.readouterr().out)
    leaky = {row["variant"] for row in report["rows"] if row["leaky"]}
    assert leaky == {"ThoughtViz with its leak"}
    assert report["trials"] == {}
    assert {row["trials"] for row in report["rows"]} == {None}
    rows = pd.DataFrame({"item": range(40), "subject": 1, "picture": range(40), "label": [0, 1] * 20,
                         "part": ["train"] * 20 + ["test"] * 20, "block": 0, "position": range(40)})
    store.build(trials, lambda out: rows.to_csv(out / "trials.csv", index=False))
    assert main(named) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert report["trials"].keys() == {row["trials"] for row in report["rows"]} == {trials.key}
    assert report["trials"][trials.key]["verdict"] == "no"
    assert "not checked: " in captured.err
    assert "one channel tells the class (no EEG was given)" in captured.err


def test_options_that_would_be_ignored_are_refused(folder, capsys):
    assert main(["audit", "--ablation", "systems", "--scale", "micro", "--trials", str(folder)]) == 2
    assert "give --trials and --left-out without it" in capsys.readouterr().err
