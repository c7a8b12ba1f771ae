"""Scoring a folder of pictures, and what it reads: items, the reference, the read-out."""

import gzip
import hashlib
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from perceptual import lpips_distance

from bench.data.pictures import draw_scenes, render, stream
from bench.errors import BenchError
from bench.experiment.scale import TINY
from bench.experiment.stages import Items, Numerics, Readout, Reference, Score, Trials, Weights, World
from bench.runtime import Runtime
from bench.scoring import measure as measuring
from bench.scoring import networks, sets
from bench.train import score as scoring
from bench.train.items import load
from bench.train.readout import readout
from bench.train.reference import reference
from bench.train.trials import write_classes
from models import extractors, frozen

TRIALS = Trials(World(seed=7), (1, 4), (5.0, 95.0))
ITEMS = Items(TRIALS)
PICTURES = 60


@pytest.fixture(autouse=True)
def several_batches(monkeypatch):
    """40 items in batches of 16: the last one is padded."""
    monkeypatch.setattr(measuring, "BATCH", 16)


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Weights:
    """A judge of the real architecture whose weights say nothing: what is tested here is the counting."""
    path = tmp_path_factory.mktemp("judge") / "judge.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        part = frozen.Judge(16)
    frozen.save(part, path)
    return Weights("judge", hashlib.sha256(path.read_bytes()).hexdigest(), str(path))


def write_trials(folder, order=None):
    """60 pictures (every third a test picture) that two subjects see, on disk in the given order."""
    folder.mkdir()
    write_classes(folder)
    scenes = draw_scenes(PICTURES, 10, np.random.default_rng(5))
    trials = pd.DataFrame({"item": np.arange(2 * PICTURES), "subject": np.repeat([1, 4], PICTURES),
                           "picture": np.tile(np.arange(PICTURES), 2), "label": np.tile(scenes.label, 2)})
    trials["part"] = np.where(trials["picture"] % 3 == 0, "test", "train")
    eeg = np.random.default_rng(6).standard_normal((2 * PICTURES, 4, 16)).astype(np.float32)
    order = np.arange(2 * PICTURES) if order is None else order
    trials.iloc[order].to_csv(folder / "trials.csv", index=False)
    np.save(folder / "eeg.npy", eeg[order])
    np.save(folder / "pictures.npy", render(scenes))
    return folder


def build(tmp_path, judge, name="out", order=None, change=lambda pictures, item: (pictures, item), samples=2,
          embedding=None, items=ITEMS):
    """Scores pictures: sample 0 is the stimulus itself, others are noise; `change` alters them. -> the folder."""
    folders = {kind: tmp_path / f"{name}-{kind}" for kind in ("trials", "pictures", "reference", "score")}
    write_trials(folders["trials"], order)
    for kind in ("pictures", "reference", "score"):
        folders[kind].mkdir()
    loaded = load(ITEMS, folders["trials"])
    noise = np.random.default_rng(8).integers(0, 256, (len(loaded.item), samples, 32, 32, 3), dtype=np.uint8)
    noise[:, 0] = loaded.pictures
    pictures, item = change(noise, loaded.item)
    np.save(folders["pictures"] / "pictures.npy", pictures)
    np.save(folders["pictures"] / "item.npy", item)
    if embedding is not None:
        np.save(folders["pictures"] / "embedding.npy", embedding)
    made = Reference(TRIALS.world, judge, 130, Numerics())
    stage = Score(Trials(World(seed=8), (1,), (5.0, 95.0)), items, made, TINY.weights("clip"), 10, tuple(range(12)),
                  (), Numerics())
    inputs = {TRIALS: folders["trials"], stage.pictures: folders["pictures"], made: folders["reference"]}.__getitem__
    reference(made, inputs, folders["reference"], Runtime())
    scoring.score(stage, inputs, folders["score"], Runtime())
    return folders["score"]


def metrics_of(folder):
    return pd.read_csv(folder / "metrics.csv").set_index("metric")


def items_of(folder):
    return pd.read_csv(io.BytesIO(gzip.decompress((folder / "items.csv.gz").read_bytes())))


def test_the_stimulus_itself_scores_as_the_stimulus_and_noise_does_not(tmp_path, judge):
    rows = items_of(build(tmp_path, judge)).set_index("sample")
    assert (rows.loc[0, ["top1_judge", "nway_judge", "ssim"]] == 1).all(axis=None)
    assert (rows.loc[0, "judge_distance"] == 0).all()
    assert np.isinf(rows.loc[0, "psnr"]).all()
    assert (rows.loc[0, "judged"] == rows.loc[0, "judged_real"]).all()
    assert (rows.loc[1, "judge_distance"] > 0).all()
    assert (rows.loc[1, "psnr"] < 20).all()


def test_metrics_are_the_means_of_the_item_rows_and_name_what_qualifies_them(tmp_path, judge):
    folder = build(tmp_path, judge)
    metrics, rows = metrics_of(folder), items_of(folder)
    assert len(rows) == 40 * 2
    assert list(rows)[:7] == ["item", "sample", "subject", "picture", "label", "judged_real", "judged"]
    assert {"fid", "is"} <= set(rows)
    assert rows[["fid", "is"]].std().min() > 0
    singly = list(rows)[7:]
    assert set(singly) < set(metrics.index)
    for name in singly:
        assert metrics.loc[name, "value"] == pytest.approx(rows[name].mean(), rel=1e-9), name
    assert metrics["key"].to_dict() == {
        "clip_similarity": "64 dimensions", "correlation_judge": "96 dimensions",
        "fid": "N=40, reference=130, averaged over 2 samples",
        "fid_torchmetrics": "N=40, reference=130, averaged over 2 samples",
        "is": "N=40, 1 split, averaged over 2 samples", "is_torchmetrics": "N=40, 1 split, averaged over 2 samples",
        "judge_distance": "5 layers", "kid": "N=40, reference=130, 100 subsets of 40, averaged over 2 samples",
        "nway_hard_judge": "10 of 16, the hardest",
        "nway_hard_label": "10 of 16, the hardest",
        "nway_judge": "10 of 16", "nway_label": "10 of 16", "nway_shown_judge": "10 of 10 shown classes",
        "nway_shown_label": "10 of 10 shown classes",
        "nway_top5_judge": "top 5, 10 of 16", "nway_top5_label": "top 5, 10 of 16", "pixcorr": "RGB",
        "psnr": "range 255", "ssim": "Gaussian 11x11, sigma 1.5", "ssim_released": "uniform 7x7, sample covariance",
        "top1_fixed_judge": "12 fixed classes", "top1_fixed_label": "12 fixed classes",
        "top1_judge": "16 classes", "top1_label": "16 classes", "top1_real": "16 classes",
        "top1_shown_judge": "10 shown classes", "top1_shown_label": "10 shown classes",
        "two_way_clip_tiny": "64 dimensions, among 20 pictures",
        "two_way_judge_features": "96 dimensions, among 20 pictures",
        "two_way_judge_layer2": "768 dimensions, among 20 pictures",
        "two_way_judge_layer4": "384 dimensions, among 20 pictures"}
    assert (metrics["n"] == 40).all()
    assert list(metrics.index) == sorted(metrics.index)
    assert set(metrics.index) <= set(measuring.metrics.DEFINITIONS)


def test_a_number_names_its_network_and_no_tiny_one_claims_to_be_comparable(tmp_path, judge):
    metrics = metrics_of(build(tmp_path, judge)).fillna("")
    pixels = ["pixcorr", "psnr", "ssim", "ssim_released"]
    clip = ["clip_similarity", "two_way_clip_tiny"]
    assert (metrics.loc[pixels, ["extractor", "extractor_sha256"]] == "").all(axis=None)
    assert (metrics.loc[pixels, "comparable"] == 1).all()
    assert (metrics.drop(pixels)["comparable"] == 0).all()
    assert set(metrics.loc[clip, "extractor"]) == {"tiny/clip"}
    assert set(metrics.loc[clip, "extractor_sha256"]) == {TINY.weights("clip").sha256}
    assert set(metrics.drop(pixels + clip)["extractor"]) == {"judge"}
    assert set(metrics.drop(pixels + clip)["extractor_sha256"]) == {judge.sha256}


def test_torchmetrics_agrees_on_fid_and_inception_score(tmp_path, judge):
    metrics = metrics_of(build(tmp_path, judge))["value"]
    assert metrics["fid"] == pytest.approx(metrics["fid_torchmetrics"], rel=1e-5, abs=1e-6)
    assert metrics["is"] == pytest.approx(metrics["is_torchmetrics"], rel=1e-9)


def test_one_pass_through_the_judge_sees_what_its_own_methods_see(judge):
    part, images = frozen.load_judge(judge.path), torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        seen = extractors.judge(judge.path, judge.sha256, "judge").look(images)
        images = images.float() / 127.5 - 1
        assert torch.equal(seen.vectors["logits"], part.logits(images))
        assert torch.equal(seen.vectors["features"], part.features(images))
        layers = part.net.forward_intermediates(images, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(seen.maps, layers, strict=True))
    pooled = layers[2].reshape(5, 48, 4, 2, 4, 2).mean((3, 5)).flatten(1)
    assert torch.allclose(seen.vectors["layer2"], pooled, atol=1e-6)
    assert torch.equal(seen.vectors["layer4"], layers[4].flatten(1))


def test_two_way_identification_is_among_distinct_pictures_also_where_several_items_show_one(tmp_path, judge):
    rows = items_of(build(tmp_path, judge)).set_index(["sample", "item"])
    items = load(ITEMS, tmp_path / "out-trials")
    pictures = np.load(tmp_path / "out-pictures" / "pictures.npy")

    def features(pictures):
        with torch.inference_mode():
            images = torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2)
            return extractors.judge(judge.path, judge.sha256, "judge").look(images).vectors["features"].numpy()

    real, made = features(items.pictures), features(pictures[:, 1])
    for row, (item, picture) in enumerate(zip(items.item, items.picture, strict=True)):
        others = np.flatnonzero((items.picture != picture) & (items.subject == items.subject[row]))
        correlation = [np.corrcoef(real[other], made[row])[0, 1] for other in (row, *others)]
        expected = np.mean(np.array(correlation[1:]) < correlation[0])
        assert rows.loc[(1, item), "two_way_judge_features"] == pytest.approx(expected)
    assert (rows.loc[0, "two_way_judge_features"] == 1).all()
    assert len(others) == 19


def test_retrieval_is_there_with_the_eegs_embedding_and_only_then(tmp_path, judge):
    items = load(ITEMS, write_trials(tmp_path / "trials"))
    clip = TINY.weights("clip")
    with torch.inference_mode():
        images = torch.from_numpy(np.asarray(items.pictures)).permute(0, 3, 1, 2)
        real = extractors.clip(clip.path, clip.sha256, "clip").look(images).vectors["embedding"].numpy()
    perfect, opposite = (metrics_of(build(tmp_path, judge, name, embedding=embedding))
                         for name, embedding in (("a", real), ("b", -real)))
    assert perfect.loc[["retrieval_top1", "retrieval_top5"], "value"].tolist() == [1, 1]
    assert opposite.loc["retrieval_top5", "value"] < 0.2
    assert perfect.loc["retrieval_top5", "key"] == "top 5 of 20 pictures"
    assert perfect.loc["retrieval_top1", "extractor"] == "tiny/clip"
    assert "retrieval_top1" not in metrics_of(build(tmp_path, judge, "c")).index
    with pytest.raises(BenchError, match=r"embedding.npy is \[39, 64\] float32; expected \[items, D'\]"):
        build(tmp_path, judge, "d", embedding=real[1:])
    with pytest.raises(BenchError, match="the EEG's embeddings have 16 dimensions, those of tiny/clip 64"):
        build(tmp_path, judge, "e", embedding=real[:, :16])


def test_scoring_does_not_look_at_the_eeg(tmp_path, judge):
    plain = build(tmp_path, judge, "a")
    stage_items = replace(ITEMS, eeg="clip")
    scored = build(tmp_path, judge, "b", items=stage_items)
    assert (plain / "metrics.csv").read_bytes() == (scored / "metrics.csv").read_bytes()


def pairs_of(real, made):
    every = np.arange(len(real))
    return measuring.Pairs(every, every, every, None, 1, real.__getitem__, lambda row, sample: made[row])


def test_fid_at_infinite_n_is_there_where_there_are_pictures_enough_for_it():
    real, made = np.random.default_rng(0).integers(0, 256, (2, 5, 16, 16, 3), dtype=np.uint8)

    def look(images):
        few = images.float().flatten(1)[:, :2]
        return extractors.Seen({"features": few, "logits": few, "features64": few[:, :1]})

    looking = networks.Networks(sets=extractors.Extractor("x", "", True, 16, look))
    found = measuring.measure(pairs_of(real, made), looking, measuring.Classes(2)).summary.set_index("metric")
    assert {"fid", "fid_64", "fid_infinity", "kid", "is"} < set(found.index)
    fewer = measuring.measure(pairs_of(real[:4], made[:4]), looking, measuring.Classes(2)).summary.set_index("metric")
    assert set(found.index) - set(fewer.index) == {"fid_infinity"}
    features = [pictures[:, 0, :2, 0].astype(float) for pictures in (made, real)]  # [N, 2], red of the first two pixels
    assert found.loc["fid", "value"] == pytest.approx(sets.fid_torchmetrics(*features), rel=1e-6)
    assert found.loc["fid_64", "value"] == pytest.approx(
        sets.fid_torchmetrics(*(x[:, :1] for x in features)), rel=1e-6)


def test_the_frechet_distance_of_another_network_stands_beside_fid():
    real, made = np.random.default_rng(0).integers(0, 256, (2, 6, 16, 16, 3), dtype=np.uint8)
    real[5] = real[0]  # an image that is shown twice counts once among the real ones
    other = extractors.Extractor("y", "", True, 16, lambda images: extractors.Seen(
        {"features": images.float().flatten(1)[:, :2]}), {"fd_dinov2": "features"})
    measured = measuring.measure(pairs_of(real, made), networks.Networks(others=[other]), measuring.Classes(2))
    found = measured.summary.set_index("metric").loc["fd_dinov2"]
    features = [pictures[:, 0, :2, 0].astype(float) for pictures in (made, real[:5])]
    assert found["value"] == pytest.approx(sets.fid_torchmetrics(*features), rel=1e-6)
    assert (found["key"], found["extractor"], found["comparable"]) == (
        "N=6, reference=5, averaged over 1 sample", "y", 1)
    assert "fd_dinov2" not in measured.rows


def test_only_what_is_wanted_is_measured(judge):
    pictures = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    looked = extractors.judge(judge.path, judge.sha256, "judge")
    looking = networks.Networks(looked, looked)
    wanted = ["psnr", "kid", "top1_judge"]
    found = measuring.measure(pairs_of(pictures, 255 - pictures), looking, measuring.Classes(10), wanted)
    assert found.summary["metric"].tolist() == ["kid", "psnr", "top1_judge"]
    assert list(found.rows)[-2:] == ["top1_judge", "psnr"]
    assert "label" not in found.rows


def test_accuracy_against_the_label_is_counted_from_what_the_judge_saw(tmp_path, judge):
    rows = items_of(build(tmp_path, judge))
    assert ((rows["judged"] == rows["label"]) == (rows["top1_label"] == 1)).all()
    assert ((rows["judged"] == rows["judged_real"]) == (rows["top1_judge"] == 1)).all()
    assert (rows["top1_shown_label"] >= rows["top1_label"]).all()
    assert (rows["nway_top5_label"] >= rows["nway_label"]).all()
    shown = rows[rows["judged"].isin(rows["label"])]
    assert (shown["top1_shown_label"] == shown["top1_label"]).all()
    assert (rows["nway_label"] >= rows["top1_label"]).all()


def test_the_shipped_judge_recognises_the_stimuli_and_not_noise(tmp_path):
    rows = items_of(build(tmp_path, TINY.weights("judge"))).set_index("sample")
    assert rows.loc[0, "top1_label"].mean() >= 0.95
    assert (rows["judged_real"] == rows["label"]).mean() >= 0.95
    assert rows.loc[1, "top1_label"].mean() <= 0.4


def test_the_order_on_disk_changes_no_byte(tmp_path, judge):
    order = np.random.default_rng(0).permutation(2 * PICTURES)
    folders = [build(tmp_path, judge, "a"), build(tmp_path, judge, "b", order)]
    for name in ("metrics.csv", "items.csv.gz"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1


@pytest.mark.parametrize(("change", "message"), [
    (lambda pictures, item: (pictures[:-1], item[:-1]), "1 are missing, the first is item 117"),
    (lambda pictures, item: (pictures[::-1], item[::-1]), "does not contain the 40 items in their order"),
    (lambda pictures, item: (pictures[:-1], item), "expected uint8"),
    (lambda pictures, item: (pictures[:, 0], item), "expected uint8"),
    (lambda pictures, item: (pictures / 255, item), "expected uint8")])
def test_pictures_that_do_not_fit_the_items_are_an_error_never_filled_in(tmp_path, judge, change, message):
    with pytest.raises(BenchError, match=message):
        build(tmp_path, judge, change=change)


def test_the_reference_is_the_judges_features_of_fresh_pictures(tmp_path, judge):
    made = Reference(TRIALS.world, judge, 130, Numerics())
    reference(made, {}.__getitem__, tmp_path, Runtime())
    features = np.load(tmp_path / "features.npy")
    pictures = render(draw_scenes(130, 10, stream("reference", 7)))
    images = torch.from_numpy(pictures[:3]).permute(0, 3, 1, 2).float() / 127.5 - 1
    expected = frozen.load_judge(judge.path, judge.sha256).features(images).numpy()
    assert features.dtype == np.float32
    assert len(features) == 130
    assert features[:3] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    hard = np.load(tmp_path / "hard.npy")
    assert [sorted([own, *others]) for own, others in enumerate(hard[:10])] == [list(range(16))] * 10
    assert (hard[10:] == -1).all()


def test_accuracy_among_fixed_and_hard_classes_is_counted_from_logits(judge):
    scenes = draw_scenes(40, 10, np.random.default_rng(5))
    real, made = render(scenes), np.random.default_rng(6).integers(0, 256, (40, 1, 32, 32, 3), dtype=np.uint8)
    extractor = extractors.judge(judge.path, judge.sha256, judge.name)
    hard = np.array([np.roll(np.delete(np.arange(16), own), own) for own in range(16)])
    every = np.arange(40)
    pairs = measuring.Pairs(every, 0 * every, every, scenes.label, 1, lambda row: real[row],
                            lambda row, sample: made[row, sample])
    rows = measuring.measure(pairs, networks.Networks(extractor), measuring.Classes(4, range(13), hard)).rows

    def seen(pictures):
        return extractor.look(torch.from_numpy(pictures).permute(0, 3, 1, 2)).vectors["logits"].numpy()

    with torch.inference_mode():
        logits, opinions = seen(made[:, 0]), seen(real)
    for metric, few_of_each in {"top1_fixed": [range(13)] * 40,
                         "nway_hard": [[own, *hard[own][:3]] for own in scenes.label]}.items():
        best = [max(few, key=lambda c: row[c]) for few, row in zip(few_of_each, logits, strict=True)]
        opinion = [max(few, key=lambda c: row[c]) for few, row in zip(few_of_each, opinions, strict=True)]
        assert (rows[f"{metric}_label"] == (best == scenes.label)).all()
        assert (rows[f"{metric}_judge"] == (np.array(best) == opinion)).all()
    assert 0 < rows["nway_hard_judge"].mean() < 1


def test_torchmetrics_fid_of_features_with_known_moments_is_exact():
    rng = np.random.default_rng(0)
    white = rng.standard_normal((500, 4))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    assert sets.fid_torchmetrics(white * [1, 2, 3, 4] + 1, white) == pytest.approx(4 + 0 + 1 + 4 + 9, rel=1e-9)
    assert sets.fid_torchmetrics(white, white) == pytest.approx(0, abs=1e-6)


def test_torchmetrics_inception_score_has_its_known_ends_and_leaves_the_random_state_alone():
    sure = 100 * np.eye(8)[np.arange(40) % 8]
    assert sets.inception_score_torchmetrics(sure, 1) == pytest.approx(8)
    assert sets.inception_score_torchmetrics(np.tile(sure[:1], (40, 1)), 1) == pytest.approx(1)
    logits = np.random.default_rng(0).standard_normal((40, 8))
    state = torch.random.get_rng_state()
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        values.append(sets.inception_score_torchmetrics(logits, 4))
    assert values[0] == values[1]
    torch.random.set_rng_state(state)
    sets.inception_score_torchmetrics(logits, 4)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_lpips_refuses_to_run_without_its_backbone_and_says_where_it_must_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    a = np.zeros((1, 64, 64, 3), np.uint8)
    where = r"no alexnet-owt-7be5be79\.pth in .*hub/checkpoints: download https://"
    with pytest.raises(BenchError, match=where) as error:
        lpips_distance(a, a)
    assert error.value.exit_code == 3
    assert str(tmp_path) in str(error.value)
    assert not any(tmp_path.iterdir())
    with pytest.raises(BenchError, match="there are: alex, vgg, squeeze"):
        lpips_distance(a, a, net="inception")


def test_lpips_refuses_a_backbone_that_is_not_the_one_in_its_name_and_runs_through_lpips_else(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    path.parent.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(torchvision.models.squeezenet1_1().state_dict(), path)
    a, b = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(BenchError, match=r"has SHA-256 .*, not b8a52dc0: download") as error:
        lpips_distance(a, b, net="squeeze")
    assert error.value.exit_code == 3
    monkeypatch.setitem(extractors.FILES, "squeeze", replace(extractors.FILES["squeeze"], sha256=""))
    assert (lpips_distance(a, a, net="squeeze") == 0).all()
    assert (lpips_distance(a, b, net="squeeze") > 0).all()


def test_items_come_in_ascending_order_whatever_the_order_on_disk(tmp_path):
    plain = load(ITEMS, write_trials(tmp_path / "a"))
    mixed = load(ITEMS, write_trials(tmp_path / "b", np.random.default_rng(1).permutation(2 * PICTURES)))
    assert plain.item.tolist() == [i for i in range(120) if i % 60 % 3 == 0]
    for name in ("item", "picture", "subject", "label", "eeg", "pictures"):
        assert np.array_equal(getattr(plain, name), getattr(mixed, name)), name
    assert plain.names[plain.label[0]] in plain.names


def test_shuffled_eeg_is_anothers_of_the_same_part_and_subject_and_always_the_same(tmp_path):
    real = load(ITEMS, write_trials(tmp_path / "a"))
    mixed_up = write_trials(tmp_path / "b", np.random.default_rng(1).permutation(2 * PICTURES))
    shuffled = load(replace(ITEMS, eeg="shuffled"), mixed_up)
    whose = [int(np.flatnonzero((real.eeg == one).all((1, 2)))[0]) for one in shuffled.eeg]
    assert sorted(whose) == list(range(40))
    assert all(source != own for own, source in enumerate(whose))
    assert (real.subject[whose] == real.subject).all()
    assert np.array_equal(shuffled.pictures, real.pictures)
    assert np.array_equal(shuffled.label, real.label)
    assert np.array_equal(load(replace(ITEMS, eeg="shuffled"), tmp_path / "a").eeg, shuffled.eeg)


@pytest.mark.parametrize(("change", "message"), [({"eeg": "noise"}, "available: real, shuffled"),
                                                 ({"part": "dev"}, "available: test, train")])
def test_an_unknown_control_or_part_names_those_that_exist(tmp_path, change, message):
    with pytest.raises(BenchError, match=message):
        load(replace(ITEMS, **change), write_trials(tmp_path / "a"))


def test_the_readout_finds_a_class_that_is_there_and_only_that(tmp_path):
    folder = write_trials(tmp_path / "trials")
    stage = Readout(replace(ITEMS, part="train"), ITEMS, "ridge", None, 0, Numerics())
    eeg = np.load(folder / "eeg.npy")
    (tmp_path / "without").mkdir()
    readout(stage, {TRIALS: folder}.__getitem__, tmp_path / "without", Runtime())
    label = pd.read_csv(folder / "trials.csv")["label"].to_numpy()
    eeg[np.arange(len(eeg)), label % 4, label] += 6
    np.save(folder / "eeg.npy", eeg)
    (tmp_path / "with").mkdir()
    readout(stage, {TRIALS: folder}.__getitem__, tmp_path / "with", Runtime())
    absent, present = (metrics_of(tmp_path / name).loc["readout_accuracy"] for name in ("without", "with"))
    assert absent["value"] < 0.4
    assert present["value"] > 0.9
    assert (present["key"], present["n"]) == ("ridge, 10 classes", 40)
