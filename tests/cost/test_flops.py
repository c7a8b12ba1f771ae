"""FLOPs of the paper's modules at their real size: exact counts on the meta device, without weights.

After a change of a module or of the paper's sizes, `PYTHONPATH=tests python tests/cost/test_flops.py` rewrites the
table of docs/paper-scale.md.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paper import PAPER
from torch.utils.flop_counter import FlopCounterMode

from bench.cost import counting, memory, networks
from bench.experiment.stages import Decoder, Encoder
from models import frozen, pins
from models.condition import Head
from models.parameters import EMBEDDING, WIDTH

PAGE = Path(__file__).parents[2] / "docs" / "paper-scale.md"
COMMAND = "PYTHONPATH=tests python tests/cost/test_flops.py"
BEGIN, END = f"<!-- the table of tests/cost/test_flops.py: {COMMAND} -->", "<!-- end -->"
SHAPE = 128, 512
BILLION = 10**9
PARAMETERS = {"297M": 302_836_736, "458M": 453_991_424, "162M": 163_416_576, "74M": 74_182_400, "18.3M": 18_383_328}
A, NONE = frozenset({"A"}), frozenset[str]()


def encoder(label: str) -> Encoder:
    size = PAPER.size(label)
    return Encoder("msm_vit", size.width, size.depth, size.heads, size.mlp_ratio)


def autoencoder(label: str = "297M", mask_ratio: float = 0.75, batch: int = 1) -> tuple[int, int]:
    named = {"batch": batch} if batch > 1 else {}
    return networks.autoencoder_flops(encoder(label), PAPER.decoder, *SHAPE, mask_ratio, **named)


def unet(opens: frozenset[str], context: bool, time: bool = False) -> tuple[int, int]:
    return networks.unet_flops(opens, context, time)


def checkpointed() -> tuple[int, int]:
    return networks.unet_flops(frozenset({"all"}), True, False, True)


def count(part) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


@pytest.mark.parametrize("label", PARAMETERS)
def test_an_encoder_has_that_many_parameters_which_is_within_2_percent_of_the_papers_label(label):
    module, shape = networks.encoder_on_meta(encoder(label), *SHAPE)
    assert count(module) == PARAMETERS[label]
    assert count(module) == pytest.approx(float(label.removesuffix("M")) * 1e6, rel=0.02)
    assert shape == (128, PAPER.size(label).width)


def test_the_sizes_that_are_asserted_are_all_of_the_papers():
    assert set(PARAMETERS) == {size.label for size in PAPER.sizes if size.label.endswith("M")}


def test_masked_pretraining_costs_at_most_81_gflop_for_a_window():
    forward, both = autoencoder()
    assert both <= 81.0 * BILLION
    assert 2.9 * forward < both < 3.0 * forward  # the data need no gradient


def test_masking_a_quarter_costs_at_least_2_4_times_masking_three_quarters():
    assert autoencoder(mask_ratio=0.25)[1] >= 2.4 * autoencoder()[1]


def test_a_batch_costs_as_many_times_more_as_it_has_samples():
    assert autoencoder("18.3M", batch=3)[1] == 3 * autoencoder("18.3M")[1]
    assert networks.unet_flops(NONE, False, batch=2)[0] == 2 * unet(A, True)[0]


@pytest.mark.parametrize(("opens", "context", "most"), [
    (A, True, 1.12),  # E+A, and A alone: tau trains in every row, so that the condition needs its gradient
    (NONE, True, 1.08),  # E
    (A, False, 1.115),  # A alone with tau frozen: no gradient flows to the condition
])
def test_the_unets_backward_pass_costs_little_more_than_its_forward_pass(opens, context, most):
    forward, both = unet(opens, context)
    assert 1.0 < (both - forward) / forward <= most


def test_row_14_with_tau_trained_stays_within_the_bound_of_a_alone():
    forward, both = unet(A, True)
    assert (both - forward) / forward <= 1.115


def test_gradients_of_the_whole_unet_cost_twice_its_forward_pass_and_checkpoints_most_of_another():
    forward, both = checkpointed()
    assert (both - forward) / forward == pytest.approx(2.87, abs=0.01)
    assert unet(A, True)[0] == forward


def test_a_condition_through_the_time_step_costs_gradients_of_more_than_none():
    plain, through_time = (unet(NONE, True, time) for time in (False, True))
    assert through_time[0] > plain[0]
    assert through_time[1] - through_time[0] > plain[1] - plain[0]


def test_parts_that_are_counted_one_by_one_add_up_to_a_step_of_fine_tuning():
    value = encoder("18.3M")
    module, (tokens, width) = networks.encoder_on_meta(value, *SHAPE)
    tau, denoiser = networks.tau_on_meta(tokens, width), networks.unet_on_meta(A)
    with torch.device("meta"):
        head = Head(WIDTH, EMBEDDING)
    module.train().requires_grad_(True)
    with FlopCounterMode(display=False) as counter, counting.plain_attention():
        context = tau(module(torch.empty(1, *SHAPE, device="meta")))
        latents = torch.empty(1, 4, 64, 64, device="meta")
        made = denoiser(latents, torch.empty(1, dtype=torch.int64, device="meta"), context).sample
        (made.sum() + head(context).sum()).backward()
    parts = (networks.encoder_flops(value, *SHAPE)[1], networks.condition_flops(tokens, width, True, True),
             networks.head_flops("context", tokens, width, EMBEDDING, True), unet(A, True)[1])
    assert counter.get_total_flops() == sum(parts)


@pytest.mark.parametrize(("make", "part"), [("stable_diffusion_unet", "unet"), ("stable_diffusion_vae", "vae"),
                                            ("clip", "clip")])
def test_a_configuration_has_as_many_parameters_as_the_published_file_holds(make, part):
    published = pins.PARTS[part].files[0].bytes
    tensors = counting.part(make).state_dict()
    assert 0 < published - 4 * sum(tensor.numel() for tensor in tensors.values()) < 200 * len(tensors)


def test_the_unet_opens_the_published_number_of_cross_attention_parameters():
    opened = frozen.open_for_tuning(counting.part("stable_diffusion_unet"))
    assert sum(parameter.numel() for _, parameter in opened) == 43_962_560


def test_nothing_of_what_is_counted_takes_memory():
    assert {p.device.type for p in counting.part("stable_diffusion_unet").parameters()} == {"meta"}


ITEMS = {  # item -> (forward, forward and backward) of one sample
    "pre-training, one window, mask 0.75": lambda: autoencoder(),
    "pre-training, mask 0.25": lambda: autoencoder(mask_ratio=0.25),
    "pre-training, mask 0.5": lambda: autoencoder(mask_ratio=0.5),
    "pre-training, mask 0.85": lambda: autoencoder(mask_ratio=0.85),
    **{f"pre-training, mask 0.75, {label}": lambda label=label: autoencoder(label)
       for label in ("458M", "162M", "74M", "18.3M")},
    "encoder in fine-tuning, 297M": lambda: networks.encoder_flops(encoder("297M"), *SHAPE),
    "tau": lambda: (networks.condition_flops(128, 1024, False, False), networks.condition_flops(128, 1024, True, True)),
    "U-Net, E+A; and A with tau trained": lambda: unet(A, True),
    "U-Net, E": lambda: unet(NONE, True),
    "U-Net, A, with tau frozen": lambda: unet(A, False),
    "U-Net, all gradients, checkpointed": lambda: checkpointed(),
    "VAE, encoding 512 pixels": lambda: (networks.vae_flops("encode"), 0),
    "VAE, decoding 512 pixels": lambda: (networks.vae_flops("decode"), 0),
    "CLIP ViT-L/14, an image": lambda: networks.clip_flops(),
    "an image by DPM-Solver++, 25 steps": lambda: (25 * networks.evaluation_flops() + networks.vae_flops("decode"), 0),
    "the same with guidance": lambda: (50 * networks.evaluation_flops() + networks.vae_flops("decode"), 0),
    "an image by PLMS, 250 steps": lambda: (251 * networks.evaluation_flops() + networks.vae_flops("decode"), 0),
    "judge, ViT-L/16, 224 pixels": lambda: (networks.image_flops("judge", 224), 0),
    "the released code's judge, ViT-H/14, 518 pixels": lambda: (networks.image_flops("released_judge", 518), 0),
    "Inception-v3, 299 pixels": lambda: (networks.image_flops("inception", 299), 0),
    "LPIPS (AlexNet) of a pair, 512 pixels": lambda: (2 * networks.image_flops("alexnet", 512), 0),
}


def table() -> str:
    """GFLOP of one sample, in Markdown."""
    lines = ["| item | forward, GFLOP | with backward, GFLOP | backward / forward |", "| :-- | --: | --: | --: |"]
    for item, counted in ITEMS.items():
        forward, both = counted()
        with_backward = (f"{both / BILLION:,.1f}", f"{(both - forward) / forward:.3f}") if both else ("", "")
        lines.append(f"| {item} | {forward / BILLION:,.1f} | {with_backward[0]} | {with_backward[1]} |")
    return "\n".join(lines)


def test_the_page_lists_the_counts_as_they_are():
    page = PAGE.read_text()
    assert page.split(BEGIN)[1].split(END)[0].strip() == table(), f"rewrite it with: {COMMAND}"


def test_the_decoder_of_pretraining_has_the_papers_size():
    model, tokens = networks.autoencoder_on_meta(encoder("297M"), PAPER.decoder, *SHAPE)
    assert tokens == 128
    assert count(model) == 328_844_800
    smaller, _ = networks.autoencoder_on_meta(encoder("297M"), replace(PAPER.decoder, depth=4), *SHAPE)
    assert count(smaller) < count(model)


if __name__ == "__main__":
    before, after = PAGE.read_text().split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n\n" + table() + "\n\n" + END + after.split(END, 1)[1])


@pytest.mark.parametrize("count", [networks.autoencoder_flops, networks.released_autoencoder_flops,
                                   networks.encoder_flops, memory._pretrain_memory, memory._encoder_bytes])
def test_equal_blocks_are_counted_once_and_give_the_counts_of_the_whole_network(count, monkeypatch):
    encoder, shape = Encoder("msm_vit", 64, 5, 4, 2.0), (8, 64)
    alone = count in (networks.encoder_flops, memory._encoder_bytes)
    ratio = (0.75, False, "masked") if count is memory._pretrain_memory else (0.75,)
    arguments = (encoder, *shape) if alone else (encoder, Decoder(32, 3, 4, 2.0), *shape, *ratio)
    found = count.__wrapped__(*arguments)
    monkeypatch.setattr(networks, "EQUAL_BLOCKS", ())
    assert count.__wrapped__(*arguments) == found


@pytest.mark.parametrize("affine", [True, False])
def test_layers_without_the_parts_that_cost_no_flops_have_the_same_flops(affine):
    with torch.device("meta"):
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(4, 8, affine=affine), torch.nn.Flatten(2), torch.nn.SiLU(),
            torch.nn.Linear(36, 20, bias=affine), torch.nn.LayerNorm(20, elementwise_affine=affine),
            torch.nn.TransformerEncoderLayer(20, 2, 40, batch_first=True), torch.nn.Linear(20, 5))
    for opened in (net, net[1], net[5], net[7]):
        net.requires_grad_(False)
        opened.requires_grad_(True)
        for needed in (True, False):
            simple, exact = (counting.count_flops(
                lambda needed=needed: net(counting.meta(2, 3, 8, 8, requires_grad=needed)), needed, simple=way)
                for way in (True, False))
            assert simple == exact
            assert exact[0]
