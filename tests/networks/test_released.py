"""The suite's modules give the numbers of DreamDiffusion's released classes, for weights and EEG made by formulas.

tests/released.json holds what the released MAEforEEG, eeg_encoder, cond_stage_model and mapping returned on a CPU in
float32, and the shapes of their tensors by name; of blocks only number 0.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.condition import LatentHead, build_tau
from models.encoders.msm_vit import Encoder, positions
from models.mae import MaskedAutoencoder
from models.masking import Masking, count_visible
from models.released import load_autoencoder, load_condition

EXPECTED = json.loads((Path(__file__).parents[1] / "released.json").read_text())
SMALL, REAL = EXPECTED["autoencoder"], EXPECTED["condition"]


def weight(name: str, shape: list[int]) -> Tensor:
    """A released tensor by the formula: v = sin(0.37 i + p) over the flat index i, p from the name."""
    if name.endswith("pos_embed"):
        return nn.functional.pad(positions(shape[1] - 1, shape[2]), (0, 0, 1, 0))[None]
    index = np.arange(np.prod(shape), dtype=np.float64)
    value = np.sin(0.37 * index + zlib.crc32(name.encode()) % 1000 / 100).reshape(shape)
    if "norm" in name and name.endswith("weight"):
        value = 1 + 0.1 * value
    else:
        value = 0.1 * value if len(shape) < 2 else value / np.sqrt(value[0].size)
    return torch.from_numpy(value.astype(np.float32))


def weights(shapes: dict[str, list[int]], depth: int = 0) -> dict[str, Tensor]:
    """All tensors; depth: block 0 stands for so many."""
    def names() -> Iterator[tuple[str, list[int]]]:
        for name, shape in shapes.items():
            for block in range(depth if "blocks.0." in name and depth else 1):
                yield name.replace("blocks.0.", f"blocks.{block}.") if depth else name, shape

    return {name: weight(name, shape) for name, shape in names()}


def eeg(batch: int, channels: int, times: int) -> Tensor:
    """EEG [B, C, T] by the formula."""
    b, c, t = (torch.arange(n, dtype=torch.float64) for n in (batch, channels, times))
    b, c, t = b[:, None, None], c[:, None], t + 1
    return ((0.11 * t * (1 + c % 7) / 7 + 0.5 * b).sin() + 0.3 * (0.05 * (c + 1) * t + b).cos()).float()


def masking(batch: int, length: int, ratio: float) -> Masking:
    """The released masks: the first tokens of the ascending order of the formula's noise are kept."""
    n, place = np.arange(batch)[:, None] + 1, np.arange(length) + 1
    noise = np.sin(12.9898 * place + 78.233 * n) * 43758.5453
    order = torch.from_numpy((noise - np.floor(noise)).astype(np.float32)).argsort(1)
    visible = count_visible(length, ratio, "kept")
    return Masking(order[:, :visible], order[:, visible:])


def near(expected: object, tolerance: float) -> object:
    return pytest.approx(expected, rel=tolerance, abs=tolerance * 0.1)


@pytest.fixture(scope="module")
def autoencoder() -> MaskedAutoencoder:
    config = SMALL["config"]
    width, times, channels, depth, heads, ratio = (config[name] for name in (
        "embed_dim", "time_len", "in_chans", "depth", "num_heads", "mlp_ratio"))
    encoder = Encoder(channels, times, width, depth, heads, ratio, config["patch_size"])
    model = MaskedAutoencoder(encoder, channels, times, width, times // config["patch_size"],
                              config["decoder_embed_dim"], config["decoder_depth"], config["decoder_num_heads"], ratio,
                              has_class_token=True)
    load_autoencoder(model, weights(SMALL["shapes"]))
    return model.eval()


@pytest.mark.parametrize("ratio", SMALL["expected"])
@torch.no_grad()
def test_masked_autoencoding_has_the_released_loss_with_its_class_token_and_rounding(autoencoder, ratio):
    expected, config = SMALL["expected"][ratio], SMALL["config"]
    given = eeg(2, config["in_chans"], config["time_len"])
    masks = masking(2, autoencoder.tokens, float(ratio))
    assert [masks.remove.shape[1]] * 2 == expected["masked_per_item"]
    assert torch.zeros(2, autoencoder.tokens).scatter_(1, masks.remove, 1.0)[0].tolist() == expected["mask_row0"]
    assert float(autoencoder(given, masks)) == near(expected["loss"], 1e-4)
    everything = _predict_all(autoencoder, given, masks)
    assert everything[0, 0, :4].tolist() == near(expected["pred_0_0_first4"], 1e-4)
    assert float(everything.abs().mean()) == near(expected["pred_abs_mean"], 1e-4)


def _predict_all(model: MaskedAutoencoder, given: Tensor, masks: Masking) -> Tensor:
    """The prediction of all tokens [B, L, values], as the released code makes: of the visible ones with the decoder's
    outputs at their places."""
    outputs: list[Tensor] = []
    handle = model.blocks[-1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    predicted = model.predict(given, masks)
    handle.remove()
    inner = model.head(model.norm(outputs[0]))[:, 1:]
    assert torch.allclose(inner[:, masks.keep.shape[1]:], predicted, atol=1e-5)
    order = torch.cat([masks.keep, masks.remove], 1)
    return torch.zeros_like(inner).scatter_(1, order[..., None].expand_as(inner), inner)


@torch.no_grad()
def test_encoding_without_masks_gives_the_released_tokens(autoencoder):
    expected = EXPECTED["encoder"]
    tokens = autoencoder.encoder(eeg(2, SMALL["config"]["in_chans"], SMALL["config"]["time_len"]))
    assert list(tokens.shape) == expected["shape"]
    assert tokens[0, 0, :4].tolist() == near(expected["first4"], 1e-4)
    assert float(tokens.abs().mean()) == near(expected["abs_mean"], 1e-4)


def test_the_class_token_and_the_rounding_are_needed_for_the_released_loss(autoencoder):
    """Without the token, or with one masked token less, the loss differs by more than the tolerance."""
    given, token = eeg(2, 8, 64), autoencoder.class_token
    expected = SMALL["expected"]["0.1"]["loss"]
    masks = masking(2, 16, 0.1)
    with torch.no_grad():
        fewer = Masking(torch.cat([masks.keep, masks.remove[:, :1]], 1), masks.remove[:, 1:])
        assert float(autoencoder(given, fewer)) != near(expected, 1e-4)
        try:
            autoencoder.class_token = None
            assert float(autoencoder(given, masks)) != near(expected, 1e-4)
        finally:
            autoencoder.class_token = token


def test_released_tensors_are_loaded_strictly(autoencoder):
    tensors = weights(SMALL["shapes"])
    with pytest.raises(ValueError, match="no tensor 'extra.weight' in DreamDiffusion's released classes"):
        load_autoencoder(autoencoder, tensors | {"extra.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"mask_token is missing in the released tensors, but \[1, 1, 16\]"):
        load_autoencoder(autoencoder, {name: t for name, t in tensors.items() if name != "mask_token"})
    with pytest.raises(ValueError, match=r"head.bias is \[31\] in the released tensors, but \[32\] in the module"):
        load_autoencoder(autoencoder, tensors | {"decoder_pred.bias": torch.zeros(31)})
    with pytest.raises(ValueError, match="pos_embed does not hold the sine-cosine positions"):
        load_autoencoder(autoencoder, tensors | {"pos_embed": torch.zeros(1, 17, 32)})


def _condition_parts(tokens: int, width: int, channels: int, times: int, depth: int, heads: int, ratio: float
                     ) -> dict[str, nn.Module]:
    text = torch.zeros(REAL["context_shape"][1:])
    return {"encoder": Encoder(channels, times, width, depth, heads, ratio),
            "tau": build_tau("released", tokens, width, text, nn.LayerNorm(text.shape[1])),
            "head": LatentHead(tokens, width, text.shape[1]), "classifier": LatentHead(tokens, width, 40)}


def test_tau_and_h_as_released_have_the_released_shapes_and_nothing_is_left_unnamed():
    shapes = {name: shape for name, shape in REAL["shapes"].items() if not name.startswith("mae.")}
    parts = _condition_parts(128, 1024, 4, 16, 0, 4, 1.0)
    del parts["encoder"]
    assert load_condition(parts, weights(shapes)) == []
    counted = [sum(p.numel() for p in parts[name].parameters()) for name in ("tau", "head")]
    counts = REAL["parameters"]
    assert counted == [counts["channel_mapper"] + counts["dim_mapper"], counts["mapping"]]
    classifier = parts.pop("classifier")
    assert load_condition(parts, weights(shapes)) == [
        "cls_net.fc.bias", "cls_net.fc.weight", "cls_net.maxpool.bias", "cls_net.maxpool.weight"]
    with pytest.raises(ValueError, match="LatentHead: linear.bias is missing in the released tensors"):
        load_condition({"classifier": classifier}, {name: t for name, t in weights(shapes).items()
                                                    if name != "cls_net.fc.bias"})


@pytest.mark.long
@torch.no_grad()
def test_the_condition_stage_at_its_real_size_gives_the_released_context_embedding_and_loss():
    config = REAL["config"]
    times, channels, width = config["time_len"], config["in_chans"], config["embed_dim"]
    parts = _condition_parts(times // config["patch_size"], width, channels, times, config["depth"],
                             config["num_heads"], config["mlp_ratio"])
    unused = load_condition(parts, weights(REAL["shapes"], config["depth"]))
    assert unused == ["mae.cls_token", "mae.mask_token"]
    encoder, tau, head, classifier = (part.eval() for part in parts.values())
    tokens = encoder(eeg(1, channels, times))
    context, embedding, logits = tau(tokens), head(tokens), classifier(tokens)
    assert list(context.shape) == REAL["context_shape"]
    for given, name in ((tokens[0, 0], "latent_0_0"), (context[0, 0], "context_0_0"), (context[0, 76], "context_0_76"),
                        (embedding[0], "mapping"), (logits[0], "class")):
        assert given[:4].tolist() == near(REAL[f"{name}_first4"], 1e-3)
    for given, name in ((tokens, "latent"), (context, "context"), (embedding, "mapping")):
        assert float(given.abs().mean()) == near(REAL[f"{name}_abs_mean"], 1e-3)
    target = nn.functional.normalize(eeg(1, 1, config["cond_dim"])[:, 0])
    loss = 1 - nn.functional.cosine_similarity(embedding, target).mean()
    assert float(loss) == near(REAL["clip_loss_with_formula_target"], 1e-3)
