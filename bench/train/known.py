"""Builds the stages of worlds with known answers: the corpus, the starts of the encoder, the probe and its score."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

from bench import metrics
from bench.data.known import people_windows, randomise_phases
from bench.data.tiny import generator
from bench.data.writing import write_table
from bench.errors import BenchError
from bench.experiment.stages import Encoder, Schedule
from bench.files import create_npy
from bench.runtime import Runtime
from bench.scoring import schema
from bench.systems.known import Identification, KnownCorpus, KnownPretrain, Oracle, Probe, ProbeEmbedding
from bench.train import Inputs, score
from bench.train import pretrain as masked
from bench.train.corpus import COLUMNS, HELD_OUT
from bench.train.encoder import build
from bench.train.items import load_items
from bench.train.losses import Losses, descend, draw_batches, load_network, seeded, write_summary
from models.masking import random_masking
from models.parameters import count_parameters

BATCH = 200  # windows that are embedded at once
RIDGES = (1e-4, 1e-3, 1e-2)  # of the mean variance, for the covariance of all channels and times


def write_corpus(stage: KnownCorpus, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes windows.npy [N, C, T] and index.csv as the builder of Corpus does, and codes.npy [N, F], labels.npy [N].

    One person in HELD_OUT is held out.
    """
    world, share = stage.world, -(-stage.windows // stage.people)
    windows = create_npy(out / "windows.npy", np.float32, (share * stage.people, world.n_chans, world.n_times))
    codes, labels, rows = [], [], []
    for person in range(stage.people):
        runtime.progress(person, stage.people)
        eeg, code, label = people_windows(world, person, share, stage.band)
        windows[person * share:(person + 1) * share] = randomise_phases(eeg, stage.phases,
                                                                        generator(world, 12, person))
        codes.append(code)
        labels.append(label)
        rows += [(person, "pairs", "train" if (person + 1) % HELD_OUT else "held_out")] * share
    windows.flush()
    np.save(out / "codes.npy", np.concatenate(codes))
    np.save(out / "labels.npy", np.concatenate(labels))
    write_table(out / "index.csv", COLUMNS, ((window, *row) for window, row in enumerate(rows)))


def pretrain(stage: KnownPretrain, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes the files of `bench.train.pretrain`, with joint_wiener_mse in pretrain.json."""
    masked.pretrain(stage, inputs, out, runtime)
    windows, is_train = _open_corpus(inputs(stage.corpus))
    summary = json.loads((out / "pretrain.json").read_text())
    tokens = windows.shape[2] // stage.encoder.patch
    summary["joint_wiener_mse"] = joint_wiener(windows[is_train], windows[~is_train], tokens, stage.mask_ratio)
    (out / "pretrain.json").write_text(json.dumps(summary, indent=1) + "\n")


def joint_wiener(train: np.ndarray, held_out: np.ndarray, tokens: int, ratio: float) -> float:
    """The masked MSE on held-out windows [N, C, T] of the best linear prediction from all visible channels and times.

    The covariance is that of the training windows. Masks are those of the held-out error in `bench.train.pretrain`. Of
    several ridges, the one with the least held-out error is taken, which favours the linear prediction.
    """
    masks = random_masking(masked.EVALUATION_MASKS, tokens, ratio, torch.Generator().manual_seed(0))
    series, tested = (torch.from_numpy(np.ascontiguousarray(each.swapaxes(1, 2))).flatten(1) for each in (
        train, held_out))  # [N, T * C]: the values of a token are neighbours
    covariance = series.T @ series / len(series)
    span, variance = series.shape[1] // tokens, covariance.diagonal().mean()
    squares = dict.fromkeys(RIDGES, 0.0)
    for pattern in range(min(masked.EVALUATION_MASKS, len(tested))):
        seen, hidden = ((index[pattern][:, None] * span + torch.arange(span)).flatten()
                        for index in (masks.keep, masks.remove))
        part = tested[pattern::masked.EVALUATION_MASKS]
        for ridge in RIDGES:
            inner = covariance[seen][:, seen] + ridge * variance * torch.eye(len(seen))
            weights = torch.cholesky_solve(covariance[seen][:, hidden], torch.linalg.cholesky(inner))
            error = part[:, seen] @ weights - part[:, hidden]
            squares[ridge] += float(error.double().square().sum()) / len(hidden)
    return min(squares.values()) / len(tested)


def _open_corpus(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the windows [N, C, T] of a KnownCorpus, and which of them [N] are of the training part."""
    index = pd.read_csv(folder / "index.csv")
    return np.load(folder / "windows.npy", mmap_mode="r"), (index["part"] == "train").to_numpy()


class Mapped(nn.Module):
    """An encoder, and a linear map of the mean of its tokens: EEG [B, C, T] -> [B, outputs]."""

    def __init__(self, encoder: nn.Module, width: int, outputs: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, outputs)

    def forward(self, eeg: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(eeg)
        return self.head(tokens.mean(1))


def _fit(model: Mapped, schedule: Schedule, count: int, losses: Losses, measure: Callable[[Tensor], Tensor]) -> None:
    """Trains a model with AdamW, linear warm-up and half-cosine decay. measure(rows): the loss of a batch's rows."""
    optimizer = torch.optim.AdamW(model.parameters(), schedule.lr, weight_decay=schedule.weight_decay)
    rate = get_cosine_schedule_with_warmup(optimizer, schedule.warmup, schedule.steps)
    model.train()
    for rows in draw_batches(count, schedule.batch, schedule.steps):
        descend(loss := measure(rows), optimizer, schedule.clip_norm)
        rate.step()
        losses.add(loss=loss)
    model.eval()


def train_oracle(stage: Oracle, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes encoder.safetensors and summary.json. The loss is the squared error of the standardised codes."""
    windows, is_train = _open_corpus(inputs(stage.corpus))
    codes = np.load(inputs(stage.corpus) / "codes.npy")[is_train]
    target = torch.from_numpy((codes - codes.mean(0)) / codes.std(0)).to(runtime.device)
    train = np.flatnonzero(is_train)
    losses = Losses(stage, stage.schedule.steps, runtime)
    with seeded(stage.seed):
        encoder = build(stage.encoder, *windows.shape[1:], runtime)
        model = Mapped(encoder, stage.encoder.width, codes.shape[1]).to(runtime.device)

        def measure(rows: Tensor) -> Tensor:
            eeg = torch.from_numpy(windows[train[rows.numpy()]]).to(runtime.device)
            return F.mse_loss(model(eeg), target[rows])

        _fit(model, stage.schedule, len(train), losses, measure)
    save_file({name: tensor.cpu() for name, tensor in encoder.state_dict().items()}, out / "encoder.safetensors")
    write_summary(out, {"oracle": model}, losses.last())


def train_probe(stage: Probe, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes probe.safetensors, classes.npy [K, D'], the mean embedding of each class, and summary.json, which counts
    the training pairs whose class is identified. Raises BenchError if there are fewer training trials than pairs."""
    items = load_items(stage.items, inputs)
    if len(items.item) < stage.pairs:
        raise BenchError(f"{stage.pairs} pairs requested, but the world has {len(items.item)} training trials; request "
                         "fewer, or give the world more pictures")
    embeddings = np.load(inputs(stage.targets) / "embeddings.npy")[items.picture]
    classes = _class_means(embeddings, items.label)
    losses = Losses(stage, stage.schedule.steps, runtime)
    with seeded(stage.seed):
        chosen = torch.randperm(len(items.item))[:stage.pairs].numpy()
        eeg = torch.from_numpy(items.eeg[chosen]).to(runtime.device)
        wanted = {"image": embeddings[chosen], "class": classes[items.label[chosen]],
                  "label": items.label[chosen]}[stage.target]
        target = torch.from_numpy(wanted).to(runtime.device)
        encoder = build(stage.encoder, *eeg.shape[1:], runtime)
        if not isinstance(stage.start, Encoder):
            encoder.load_state_dict(load_file(inputs(stage.start) / "encoder.safetensors"))
        model = Mapped(encoder, stage.encoder.width, len(classes) if stage.target == "label" else classes.shape[1])
        model = model.to(runtime.device)

        def measure(rows: Tensor) -> Tensor:
            output = model(eeg[rows])
            if stage.target == "label":
                return F.cross_entropy(output, target[rows])
            return (1 - F.cosine_similarity(output, target[rows])).mean()

        _fit(model, stage.schedule, len(eeg), losses, measure)
    fitted = metrics.nearest(_embed(stage, model, eeg, classes), classes)
    save_file({name: tensor.cpu() for name, tensor in model.state_dict().items()}, out / "probe.safetensors")
    np.save(out / "classes.npy", classes)
    write_summary(out, {"encoder": encoder, "head": model.head}, losses.last(),
                  encoder_parameters=count_parameters(encoder),
                  train_correct=int((fitted == items.label[chosen]).sum()), train_pairs=stage.pairs)


def embed_items(stage: ProbeEmbedding, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes embedding.npy [N, D'] and item.npy [N], in the order of the items."""
    items, probe = load_items(stage.items, inputs), stage.model
    weights, classes = load_file(inputs(probe) / "probe.safetensors"), np.load(inputs(probe) / "classes.npy")
    model = Mapped(build(probe.encoder, *items.eeg.shape[1:], runtime), probe.encoder.width, len(weights["head.bias"]))
    model = load_network(model, inputs(probe) / "probe.safetensors", runtime.device)
    eeg = torch.from_numpy(items.eeg).to(runtime.device)
    np.save(out / "embedding.npy", _embed(probe, model, eeg, classes))
    np.save(out / "item.npy", items.item)
    runtime.progress(1, 1)


def identify(stage: Identification, inputs: Inputs, out: Path, runtime: Runtime) -> None:
    """Writes the files of `bench.train.score.retrieval` with class_top1 and, of the training pairs, train_class_top1.

    class_top1: the mean embedding of the training images of the item's class is nearer to the EEG's embedding than
    that of every other class.
    """
    score.retrieval(stage, inputs, out, runtime)
    model = stage.embedding.model
    embedding, classes = np.load(inputs(stage.embedding) / "embedding.npy"), np.load(inputs(model) / "classes.npy")
    items = pd.read_csv(out / "items.csv.gz")
    right = (metrics.nearest(embedding, classes) == items["label"].to_numpy()).astype(np.float64)
    summary = json.loads((inputs(model) / "summary.json").read_text())
    table = pd.read_csv(out / "metrics.csv", keep_default_na=False)
    pairs, key = summary["train_pairs"], f"{len(classes)} classes"
    lines = [("class_top1", key, right.mean(), len(right)),
             ("train_class_top1", key, summary["train_correct"] / pairs, pairs)]
    clip = stage.targets.clip
    more = pd.DataFrame([(*line, clip.name, clip.sha256, 0) for line in lines], columns=list(schema.METRICS))
    table = pd.concat([table, more]).sort_values("metric", ignore_index=True)
    (out / "metrics.csv").write_bytes(schema.csv_bytes(table))
    (out / "items.csv.gz").write_bytes(schema.gzipped(schema.csv_bytes(items.assign(class_top1=right))))


def _class_means(embeddings: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The mean embedding [K, D'] of each class 0 to K - 1."""
    return np.stack([embeddings[label == each].mean(0) for each in range(label.max() + 1)])


@torch.inference_mode()
def _embed(stage: Probe, model: Mapped, eeg: Tensor, classes: np.ndarray) -> np.ndarray:
    """The probe's embeddings [N, D'] of EEG [N, C, T]."""
    outputs = torch.cat([model(part) for part in eeg.split(BATCH)]).cpu()
    return outputs.softmax(1).numpy() @ classes if stage.target == "label" else outputs.numpy()
