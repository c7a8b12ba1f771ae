"""tau and h: from EEG tokens to the U-Net's condition and to CLIP space."""

from __future__ import annotations

import torch
from torch import nn

from models.condition import Head, Tau


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


def test_h_begins_as_the_projection_of_the_mean_token():
    projection, context = torch.randn(6, 7), torch.randn(3, 4, 6)
    assert torch.allclose(Head(6, 7, projection)(context), context.mean(1) @ projection, atol=1e-5)
    assert Head(6, 3)(context).shape == (3, 3)
