"""Compiled transformer blocks: the same numbers and tensors; off by default, and absent from older keys."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from timm.models.vision_transformer import Block

from bench import FULL, systems
from bench.experiment.scale import MICRO
from bench.train.loop import compile_blocks
from models.encoders.msm_vit import Encoder
from models.mae import MaskedAutoencoder
from models.masking import random_masking


def test_compiled_blocks_compute_what_eager_ones_compute():
    torch.manual_seed(0)
    eager = MaskedAutoencoder(Encoder(4, 32, 16, 2, 2), 4, 32, 16, 8, 8, 1, 2)
    compiled = copy.deepcopy(eager)
    compile_blocks(compiled, backend="aot_eager")
    assert [type(module) for module in compiled.modules() if module._compiled_call_impl is not None] == [Block] * 3
    eeg, masking = torch.randn(5, 4, 32), random_masking(5, 8, 0.75, torch.Generator().manual_seed(0))
    for model in (eager, compiled):
        model(eeg, masking).backward()
    assert eager.state_dict().keys() == compiled.state_dict().keys()
    for (name, one), other in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_a_scale_that_compiles_has_keys_of_its_own():
    scale = replace(MICRO, pretrain=replace(MICRO.pretrain, compiled=True))
    compiled, plain = (systems.plan(FULL, each.items(), each, 0).pictures.model.start for each in (scale, MICRO))
    assert '"compiled":true' in compiled.document
    assert "compiled" not in plain.document
