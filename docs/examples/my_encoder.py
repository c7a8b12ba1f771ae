"""An encoder: two convolutions over time, one token for every four time steps."""

from torch import nn


class Encoder(nn.Module):
    def __init__(self, channels, times, width, depth, heads):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(channels, width, 8, stride=4, padding=2), nn.GELU(),
                                    nn.Conv1d(width, width, 3, padding=1))

    def forward(self, eeg):  # [B, C, T] -> [B, L, width]
        return self.layers(eeg).transpose(1, 2)
