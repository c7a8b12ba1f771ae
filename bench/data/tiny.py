"""Simulates the tiny world's EEG: a head, paired recordings, and a corpus of other people on other devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from bench.data.pictures import BACKGROUNDS, CLASSES, COLOURS, SHOWN, TILT, Scenes, draw_scenes, stream
from bench.data.prepared import Array

ORDERS = ("interleaved", "blocked")
SUBJECTS = (1, 2, 3, 4, 5, 6)  # as many as in ImageNet-EEG
IN_BAND = (5.0, 95.0)  # Hz, in which the amplitudes of TinyWorld are measured (Sec. 4.1)


@dataclass(frozen=True)
class TinyWorld:
    """The parameters of the world. Amplitudes are root mean squares at the electrodes within IN_BAND, in µV.

    The head is a unit half sphere of electrodes over current dipoles; a lead field spreads every source over all
    channels. Each visual source responds to an image with a short early and a longer late wave. Their amplitudes are a
    saturating function of the image's class and of its instance (colour, background, position, size, rotation). The
    response is added to ongoing activity, which continues between trials.
    """

    seed: int = 0
    pictures: int = 2400  # each shown once to every subject; two thirds train, one sixth val, one sixth test
    n_chans: int = 32
    n_times: int = 128  # samples of a window from the stimulus on: 512 ms
    sfreq: float = 250.0  # Hz
    gap: tuple[float, float] = (0.25, 0.40)  # s between two trials, uniform; no rhythm locks to the stimuli

    snr: float = 0.34  # evoked over ongoing activity; single trials are mostly noise
    instance: float = 0.8  # tuning to the instance over tuning to the class
    early: tuple[float, float] = (12.0, 26.0)  # Hz, carriers of the first wave: P1-N1 and induced beta
    late: tuple[float, float] = (7.0, 16.0)  # Hz, carriers of the second wave: P2-N2 and after
    latency_jitter: float = 0.015  # s, standard deviation over trials; single-trial peaks vary by 10 to 20 ms
    gain_jitter: float = 0.25  # relative, standard deviation of the response over trials, as attention varies
    sources: int = 16  # visual and temporal dipoles that respond

    pink: float = 8.0  # µV; ongoing activity with an amplitude of 1/f above 3 Hz
    alpha: float = 7.0  # µV; occipital rhythm at 8.5 to 11.5 Hz of varying strength
    beta: float = 2.5  # µV; rhythm at twice the alpha frequency
    sensor: float = 3.0  # µV; amplifier and electrode noise, white, independent in each channel
    anatomy: float = 0.12  # head radii; distance between the dipoles of two people, which changes their lead fields
    delay: float = 0.008  # s, standard deviation of a wave's latency over people

    order: str = "interleaved"  # or "blocked": each block has one class, as ImageNet-EEG was recorded
    blocks: int = 10  # of a recording, of equal length; in the blocked order a multiple of the number of classes
    block_drift: float = 0.0  # standard deviation of the log gain of each channel in each block (gel, electrodes)
    artefacts: float = 0.0  # class-dependent eye movements and muscle bursts, over ongoing activity

    recordings: int = 60  # of the corpus, over all DEVICES in turn, each of a different person
    seconds: float = 130.0  # length of each
    evoked_share: float = 0.8  # share of recordings with stimuli (not the paired images); the others are at rest
    faults: float = 0.1  # share of recordings in which the amplifier fails for some seconds


@dataclass(frozen=True)
class Device:
    """A simulated amplifier and cap of the corpus: `sfreq` in Hz, `turn` of the electrode layout in radians."""

    name: str
    n_chans: int
    sfreq: float
    turn: float


DEVICES = (Device("Alder", 32, 250.0, 0.0), Device("Birch", 24, 256.0, 0.6), Device("Cedar", 16, 500.0, 1.1),
           Device("Elm", 32, 160.0, 1.9), Device("Hazel", 8, 250.0, 2.3), Device("Larch", 28, 200.0, 2.8))


@dataclass(frozen=True, eq=False)
class Recording:
    """A continuous recording. `annotations` are (onset in s, duration in s, description)."""

    data: Array  # [C, n] float32, µV
    sfreq: float  # Hz
    ch_names: tuple[str, ...]
    annotations: tuple[tuple[float, float, str], ...]
    onsets: Array  # [trials] int64, sample at which each stimulus appears
    pictures: Array  # [trials] int64, index of the image; empty in the corpus
    blocks: Array  # [trials] int64


@dataclass(frozen=True, eq=False)
class _Anatomy:
    """What all people of a world share: dipoles ([n, 3], head radii) and the tuning of the visual ones."""

    visual: tuple[Array, Array]  # positions and moments of the sources that respond
    ongoing: tuple[Array, Array]  # sources of ongoing activity; the first two have alpha, the third beta
    classes: Array  # [SHOWN, CODE]
    tuning: Array  # [CODE + INSTANCE, 2 * sources]
    offset: Array  # [2 * sources], the part of the response common to all images
    latency: Array  # [2 * sources] s; early waves first, then late ones
    width: Array  # [2 * sources] s
    carrier: Array  # [2 * sources] Hz
    scale: float  # makes the evoked response 1 µV


CODE, INSTANCE = SHOWN - 1, 10  # features of the class and of the instance to which sources are tuned


def generator(world: TinyWorld, *purpose: int) -> np.random.Generator:
    """Returns a separate generator for each purpose."""
    return np.random.default_rng([world.seed, 7, *purpose])


def electrode_positions(n: int, turn: float = 0.0) -> Array:
    """Returns n evenly spaced positions [n, 3] on the upper half of the unit sphere; y is to the front, z is up."""
    z = (np.arange(n) + 0.5) / n
    azimuth = np.arange(n) * np.pi * (3 - np.sqrt(5)) + turn
    return np.stack([np.sqrt(1 - z**2) * np.cos(azimuth), np.sqrt(1 - z**2) * np.sin(azimuth), z], 1)


def _draw_dipoles(n: int, rng: np.random.Generator,
                  towards: tuple[float, float, float] = (0, 0, 0.3)) -> tuple[Array, Array]:
    direction = rng.standard_normal((n, 3)) + towards
    return 0.75 * direction / np.linalg.norm(direction, axis=1, keepdims=True), rng.standard_normal((n, 3))


def _lead_field(electrodes: Array, dipoles: tuple[Array, Array]) -> Array:
    """Returns potentials [C, n] of current dipoles in an unbounded conductor, each of unit power over a dense cap."""
    position, moment = dipoles

    def potential(points: Array) -> Array:
        offset = points[:, None] - position
        return (offset * moment).sum(-1) / np.maximum(np.linalg.norm(offset, axis=-1), 0.35) ** 3

    dense = potential(electrode_positions(200))
    return potential(electrodes) / np.sqrt((dense**2).mean(0))


def draw_anatomy(world: TinyWorld) -> _Anatomy:
    """Draws the sources and tuning that all people of a world share."""
    from scipy.linalg import helmert  # lazy, as printing a table imports this module

    rng = generator(world, 0)
    k = world.sources
    visual, ongoing = _draw_dipoles(k, rng, (0, -0.6, 0.3)), _draw_dipoles(14, rng)
    ongoing[0][:2] = 0.75 * np.array([[-0.35, -0.85, 0.4], [0.35, -0.85, 0.4]])  # alpha: left and right occipital
    rotation = np.linalg.qr(rng.standard_normal((CODE, CODE)))[0]
    classes = helmert(SHOWN).T @ rotation * np.sqrt(SHOWN)  # all classes have the same distance
    anatomy = _Anatomy(
        visual=visual, ongoing=ongoing, classes=classes,
        tuning=rng.standard_normal((CODE + INSTANCE, 2 * k)) / np.sqrt(CODE + INSTANCE),
        offset=0.3 * rng.standard_normal(2 * k),
        latency=np.concatenate([rng.uniform(0.05, 0.15, k), rng.uniform(0.18, 0.34, k)]),
        width=np.concatenate([rng.uniform(0.02, 0.04, k), rng.uniform(0.04, 0.07, k)]),
        carrier=np.concatenate([rng.uniform(*world.early, k), rng.uniform(*world.late, k)]), scale=1.0)
    waves = _waves(anatomy, _draw_other_codes(world, 256, rng), np.ones((256, 1)), np.zeros((256, 1)), world.sfreq)
    lead_field = _lead_field(electrode_positions(world.n_chans), visual)
    evoked = np.einsum("ck,nkt->nct", lead_field, waves[:, :, : world.n_times])
    return replace(anatomy, scale=float(1 / np.sqrt((evoked**2).mean())))


def draw_codes(world: TinyWorld, anatomy: _Anatomy, scenes: Scenes) -> Array:
    """Returns codes of scenes [N, CODE + INSTANCE], of about unit variance; INSTANCE ones are times world.instance."""
    rgb = np.array(list(COLOURS.values()))
    colour = (rgb[scenes.colour] + scenes.tint - rgb.mean(0)) / rgb.std(0)
    grey = np.array(list(BACKGROUNDS.values())).mean(1)
    background = (grey[scenes.background] - grey.mean()) / grey.std()
    middle = (scenes.background == 1) * 2.1 - 0.7
    place = np.stack([scenes.x, scenes.y], 1) / 0.046
    size, angle = (scenes.size - 0.77) / 0.04, scenes.angle / (TILT / np.sqrt(3))
    slope = (scenes.gradient * 2 - 1) * np.cos(scenes.slope)
    rest = np.column_stack([colour, background, middle, place, size, angle, slope])
    return np.concatenate([anatomy.classes[scenes.label], world.instance * rest], 1)


def _draw_other_codes(world: TinyWorld, n: int, rng: np.random.Generator) -> Array:
    """Draws codes of n stimuli that are not images of the world."""
    codes = rng.standard_normal((n, CODE + INSTANCE))
    codes[:, CODE:] *= world.instance
    return codes


def _waves(anatomy: _Anatomy, codes: Array, gain: Array, delay: Array, sfreq: float) -> Array:
    """Returns source waveforms [N, sources, t], 0.6 s from each stimulus, for codes [N, F], a gain, a delay in s."""
    amplitudes = gain * np.tanh(codes @ anatomy.tuning + anatomy.offset)
    time = np.arange(round(0.6 * sfreq), dtype=np.float32) / np.float32(sfreq)
    delayed = time - (anatomy.latency + delay).astype(np.float32)[:, :, None]
    width, carrier = anatomy.width.astype(np.float32)[:, None], anatomy.carrier.astype(np.float32)[:, None]
    wave = np.exp(-0.5 * (delayed / width) ** 2) * np.cos(np.float32(2 * np.pi) * carrier * delayed)
    wave *= amplitudes.astype(np.float32)[:, :, None]
    early, late = np.split(wave, 2, 1)
    return early + late


def _draw_noise(rows: int, n: int, sfreq: float, spectrum: Callable[[Array], Array], rng: np.random.Generator) -> Array:
    """Draws Gaussian noise [rows, n] with an amplitude spectrum and unit variance within IN_BAND."""
    size = -(-n // 4096) * 4096
    frequency = np.fft.rfftfreq(size, 1 / sfreq)
    amplitude = spectrum(frequency)
    amplitude[0] = 0
    inside = (frequency >= IN_BAND[0]) & (frequency <= IN_BAND[1])
    amplitude = (amplitude * size / 2 / np.sqrt((amplitude[inside] ** 2).sum())).astype(np.float32)
    white = rng.standard_normal((rows, len(frequency), 2), dtype=np.float32).view(np.complex64)[..., 0]
    return np.fft.irfft(white * amplitude, size)[:, :n].astype(np.float32)


def _draw_ongoing(world: TinyWorld, lead: Array, n: int, sfreq: float, rng: np.random.Generator) -> Array:
    """Draws ongoing activity [C, n] of one person: 1/f background, alpha, beta and sensor noise."""
    frequency = rng.uniform(8.5, 11.5)

    def rhythm(centre: float, width: float) -> Callable[[Array], Array]:
        return lambda f: np.exp(-0.5 * ((f - centre) / width) ** 2)

    sources = _draw_noise(lead.shape[1], n, sfreq, lambda f: 1 / np.maximum(f, 3.0), rng)
    sources *= world.pink / np.sqrt(lead.shape[1])
    sources[:2] += world.alpha / np.sqrt(2) * _draw_noise(2, n, sfreq, rhythm(frequency, 0.6), rng)
    sources[2:3] += world.beta * _draw_noise(1, n, sfreq, rhythm(2 * frequency, 1.5), rng)
    white = rng.standard_normal((len(lead), n), dtype=np.float32)
    density = sfreq / 2 / (min(IN_BAND[1], sfreq / 2) - IN_BAND[0])
    return lead.astype(np.float32) @ sources + np.float32(world.sensor * np.sqrt(density)) * white


def record(world: TinyWorld, electrodes: Array, sfreq: float, onsets: Array, codes: Array, n: int,
           rng: np.random.Generator) -> Array:
    """Simulates a person's recording [C, n] in µV: ongoing activity, and responses to `codes` at `onsets`."""
    anatomy = draw_anatomy(world)

    def vary(dipoles: tuple[Array, Array]) -> Array:
        position, moment = (d + world.anatomy * rng.standard_normal(d.shape) for d in dipoles)
        return _lead_field(electrodes, (position, moment))

    visual, background = vary(anatomy.visual), vary(anatomy.ongoing)
    delay = world.delay * rng.standard_normal(2 * world.sources)
    data = _draw_ongoing(world, background, n, sfreq, rng)
    jitter = world.latency_jitter * rng.standard_normal((len(onsets), 1))
    gain = np.clip(1 + world.gain_jitter * rng.standard_normal((len(onsets), 1)), 0.3, 2)
    sources = np.zeros((world.sources, n), np.float32)
    for rows in np.array_split(np.arange(len(onsets)), max(1, len(onsets) // 256)):
        waves = _waves(anatomy, codes[rows], gain[rows], delay + jitter[rows], sfreq)
        for onset, wave in zip(onsets[rows], waves, strict=True):
            sources[:, onset : onset + wave.shape[1]] += wave[:, : n - onset]
    ongoing = np.sqrt(world.pink**2 + world.alpha**2 + world.beta**2 + world.sensor**2)
    return data + (visual * world.snr * ongoing * anatomy.scale).astype(np.float32) @ sources


def _draw_artefacts(world: TinyWorld, electrodes: Array, onsets: Array, labels: Array, n: int) -> Array:
    """Draws eye movements and muscle bursts [C, n] in µV; their direction, side and strength depend on the class."""
    rng = generator(world, 5)
    angle = 2 * np.pi * np.arange(SHOWN) / SHOWN
    frontal = np.exp(2 * (electrodes[:, 1] - 1))
    left, right = np.exp(3 * (-electrodes[:, 0] - 1)), np.exp(3 * (electrodes[:, 0] - 1))
    time = np.arange(round(0.5 * world.sfreq)) / world.sfreq
    saccade = np.tanh((time - 0.22) / 0.008) - np.tanh((time - 0.42) / 0.02)
    data = np.zeros((len(electrodes), n), np.float32)
    bursts = _draw_noise(len(labels), len(time), world.sfreq, lambda f: (f > 20) * 1.0, rng)
    for onset, label, burst in zip(onsets, labels, bursts, strict=True):
        gaze = electrodes[:, 0] * np.cos(angle[label]) + electrodes[:, 2] * np.sin(angle[label])
        side = np.where(label % 2, left, right) * (1 + label // 2) / 3
        part = slice(onset, onset + len(time))
        data[:, part] += np.outer(frontal * gaze, 3 * saccade * (1 + 0.3 * rng.standard_normal()))
        data[:, part] += np.outer(side, burst * np.exp(-0.5 * ((time - 0.3) / 0.08) ** 2))
    return data * np.float32(world.artefacts * world.pink)


def paired_scenes(world: TinyWorld) -> tuple[Scenes, Array]:
    """Draws the paired images as scenes, and the part of each [N] (index into PARTS), stratified by class."""
    rng = stream("paired", world.seed)
    scenes = draw_scenes(world.pictures, SHOWN, rng)
    parts = np.zeros(world.pictures, np.int64)
    for label in range(SHOWN):
        rows = rng.permutation(np.flatnonzero(scenes.label == label))
        held = round(len(rows) / 6)
        parts[rows[:held]], parts[rows[held : 2 * held]] = 1, 2
    return scenes, parts


def block_parts(world: TinyWorld, subject: int, recording: Recording) -> Array:
    """Draws the part of each block of a paired recording (index into PARTS): two thirds train, a sixth val, one test.

    In the blocked order, these shares hold for each class. Raises ValueError if a class has fewer than three blocks.
    """
    labels = paired_scenes(world)[0].label[recording.pictures]
    groups = np.zeros(world.blocks, np.int64)
    if world.order == "blocked":
        groups[recording.blocks] = labels
    rng = generator(world, 6, subject)
    parts = np.zeros(world.blocks, np.int64)
    for group in np.unique(groups):
        rows = rng.permutation(np.flatnonzero(groups == group))
        held = max(1, round(len(rows) / 6))
        if len(rows) < 3 * held:
            raise ValueError(f"blocks={world.blocks}: a split by block needs at least three blocks of each class")
        parts[rows[:held]], parts[rows[held : 2 * held]] = 1, 2
    return parts


def present(world: TinyWorld, scenes: Scenes, names: Iterable[str], order: Array,
            rng: np.random.Generator) -> Recording:
    """Simulates a person who sees the images of `scenes` in an order [trials], in blocks; names: of each trial."""
    length = world.n_times / world.sfreq + rng.uniform(*world.gap, len(order))
    onsets = np.round((2 + np.cumsum(length) - length[0]) * world.sfreq).astype(np.int64)
    codes = draw_codes(world, draw_anatomy(world), scenes)[order]
    data = record(world, electrode_positions(world.n_chans), world.sfreq, onsets, codes,
                  int(onsets[-1] + 3 * world.sfreq), rng)
    marks = tuple((float(onset / world.sfreq), world.n_times / world.sfreq, name)
                  for onset, name in zip(onsets, names, strict=True))
    return Recording(data, world.sfreq, channel_names(world.n_chans), marks, onsets, order,
                     np.arange(len(order)) * world.blocks // len(order))


def paired_recording(world: TinyWorld, subject: int) -> Recording:
    """Simulates one subject who sees every paired image once, in blocks; all fields are in order of time.

    Raises ValueError for an unknown order or subject, or a number of blocks that does not fit.
    """
    if world.order not in ORDERS:
        raise ValueError(f"order={world.order!r}: expected one of {', '.join(ORDERS)}")
    if subject not in SUBJECTS:
        raise ValueError(f"subject {subject}: expected one of {', '.join(map(str, SUBJECTS))}")
    if world.pictures % world.blocks or (world.order == "blocked" and world.blocks % SHOWN):
        raise ValueError(f"blocks={world.blocks}: expected a divisor of {world.pictures} images, and in the blocked "
                         f"order a multiple of {SHOWN} classes")
    scenes, _ = paired_scenes(world)
    rng = generator(world, 1, subject)
    shown = rng.permutation(len(scenes))
    if world.order == "blocked":
        by_class = np.concatenate([shown[scenes.label[shown] == label] for label in range(SHOWN)])
        shown = by_class.reshape(world.blocks, -1)[rng.permutation(world.blocks)].ravel()
    recording = present(world, scenes, (CLASSES[label] for label in scenes.label[shown]), shown, rng)
    data, onsets, n = recording.data, recording.onsets, recording.data.shape[1]
    if world.artefacts:
        data += _draw_artefacts(world, electrode_positions(world.n_chans), onsets, scenes.label[shown], n)
    if world.block_drift:
        gains = np.exp(world.block_drift * rng.standard_normal((world.blocks, world.n_chans)).astype(np.float32))
        trial = np.clip(np.searchsorted(onsets, np.arange(n), "right") - 1, 0, None)
        data *= gains[recording.blocks[trial]].T
    return recording


def corpus_recording(world: TinyWorld, number: int) -> Recording:
    """Simulates recording `number` of the corpus, from device `number % len(DEVICES)` and a person of its own.

    Most recordings have stimuli that are not images of the world. In some the amplifier fails for some seconds: samples
    are missing (NaN) or constant. The last recording is cut off after 0.6 s.
    """
    device = DEVICES[number % len(DEVICES)]
    rng = generator(world, 2, number)
    n = round(world.seconds * device.sfreq)
    evoked = number % 10 >= round(10 * (1 - world.evoked_share))
    onsets = np.cumsum(rng.uniform(0.7, 1.2, int(world.seconds) if evoked else 0))
    onsets = np.round(onsets[onsets < world.seconds - 1] * device.sfreq).astype(np.int64)
    electrodes = electrode_positions(device.n_chans, device.turn)
    data = record(world, electrodes, device.sfreq, onsets, _draw_other_codes(world, len(onsets), rng), n, rng)
    if rng.random() < world.faults:
        failure = slice(begin := int(rng.uniform(0.2, 0.7) * n), begin + int(rng.uniform(2, 6) * device.sfreq))
        missing = rng.random() < 0.5
        data[:, failure] = np.nan if missing else data[:, begin, None]
    if number == world.recordings - 1:
        data, onsets = data[:, : int(0.6 * device.sfreq)], onsets[:0]
    marks = tuple((float(onset / device.sfreq), 0.5, "stimulus") for onset in onsets) or ((0.0, 0.5, "rest"),)
    empty = np.zeros(len(onsets), np.int64)
    return Recording(data, device.sfreq, channel_names(device.n_chans), marks, onsets, empty[:0], empty)


def channel_names(n: int) -> tuple[str, ...]:
    """Returns names of n electrodes, which belong to no montage."""
    return tuple(f"E{i + 1:03d}" for i in range(n))
