"""Scores a folder of pictures: metrics.csv, and items.csv.gz with a row for each item and sample."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lpips
import numpy as np
import pandas as pd
import torch
import torchvision
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from bench import metrics, results
from bench.errors import ENVIRONMENT, BenchError
from bench.items import Loaded, load
from bench.runtime import Runtime
from bench.stages import Score, Stage
from bench.train.targets import as_images
from models import frozen

BATCH = 50
SPLITS = 1  # of the inception score: ten, as is usual for 50,000 pictures, would leave a few dozen in each
BACKBONES = {
    "alex": torchvision.models.AlexNet_Weights.IMAGENET1K_V1,
    "vgg": torchvision.models.VGG16_Weights.IMAGENET1K_V1,
    "squeeze": torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
}


def score(stage: Score, inputs: Callable[[Stage], Path], out: Path, runtime: Runtime) -> None:
    """Writes metrics.csv (metric, key, value, n) and items.csv.gz, which hold the same numbers summed up and singly.

    Accuracies are against the label (`_label`) and against the judge's opinion of the real picture (`_judge`, as the
    paper's, Sec. 4.3). FID and IS take one sample of each item and are averaged over the sample's index, because
    samples of one item are no independent pictures. Raises BenchError where pictures do not fit the items.
    """
    items = load(stage.items, inputs(stage.items.trials))
    pictures = _pictures(inputs(stage.pictures), items)
    reference = np.load(inputs(stage.reference) / "features.npy")
    judge = frozen.load_judge(stage.reference.judge.path, stage.reference.judge.sha256).to(runtime.device)
    seen = _look(judge, items, pictures, runtime)
    rows = _rows(items, pictures, seen, stage.nway)
    (out / "metrics.csv").write_bytes(results.csv_bytes(_summary(rows, seen, reference, stage.nway)))
    (out / "items.csv.gz").write_bytes(results.gzipped(results.csv_bytes(rows)))


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the judge makes of N stimuli and of their samples."""

    real: np.ndarray  # [N, K] logits of the stimuli
    logits: np.ndarray  # [N, samples, K]
    features: np.ndarray  # [N, samples, F]
    distance: np.ndarray  # [N, samples] to the stimulus
    layers: int  # that the distance is over


@torch.inference_mode()
def _look(judge: frozen.Judge, items: Loaded, pictures: np.ndarray, runtime: Runtime) -> _Seen:
    n, samples = pictures.shape[:2]
    real, logits, features, distance, layers = [], [], [], [], []
    for start in range(0, n, BATCH):
        rows = np.arange(start, start + BATCH) % n  # every batch is full: floating point depends on its size
        stimuli = as_images(items.pictures[rows], runtime.device)
        real.append(_array(judge.logits(stimuli)))
        layers = [_array(layer) for layer in judge.layers(stimuli)]
        for sample in range(samples):
            images = as_images(pictures[rows, sample], runtime.device)
            logits.append(_array(judge.logits(images)))
            features.append(_array(judge.features(images)))
            distance.append(metrics.judge_distance(layers, [_array(layer) for layer in judge.layers(images)]))
        runtime.progress(min(start + BATCH, n), n)

    def by_item(batches: list[np.ndarray]) -> np.ndarray:
        """Batches of every sample in turn -> [N, samples, ...]."""
        stacked = np.stack(batches).reshape(-1, samples, *batches[0].shape).swapaxes(1, 2)
        return stacked.reshape(-1, samples, *batches[0].shape[1:])[:n]

    return _Seen(np.concatenate(real)[:n], by_item(logits), by_item(features), by_item(distance), len(layers))


def _rows(items: Loaded, pictures: np.ndarray, seen: _Seen, nway: int) -> pd.DataFrame:
    """A row for each item and sample. `judged` is the class that the judge sees, `judged_real` in the stimulus."""
    opinion = seen.real.argmax(1)
    samples = [pd.DataFrame({
        "item": items.item,
        "sample": sample,
        "subject": items.subject,
        "picture": items.picture,
        "label": items.label,
        "judged_real": opinion,
        "judged": logits.argmax(1),
        "top1_label": metrics.top1(logits, items.label),
        "top1_judge": metrics.top1(logits, opinion),
        "nway_label": metrics.nway_accuracy(logits, items.label, nway),
        "nway_judge": metrics.nway_accuracy(logits, opinion, nway),
        "psnr": metrics.psnr(items.pictures, pictures[:, sample]),
        "ssim": metrics.ssim(items.pictures, pictures[:, sample]),
        "judge_distance": seen.distance[:, sample],
    }) for sample, logits in enumerate(seen.logits.swapaxes(0, 1))]
    return pd.concat(samples).sort_values(["item", "sample"])


def _summary(rows: pd.DataFrame, seen: _Seen, reference: np.ndarray, nway: int) -> pd.DataFrame:
    """The rows of metrics.csv. `key` holds what a number cannot be read without."""
    n, samples, classes = seen.logits.shape
    averaged = f"averaged over {_count(samples, 'sample')}"
    keys = {
        "top1_label": f"{classes} classes",
        "top1_judge": f"{classes} classes",
        "nway_label": f"{nway} of {classes}",
        "nway_judge": f"{nway} of {classes}",
        "psnr": "range 255",
        "ssim": "Gaussian 11x11, sigma 1.5",
        "judge_distance": _count(seen.layers, "layer"),
    }
    table = [(name, key, rows[name].mean(), n) for name, key in keys.items()]
    table += [
        ("top1_real", f"{classes} classes", (rows["judged_real"] == rows["label"]).mean(), n),
        ("fid", f"N={n}, reference={len(reference)}, {averaged}",
         float(np.mean([fid(seen.features[:, sample], reference) for sample in range(samples)])), n),
        ("is", f"N={n}, {_count(SPLITS, 'split')}, {averaged}",
         float(np.mean([inception_score(seen.logits[:, sample], SPLITS) for sample in range(samples)])), n),
    ]
    return pd.DataFrame(table, columns=list(results.METRICS)).sort_values(["metric", "key"])


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()


def _pictures(folder: Path, items: Loaded) -> np.ndarray:
    """The folder's pictures [N, samples, H, W, 3], one row for each item and no other."""
    path = folder / "pictures.npy"
    if not path.is_file():
        raise BenchError(f"no pictures to score: {path} is not there")
    pictures, item = np.load(path, mmap_mode="r"), np.load(folder / "item.npy")
    if not np.array_equal(item, items.item):
        missing = np.setdiff1d(items.item, item)
        raise BenchError(f"{path} does not hold the {len(items.item)} items in their order: {len(missing)} are missing"
                         + (f", the first is item {missing[0]}" if len(missing) else ""))
    expected = (len(items.item), *items.pictures.shape[1:])
    if pictures.ndim != 5 or not pictures.shape[1] or pictures.dtype != np.uint8 or (
            pictures.shape[:1] + pictures.shape[2:] != expected):
        raise BenchError(f"{path} is {list(pictures.shape)} {pictures.dtype}; expected uint8 [items, samples, H, W, 3] "
                         f"with {expected[0]} items of {expected[1]}x{expected[2]}")
    return pictures


class _Cached(nn.Identity):
    """In a feature extractor's place where the features are there already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


def fid(features: np.ndarray, reference: np.ndarray) -> float:
    """Frechet distance of two sets of features [N, F] and [M, F], in float64, by torchmetrics."""
    distance = FrechetInceptionDistance(feature=_Cached(features.shape[1])).set_dtype(torch.float64)
    distance.update(torch.from_numpy(reference.astype(np.float64)), real=True)
    distance.update(torch.from_numpy(features.astype(np.float64)), real=False)
    return float(distance.compute())


def inception_score(logits: np.ndarray, splits: int) -> float:
    """exp E KL(p(y|x) || p(y)) of logits [N, K], in float64, by torchmetrics; its shuffling is always the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `InceptionScore` will save all extracted features")
        value = InceptionScore(feature=_Cached(logits.shape[1]), splits=splits).set_dtype(torch.float64)
    value.update(torch.from_numpy(logits.astype(np.float64)))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"std\(\): degrees of freedom")
        torch.manual_seed(0)
        return float(value.compute()[0])


def backbone(net: str) -> Path:
    """Where LPIPS's pre-trained backbone lies. Raises BenchError (exit 3) when it is not there or is another file."""
    if net not in BACKBONES:
        raise BenchError(f"no LPIPS backbone {net!r}; there are: {', '.join(BACKBONES)}")
    url = BACKBONES[net].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        raise BenchError(f"LPIPS needs {path.name} in {path.parent}, which is not there: download {url} to it, or set "
                         "TORCH_HOME to the folder above hub/", ENVIRONMENT)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(path.stem.rsplit("-", 1)[1]):
        raise BenchError(f"{path} has SHA-256 {digest[:8]}..., not the one in its name: download {url} again",
                         ENVIRONMENT)
    return path


@torch.inference_mode()
def lpips_distance(a: np.ndarray, b: np.ndarray, net: str = "alex", device: str = "cpu") -> np.ndarray:
    """LPIPS (v0.1) [N] of pictures [N, H, W, 3] uint8. Never downloads; errors as `backbone`."""
    backbone(net)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        distance = lpips.LPIPS(net=net, verbose=False).to(device)
    batches = [slice(start, start + BATCH) for start in range(0, len(a), BATCH)]
    values = [distance(as_images(a[rows], device), as_images(b[rows], device)).flatten() for rows in batches]
    return torch.cat(values).double().cpu().numpy()
