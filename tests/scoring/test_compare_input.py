"""`bench score` says what it left out or changed, and counts repeated images once among those that compete."""

import json

import numpy as np
import pandas as pd
import pytest
from test_compare import N, folder, refused, values
from test_compare import one_thread as one_thread
from test_compare import pair as pair
from test_compare import scenes as scenes

from bench.scoring.compare import compare


def test_what_was_left_out_is_said_in_the_text_and_in_the_json(pair, tmp_path):
    made, real = pair
    for name in ("notes.txt", "more.txt", "._000.png"):
        (made / name).write_bytes(b"")
    (real / "deep").mkdir()
    (real / "deep" / "all").symlink_to(real)
    labels = tmp_path / "labels.csv"
    pd.DataFrame({"name": [*(f"{i:03d}" for i in range(N)), "other"], "label": 0}).to_csv(labels, index=False)
    found = compare(made, real, labels, wanted=["psnr", "top1_label"])
    assert found.text().splitlines()[3:] == [
        f"left out of {made}: 2 ending .txt (more.txt, notes.txt), 1 hidden (._000.png)",
        f"left out of {real}: 1 link to a folder above it (deep/all/)",
        f"left out of {labels}: 1 label of no image (other)"]
    said = json.loads(found.json())
    assert said["skipped"] == {"ending .txt": 2, "hidden": 1, "link to a folder above it": 1}
    assert said["skipped_files"]["ending .txt"] == [f"{made}/more.txt", f"{made}/notes.txt"]
    assert said["notes"] == found.text().splitlines()[3:]


def test_class_folders_that_are_links_on_both_sides_are_scored(tmp_path, scenes):
    for side in ("made", "real"):
        (tmp_path / side).mkdir()
        for group, place in enumerate((f"{side}/a", f"{side}/b", f"{side}-c", f"{side}-d")):
            folder(tmp_path / place, scenes[0][3 * group:3 * group + 3])
        (tmp_path / side / "c").symlink_to(tmp_path / f"{side}-c")
        (tmp_path / side / "d").symlink_to(tmp_path / f"{side}-d")
    found = compare(tmp_path / "made", tmp_path / "real", judge="none")
    assert (found.summary["n"] == 12).all()


def test_rounding_in_an_array_changes_no_number_and_is_said(tmp_path, scenes, pair):
    array = scenes[1].astype(np.float32) / 255
    array.flat[np.argmax(array)] = 1.0000002
    np.save(tmp_path / "made.npy", array)
    np.save(tmp_path / "real.npy", scenes[0])
    found = compare(tmp_path / "made.npy", tmp_path / "real.npy", judge="none")
    assert found.summary["value"].tolist() == compare(*pair, judge="none").summary["value"].tolist()
    assert "made.npy: 1 values outside [0, 1] by rounding (0 to 1.00000024)" in found.text()


def test_perfect_copies_of_images_that_four_people_saw_are_identified_for_sure(tmp_path, scenes):
    repeated = folder(tmp_path / "seen", np.tile(scenes[0][:3], (4, 1, 1, 1)))
    found = compare(repeated, repeated)
    two_way = found.summary[found.summary["metric"].str.startswith("two_way_")]
    assert len(two_way) == 4
    assert (two_way["value"] == 1).all()
    assert two_way["key"].str.endswith("among 3 pictures").all()
    assert found.notes == [
        f"the 12 images of {repeated} show 3 different ones: in two-way identification, 2 others compete",
        "left out: coverage, density, precision, recall: expected 50 or more different reference images, not 3"]
    assert values(found)["fid"] == pytest.approx(0, abs=1e-6), "FID is of all 12 on both sides"


def test_without_a_second_image_there_is_no_two_way_identification(tmp_path, scenes):
    same = folder(tmp_path / "same", np.tile(scenes[0][:1], (3, 1, 1, 1)))
    found = compare(same, same)
    assert not found.summary["metric"].str.startswith("two_way_").any()
    assert found.notes[0].startswith("left out: two_way_clip_tiny, two_way_judge_features")
    with refused("the 3 images of .*same are all the same; .*; choose other --metrics than two_way_judge_layer2"):
        compare(same, same, wanted=["psnr", "two_way_judge_layer2"])
