"""EEGNet: its filters in another order give what the layers give one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from models.classifiers import EEGNet


def layer_by_layer(net, eeg):
    """The layers in the order of the paper's Table 2."""
    return net.head(net.separable(net.pool(net.spatial(net.temporal(eeg[:, None])))).flatten(1))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("n_chans", "n_times", "sfreq"), [(6, 64, 120.0), (3, 40, 300.0), (3, 33, 12.0)])
def test_outputs_gradients_and_running_statistics_are_those_of_the_layers_one_after_the_other(n_chans, n_times, sfreq):
    torch.manual_seed(0)
    net = EEGNet(n_chans, n_times, sfreq, 5).double()
    plain = copy.deepcopy(net)
    eeg = 3 * torch.randn(16, n_chans, n_times).double() + 1
    label = torch.arange(16) % 5
    for forward in (net, lambda eeg: layer_by_layer(plain, eeg)):
        for seed in range(2):
            torch.manual_seed(seed)  # of dropout
            F.cross_entropy(forward(eeg + seed), label).backward()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-10)
    for ours, theirs in zip(net.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert net.temporal[1].num_batches_tracked == 2
    torch.testing.assert_close(net.eval()(eeg), layer_by_layer(plain.eval(), eeg), rtol=1e-9, atol=1e-12)
