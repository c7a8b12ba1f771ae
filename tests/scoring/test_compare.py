"""Scoring folders that anybody made (`bench score`), and the literature's networks, which are never random."""

import io
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import torchvision
from perceptual import lpips_distance
from PIL import Image
from test_measure import items_of, metrics_of, write_trials

from bench.data.pictures import CLASSES, draw_scenes, render
from bench.errors import ENVIRONMENT, USAGE, BenchError
from bench.experiment.scale import TINY
from bench.experiment.stages import Items, Numerics, Reference, Score, Trials, World
from bench.images import resize
from bench.runtime import Runtime
from bench.scoring import measure as measuring
from bench.scoring import neighbours, schema
from bench.scoring.compare import compare
from bench.tables import results
from bench.train.reference import reference
from bench.train.score import score
from models import extractors, frozen

PIXELS = ["pixcorr", "psnr", "ssim", "ssim_released"]
N = 12


@pytest.fixture(autouse=True)
def one_thread():
    """compare() sets it, as the stages do; what was set before comes back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scenes():
    """Twelve pictures of the tiny world, and what a poor system made of them."""
    drawn = draw_scenes(N, 10, np.random.default_rng(3))
    real = render(drawn)
    noise = np.random.default_rng(4).normal(0, 40, real.shape)
    return real, np.clip(real + noise, 0, 255).astype(np.uint8), drawn.label


def folder(path, pictures, names="{:03d}.png"):
    path.mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / names.format(i))
    return path


@pytest.fixture
def pair(tmp_path, scenes):
    return folder(tmp_path / "made", scenes[1]), folder(tmp_path / "real", scenes[0])


def values(comparison):
    return comparison.summary.set_index("metric")["value"]


def refused(match):
    return pytest.raises(BenchError, match=match)


def test_without_any_network_pixels_are_compared(pair, scenes):
    found = compare(*pair, judge="none")
    assert found.summary["metric"].tolist() == PIXELS
    assert (found.summary["comparable"] == 1).all()
    assert (found.summary["n"] == N).all()
    assert values(found)["psnr"] == pytest.approx(measuring.metrics.psnr(scenes[0], scenes[1]).mean())
    assert values(found)["pixcorr"] == pytest.approx(measuring.metrics.pixcorr(scenes[0], scenes[1]).mean())


def test_the_judge_compares_with_its_own_opinion_and_with_labels_where_they_are_given(pair, scenes, tmp_path):
    found = compare(*pair)
    assert {"top1_judge", "two_way_judge_layer2", "two_way_clip_tiny", "clip_similarity", "fid", "kid", "is",
            "judge_distance", *PIXELS} < set(found.summary["metric"])
    assert not set(measuring.BY_LABEL) & set(found.summary["metric"])
    pd.DataFrame({"name": [f"{i:03d}" for i in range(N)], "label": scenes[2]}).to_csv(tmp_path / "l.csv", index=False)
    labelled = compare(*pair, labels=tmp_path / "l.csv")
    assert set(labelled.summary["metric"]) - set(found.summary["metric"]) == set(measuring.BY_LABEL)
    assert values(labelled)["top1_real"] >= 0.9


def test_a_stage_and_bench_score_give_the_same_numbers_for_the_same_pictures(tmp_path):
    """Two samples of 20 items, once as a stage's arrays and once as PNG files with labels."""
    trials = Trials(World(seed=7), (1,), (5.0, 95.0))
    table = pd.read_csv(write_trials(tmp_path / "trials") / "trials.csv")
    table[table["subject"] == 1].to_csv(tmp_path / "trials" / "trials.csv", index=False)
    table = table[(table["subject"] == 1) & (table["part"] == "test")]
    real = np.load(tmp_path / "trials" / "pictures.npy")[table["picture"]]
    made = np.random.default_rng(0).integers(0, 256, (20, 2, 32, 32, 3), dtype=np.uint8) // 2 + real[:, None] // 2
    for name in ("pictures", "reference", "score", "made"):
        (tmp_path / name).mkdir()
    np.save(tmp_path / "pictures" / "pictures.npy", made)
    np.save(tmp_path / "pictures" / "item.npy", table["item"])
    against = Reference(trials.world, TINY.weights("judge"), 120, Numerics())
    stage = Score(replace(trials, world=World(seed=8)), Items(trials), against, TINY.weights("clip"), 10,
                  tuple(range(12)), (), Numerics())
    inputs = {trials: tmp_path / "trials", stage.pictures: tmp_path / "pictures",
              against: tmp_path / "reference"}.__getitem__
    reference(against, inputs, tmp_path / "reference", Runtime())
    score(stage, inputs, tmp_path / "score", Runtime())
    folder(tmp_path / "real", real)
    for i, samples in enumerate(made):
        for sample, picture in enumerate(samples):
            Image.fromarray(picture).save(tmp_path / "made" / f"{i:03d}_{sample}.png")
    pd.DataFrame({"name": [f"{i:03d}" for i in range(20)], "label": table["label"]}
                 ).to_csv(tmp_path / "labels.csv", index=False)
    found = compare(tmp_path / "made", tmp_path / "real", labels=tmp_path / "labels.csv")
    expected = metrics_of(tmp_path / "score")["value"]
    same = set(values(found).index) - {"fid", "fid_torchmetrics", "kid"}  # those are against another reference
    assert len(items_of(tmp_path / "score")) == 40
    assert set(values(found).index) == set(expected.index) - set(measuring.BY_SETS)
    assert values(found)[sorted(same)].to_numpy() == pytest.approx(expected[sorted(same)].to_numpy(), rel=1e-9)


def test_training_images_of_any_names_and_sizes_give_the_metrics_of_memorisation(tmp_path, scenes):
    every = render(draw_scenes(90, 10, np.random.default_rng(7)))
    known, real = every[:40], every[40:]
    pair = folder(tmp_path / "made", known[np.arange(50) % 40]), folder(tmp_path / "real", real)
    train = folder(tmp_path / "train", [*known, resize(known[0], (48, 40))], "a photograph {:d}.png")
    (train / "list.txt").write_text("names")
    copied = compare(*pair, train=train)
    assert {*neighbours.MANIFOLD, *neighbours.MEMORISATION} < set(values(copied).index)
    for space in neighbours.SPACES:
        assert values(copied)[f"copies_{space}"] == values(copied)[f"near_copies_{space}"] == 1
        assert values(copied)[f"train_distance_{space}"] == values(copied)[f"train_ratio_{space}"] == 0
    keys = copied.summary.set_index("metric")["key"]
    assert keys["copies_judge"] == "41 training images, 96 dimensions, 50 test images"
    assert keys["recall"] == "k=3, N=50, real=50, averaged over 1 sample"
    assert copied.notes == [f"left out of {train}: 1 ending .txt (list.txt)"]
    assert list(copied.skipped.values()) == [[f"{train}/list.txt"]]
    same = compare(pair[1], pair[1], train=train, wanted=["train_ratio_judge", "copies_clip", "density", "coverage"])
    assert values(same).to_dict() == {"copies_clip": 1 / 50, "coverage": 1, "density": 1, "train_ratio_judge": 1}


def test_reference_images_among_the_training_images_are_counted(pair, tmp_path, scenes):
    train = folder(tmp_path / "train", [*scenes[0][:2], 255 - scenes[0][3]])
    found = compare(*pair, train=train)
    assert found.notes[0].startswith(f"2 reference images are among the training images of {train}: their distance")
    assert found.notes[1:] == [
        "left out: coverage, density, precision, recall: expected 50 or more different reference images, not 12",
        "left out: near_copies_clip, near_copies_judge: expected 20 or more different reference images, not 12"]
    with refused("^near_copies_clip: expected 20 or more different reference images, not 12; choose other --metrics"):
        compare(*pair, train=train, wanted=["near_copies_clip", "psnr"])
    with refused("train_ratio_clip: expected reference images most of which are not among the training images"):
        compare(*pair, train=pair[1], wanted=["train_ratio_clip"])


def test_sizes_may_differ_and_the_key_says_how_they_were_made_equal(tmp_path, scenes):
    large = [resize(picture, (80, 64)) for picture in scenes[1]]
    made, real = folder(tmp_path / "made", large), folder(tmp_path / "real", scenes[0])
    found = compare(made, real, wanted=["psnr", "top1_judge"]).summary.set_index("metric")
    assert found.loc["psnr", "key"] == "range 255, Pillow bicubic to the reference's size"
    assert found.loc["top1_judge", "key"] == "16 classes, Pillow bicubic to 32x32"
    back = np.stack([resize(picture, (32, 32)) for picture in large])
    assert found.loc["psnr", "value"] == pytest.approx(measuring.metrics.psnr(scenes[0], back).mean())


def test_arrays_and_folders_give_the_same_numbers(pair, scenes, tmp_path):
    np.save(tmp_path / "made.npy", scenes[1])
    np.savez(tmp_path / "real.npz", scenes[0] / 255)
    arrays, files = compare(tmp_path / "made.npy", tmp_path / "real.npz"), compare(*pair)
    assert arrays.summary.equals(files.summary)
    assert arrays.about["variant"] == "made"


def test_the_order_of_the_files_and_running_again_change_nothing(pair, tmp_path, scenes):
    first, again = compare(*pair), compare(*pair)
    assert first.csv() == again.csv()


def test_a_csv_can_be_read_as_results_and_names_whose_numbers_these_are(pair, tmp_path):
    found = compare(*pair)
    (tmp_path / "made.csv").write_bytes(found.csv())
    table = results.read_csv(tmp_path / "made.csv")
    assert set(table["variant"]) == {"made"}
    assert set(table["scale"]) == {"external"}
    assert set(table["judge"]) == {f"tiny/judge@{TINY.weights('judge').sha256[:12]}"}
    assert table["value"].to_numpy() == pytest.approx(found.summary["value"].to_numpy(), rel=1e-9)
    assert tuple(pd.read_csv(io.BytesIO(found.csv()))) == schema.COLUMNS


def test_json_is_json_also_where_a_number_is_infinite(pair):
    said = json.loads(compare(pair[1], pair[1], judge="none").json(), parse_constant=lambda name: 1 / 0)
    rows = {row["metric"]: row for row in said["metrics"]}
    assert rows["psnr"]["value"] == "inf"
    assert rows["ssim"]["value"] == pytest.approx(1, abs=1e-12)
    assert set(rows["ssim"]) == set(schema.METRICS)
    assert said["variant"] == "real"


def test_the_terminal_shows_metric_value_n_network_and_whether_it_is_comparable(pair):
    lines = compare(*pair, wanted=["psnr", "fid"]).text().splitlines()
    assert lines[0].split() == ["metric", "value", "n", "extractor", "comparable", "key"]
    assert lines[1].split()[0] == "fid"
    assert lines[1].split()[2:5] == [str(N), "tiny/judge", "no"]
    assert lines[2].split()[0] == "psnr"
    assert lines[2].split()[2:4] == [str(N), "yes"]


@pytest.mark.parametrize(("wanted", "judge", "message"), [
    (["nothing"], "tiny", "no metric 'nothing'; there are: class_top1, "),
    (["top1_label"], "tiny", "top1_label needs a judge and --labels"),
    (["top1_judge"], "none", "top1_judge needs --judge tiny"),
    (["two_way_judge_layer2"], "none", "needs --judge tiny"),
    (["retrieval_top1"], "tiny", "cannot be measured from images alone"),
    (["fid_64"], "tiny", "needs --judge none"),
    (["copies_clip"], "tiny", "copies_clip needs --train DIR, the training images$"),
    (["coverage", "psnr"], "tiny", "coverage: expected 50 or more different reference images, not 12"),
    (None, "nowhere", "no judge 'nowhere'; expected tiny, none, efficientnet_lite0, ")])
def test_a_metric_that_cannot_be_had_says_what_it_needs(pair, wanted, judge, message):
    with refused(message) as error:
        compare(*pair, wanted=wanted, judge=judge)
    assert error.value.exit_code == USAGE


def test_training_images_need_a_network_and_a_metric_that_uses_them(pair):
    with refused("--train needs a network; expected --judge tiny"):
        compare(*pair, judge="none", train=pair[1])
    with refused("--train is used by none of --metrics; add one of train_distance_clip, "):
        compare(*pair, wanted=["psnr"], train=pair[1])
    with refused("copies_judge needs --train DIR, the training images, and a judge"):
        compare(*pair, judge="none", wanted=["copies_judge"], train=pair[1])


def test_labels_need_a_judge_and_must_be_its_classes(pair, tmp_path):
    path = tmp_path / "labels.csv"
    pd.DataFrame({"name": [f"{i:03d}" for i in range(N)], "label": len(CLASSES)}).to_csv(path, index=False)
    with refused("expected 0 to 15, not 000 "):
        compare(*pair, labels=path)
    with refused("--labels needs a judge"):
        compare(*pair, labels=path, judge="none")


def test_a_single_picture_and_pictures_too_small_for_ssim_are_refused(tmp_path, scenes):
    one = folder(tmp_path / "one", scenes[0][:1])
    with refused("contains one image; expected two or more"):
        compare(one, one, judge="none")
    dots = folder(tmp_path / "dots", scenes[0][:3, :1, :1])
    with refused(r"3 images of .*dots are too small for ssim, which needs 11x11: 000, 001, 002 \(1x1\)"):
        compare(dots, dots, judge="none")
    with refused("for ssim_released, which needs 7x7"):
        compare(dots, dots, wanted=["ssim_released"])
    assert values(compare(dots, dots, wanted=["psnr", "top1_judge"]))["top1_judge"] == 1


def test_another_judge_is_used_by_its_file_and_named_with_its_hash(pair, tmp_path):
    weights = TINY.weights("judge")
    path = tmp_path / "mine.safetensors"
    path.write_bytes(Path(weights.path).read_bytes())
    found = compare(*pair, judge=str(path)).summary.set_index("metric")
    assert found.loc["top1_judge", ["extractor", "extractor_sha256"]].tolist() == ["mine", weights.sha256]
    assert "clip_similarity" not in found.index
    assert found.loc["nway_judge", "key"] == "16 of 16"
    path.write_bytes(b"nothing")
    with refused("does not hold the expected part") as error:
        compare(*pair, judge=str(path))
    assert error.value.exit_code == ENVIRONMENT


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """An empty folder of checkpoints in torch's place."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = tmp_path / "torch" / "hub" / "checkpoints"
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize(("metric", "file", "place"), [
    ("two_way_alexnet2", "alexnet-owt-7be5be79.pth", "https://download.pytorch.org/"),
    ("two_way_inception", "inception_v3_google-0cc3c7bd.pth", "https://download.pytorch.org/"),
    ("two_way_clip", "ViT-L-14.pt", "https://openaipublic.azureedge.net/"),
    ("correlation_efficientnet", "efficientnet_b1-c27df63c.pth", "https://download.pytorch.org/"),
    ("correlation_swav", "swav_800ep_pretrain.pth.tar", "https://dl.fbaipublicfiles.com/"),
    ("fid", "weights-inception-2015-12-05-6726825d.pth", "https://github.com/toshas/torch-fidelity/"),
    ("lpips", "alexnet-owt-7be5be79.pth", "https://download.pytorch.org/")])
def test_a_network_of_the_literature_is_never_random_but_names_the_file_that_is_missing(
        pair, checkpoints, metric, file, place):
    with refused(f"no {file} in {checkpoints}: download {place}") as error:
        compare(*pair, judge="none", wanted=[metric])
    assert error.value.exit_code == ENVIRONMENT
    (checkpoints / file).write_bytes(b"something else")
    if extractors.FILES["swav"].file != file:
        with refused("has SHA-256 .*, not .*: download"):
            compare(*pair, judge="none", wanted=[metric])
    assert sorted(path.name for path in checkpoints.iterdir()) == [file]


def test_dinov2_is_never_downloaded(pair, checkpoints):
    with refused(f"no facebookresearch_dinov2_main in {checkpoints.parent}: get it with: python -c"):
        compare(*pair, judge="none", wanted=["fd_dinov2"])
    (checkpoints.parent / "facebookresearch_dinov2_main").mkdir()
    with refused(f"no dinov2_vitg14_pretrain.pth in {checkpoints}: get it with: python -c"):
        compare(*pair, judge="none", wanted=["fd_dinov2"])
    assert not list(checkpoints.iterdir())


def put(checkpoints, monkeypatch, name, state):
    """Weights that say nothing, in the place of a network's own."""
    torch.save(state, checkpoints / extractors.FILES[name].file)
    monkeypatch.setitem(extractors.FILES, name, replace(extractors.FILES[name], sha256=""))


def test_alexnets_layers_are_those_after_the_second_and_the_fifth_convolutions_relu(checkpoints, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.alexnet().eval()
    put(checkpoints, monkeypatch, "alex", net.state_dict())
    network = extractors.alexnet()
    images = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        seen = network.look(images).vectors
        second = net.features[:5]((images / 255 - mean) / std).flatten(1)
        fifth = net.features[:12]((images / 255 - mean) / std).flatten(1)
    assert torch.allclose(seen[network.metrics["two_way_alexnet2"]], second, atol=1e-5)
    assert torch.allclose(seen[network.metrics["two_way_alexnet5"]], fifth, atol=1e-5)
    assert (network.comparable, network.size, len(network.sha256)) == (True, 256, 64)


def test_swavs_own_heads_are_left_out_and_another_file_is_refused(checkpoints, monkeypatch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.resnet50().eval()
    state = {f"module.{name}": value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    put(checkpoints, monkeypatch, "swav", state | {"module.prototypes.weight": torch.zeros(3, 2)})
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    net.fc = torch.nn.Identity()
    with torch.inference_mode():
        seen = extractors.swav().look(images).vectors["avgpool"]
        mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        assert torch.allclose(seen, net((images / 255 - mean) / std), atol=1e-4)
    put(checkpoints, monkeypatch, "swav", {"module.conv1.weight": state["module.conv1.weight"]})
    with pytest.raises(frozen.BadWeights, match="does not fit swav/resnet50"):
        extractors.swav()


def test_open_clip_reads_openais_file_and_gives_unit_vectors(checkpoints, monkeypatch, tmp_path):
    small = {"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
             "text_cfg": {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}}
    (tmp_path / "tiny-clip.json").write_text(json.dumps(small))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    monkeypatch.setattr(extractors, "CLIP_MODEL", "tiny-clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = open_clip.CLIP(**small, quick_gelu=True).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(net, (images.float(), torch.zeros(2, 8, dtype=torch.long)))
        torch.jit.save(traced, checkpoints / "ViT-L-14.pt")
    monkeypatch.setitem(extractors.FILES, "clip", replace(extractors.FILES["clip"], sha256=""))
    network = extractors.open_clip_l14()
    mean, std = (torch.tensor(values)[:, None, None] for values in extractors.OPENAI)
    with torch.inference_mode():
        seen = network.look(images).vectors["embedding"]
        assert torch.allclose(seen, net.encode_image((images / 255 - mean) / std, normalize=True), atol=1e-6)
    assert seen.norm(dim=1).tolist() == pytest.approx([1, 1])
    assert network.size == 32


def test_fid_by_its_own_inception_is_what_torchmetrics_makes_of_that_file(checkpoints, monkeypatch, tmp_path, scenes):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception
    from torchmetrics.image.fid import FrechetInceptionDistance

    weights = checkpoints / extractors.FILES["fid"].file
    with torch.random.fork_rng(devices=[]), monkeypatch.context() as patched:
        torch.manual_seed(0)
        patched.setattr(torch, "load", lambda *_, **__: None)
        patched.setattr(Inception, "load_state_dict", lambda self, state: None)
        weights.write_bytes(b"")
        net = Inception("inception-v3-compat", ["64"], feature_extractor_weights_path=str(weights))
    put(checkpoints, monkeypatch, "fid", net.state_dict())
    monkeypatch.setattr(measuring, "BATCH", 4)
    pair = folder(tmp_path / "made", scenes[1][:4]), folder(tmp_path / "real", scenes[0][:4])
    found = compare(*pair, judge="none", wanted=["fid_64", "is"]).summary.set_index("metric")
    theirs = FrechetInceptionDistance(feature=64, feature_extractor_weights_path=str(weights))
    for real, pictures in ((True, scenes[0][:4]), (False, scenes[1][:4])):
        large = np.stack([resize(picture, (299, 299)) for picture in pictures])
        theirs.update(torch.from_numpy(large).permute(0, 3, 1, 2), real=real)
    assert found.loc["fid_64", "value"] == pytest.approx(theirs.compute().item(), rel=1e-3, abs=1e-4)
    assert found.loc["fid_64", "comparable"] == 0  # the pictures were resized, and other tools do that otherwise
    assert found.loc["fid_64", "extractor"] == "torch-fidelity/inception-v3-compat"


def test_lpips_is_measured_at_the_references_size_by_its_own_backbone(checkpoints, monkeypatch, pair, tmp_path, scenes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        put(checkpoints, monkeypatch, "alex", torchvision.models.alexnet().state_dict())
    large = folder(tmp_path / "large", [resize(picture, (64, 64)) for picture in scenes[1]])
    found = compare(large, pair[1], judge="none", wanted=["lpips"]).summary.iloc[0]
    same = np.stack([resize(resize(picture, (64, 64)), (32, 32)) for picture in scenes[1]])
    assert found["value"] == pytest.approx(lpips_distance(scenes[0], same).mean(), rel=1e-5)
    assert found["key"] == "v0.1, Pillow bicubic to the reference's size"
    assert (found["extractor"], len(found["extractor_sha256"]), found["comparable"]) == ("lpips/alex", 64, 1)
