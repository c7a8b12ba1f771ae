"""Noise schedules and sampling."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, UNet2DConditionModel
from torch import Tensor

from models.frozen.load import quiet
from models.frozen.parts import MissingWeights

SCHEDULE = "scheduler_config.json"


def noise_schedule(path: str | Path = "") -> DDPMScheduler:
    """The noise schedule that a U-Net was trained with: of a folder, ../scheduler; of "" or a file, tiny's.

    tiny's is Stable Diffusion's, rescaled to zero terminal signal-to-noise, for a U-Net that predicts v. Raises
    MissingWeights if the folder has none.
    """
    if path and Path(path).is_dir():
        file = Path(path).parent / "scheduler" / SCHEDULE
        if not file.is_file():
            raise MissingWeights(f"no {file}, the schedule of the U-Net beside it; download the part again with: "
                                 "bench fetch --what unet")
        with quiet():
            return DDPMScheduler.from_config(json.loads(file.read_text(encoding="utf-8")))
    return DDPMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                         prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")


@torch.no_grad()
def sample(unet: UNet2DConditionModel, context: Tensor, null_context: Tensor, noise: Tensor, steps: int,
           guidance: float, sampler: str = "dpmsolver++", schedule: DDPMScheduler | None = None,
           start: Tensor | None = None, first: int = 0) -> Tensor:
    """Latents [B, C, h, w] float32 for conditions [B, M, D], from `noise` [B, C, h, w].

    guidance: other than 1, each step is one call of the U-Net with 2B rows, first under `null_context` [1, M, D], then
    under `context`. sampler: "dpmsolver++" (DPM-Solver++ of second order) or "plms" (Liu et al. 2022 without
    Runge-Kutta steps; one call more than steps). schedule: the U-Net's; None: tiny's. start: latents [B, C, h, w] to
    begin from, with the noise that the schedule has before step `first`, as in diffusers' image-to-image; earlier steps
    are skipped. Raises ValueError for an unknown sampler, and for PLMS with `start` or with zero terminal signal.
    """
    solver = make_solver(sampler, schedule or noise_schedule())
    solver.set_timesteps(steps, device=noise.device)
    latents, guided, times = noise, guidance != 1, solver.timesteps[first:]
    if start is not None:
        if sampler == "plms":
            raise ValueError("sampler plms begins from noise only; use dpmsolver++ for image-to-image")
        solver.set_begin_index(first)
        latents = solver.add_noise(start, noise, times[:1])
    if guided:
        context = torch.cat([null_context.expand_as(context), context])
    dtype = unet.conv_in.weight.dtype
    context = context.to(dtype)
    for time in times:
        inputs = latents.to(dtype)
        predicted = unet(torch.cat([inputs, inputs]) if guided else inputs, time, context).sample.float()
        if guided:
            without, conditional = predicted.chunk(2)
            predicted = without + guidance * (conditional - without)
        latents = solver.step(predicted, time, latents).prev_sample
    return latents


def make_solver(sampler: str, schedule: DDPMScheduler) -> DPMSolverMultistepScheduler | PNDMScheduler:
    """A sampler over a noise schedule; errors as `sample`."""
    with quiet():
        if sampler == "dpmsolver++":
            return DPMSolverMultistepScheduler.from_config(schedule.config, algorithm_type="dpmsolver++",
                                                           solver_order=2)
        if sampler != "plms":
            raise ValueError(f"unknown sampler {sampler!r}; there are: dpmsolver++, plms")
        if schedule.config.rescale_betas_zero_snr:
            raise ValueError("sampler plms needs a signal at the first step, but this schedule has zero terminal "
                             "signal-to-noise; use dpmsolver++")
        return PNDMScheduler.from_config(schedule.config, skip_prk_steps=True)
