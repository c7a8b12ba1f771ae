"""Simulates the corpus of a world with a known answer: time-locked windows of known stimuli, as averages of trials."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.data.pictures import CLASSES, SHOWN, draw_scenes
from bench.data.prepared import Array
from bench.data.tiny import TinyWorld, draw_anatomy, draw_codes, generator, present

PHASES = ("kept", "shared", "independent", "noise")


def people_windows(world: TinyWorld, person: int, count: int, band: tuple[float, float]) -> tuple[Array, Array, Array]:
    """Simulates `count` windows [N, C, T] of a person who is no subject of the paired recordings.

    Each window begins at a stimulus, as a trial does. The stimuli are scenes of the shown classes, but no image of the
    paired recordings. A window at the signal-to-noise ratio `world.snr` stands for an average of trials: k trials raise
    the ratio by the root of k. Returns also the codes [N, F] to which the sources respond, and the classes [N].
    """
    from bench.data.recordings import as_raw, cut_epochs  # MNE takes a second; planning imports this file

    rng = generator(world, 11, person)
    scenes = draw_scenes(count, SHOWN, rng)
    recording = present(replace(world, blocks=1), scenes, (CLASSES[label] for label in scenes.label),
                        np.arange(count), rng)
    raw = as_raw(recording.data, recording.sfreq, recording.ch_names, recording.annotations)
    windows = cut_epochs(raw, recording.onsets, band, world.sfreq, world.n_times)
    codes = draw_codes(world, draw_anatomy(world), scenes)
    return windows, codes.astype(np.float32), scenes.label


def randomise_phases(windows: Array, phases: str, rng: np.random.Generator) -> Array:
    """Replaces the phases of windows [N, C, T] by random ones.

    phases  "kept": nothing is replaced; "shared": the same random angles are added in all channels of a window, which
            keeps the phase relations between channels, and so its cross-spectra (Prichard and Theiler 1994);
            "independent": each channel gets its own angles, which removes these relations; "noise": Gaussian noise with
            each channel's mean power spectrum, which is all that the windows have in common
    With "shared" and "independent" each channel keeps its power spectrum in each window, which depends on the stimulus;
    with "noise" nothing does. Raises ValueError for other phases.
    """
    if phases not in PHASES:
        raise ValueError(f"phases={phases!r}: expected one of {', '.join(PHASES)}")
    if phases == "kept":
        return windows
    count, channels, times = windows.shape
    spectrum = np.fft.rfft(windows)
    if phases == "noise":
        root = np.sqrt((np.abs(spectrum) ** 2).mean(0) / 2)  # [C, F], of the real and of the imaginary part
        white = rng.standard_normal((2, *spectrum.shape))
        return np.fft.irfft(root * (white[0] + 1j * white[1]), times).astype(np.float32)
    angles = rng.uniform(0, 2 * np.pi, (count, 1 if phases == "shared" else channels, spectrum.shape[2]))
    angles[..., 0] = 0
    if times % 2 == 0:
        angles[..., -1] = 0  # the mean and the highest frequency are real numbers
    return np.fft.irfft(spectrum * np.exp(1j * angles), times).astype(np.float32)
