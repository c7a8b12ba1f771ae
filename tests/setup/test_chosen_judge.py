"""`bench run --judge`: another classifier scores the rows, if it knows the data set's classes by the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch

import bench
from bench.data.pictures import CLASSES
from bench.errors import USAGE, BenchError
from bench.experiment.judge import ChosenJudge
from bench.experiment.key import dump, load
from bench.experiment.stages import Score
from bench.files import sha256
from bench.scoring.class_names import is_same_class
from bench.setup.places import load_scale, resolve_scale
from bench.setup.request import Request
from bench.setup.rows import rows


def write_judge(folder: Path, labels=CLASSES) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = timm.create_model("test_resnet", num_classes=len(CLASSES))
    timm.models.save_for_hf(net, folder, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | ({"label_names": list(labels)} if labels else {})))
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return write_judge(tmp_path_factory.mktemp("judge") / "mine")


def request(judge, **given):
    return Request("mask_ratio", scale="micro", judge=str(judge), **given)


def test_a_run_is_scored_by_the_chosen_judge_and_kept_apart_from_the_scales(judge, micro, tmp_path):
    shutil.copytree(micro.root, tmp_path / "store")
    given = {"scale": "micro", "variants": ["13"], "store": tmp_path / "store", "results": tmp_path / "results"}
    chosen = bench.run("clip", **given, judge=str(judge))
    digest = sha256(judge / "model.safetensors")[:12]
    assert set(chosen.scores["judge"]) - {""} == {f"mine (crop)@{digest}"}
    assert (tmp_path / "results/micro/judge mine/clip.csv").is_file()
    assert not (tmp_path / "results/micro/clip.csv").exists()
    assert bench.table("clip", scale="micro", results=tmp_path / "results", judge=str(judge)).render() == \
        chosen.render()
    assert "timm" in next(key for key in chosen.scores["key"] if "crop" in key)


def test_the_judge_and_its_preparation_are_in_the_keys_and_without_one_the_keys_are_as_before(judge):
    plain = resolve_scale(Request("mask_ratio", scale="micro"))
    assert plain == load_scale("micro")
    scales = [plain, *(resolve_scale(request(judge, fit=fit)) for fit in ("crop", "stretch"))]
    scored = [next(row.stage for row in rows([bench.FULL], scale, [0]) if isinstance(row.stage, Score))
              for scale in scales]
    assert len({stage.key for stage in scored}) == 3
    assert {stage.pictures.key for stage in scored} == {scored[0].pictures.key}
    assert load(dump(scored[1]), scored[1].key).reference.judge.path == str(judge)
    assert isinstance(scored[1].training.judge, ChosenJudge)


@pytest.mark.parametrize(("labels", "message"), [
    (CLASSES[::-1], f"class 'circle' is number 0 of the data set's judge; number 0 here is '{CLASSES[-1]}'"),
    ((), "its file does not name its classes"),
])
def test_a_judge_with_other_classes_is_refused(tmp_path, labels, message):
    with pytest.raises(BenchError, match=message) as caught:
        resolve_scale(request(write_judge(tmp_path / "other", labels)))
    assert caught.value.exit_code == USAGE
    assert "\n" not in str(caught.value)


def test_arch_and_fit_need_a_judge():
    with pytest.raises(BenchError, match="--arch and --fit describe the judge of --judge"):
        resolve_scale(Request("mask_ratio", scale="micro", fit="crop"))


def test_names_of_one_class_of_imagenet_are_equal():
    assert is_same_class("n02124075", "Egyptian cat")
    assert is_same_class("Egyptian_cat", "Egyptian cat, of a house")
    assert not is_same_class("tiger cat", "Egyptian cat")
    assert not is_same_class("circle", "square")
