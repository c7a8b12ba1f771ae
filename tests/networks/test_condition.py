"""tau and h: from EEG tokens to the U-Net's condition and to CLIP space."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.condition import Head, Tau, build_tau


def test_tau_begins_at_the_text_it_is_given_whatever_the_eeg():
    torch.manual_seed(0)
    norm = nn.LayerNorm(6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    text = norm(torch.randn(4, 6)).detach()
    tau = Tau(tokens=5, width=8, text=text, norm=norm)
    nn.init.zeros_(tau.project.weight)
    nn.init.zeros_(tau.project.bias)
    assert torch.allclose(tau(torch.randn(3, 5, 8)), text.expand(3, 4, 6), atol=1e-4)


def test_tau_maps_l_tokens_of_any_width_to_the_context():
    tau = Tau(tokens=5, width=8, text=torch.randn(4, 6), norm=nn.LayerNorm(6))
    assert tau(torch.randn(3, 5, 8)).shape == (3, 4, 6)


def test_a_linear_tau_is_a_sum_over_tokens_of_linear_maps_and_the_released_one_has_half_as_many_tokens_between():
    text, norm, eeg = torch.randn(4, 6), nn.LayerNorm(6), torch.randn(3, 5, 8)
    linear, released = (build_tau(kind, 5, 8, text, norm) for kind in ("linear", "released"))
    assert [tuple(p.shape) for p in linear.parameters()] == [(4, 5, 1), (4,), (6, 8), (6,)]
    assert [tuple(p.shape) for p in released.mix.parameters()] == [(2, 5, 1), (2,), (4, 2, 1), (4,)]
    assert sum(p.numel() for p in build_tau("released", 128, 1024, torch.zeros(77, 768), norm).parameters()) == 800_461
    for tau in (linear, released):
        zero = tau(torch.zeros_like(eeg))
        assert zero.shape == (3, 4, 6)
        assert torch.allclose(tau(3 * eeg) - zero, 3 * (tau(eeg) - zero), atol=1e-5)  # no norm
        assert not torch.allclose(tau(eeg), text.expand(3, 4, 6), atol=0.1)
    assert build_tau("released", 1, 8, text, norm)(eeg[:, :1]).shape == (3, 4, 6)
    with pytest.raises(ValueError, match="tau must be 'text', 'released' or 'linear', not 'mlp'"):
        build_tau("mlp", 5, 8, text, norm)


def test_h_begins_as_the_projection_of_the_mean_token():
    projection, context = torch.randn(6, 7), torch.randn(3, 4, 6)
    assert torch.allclose(Head(6, 7, projection)(context), context.mean(1) @ projection, atol=1e-5)
    assert Head(6, 3)(context).shape == (3, 3)
