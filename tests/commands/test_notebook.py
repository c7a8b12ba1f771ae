"""docs/examples/notebook.py: the Python entry, bench.plan, run, table and score, at scale micro."""

from __future__ import annotations

import inspect
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

import bench
from bench.errors import BenchError
from bench.setup.request import Request

NOTEBOOK = Path(__file__).parents[2] / "docs" / "examples" / "notebook.py"


@pytest.fixture(scope="module")
def cells(micro, tmp_path_factory):
    """The names that the notebook leaves, and its folder. The store has the stages below fine-tuning."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copytree(micro.root, folder / "store")
    names = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_NOTEBOOK", str(folder))
        patch.chdir(folder)
        exec(compile(NOTEBOOK.read_text(), str(NOTEBOOK), "exec"), names)
    return names, folder


def test_the_plan_counts_the_stages_of_each_kind(cells):
    stages = cells[0]["planned"].stages.set_index("kind")
    assert list(stages) == ["rows", "controls", "stored", "to_build"]
    assert dict(stages.loc["pretrain"]) == {"rows": 1, "controls": 0, "stored": 1, "to_build": 0}
    assert dict(stages.loc["finetune"]) == {"rows": 2, "controls": 0, "stored": 0, "to_build": 2}


def test_the_run_leaves_a_table_of_its_rows_contrasts_and_scores(cells):
    names, folder = cells
    table = names["table"]
    assert table.rows.set_index("name").loc[["Full", "13"], "top1"].between(0, 100).all()
    assert "Full - 13" in list(table.contrasts["name"])
    assert set(names["fid"]["variant"]) >= {"Full", "13"}
    assert (names["fid"]["value"] > 0).all()
    assert (folder / "results" / "micro" / "clip.csv").is_file()
    assert sorted(path.name for path in folder.iterdir()) == ["generated.npy", "reference.npy", "results", "store"]


def test_the_table_is_read_again_from_its_csv(cells):
    names, _ = cells
    assert names["later"].rows.equals(names["table"].rows)
    assert names["later"].render() == names["table"].render()


def test_images_are_scored_with_a_row_for_each_metric(cells):
    summary = cells[0]["comparison"].summary.set_index("metric")
    assert set(summary.index) == {"ssim", "psnr", "fid"}
    assert 0 < summary.loc["ssim", "value"] < 1
    assert 10 < summary.loc["psnr", "value"] < 30


def test_run_has_the_fields_of_a_request_that_a_notebook_needs_with_their_defaults():
    defaults = {field.name: field.default for field in fields(Request)}
    for entry in (bench.run, bench.plan, bench.table):
        for name, parameter in inspect.signature(entry).parameters.items():
            if name != "ablation":
                default = defaults[name]
                assert parameter.default == (str(default) if isinstance(default, Path) else default), name
    left_out = set(defaults) - set(inspect.signature(bench.run).parameters)
    assert left_out == {"engine", "engine_settings", "wait", "fail_fast", "track", "energy"}


def test_lists_and_texts_are_taken_for_tuples_and_paths(tmp_path):
    with pytest.raises(BenchError, match="no variant '99' in clip"):
        bench.plan("clip", variants=["99"], store=str(tmp_path / "none"))
    with pytest.raises(BenchError, match="no results of 'clip'"):
        bench.table("clip", results=str(tmp_path))
    with pytest.raises(TypeError, match="wrokers"):
        bench.run("clip", wrokers=2)
