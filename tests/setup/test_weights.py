"""Pins of weights: the search for them, errors for absent and wrong ones, no use of the network."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torchvision

from bench.errors import ENVIRONMENT, USAGE, BenchError
from bench.setup import weights
from models import extractors, pins

ROOT = Path(__file__).parents[2]
CONTENT = {"vae/diffusion_pytorch_model.safetensors": b"weights of a vae", "vae/config.json": b"{}"}


pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def vae(monkeypatch):
    """A pin of few bytes in the place of Stable Diffusion's VAE."""
    files = tuple(pins.File(name, len(data), hashlib.sha256(data).hexdigest() if "model" in name else "")
                  for name, data in CONTENT.items())
    pinned = replace(pins.PARTS["vae"], files=files)
    monkeypatch.setitem(pins.PARTS, "vae", pinned)
    return pinned


def write(folder: Path, content=CONTENT) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@contextmanager
def refused(match, code=ENVIRONMENT):
    with pytest.raises(BenchError, match=match) as error:
        yield
    assert error.value.exit_code == code


def test_absent_weights_are_named_in_one_line_without_torch_and_without_hashing(tmp_path):
    code = ("import hashlib, socket, sys\n"
            "socket.socket.connect = hashlib.file_digest = None\n"
            "from bench.setup import weights\n"
            "from models import pins\n"
            "try: weights.check(pins.names())\n"
            "except weights.BenchError as error: print(error.exit_code, error)\n"
            "assert not {'torch', 'pandas', 'scipy.stats', 'diffusers', 'transformers'} & set(sys.modules)\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
                          env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
    [line] = done.stdout.splitlines()
    assert line.startswith("3 missing weights: vae (vae/diffusion_pytorch_model.safetensors of stable-diffusion")
    assert line.endswith(f"get them with: bench fetch --what {','.join(pins.names())}")
    assert str(tmp_path / "huggingface" / "hub") in line
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in line


def test_a_part_has_an_identity_before_it_is_there():
    assert weights.part("unet").sha256 == pins.PARTS["unet"].files[0].sha256
    assert weights.part("alexnet").sha256 == "7be5be79"
    assert weights.part("swav").sha256 == "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar"
    assert {weights.part(name).path for name in pins.names()} == {""}
    with refused("no weights 'nothing'; there are: vae, unet", USAGE):
        weights.part("nothing")


@pytest.mark.parametrize("place", ["stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5", "."])
def test_a_part_is_found_in_the_users_folder(tmp_path, vae, place):
    write(tmp_path / "mine" / place)
    found = weights.check(["vae"], tmp_path / "mine")["vae"]
    assert Path(found.path).resolve() == (tmp_path / "mine" / place / "vae").resolve()
    assert found == weights.part("vae")


def test_a_part_is_found_in_huggingfaces_cache_at_the_pinned_revision_alone(tmp_path, vae, monkeypatch):
    from huggingface_hub import try_to_load_from_cache

    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    repository = cache / "models--stable-diffusion-v1-5--stable-diffusion-v1-5" / "snapshots"
    write(repository / "another")
    with refused("vae .vae/diffusion_pytorch_model.safetensors"):
        weights.check(["vae"])
    folder = write(repository / vae.revision)
    assert weights.check(["vae"])["vae"].path == str(folder / "vae")
    asked = try_to_load_from_cache(vae.repository, "vae/config.json", cache_dir=cache, revision=vae.revision)
    assert asked == str(folder / "vae" / "config.json")


def test_a_network_is_found_in_torchs_folder_and_in_the_users_first(tmp_path, monkeypatch):
    import torch

    pinned = replace(pins.FILES["alex"], sha256=hashlib.sha256(b"alexnet").hexdigest()[:8])
    monkeypatch.setitem(pins.FILES, "alex", pinned)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    write(tmp_path / "torch" / "hub" / "checkpoints", {pinned.file: b"alexnet"})
    assert weights.checkpoints() == Path(torch.hub.get_dir()) / "checkpoints"
    found = weights.check(["alexnet", "lpips"], tmp_path / "mine")
    assert {w.path for w in found.values()} == {str(weights.checkpoints() / pinned.file)}
    write(tmp_path / "mine", {pinned.file: b"alexnet"})
    write(tmp_path / "mine" / "lpips", {pinned.file: b"alexnet"})
    assert weights.check(["lpips"], tmp_path / "mine")["lpips"].path == str(tmp_path / "mine" / pinned.file)


def test_a_file_that_lacks_beside_the_others_is_named_with_its_place(tmp_path, vae):
    folder = write(tmp_path / "stable-diffusion-v1-5")
    (folder / "vae" / "config.json").unlink()
    with refused(f"vae .without vae/config.json in {folder}.*bench fetch --what vae --weights {tmp_path}"):
        weights.check(["vae"], tmp_path)


def test_a_truncated_file_is_named_with_its_size(tmp_path, vae):
    folder = write(tmp_path / "stable-diffusion-v1-5")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    with refused("diffusion_pytorch_model.safetensors has 7 bytes, not the published 16: remove these files"):
        weights.check(["vae"], tmp_path)


def test_a_file_with_another_hash_is_refused(tmp_path, vae):
    folder = write(tmp_path / "stable-diffusion-v1-5")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"weights of a cat")
    with refused(r"has SHA-256 .{8}\.\.\., not the published .{8}\.\.\. \(it is only text: "
                 r"'weights of a cat'\): remove these files.*bench fetch"):
        weights.check(["vae"], tmp_path)


def test_a_file_is_hashed_once_until_it_changes(tmp_path):
    path = write(tmp_path, {"a": b"first"}) / "a"
    state = path.stat()
    assert weights.cached_sha256(path) == hashlib.sha256(b"first").hexdigest()
    path.write_bytes(b"other")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert weights.cached_sha256(path) == hashlib.sha256(b"first").hexdigest()  # remembered
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert weights.cached_sha256(path) == hashlib.sha256(b"other").hexdigest()
    (tmp_path / "cache" / "eeg2image-bench" / "sha256.json").write_text("no json")
    assert weights.cached_sha256(path) == hashlib.sha256(b"other").hexdigest()


def test_the_pinned_addresses_are_torchvisions_own():
    own = torchvision.models
    models = {"alex": own.AlexNet_Weights.IMAGENET1K_V1, "vgg": own.VGG16_Weights.IMAGENET1K_V1,
              "squeeze": own.SqueezeNet1_1_Weights.IMAGENET1K_V1, "inception": own.Inception_V3_Weights.IMAGENET1K_V1,
              "efficientnet": own.EfficientNet_B1_Weights.IMAGENET1K_V2}
    assert {name: pins.FILES[name].url for name in models} == {name: model.url for name, model in models.items()}
    assert set(pins.NETWORKS) == {*extractors.NETWORKS, "lpips"}


def test_every_pin_says_where_it_comes_from_and_under_which_licence():
    for name in pins.names():
        part = pins.part(name)
        assert part.licence
        assert not part.repository or re.fullmatch("[0-9a-f]{40}", part.revision)
        for file in part.files:
            assert part.address(file).startswith("https://")
            assert not file.sha256 or re.fullmatch("[0-9a-f]{8}|[0-9a-f]{64}", file.sha256)


def table():
    """The table of pins in docs/paper-scale.md."""
    rows = ["| part | repository | revision | file | size | licence | SHA-256 |", "|---|---|---|---|---:|---|---|"]
    for name in pins.names():
        pin = pins.part(name)
        rows += [f"| {name} | {pin.repository or pin.url} | {pin.revision or 'none'} | {file.path} | "
                 f"{f'{file.bytes:,}' if file.bytes else 'unpublished'} | {pin.licence} | "
                 f"{file.sha256 or 'unpublished'} |" for file in pin.files]
    return rows


def test_the_document_shows_the_pins():
    document = (ROOT / "docs" / "paper-scale.md").read_text()
    shown = document.split("<!-- pins -->\n")[1].split("\n<!-- /pins -->")[0]
    assert shown == "\n".join(table())
