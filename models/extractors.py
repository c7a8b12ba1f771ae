"""The networks that look at pictures to measure them: the shipped judge and CLIP, and those of the literature.

The literature's are loaded from files that lie in torch's folder of checkpoints already, or where the caller says;
nothing is downloaded and nothing is ever random. A picture comes as uint8 at the size that the network wants.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import lpips
import open_clip
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torchmetrics.image.fid import NoTrainInceptionV3
from torchvision.models.feature_extraction import create_feature_extractor

from models import frozen, pins
from models.frozen import BadWeights, MissingWeights
from models.pins import FILES, Pinned

__all__ = ["FILES", "LITERATURE", "NETWORKS", "Extractor", "Pinned", "Seen"]

PLACES = 4  # along each side: a judge's map is averaged to that many, so that a picture's features stay small
CLIP_MODEL = "ViT-L-14"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a network makes of B pictures: vectors [B, D] by name, and feature maps [B, C, h, w]."""

    vectors: Mapping[str, Tensor]
    maps: tuple[Tensor, ...] = ()


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that measures. `look`: [B, 3, size, size] uint8 -> Seen; `metrics`: which vector each metric is of.

    comparable: whether the literature uses this very network for them.
    """

    name: str
    sha256: str
    comparable: bool
    size: int
    look: Callable[[Tensor], Seen]
    metrics: Mapping[str, str] = field(default_factory=dict)


def weights(name: str, path: str | Path = "") -> tuple[Path, str]:
    """Where a file of FILES lies, and its SHA-256; "": in torch's folder of checkpoints.

    Raises MissingWeights, or BadWeights where it is another file than the pinned one.
    """
    pinned = FILES[name]
    place = Path(path) if path else Path(torch.hub.get_dir()) / "checkpoints" / pinned.file
    if not place.is_file():
        raise MissingWeights(f"no {place.name} in {place.parent}: download {pinned.url} to it, or set TORCH_HOME to "
                             "the folder above hub/")
    with place.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(pinned.sha256):
        raise BadWeights(f"{place} has SHA-256 {digest[:8]}..., not {pinned.sha256[:8]}...: download {pinned.url} "
                         "again")
    return place, digest


def judge(path: str | Path, sha256: str, name: str, device: str = "cpu") -> Extractor:
    """The classifier: the shipped one, or a folder of timm's. Errors as `frozen.load_judge`."""
    part = frozen.load_judge(path, sha256).to(device)

    def look(images: Tensor) -> Seen:
        logits, features, maps = part.look(images.float() / 127.5 - 1)
        _, second, _, fourth = maps[-4:]  # a stem comes before a convolutional network's stages
        layers = {name: adaptive_avg_pool2d(layer, PLACES).flatten(1) if layer.shape[-1] > PLACES
                  else layer.flatten(1) for name, layer in (("layer2", second), ("layer4", fourth))}
        return Seen({"logits": logits, "features": features, **layers}, tuple(maps))

    return Extractor(name, sha256, False, part.size, look, {
        "two_way_judge_layer2": "layer2", "two_way_judge_layer4": "layer4", "two_way_judge_features": "features",
        "correlation_judge": "features"})


def clip(path: str | Path, sha256: str, name: str, device: str = "cpu") -> Extractor:
    """CLIP's image tower: the shipped one, or a folder of open_clip's. Errors as `frozen.load_clip`.

    The literature's is OpenAI's ViT-L/14, told by its hash.
    """
    part = frozen.load_clip(path, sha256).to(device)
    own = not isinstance(part, frozen.OpenClip)
    literal = sha256 == pins.PARTS["clip"].identity
    return Extractor(f"open_clip/{CLIP_MODEL}" if literal else name, sha256, literal, part.size,
                     lambda images: Seen({"embedding": part.embed_image(images.float() / 127.5 - 1)}),
                     {"two_way_clip_tiny" if own else "two_way_clip": "embedding", "clip_similarity": "embedding"})


def alexnet(device: str = "cpu", path: str | Path = "") -> Extractor:
    """AlexNet of ImageNet after the ReLU of its second and its fifth convolution, at 256 pixels."""
    return _torchvision("alex", "torchvision/alexnet", torchvision.models.alexnet, 256, device, path,
                        {"two_way_alexnet2": "features.4", "two_way_alexnet5": "features.11"})


def inception(device: str = "cpu", path: str | Path = "") -> Extractor:
    """torchvision's Inception-v3, 2048 features at 342 pixels: that of two-way identification, not that of FID."""
    make = functools.partial(torchvision.models.inception_v3, transform_input=True, init_weights=False)
    return _torchvision("inception", "torchvision/inception_v3", make, 342, device, path,
                        {"two_way_inception": "avgpool"})


def efficientnet(device: str = "cpu", path: str | Path = "") -> Extractor:
    """EfficientNet-B1 of ImageNet, 1280 features at 255 pixels."""
    return _torchvision("efficientnet", "torchvision/efficientnet_b1", torchvision.models.efficientnet_b1, 255,
                        device, path, {"correlation_efficientnet": "avgpool"})


def swav(device: str = "cpu", path: str | Path = "") -> Extractor:
    """ResNet-50 trained by SwAV, 2048 features at 224 pixels."""
    return _torchvision("swav", "swav/resnet50", torchvision.models.resnet50, 224, device, path,
                        {"correlation_swav": "avgpool"})


def fid_inception(device: str = "cpu", path: str | Path = "") -> Extractor:
    """The Inception-v3 of FID (TensorFlow's weights): 2048 and 64 features and the logits, at 299 pixels."""
    place, digest = weights("fid", path)
    outputs = ["64", "2048", "logits_unbiased"]
    try:
        with torch.random.fork_rng(devices=[]):
            net = NoTrainInceptionV3("inception-v3-compat", outputs, str(place)).to(device)
    except RuntimeError as error:
        raise BadWeights(f"{place} does not fit FID's Inception-v3: {' '.join(str(error).split())[:200]}") from error

    def look(images: Tensor) -> Seen:
        few, features, logits = net._torch_fidelity_forward(images)
        return Seen({"features64": few.flatten(1), "features": features, "logits": logits})

    return Extractor("torch-fidelity/inception-v3-compat", digest, True, net.INPUT_IMAGE_SIZE, look)


def open_clip_l14(device: str = "cpu") -> Extractor:
    """OpenAI's CLIP ViT-L/14 by open_clip: image embeddings of unit length, 768 dimensions at 224 pixels."""
    path, digest = weights("clip")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # OpenAI's file is TorchScript
        net = open_clip.CLIP(**open_clip.get_model_config(CLIP_MODEL), quick_gelu=True)
        state = torch.jit.load(path, map_location="cpu").state_dict()
    about = ("input_resolution", "context_length", "vocab_size", "attn_mask")
    net.load_state_dict({name: tensor.float() for name, tensor in state.items() if name not in about})
    net = frozen.freeze(net).to(device)
    return Extractor(f"open_clip/{CLIP_MODEL}", digest, True, net.visual.image_size[0],
                     lambda images: Seen({"embedding": net.encode_image(_normalised(images, OPENAI), normalize=True)}),
                     {"two_way_clip": "embedding", "clip_similarity": "embedding"})


LITERATURE = {  # which network a metric wants
    "two_way_alexnet2": alexnet, "two_way_alexnet5": alexnet, "two_way_inception": inception,
    "two_way_clip": open_clip_l14, "clip_similarity": open_clip_l14, "correlation_efficientnet": efficientnet,
    "correlation_swav": swav,
}


NETWORKS = {  # by the names of Score.networks; lpips is `perceptual`
    "inception": fid_inception, "inception_v3": inception, "alexnet": alexnet, "efficientnet": efficientnet,
    "swav": swav,
}


def perceptual(net: str = "alex", device: str = "cpu",
               path: str | Path = "") -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """LPIPS v0.1: a function of two batches [B, 3, H, W] in [-1, 1] -> [B], and its backbone's SHA-256.

    The linear heads lie in the package itself. Errors as `weights`.
    """
    place, digest = weights(net, path)
    state = torch.load(place, map_location="cpu", weights_only=True)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        distance = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    backbone = {name: f"features.{name.split('.', 1)[1]}" for name in distance.net.state_dict()}  # slice1.0.weight
    try:
        distance.net.load_state_dict({name: state[layer] for name, layer in backbone.items()})
    except (KeyError, RuntimeError) as error:
        raise BadWeights(f"{place} does not fit LPIPS's {net}: {' '.join(str(error).split())[:200]}") from error
    distance = distance.to(device)
    return lambda a, b: distance(a, b).flatten(), digest


def _torchvision(file: str, name: str, make: Callable[[], nn.Module], size: int, device: str, path: str | Path,
                 metrics: dict[str, str]) -> Extractor:
    """A classifier of torchvision's with the weights of FILES[file]; `metrics`: the node that each is of."""
    place, digest = weights(file, path)
    with torch.random.fork_rng(devices=[]):
        net = make()
    state = torch.load(place, map_location="cpu", weights_only=True)
    if file == "swav":  # trained without torchvision's classifier, with heads of its own
        state = {key.removeprefix("module."): value for key, value in state.items()}
        state = {key: value for key, value in state.items() if not key.startswith(("projection_head.", "prototypes."))}
        state |= {f"fc.{key}": torch.zeros_like(value) for key, value in net.fc.state_dict().items()}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise BadWeights(f"{place} does not fit {name}: {' '.join(str(error).split())[:200]}") from error
    nodes = {node: node for node in metrics.values()}
    features = create_feature_extractor(frozen.freeze(net), nodes).to(device)

    def look(images: Tensor) -> Seen:
        return Seen({node: value.flatten(1) for node, value in features(_normalised(images, IMAGENET)).items()})

    return Extractor(name, digest, True, size, look, metrics)


def _normalised(images: Tensor, moments: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in moments)
    return (images.float() / 255 - mean) / std
