"""Captions of embeddings in CLIP space: a small network over a closed grammar (tiny), GIT with a projector (paper)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize
from transformers import BertTokenizerFast, GitForCausalLM

from models import frozen
from models.adapter import read


class Captioner(nn.Module):
    """Fills the slots of a sentence from an embedding, each slot independently (own design, for scale tiny).

    sentence: with {} for each slot; slots: the words allowed in each. Two layers with GELU over the embedding's
    direction; its length is not used.
    """

    def __init__(self, sentence: str, slots: list[list[str]], embedding: int = frozen.EMBEDDING, width: int = 128):
        super().__init__()
        self.arguments = {"sentence": sentence, "slots": slots, "embedding": embedding, "width": width}
        self.sentence, self.slots = sentence, slots
        self.net = nn.Sequential(nn.Linear(embedding, width), nn.GELU(), nn.Linear(width, width), nn.GELU(),
                                 nn.Linear(width, sum(map(len, slots))))

    def logits(self, embeddings: Tensor) -> tuple[Tensor, ...]:
        """Logits [B, words] for each slot, of embeddings [B, D']."""
        return self.net(normalize(embeddings.float(), dim=1)).split([len(words) for words in self.slots], dim=1)

    @torch.no_grad()
    def captions(self, embeddings: Tensor) -> list[str]:
        """The most likely sentence for each of the embeddings [B, D']."""
        rows = zip(*([words[i] for i in scores.argmax(1).tolist()]
                     for words, scores in zip(self.slots, self.logits(embeddings), strict=True)), strict=True)
        return [self.sentence.format(*words) for words in rows]


def load_captioner(path: str | Path, sha256: str | None = None) -> Captioner:
    """The captioner, frozen. Raises frozen.MissingWeights and frozen.BadWeights."""
    return frozen.load_part(Captioner, path, sha256, torch.float32)


class PixelProjector(nn.Module):
    """Embeddings [B, D'] -> outputs of GIT's vision tower [B, tokens, width], with width = D' (released code).

    A linear layer from each coordinate to the tokens and LayerNorm over them, then a linear layer over the width and
    LayerNorm.
    """

    def __init__(self, width: int = 1024, tokens: int = 257):
        super().__init__()
        self.spread = nn.Sequential(nn.Linear(1, tokens), nn.LayerNorm(tokens))
        self.mix = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.mix(self.spread(embeddings[:, :, None]).transpose(1, 2))


class Git(nn.Module):
    """GIT (Wang et al. 2022) of transformers, which also takes the output of its vision tower instead of an image."""

    def __init__(self, net: GitForCausalLM, tokenizer: BertTokenizerFast, preprocess: dict):
        super().__init__()
        self.net, self.tokenizer = net, tokenizer
        self.tower = net.git.image_encoder
        config = net.config.vision_config
        self.size, self.width = config.image_size, config.hidden_size
        self.tokens = (self.size // config.patch_size) ** 2 + 1
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(preprocess[f"image_{name}"])[:, None, None], persistent=False)

    @torch.no_grad()
    def hidden(self, images: Tensor) -> Tensor:
        """The vision tower's last layer [B, tokens, width] of images [B, 3, H, W] in [-1, 1], resized as a whole."""
        images = (images.float() + 1) / 2
        if images.shape[-2:] != (self.size, self.size):
            images = interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        return self.tower(((images - self.mean) / self.std).to(self.net.dtype)).last_hidden_state.float()

    @torch.no_grad()
    def captions(self, hidden: Tensor, length: int = 50) -> list[str]:
        """Captions of at most `length` tokens, by greedy search, for tower outputs [B, tokens, width]."""
        begin = torch.full((len(hidden), 1), self.tokenizer.cls_token_id, device=hidden.device)
        self.net.git.image_encoder = _PassThrough()
        try:
            tokens = self.net.generate(pixel_values=hidden[:, None].to(self.net.dtype), input_ids=begin,
                                       max_length=length, do_sample=False)
        finally:
            self.net.git.image_encoder = self.tower
        return [caption.strip() for caption in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


class _PassThrough(nn.Module):
    """Replaces the vision tower: its output comes as "pixels" [B, 1, tokens, width]."""

    def forward(self, pixels: Tensor, **_: object) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=pixels[:, 0])


def load_git(folder: str | Path, sha256: str | None = None, dtype: torch.dtype = torch.float32) -> Git:
    """GIT from a folder in transformers' format, frozen. Raises frozen.MissingWeights and frozen.BadWeights."""
    return frozen.load_folder(_git, folder, sha256, dtype)


def _git(folder: Path, sha256: str, dtype: torch.dtype) -> Git:
    for file in ("config.json", "vocab.txt"):
        frozen.weights_file(folder / file)
    frozen.read_tensors(folder / frozen.TIMM_WEIGHTS, sha256)
    net = read(GitForCausalLM, folder, dtype)
    tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    return Git(net, tokenizer, frozen.read_config(folder / "preprocessor_config.json"))
