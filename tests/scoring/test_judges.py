"""`bench score --judge FILE`: what is wrong in a user's file is said in one line; nothing of it runs."""

import json
import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from bench.errors import ENVIRONMENT, USAGE, BenchError
from bench.experiment.scale import TINY
from bench.scoring.judges import open_judge
from models import frozen

pytestmark = pytest.mark.usefixtures("one_thread")  # as `bench score` does


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


def refused(path, match, exit_code=ENVIRONMENT):
    with pytest.raises(BenchError, match=match) as caught:
        open_judge(path, "cpu")
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
    judge, notes = open_judge(folder, "cpu")
    assert (judge.name, len(judge.sha256), notes, logits(judge).shape) == ("mine", 64, (), (2, 12))
    judge, notes = open_judge(file, "cpu")
    assert (judge.sha256, notes, logits(judge).shape) == (TINY.weights("judge").sha256, (), (2, 16))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_dataparallels_prefix_is_removed_and_said(folder, file, prefix):
    for path in (folder, file):
        weights = path / "model.safetensors" if path.is_dir() else path
        expected = logits(open_judge(path, "cpu")[0])
        save_file({f"{prefix}{name}": tensor for name, tensor in load_file(weights).items()}, weights, metadata(16))
        judge, notes = open_judge(path, "cpu")
        assert torch.equal(logits(judge), expected)
        assert notes == (f"read from {weights}: all names of tensors without their prefix {prefix!r}",)


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


def test_a_folder_with_other_weights_or_none_is_named(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"mine has pytorch_model\.bin, but no model\.safetensors; save the classifier as a folder")
    (folder / "pytorch_model.bin").unlink()
    refused(folder, r"mine has config\.json, but no model\.safetensors")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no judge .*empty'; expected tiny, none, the file of a judge, or a folder", USAGE)


def test_a_pth_file_is_named_with_its_contents(resnet, tmp_path):
    path = tmp_path / "best.pth"
    torch.save(resnet.state_dict(), path)
    refused(path, r"best\.pth is a checkpoint of torch\.save with 92 tensors \(conv1\.0\.weight, .*; it does not say "
                  r"its architecture; load it into its model, then save the classifier as a folder")
    torch.save({"epoch": 3, "state_dict": torch.nn.DataParallel(resnet).state_dict()}, path)
    refused(path, r"92 tensors \(module\.conv1\.0\.weight, .*\) in 'state_dict', all with the prefix 'module\.'")
    torch.save([1, 2], path)
    refused(path, "with no tensors by name")


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
    refused(folder / "model.safetensors", "does not say its architecture and its number of classes")
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
    refused(tmp_path / "short", r"short: test_vit does not give what a judge needs: .* four feature maps .*"
                                r"not enough values.*; choose another architecture of timm")
    edit(tmp_path / "short", lambda config: config["model_args"].update(no_such=3))
    refused(tmp_path / "short", "no_such.*: the tensors are not those of test_vit")


def test_a_shipped_parts_error_still_says_how_to_restore_it(file):
    with pytest.raises(frozen.BadWeights, match="not 000000000000; restore the file, or run: bench prior") as error:
        frozen.load_judge(file, "0" * 64)
    assert error.value.fault.endswith("not 000000000000")
    assert pickle.loads(pickle.dumps(error.value)).fault == error.value.fault
