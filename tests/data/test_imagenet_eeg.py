"""ImageNet-EEG from its published files: the conversion, and damaged files that are refused."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from formats import Bomb, prepares_nothing, save, write_imagenet_eeg
from PIL import Image
from scipy.interpolate import interp1d

from bench.data import imagenet_eeg, prepared, writing
from bench.errors import USAGE, BenchError
from bench.images import decode
from bench.setup.rehearsal.files import WNIDS

SUBJECTS, CLASSES, PER_CLASS = (2, 4, 5, 6), 2, 3
EEG, ALL, SINGLE = "eeg_5_95_std.pth", "block_splits_by_image_all.pth", "block_splits_by_image_single.pth"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder of files as published, and the content of its EEG file."""
    folder = tmp_path_factory.mktemp("published")
    content = write_imagenet_eeg(folder, SUBJECTS, WNIDS[:CLASSES], PER_CLASS)
    return folder, content


@pytest.fixture(scope="module")
def done(published, tmp_path_factory):
    """The same data set, prepared."""
    folder, _ = published
    return imagenet_eeg.prepare(folder, tmp_path_factory.mktemp("data") / "imagenet_eeg", folder / "images", size=32)


@pytest.fixture
def source(published, tmp_path):
    """A folder with the same files, for a test to damage."""
    folder = tmp_path / "source"
    shutil.copytree(published[0], folder, copy_function=os.link)
    return folder


def trials(published):
    """Copies of the trials, whose tensors are shared."""
    return [dict(trial) for trial in published[1]["dataset"]]


def spoil(source, name, content, serialisation="legacy"):
    (source / name).unlink()
    save(source / name, content, serialisation)


def spoilt(source, published, change, **also):
    """The EEG file with other trials, labels or images."""
    dataset = trials(published)
    change(dataset)
    spoil(source, EEG, published[1] | {"dataset": dataset} | also)


def run(source, **options):
    return imagenet_eeg.prepare(source, source.parent / "data" / "imagenet_eeg",
                                options.pop("pictures", source / "images"), **{"size": 32} | options)


def refused(source, *said, exit_code=USAGE, **options):
    """Preparing fails with all these texts in one line, and a previous data set is unchanged."""
    prepares_nothing(lambda: run(source, **options), source.parent / "data" / "imagenet_eeg", said, exit_code)


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def table(folder):
    return pd.read_csv(folder / "trials.csv", keep_default_na=False)


def test_the_eeg_is_what_the_released_code_makes_of_it(published, done):
    eeg = np.load(done / "eeg_5-95.npy")
    assert eeg.shape == (23, 128, 512)
    assert eeg.dtype == np.float16
    for row in (0, 7, 22):
        segment = published[1]["dataset"][row]["eeg"].numpy()[:, 20:460]
        expected = interp1d(np.linspace(0, 1, 440), segment)(np.linspace(0, 1, 512))
        assert np.allclose(eeg[row], expected, rtol=2**-11 + 1e-5, atol=1e-6)


def test_interpolation_agrees_with_scipy_to_rounding():
    windows = np.random.default_rng(0).standard_normal((3, 5, 440))
    expected = interp1d(np.linspace(0, 1, 440), windows)(np.linspace(0, 1, 512))
    assert np.abs(imagenet_eeg.stretch(windows) - expected).max() < 1e-11


def test_the_legacy_and_the_zip_form_hold_the_same(source, published, done):
    for name in (EEG, ALL, SINGLE):
        spoil(source, name, torch.load(published[0] / name), "zip")
    out = run(source)
    for name in ("eeg_5-95.npy", "trials.csv", "classes.csv", "pictures.npy"):
        assert (out / name).read_bytes() == (done / name).read_bytes()
    assert manifest(out)["sources"] != manifest(done)["sources"]


def test_preparing_twice_gives_the_same_manifest_and_replaces_the_first(source, done):
    out = run(source)
    assert (out / "manifest.json").read_bytes() == (done / "manifest.json").read_bytes()
    assert run(source, size=16) == out
    assert manifest(out)["options"] == {"size": 16}
    assert prepared.verify(out) == []
    assert [path.name for path in out.parent.iterdir()] == ["imagenet_eeg"]


def test_the_manifest_states_every_file_and_source_with_its_hash(published, done):
    stated = manifest(done)
    assert set(stated["files"]) == {path.name for path in done.iterdir()} - {"manifest.json"}
    assert prepared.verify(done) == []
    assert stated["sources"][EEG] == prepared.digest(published[0] / EEG)
    assert stated["sources"]["pictures"]["pictures"] == CLASSES * PER_CLASS
    assert str(published[0]) not in (done / "manifest.json").read_text()
    assert (done / "manifest.json").read_text() == json.dumps(stated, sort_keys=True, indent=1) + "\n"


def test_labels_are_those_of_the_file_and_carry_imagenets_number(done):
    classes = pd.read_csv(done / "classes.csv")
    assert classes.to_dict("list") == {"label": [0, 1], "name": ["canoe", "grand piano"], "judge": [472, 579],
                                       "shown": [1, 1]}


def test_a_class_that_is_not_shown_comes_last(source, published):
    more = {"labels": ["n02389026", *published[1]["labels"]]}

    def change(dataset):
        for trial in dataset:
            trial["label"] += 1

    spoilt(source, published, change, **more)
    classes = pd.read_csv(run(source) / "classes.csv")
    assert classes["name"].tolist() == ["canoe", "grand piano", "sorrel"]
    assert classes["shown"].tolist() == [1, 1, 0]


def test_the_forty_classes_have_the_judges_numbers():
    known = imagenet_eeg.imagenet_classes()
    assert len(known) == 1000
    assert [known[wnid] for wnid in ("n02389026", "n03888257", "n03584829", "n02124075")] == [
        (339, "sorrel"), (701, "parachute"), (606, "iron"), (285, "Egyptian cat")]


def test_pictures_are_rgb_and_squashed(published, done):
    pictures = np.load(done / "pictures.npy")
    assert (pictures.shape, pictures.dtype) == ((CLASSES * PER_CLASS, 32, 32, 3), np.uint8)
    names = published[1]["images"]
    files = [published[0] / "images" / name.split("_")[0] / f"{name}.JPEG" for name in names]
    modes = {Image.open(file).mode for file in files}
    assert modes == {"RGB", "L", "CMYK"}
    for picture, file in zip(pictures, files, strict=True):
        squashed = Image.fromarray(decode(file)).resize((32, 32), Image.Resampling.BICUBIC)
        assert np.array_equal(picture, squashed)


def test_a_trial_without_a_part_keeps_its_id(published, done):
    rows = table(done)
    listed = published[1]["dataset"]
    assert rows["item"].tolist() == list(range(23))
    assert rows["subject"].tolist() == [trial["subject"] for trial in listed]
    assert rows["picture"].tolist() == [trial["image"] for trial in listed]
    assert rows["label"].tolist() == [trial["label"] for trial in listed]
    assert set(rows["block"]) == set(rows["position"]) == {-1}


def test_the_split_by_item_is_the_files_split_zero(published, done):
    split = torch.load(published[0] / ALL)["splits"][0]
    part = table(done)["part_item"]
    for name in ("train", "val", "test"):
        assert np.flatnonzero(part == name).tolist() == sorted(split[name])


def test_indices_of_the_single_split_count_the_trials_of_subject_4_alone(source, published):
    own = [item for item, trial in enumerate(published[1]["dataset"]) if trial["subject"] == 4]
    spoil(source, SINGLE, {"splits": [{"train": [3, 0], "val": [1], "test": [2]}]})
    out = run(source)
    part = table(out)["part_single"]
    assert {item: name for item, name in enumerate(part) if name} == {
        own[3]: "train", own[0]: "train", own[1]: "val", own[2]: "test"}
    assert manifest(out)["coverage"]["single"] == {"train": 2, "val": 1, "test": 1}


def test_without_subject_4_there_is_no_single_split(source, published):
    def change(dataset):
        for trial in dataset:
            trial["subject"] += 10

    spoilt(source, published, change)
    assert {name for name in table(run(source)) if name.startswith("part_")} == {"part_item", "part_subject"}


def test_the_split_by_subject_shares_neither_people_nor_pictures(done):
    rows = table(done)
    used = rows[rows["part_subject"] != ""]
    assert {part: set(own["subject"]) for part, own in used.groupby("part_subject")} == {
        "test": {6}, "val": {5}, "train": {2, 4}}
    assert used.groupby("picture")["part_subject"].nunique().max() == 1


def test_every_split_says_whether_it_leaks(source, done):
    leaky = manifest(done)["leaky"]
    assert leaky["item"].startswith("yes: each subject saw each class in one block")
    assert leaky["single"].startswith("yes: ")
    assert leaky["subject"] == "no: no person and no picture is in two parts"
    assert "two parts" not in leaky["item"]
    spoil(source, ALL, {"splits": [{"train": [0], "val": [2], "test": [6, 1]}]})  # 0 and 6: one picture, two people
    assert manifest(run(source))["leaky"]["item"].endswith("; 1 pictures are in two parts")


def test_all_bands_lose_the_trials_that_one_of_them_loses(source, published):
    dataset = trials(published)
    dataset[3]["eeg"] = dataset[3]["eeg"][:, :455]
    save(source / "eeg_14_70_std.pth", published[1] | {"dataset": dataset})
    out = run(source)
    assert manifest(out)["bands"] == [[5, 95], [14, 70]]
    assert manifest(out)["rejected"] == {"short": 1}
    assert table(out)["item"].tolist() == [0, 1, 2, *range(4, 23)]
    first, second = (np.load(out / name) for name in ("eeg_5-95.npy", "eeg_14-70.npy"))
    assert len(first) == len(second) == 22
    assert np.array_equal(first, second)


def test_bands_can_be_chosen_by_text(source, published):
    save(source / "eeg_14_70_std.pth", published[1])
    assert manifest(run(source, bands="14-70"))["bands"] == [[14, 70]]


def test_trials_are_rejected_for_a_reason_and_counted(source, published):
    def change(dataset):
        eeg = [trial["eeg"].clone() for trial in dataset[:8]]
        eeg[0][5, 100] = float("nan")
        eeg[1][5, 100] = float("inf")
        eeg[2] = eeg[2][:, :455]
        eeg[3] = torch.cat([eeg[3], eeg[3]], 1)
        eeg[4][:20] = 3.0
        eeg[5] *= 1e6
        eeg[6][5, 2] = float("nan")  # before the samples that are used
        for trial, own in zip(dataset[:8], eeg, strict=True):
            trial["eeg"] = own

    spoilt(source, published, change)
    out = run(source)
    assert manifest(out)["rejected"] == {"not finite": 2, "short": 1, "long": 1, "flat": 1, "beyond float16": 1}
    assert table(out)["item"].tolist() == list(range(6, 23))
    assert np.isfinite(np.load(out / "eeg_5-95.npy")).all()


def test_a_few_flat_channels_are_replaced_by_the_next_one_that_moves(source, published, done):
    def change(dataset):
        eeg = dataset[0]["eeg"].clone()
        eeg[[3, 4, 127]] = 7.0
        dataset[0]["eeg"] = eeg

    spoilt(source, published, change)
    out = run(source)
    assert manifest(out)["repaired"] == {"flat channel, 5-95 Hz": 3}
    eeg, before = np.load(out / "eeg_5-95.npy")[0], np.load(done / "eeg_5-95.npy")[0]
    assert np.array_equal(eeg[[3, 4, 127]], before[[5, 5, 0]])
    assert np.array_equal(eeg[5:127], before[5:127])


def test_a_channel_of_another_scale_is_replaced_and_named_and_half_a_trial_is_none(source, published, done):
    def change(dataset):
        eeg = [trial["eeg"].clone() for trial in dataset[:3]]
        eeg[0][5] *= 100
        eeg[1][5] *= 0.01
        eeg[2][:, 250:] = 0
        for trial, own in zip(dataset[:3], eeg, strict=True):
            trial["eeg"] = own

    spoilt(source, published, change)
    out = run(source)
    assert manifest(out)["repaired"] == {"channel of another scale, 5-95 Hz": 2}
    assert manifest(out)["bad_channels"] == {"5 (scale), 5-95 Hz": 2}
    assert manifest(out)["rejected"] == {"constant": 1}
    eeg, before = np.load(out / "eeg_5-95.npy"), np.load(done / "eeg_5-95.npy")
    assert np.array_equal(eeg[:2, 5], before[:2, 6])
    assert np.array_equal(eeg[:2, 6:], before[:2, 6:])


@pytest.mark.parametrize("unit", [1, 0.25])
def test_a_channel_with_a_code_for_each_picture_is_refused_with_its_number(source, published, unit):
    def change(dataset):
        for number, trial in enumerate(dataset):
            trial["eeg"] = trial["eeg"].clone()
            trial["eeg"][9] = 0
            trial["eeg"][9, 100:120] = unit * (7 + 5 * number % 23)

    spoilt(source, published, change)
    refused(source, EEG, "channel 9 holds 24 distinct values, as a trigger channel does")


def test_other_types_are_cast_and_recorded(source, published, done):
    def change(dataset):
        dataset[0]["eeg"] = (dataset[0]["eeg"] * 100).to(torch.int16)
        dataset[1]["eeg"] = dataset[1]["eeg"].double()
        dataset[2]["eeg"] = dataset[2]["eeg"].T.contiguous().T
        dataset[3]["eeg"] = dataset[3]["eeg"].clone().requires_grad_()

    spoilt(source, published, change, means=torch.zeros(1), stddevs=torch.ones(1))
    out = run(source)
    assert manifest(out)["cast"] == {EEG: {"int16": 1, "float64": 1, "not contiguous": 1, "requires grad": 1}}
    eeg, before = np.load(out / "eeg_5-95.npy"), np.load(done / "eeg_5-95.npy")
    assert np.array_equal(eeg[1:], before[1:])
    assert np.abs(eeg[0].astype(float) - 100 * before[0].astype(float)).max() < 2  # cut off, and of half precision


def test_no_file_of_eeg_names_those_that_are_expected(source):
    (source / EEG).unlink()
    refused(source, "no eeg_5_95_std.pth, eeg_14_70_std.pth, eeg_55_95_std.pth", str(source))


def test_a_band_that_was_not_published_or_is_not_there_is_refused(source):
    refused(source, "published at 5-95, 14-70, 55-95 Hz", bands="1-40")
    with pytest.raises(BenchError, match=r"no eeg_14_70_std\.pth"):
        run(source, bands=((14, 70),))


def test_pictures_and_their_size_are_asked_for(source):
    refused(source, "--set pictures=DIR", pictures=None)
    with pytest.raises(BenchError, match="size=5"):
        run(source, size="5")


def test_missing_pictures_are_counted_and_the_first_ten_listed(source, published):
    shutil.rmtree(source / "images" / WNIDS[0])
    first = published[1]["images"][0]
    refused(source, "3 of 6 images are missing", f"{WNIDS[0]}/{first}.JPEG")


def test_more_than_ten_missing_pictures_are_not_all_listed(tmp_path):
    files = [tmp_path / f"{number}.JPEG" for number in range(12)]
    with pytest.raises(BenchError, match=r"12 of 12 images are missing: 0\.JPEG, .*9\.JPEG and 2 more$"):
        writing.check_present(files, tmp_path)


def test_a_truncated_picture_is_named(source, published):
    name = published[1]["images"][2]
    file = source / "images" / name.split("_")[0] / f"{name}.JPEG"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2])
    refused(source, f"{name}.JPEG cannot be read as an image")


def change_first(**fields):
    return lambda dataset: dataset[0].update(fields)


@pytest.mark.parametrize(("change", "said"), [
    (change_first(eeg=torch.zeros(127, 500)), "trial 0 has eeg [127, 500] torch.float32; expected a tensor [128, L]"),
    (change_first(eeg=[0.0]), "trial 0 has eeg list"),
    (change_first(label=2), "trial 0 has label 2; expected 0 to 1"),
    (change_first(label=-1), "trial 0 has label -1"),
    (change_first(label=1), "trial 0 has label 1 (n03452741) and shows n02951358_1000, whose name states"),
    (change_first(image=6), "trial 0 has image 6; expected 0 to 5"),
    (change_first(subject="four"), "trial 0 has no whole number 'subject'"),
    (lambda dataset: dataset[7].update(dataset[1]), "trials 1 and 7 both show n03452741_2000 to subject 2"),
    (lambda dataset: dataset[1].clear(), "trial 1 has no whole number 'image'"),
    (lambda dataset: dataset.clear(), "a list of trials"),
    (lambda dataset: dataset[4].update(eeg=dataset[0]["eeg"]),
     "trials 0 (train) and 4 (test) of the split 'item' hold the same EEG"),
    (lambda dataset: [trial.update(eeg=trial["eeg"] * 1e-6) for trial in dataset], "is it in another unit?"),
    (lambda dataset: [trial.update(eeg=trial["eeg"][:, :250]) for trial in dataset],
     "the median segment has 250 samples; expected about 500, half a second at 1000 Hz"),
    (lambda dataset: [trial.update(eeg=torch.cat([trial["eeg"][:-1], torch.arange(trial["eeg"].shape[1])[None] % 5]))
                      for trial in dataset],
     "channel 127 holds 5 distinct values, as a trigger channel does"),
    (lambda dataset: [trial.update(eeg=trial["eeg"] * float("nan")) for trial in dataset],
     "all 23 trials are rejected (not finite: 23)"),
])
def test_spoilt_trials_are_refused(source, published, change, said):
    spoilt(source, published, change)
    refused(source, said, EEG)


@pytest.mark.parametrize(("also", "said"), [
    ({"images": ["../../secret_1", "b", "c", "d", "e", "f"]}, "image '../../secret_1' is not an accepted name"),
    ({"images": ["n02951358_1\n", "b", "c", "d", "e", "f"]}, "is not an accepted name"),
    ({"labels": ["/etc", "n03452741"]}, "label '/etc' is not a WordNet id"),
    ({"labels": ["n02951358", "n02951358"]}, "labels lists n02951358 twice"),
    ({"images": 5}, "images: expected a list of text"),
])
def test_names_that_are_no_names_are_refused(source, published, also, said):
    spoilt(source, published, lambda dataset: None, **also)
    refused(source, said, EEG)


def test_a_class_outside_imagenet_1k_is_refused(source, published):
    name = "n04555897"  # watch
    images = [image.replace(WNIDS[1], name) for image in published[1]["images"]]
    (source / "images" / WNIDS[1]).rename(source / "images" / name)
    for file in (source / "images" / name).iterdir():
        file.rename(file.with_name(file.name.replace(WNIDS[1], name)))
    spoilt(source, published, lambda dataset: None, labels=[WNIDS[0], name], images=images)
    refused(source, "n04555897: no class of ImageNet-1k")


def test_bands_that_list_other_trials_are_refused(source, published):
    dataset = trials(published)
    dataset[0], dataset[1] = dataset[1], dataset[0]
    save(source / "eeg_14_70_std.pth", published[1] | {"dataset": dataset})
    refused(source, "eeg_14_70_std.pth does not list the trials of eeg_5_95_std.pth in the same order")


@pytest.mark.parametrize(("name", "split", "said"), [
    (ALL, {"train": [0], "val": [1], "test": [23]}, "index 23 of test; expected 0 to 22, as there are 23 trials"),
    (ALL, {"train": [0], "val": [1], "test": [-1]}, "index -1 of test"),
    (ALL, {"train": [0, 1], "val": [2], "test": [1]}, "index 1 is in train and again in test"),
    (ALL, {"train": [0, 0], "val": [2], "test": [1]}, "index 0 is in train and again in train"),
    (ALL, {"train": [0], "test": [1]}, "the lists of indices train, val and test"),
    (ALL, {"train": [0.5], "val": [2], "test": [1]}, "the lists of indices train, val and test"),
    (SINGLE, {"train": [0], "val": [1], "test": [6]},
     "index 6 of test; expected 0 to 5, as there are 6 trials of subject 4"),
])
def test_spoilt_splits_are_refused(source, name, split, said):
    spoil(source, name, {"splits": [split]})
    refused(source, name, said)


def test_a_missing_split_is_named(source):
    (source / SINGLE).unlink()
    refused(source, f"{SINGLE} does not exist")


@pytest.mark.parametrize("serialisation", ["legacy", "zip"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_named_with_its_size(source, published, serialisation, share):
    spoil(source, EEG, published[1], serialisation)
    content = (source / EEG).read_bytes()
    kept = content[: int(share * len(content))]
    (source / EEG).write_bytes(kept)
    refused(source, EEG, f"({len(kept):,} bytes)", "written by torch.save", "truncated, or another format")


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x93NUMPY", b"PK\x03\x04", bytes(100), b"\x80\x02."])
def test_a_foreign_file_is_refused(source, content):
    (source / ALL).unlink()
    (source / ALL).write_bytes(content)
    refused(source, ALL, f"({len(content):,} bytes)", "truncated, or another format")


@pytest.mark.parametrize("serialisation", ["legacy", "zip"])
@pytest.mark.parametrize("name", [EEG, ALL])
def test_a_pickle_bomb_never_runs(source, tmp_path, name, serialisation):
    spoil(source, name, {"splits": Bomb(tmp_path / "ran")}, serialisation)
    refused(source, name, "exec, which could run code, and is not read")
    assert not (tmp_path / "ran").exists()


def test_other_content_is_refused(source):
    spoil(source, EEG, {"eeg": 1})
    refused(source, "expected a dict of dataset, labels and images, not eeg")


def test_progress_goes_to_the_end(source):
    seen = []
    run(source, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    assert (23, 23) in seen
