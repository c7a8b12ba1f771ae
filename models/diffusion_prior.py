"""A diffusion prior over CLIP space, conditioned on embeddings of EEG (Li et al., NeurIPS 2024; released code)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from diffusers import DDPMScheduler
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn
from torch.nn.functional import mse_loss

WIDTHS = (1024, 512, 256, 128, 64)


class Stair(nn.Module):
    """One layer of the prior, [B, before] -> [B, after]: adds the embeddings of the time step and of the condition,
    then a linear map, LayerNorm, SiLU and dropout."""

    def __init__(self, before: int, after: int, condition: int, time: int, dropout: float):
        super().__init__()
        self.time, self.condition = TimestepEmbedding(time, before), nn.Linear(condition, before)
        self.map = nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), nn.SiLU(), nn.Dropout(dropout))

    def forward(self, hidden: Tensor, time: Tensor, condition: Tensor | None) -> Tensor:
        hidden = hidden + self.time(time)
        return self.map(hidden if condition is None else hidden + self.condition(condition))


class DiffusionPrior(nn.Module):
    """Predicts the noise in noisy embeddings [B, D'] at times [B], with conditions [B, D] or without.

    Down the widths and up again with skip connections. 9,675,648 parameters with D = D' = 1024.
    """

    def __init__(self, embedding: int, condition: int, widths: Sequence[int] = WIDTHS, time: int = 512,
                 dropout: float = 0.1):
        super().__init__()
        self.sinusoids = Timesteps(time, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.input = nn.Sequential(nn.Linear(embedding, widths[0]), nn.LayerNorm(widths[0]), nn.SiLU())
        self.down = nn.ModuleList(Stair(*step, condition, time, dropout) for step in pairwise(widths))
        self.up = nn.ModuleList(Stair(*step, condition, time, dropout) for step in pairwise(widths[::-1]))
        self.output = nn.Linear(widths[0], embedding)

    def forward(self, noisy: Tensor, times: Tensor, condition: Tensor | None = None) -> Tensor:
        time, hidden = self.sinusoids(times).to(noisy.dtype), self.input(noisy)
        kept = []
        for stair in self.down:
            kept.append(hidden)
            hidden = stair(hidden, time, condition)
        for stair in self.up:
            hidden = stair(hidden, time, condition) + kept.pop()
        return self.output(hidden)


def noise_schedule(clip_sample: bool) -> DDPMScheduler:
    """diffusers' default schedule of 1,000 steps.

    clip_sample: clips every estimate of the embedding to [-1, 1], as for pixels; on in the released code.
    """
    return DDPMScheduler(clip_sample=clip_sample)


def prior_loss(prior: DiffusionPrior, schedule: DDPMScheduler, embedding: Tensor, condition: Tensor | None) -> Tensor:
    """Mean squared error of the noise at random times, which torch's CPU generator draws."""
    noise, times = torch.randn(embedding.shape), torch.randint(len(schedule.betas), (len(embedding),))
    noise, times = noise.to(embedding.device), times.to(embedding.device)
    return mse_loss(prior(schedule.add_noise(embedding, noise, times), times, condition), noise)


@torch.no_grad()
def draw(prior: DiffusionPrior, condition: Tensor, generators: list[torch.Generator], steps: int, guidance: float,
         clip_sample: bool) -> Tensor:
    """Embeddings [B, D'] for conditions [B, D], by ancestral sampling with classifier-free guidance.

    generators: one on the CPU for each row, for all its noise.
    """
    schedule, device = noise_schedule(clip_sample), condition.device
    schedule.set_timesteps(steps)
    width = prior.output.out_features
    noisy = torch.cat([torch.randn(1, width, generator=generator) for generator in generators]).to(device)
    for time in schedule.timesteps:
        times = time.expand(len(noisy)).to(device)
        noise = prior(noisy, times)
        noise = noise + guidance * (prior(noisy, times, condition) - noise)
        noisy = schedule.step(noise, time, noisy, generator=generators).prev_sample
    return noisy
