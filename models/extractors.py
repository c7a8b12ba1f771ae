"""The networks that measure images: the judge and CLIP of a scale, and those of the literature.

The literature's are loaded from torch's folder of checkpoints or from a given file; nothing is downloaded and no
weights are random. An image is uint8 at the network's size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import lpips
import open_clip
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torchmetrics.image.fid import NoTrainInceptionV3
from torchvision.models.feature_extraction import create_feature_extractor

from models import frozen, pins
from models.frozen import BadWeights, Crop, MissingWeights
from models.pins import FILES

PLACES = 4  # side of a judge's maps after averaging, which keeps an image's features small
CLIP_MODEL = "ViT-L-14"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, eq=False)
class Seen:
    """The outputs of a network for B images: vectors [B, D] by name, and feature maps [B, C, h, w]."""

    vectors: Mapping[str, Tensor]
    maps: tuple[Tensor, ...] = ()


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that measures. look: [B, 3, size, size] uint8 -> Seen; metrics: the vector that each metric uses.

    comparable: the literature uses exactly this network for these metrics. crop: prepares an image of any size; None:
    it is resized as a whole. classes: the names of a judge's classes by number; (): unknown.
    """

    name: str
    sha256: str
    comparable: bool
    size: int
    look: Callable[[Tensor], Seen]
    metrics: Mapping[str, str] = field(default_factory=dict)
    crop: Crop | None = None
    classes: tuple[str, ...] = ()


def weights(name: str, path: str | Path = "") -> tuple[Path, str]:
    """The path of a file of FILES and its SHA-256; path "": in torch's folder of checkpoints.

    Raises MissingWeights, and BadWeights if it is not the pinned file.
    """
    pinned = FILES[name]
    path = Path(path) if path else Path(torch.hub.get_dir()) / "checkpoints" / pinned.file
    if not path.is_file():
        raise MissingWeights(f"no {path.name} in {path.parent}: download {pinned.url} to it, or set TORCH_HOME to the "
                             "folder above hub/")
    digest = frozen.hash_file(path)
    if not digest.startswith(pinned.sha256):
        raise BadWeights(f"{path} has SHA-256 {digest[:8]}, not {pinned.sha256[:8]}: download {pinned.url} again")
    return path, digest


def judge(path: str | Path, sha256: str, name: str, device: str = "cpu") -> Extractor:
    """The judge: a file of scale tiny, or a folder of timm. Errors as `frozen.load_judge`."""
    return judge_extractor(frozen.load_judge(path, sha256).to(device), sha256, name)


def judge_extractor(part: frozen.Judge, sha256: str, name: str, crop: Crop | None = None,
                    classes: tuple[str, ...] = ()) -> Extractor:
    """A judge that is loaded. Its network must give three feature maps or more: its last is `layer4`, and the last but
    two `layer2`, as of a network with four stages."""
    def look(images: Tensor) -> Seen:
        logits, features, maps = part.look(images.float() / 127.5 - 1)
        if len(maps) < 3:
            raise ValueError(f"it gives {len(maps)} feature maps; a judge needs three or more")
        layers = {name: (adaptive_avg_pool2d(layer, PLACES) if layer.shape[-1] > PLACES else layer).flatten(1)
                  for name, layer in (("layer2", maps[-3]), ("layer4", maps[-1]))}
        return Seen({"logits": logits, "features": features, **layers}, tuple(maps))

    return Extractor(name, sha256, False, part.size, look, {
        "two_way_judge_layer2": "layer2", "two_way_judge_layer4": "layer4", "two_way_judge_features": "features",
        "correlation_judge": "features"}, crop, classes)


def clip(path: str | Path, sha256: str, name: str, device: str = "cpu") -> Extractor:
    """CLIP's image tower: of a file of scale tiny, or of a folder of open_clip. Errors as `frozen.load_clip`.

    OpenAI's ViT-L/14, the literature's, is recognised by its hash.
    """
    part = frozen.load_clip(path, sha256).to(device)
    tiny = not isinstance(part, frozen.OpenClip)
    literal = sha256 == pins.PARTS["clip"].identity
    return Extractor(f"open_clip/{CLIP_MODEL}" if literal else name, sha256, literal, part.size,
                     lambda images: Seen({"embedding": part.embed_image(images.float() / 127.5 - 1)}),
                     {"two_way_clip_tiny" if tiny else "two_way_clip": "embedding", "clip_similarity": "embedding"})


def fid_inception(device: str = "cpu", path: str | Path = "") -> Extractor:
    """FID's Inception-v3 (TensorFlow's weights): 64 and 2048 features and the logits, at 299 pixels."""
    path, digest = weights("fid", path)
    outputs = ["64", "2048", "logits_unbiased"]
    try:
        with torch.random.fork_rng(devices=[]):
            net = NoTrainInceptionV3("inception-v3-compat", outputs, str(path)).to(device)
    except RuntimeError as error:
        raise BadWeights(f"{path} does not fit FID's Inception-v3: {' '.join(str(error).split())[:200]}") from error

    def look(images: Tensor) -> Seen:
        few, features, logits = net._torch_fidelity_forward(images)
        return Seen({"features64": few.flatten(1), "features": features, "logits": logits})

    return Extractor("torch-fidelity/inception-v3-compat", digest, True, net.INPUT_IMAGE_SIZE, look)


def dinov2_giant(device: str = "cpu") -> Extractor:
    """DINOv2's ViT-g/14 (Oquab et al. 2024) by torch-fidelity: features [B, 1536] at 224 pixels.

    The network's code and weights are those in torch's folder of the hub; nothing is downloaded.
    """
    hub = Path(torch.hub.get_dir())
    for needed in (hub / "facebookresearch_dinov2_main", hub / "checkpoints" / "dinov2_vitg14_pretrain.pth"):
        if not needed.exists():
            raise MissingWeights(f"no {needed.name} in {needed.parent}: get it with: python -c \"import torch; "
                                 "torch.hub.load('facebookresearch/dinov2', 'dinov2_vitg14')\"")
    name = "dinov2-vit-g-14"
    net = FeatureExtractorDinoV2(name, ["dinov2"]).to(device)
    digest = frozen.hash_file(hub / "checkpoints" / "dinov2_vitg14_pretrain.pth")
    return Extractor(f"torch-fidelity/{name}", digest, True, net.INPUT_IMAGE_SIZE,
                     lambda images: Seen({"features": net(images)[0]}), {"fd_dinov2": "features"})


def open_clip_l14(device: str = "cpu") -> Extractor:
    """OpenAI's CLIP ViT-L/14 by open_clip: image embeddings [B, 768] of unit length, at 224 pixels."""
    path, digest = weights("clip")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # OpenAI's file is TorchScript
        net = open_clip.CLIP(**open_clip.get_model_config(CLIP_MODEL), quick_gelu=True)
        state = torch.jit.load(path, map_location="cpu").state_dict()
    about = ("input_resolution", "context_length", "vocab_size", "attn_mask")
    net.load_state_dict({name: tensor.float() for name, tensor in state.items() if name not in about})
    net = frozen.freeze(net).to(device)
    return Extractor(f"open_clip/{CLIP_MODEL}", digest, True, net.visual.image_size[0],
                     lambda images: Seen({"embedding": net.encode_image(_normalise(images, OPENAI), normalize=True)}),
                     {"two_way_clip": "embedding", "clip_similarity": "embedding"})


def perceptual(net: str = "alex", device: str = "cpu",
               path: str | Path = "") -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """LPIPS v0.1, a function of two batches [B, 3, H, W] in [-1, 1] -> [B], and its backbone's SHA-256.

    The linear heads are part of the lpips package. Errors as `weights`.
    """
    path, digest = weights(net, path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        distance = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    backbone = {name: f"features.{name.split('.', 1)[1]}" for name in distance.net.state_dict()}  # slice1.0.weight
    try:
        distance.net.load_state_dict({name: state[layer] for name, layer in backbone.items()})
    except (KeyError, RuntimeError) as error:
        raise BadWeights(f"{path} does not fit LPIPS's {net}: {' '.join(str(error).split())[:200]}") from error
    distance = distance.to(device)
    return lambda a, b: distance(a, b).flatten(), digest


def _load_torchvision(file: str, name: str, make: Callable[[], nn.Module], size: int, metrics: dict[str, str],
                      device: str = "cpu", path: str | Path = "") -> Extractor:
    """A network of torchvision with the weights of FILES[file]; metrics: the node that each metric uses."""
    path, digest = weights(file, path)
    with torch.random.fork_rng(devices=[]):
        net = make()
    state = torch.load(path, map_location="cpu", weights_only=True)
    if file == "swav":  # its heads are not torchvision's classifier
        state = {key.removeprefix("module."): value for key, value in state.items()}
        state = {key: value for key, value in state.items() if not key.startswith(("projection_head.", "prototypes."))}
        state |= {f"fc.{key}": torch.zeros_like(value) for key, value in net.fc.state_dict().items()}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise BadWeights(f"{path} does not fit {name}: {' '.join(str(error).split())[:200]}") from error
    nodes = {node: node for node in metrics.values()}
    features = create_feature_extractor(frozen.freeze(net), nodes).to(device)

    def look(images: Tensor) -> Seen:
        return Seen({node: value.flatten(1) for node, value in features(_normalise(images, IMAGENET)).items()})

    return Extractor(name, digest, True, size, look, metrics)


def _normalise(images: Tensor, moments: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in moments)
    return (images.float() / 255 - mean) / std


alexnet = partial(  # of ImageNet, after the ReLUs of its second and fifth convolutions
    _load_torchvision, "alex", "torchvision/alexnet", torchvision.models.alexnet, 256,
    {"two_way_alexnet2": "features.4", "two_way_alexnet5": "features.11"})
inception = partial(  # 2048 features, for two-way identification; FID has another Inception-v3
    _load_torchvision, "inception", "torchvision/inception_v3",
    partial(torchvision.models.inception_v3, transform_input=True, init_weights=False), 342,
    {"two_way_inception": "avgpool"})
efficientnet = partial(  # B1 of ImageNet, 1280 features
    _load_torchvision, "efficientnet", "torchvision/efficientnet_b1", torchvision.models.efficientnet_b1, 255,
    {"correlation_efficientnet": "avgpool"})
swav = partial(  # ResNet-50 trained by SwAV, 2048 features
    _load_torchvision, "swav", "swav/resnet50", torchvision.models.resnet50, 224, {"correlation_swav": "avgpool"})

LITERATURE: dict[str, Callable[..., Extractor]] = {  # by metric: its network
    "two_way_alexnet2": alexnet, "two_way_alexnet5": alexnet, "two_way_inception": inception,
    "two_way_clip": open_clip_l14, "clip_similarity": open_clip_l14, "correlation_efficientnet": efficientnet,
    "correlation_swav": swav, "fd_dinov2": dinov2_giant}
NETWORKS = {  # by the names of Score.networks; lpips is `perceptual`
    "inception": fid_inception, "inception_v3": inception, "alexnet": alexnet, "efficientnet": efficientnet,
    "swav": swav}
