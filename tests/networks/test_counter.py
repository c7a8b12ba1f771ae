"""FLOPs are counted alike, whichever kernel computes attention."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import Block
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from bench.cost.counting import step_flops
from models import counter


def test_the_log_counts_a_fused_step_as_the_plan_counts_its_matrix_products():
    block, tokens = Block(32, 4), torch.randn(3, 17, 32)
    with counter.make_counter() as counted:
        block(tokens).sum().backward()
    operators = {operator for operator in counted.get_flop_counts()["Global"] if "backward" in str(operator)}
    assert any("attention" in str(operator) for operator in operators)  # fused, as on a GPU
    assert counted.get_total_flops() == step_flops(lambda: block(tokens))


@pytest.mark.parametrize(("queries", "keys"), [(17, 17), (64, 9)])
def test_four_of_torchs_five_products_of_a_fused_backward_pass_are_counted(queries, keys):
    query, key, value = (torch.randn(2, 4, length, 8, requires_grad=True) for length in (queries, keys, keys))
    product = 2 * 2 * 4 * queries * keys * 8
    for counted, products in ((counter.make_counter(), 6), (FlopCounterMode(display=False), 7)):
        with counted:
            scaled_dot_product_attention(query, key, value).sum().backward()
        assert counted.get_total_flops() == products * product


def test_every_fused_kernel_of_torch_has_that_count():
    fused = {str(operator) for operator in counter.BACKWARD}
    known = {str(operator) for operator in FlopCounterMode(display=False).flop_registry}
    assert fused == {name for name in known if "_scaled_dot_product" in name and name.endswith("backward")}
