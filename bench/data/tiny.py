"""The tiny world's EEG: a made-up head, its paired recordings, and a corpus from other people on other devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.data.pictures import BACKGROUNDS, CLASSES, COLOURS, SHOWN, TILT, Scenes, draw_scenes, stream

Array = np.ndarray
PARTS = ("train", "val", "test")
ORDERS = ("interleaved", "blocked")
SUBJECTS = (1, 2, 3, 4, 5, 6)  # as many as ImageNet-EEG has
IN_BAND = (5.0, 95.0)  # Hz, where the amplitudes of TinyWorld are measured (Sec. 4.1)


@dataclass(frozen=True)
class TinyWorld:
    """Everything that defines the world. Amplitudes are root mean squares at the electrodes within IN_BAND, in µV.

    The head is a unit half sphere of electrodes over current dipoles (a lead field, so that every source is smeared
    over all channels). Each visual source answers a picture twice, with a short early and a longer late wave, whose
    amplitudes are a saturating function of the picture's class and of its instance (colour, background, position,
    size, rotation). That is added to ongoing activity, which goes on through the gaps between trials.
    """

    seed: int = 0
    pictures: int = 2400  # seen by every subject once each; two thirds train, one sixth val, one sixth test
    n_chans: int = 32
    n_times: int = 128  # samples of a window, which begins at the stimulus: 512 ms
    sfreq: float = 250.0  # Hz
    gap: tuple[float, float] = (0.25, 0.40)  # s between two trials, uniform, so that no rhythm locks to the stimuli

    snr: float = 0.34  # evoked over ongoing activity; single trials are mostly noise, averages are not
    instance: float = 0.8  # tuning to the instance over tuning to the class: a code for shape is not free of the rest
    early: tuple[float, float] = (12.0, 26.0)  # Hz, carriers of the first wave: P1-N1 and induced beta
    late: tuple[float, float] = (7.0, 16.0)  # Hz, carriers of the second wave: P2-N2 and after
    latency_jitter: float = 0.015  # s, standard deviation over trials; a single trial's peaks move by 10 to 20 ms
    gain_jitter: float = 0.25  # relative, standard deviation of a trial's response: attention comes and goes
    sources: int = 16  # visual and temporal dipoles that answer

    pink: float = 8.0  # µV; ongoing activity whose amplitude falls with 1/f above 3 Hz
    alpha: float = 7.0  # µV; the occipital rhythm at 8.5 to 11.5 Hz, waxing and waning, the strongest in a resting EEG
    beta: float = 2.5  # µV; rhythm at twice the alpha frequency
    sensor: float = 3.0  # µV; amplifier and electrode noise, white, a different one in each channel
    anatomy: float = 0.12  # head radii; how far the dipoles of two people lie apart, which changes their lead fields
    delay: float = 0.008  # s, standard deviation of each wave's latency over people

    order: str = "interleaved"  # or "blocked": a block holds one class alone, as ImageNet-EEG was recorded
    blocks: int = 10  # of a recording, equally long; in the blocked order a multiple of the number of classes
    block_drift: float = 0.0  # log gain of each channel in each block, standard deviation: gel dries, electrodes move
    artefacts: float = 0.0  # eye movements and muscle bursts that go with the class, over ongoing activity

    recordings: int = 60  # of the corpus, over all DEVICES in turn; each with a person of its own
    seconds: float = 130.0  # length of each
    evoked_share: float = 0.8  # of them with stimuli (never the paired pictures'), the others at rest
    faults: float = 0.1  # share of them in which the amplifier fails for some seconds


@dataclass(frozen=True)
class Device:
    """A made-up amplifier and cap of the corpus: `sfreq` in Hz, `turn` of its electrode layout in radians."""

    name: str
    n_chans: int
    sfreq: float
    turn: float


DEVICES = (
    Device("Alder", 32, 250.0, 0.0),
    Device("Birch", 24, 256.0, 0.6),
    Device("Cedar", 16, 500.0, 1.1),
    Device("Elm", 32, 160.0, 1.9),
    Device("Hazel", 8, 250.0, 2.3),
    Device("Larch", 28, 200.0, 2.8),
)


@dataclass(frozen=True, eq=False)
class Recording:
    """A continuous recording. `annotations` are (onset in s, duration in s, description)."""

    data: Array  # [C, n] float32, µV
    sfreq: float  # Hz
    ch_names: tuple[str, ...]
    annotations: tuple[tuple[float, float, str], ...]
    onsets: Array  # [trials] int64, sample at which each stimulus appears
    pictures: Array  # [trials] int64, which picture it is; empty in the corpus
    blocks: Array  # [trials] int64


@dataclass(frozen=True, eq=False)
class _Anatomy:
    """What all people of a world share: dipoles ([n, 3], head radii) and the tuning of those that answer."""

    visual: tuple[Array, Array]  # positions and moments of the sources that answer
    ongoing: tuple[Array, Array]  # of the background; the first two carry alpha, the third beta
    classes: Array  # [SHOWN, CODE]
    tuning: Array  # [CODE + INSTANCE, 2 * sources]
    offset: Array  # [2 * sources], the part of the response that all pictures share
    latency: Array  # [2 * sources] s; early waves first, then late ones
    width: Array  # [2 * sources] s
    carrier: Array  # [2 * sources] Hz
    scale: float  # brings the evoked response to one µV


CODE, INSTANCE = SHOWN - 1, 10


def generator(world: TinyWorld, *purpose: int) -> np.random.Generator:
    return np.random.default_rng([world.seed, 7, *purpose])


def electrode_positions(n: int, turn: float = 0.0) -> Array:
    """n even positions [n, 3] on the upper half of the unit sphere; y is to the front, z is up."""
    z = (np.arange(n) + 0.5) / n
    azimuth = np.arange(n) * np.pi * (3 - np.sqrt(5)) + turn
    return np.stack([np.sqrt(1 - z**2) * np.cos(azimuth), np.sqrt(1 - z**2) * np.sin(azimuth), z], 1)


def _dipoles(
    n: int, rng: np.random.Generator, towards: tuple[float, float, float] = (0, 0, 0.3)
) -> tuple[Array, Array]:
    direction = rng.standard_normal((n, 3)) + towards
    return 0.75 * direction / np.linalg.norm(direction, axis=1, keepdims=True), rng.standard_normal((n, 3))


def _lead_field(electrodes: Array, dipoles: tuple[Array, Array]) -> Array:
    """Potentials [C, n] of current dipoles in an unbounded conductor, each of unit power over a dense cap."""
    position, moment = dipoles

    def potential(at: Array) -> Array:
        offset = at[:, None] - position
        return (offset * moment).sum(-1) / np.maximum(np.linalg.norm(offset, axis=-1), 0.35) ** 3

    dense = potential(electrode_positions(200))
    return potential(electrodes) / np.sqrt((dense**2).mean(0))


def draw_anatomy(world: TinyWorld) -> _Anatomy:
    from scipy.linalg import helmert  # here, because whoever prints a table imports this module and not that one

    rng = generator(world, 0)
    k = world.sources
    visual, ongoing = _dipoles(k, rng, (0, -0.6, 0.3)), _dipoles(14, rng)
    ongoing[0][:2] = 0.75 * np.array([[-0.35, -0.85, 0.4], [0.35, -0.85, 0.4]])  # alpha: left and right occipital
    rotation = np.linalg.qr(rng.standard_normal((CODE, CODE)))[0]
    classes = helmert(SHOWN).T @ rotation * np.sqrt(SHOWN)  # all classes lie equally far apart
    draft = _Anatomy(
        visual=visual,
        ongoing=ongoing,
        classes=classes,
        tuning=rng.standard_normal((CODE + INSTANCE, 2 * k)) / np.sqrt(CODE + INSTANCE),
        offset=0.3 * rng.standard_normal(2 * k),
        latency=np.concatenate([rng.uniform(0.05, 0.15, k), rng.uniform(0.18, 0.34, k)]),
        width=np.concatenate([rng.uniform(0.02, 0.04, k), rng.uniform(0.04, 0.07, k)]),
        carrier=np.concatenate([rng.uniform(*world.early, k), rng.uniform(*world.late, k)]),
        scale=1.0,
    )
    waves = _waves(draft, _amplitudes(draft, _other_codes(world, 256, rng)), np.zeros((256, 2 * k)), world.sfreq)
    electrodes = electrode_positions(world.n_chans)
    seen = np.einsum("ck,nkt->nct", _lead_field(electrodes, visual), waves[:, :, : world.n_times])
    return _Anatomy(**{**vars(draft), "scale": float(1 / np.sqrt((seen**2).mean()))})


def draw_codes(world: TinyWorld, anatomy: _Anatomy, scenes: Scenes) -> Array:
    """What the visual sources are tuned to, [N, CODE + INSTANCE]: about unit variance, times `instance` at the end."""
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


def _other_codes(world: TinyWorld, n: int, rng: np.random.Generator) -> Array:
    """Codes of stimuli that are none of the pictures."""
    codes = rng.standard_normal((n, CODE + INSTANCE))
    codes[:, CODE:] *= world.instance
    return codes


def _amplitudes(anatomy: _Anatomy, codes: Array) -> Array:
    return np.tanh(codes @ anatomy.tuning + anatomy.offset)


def _waves(anatomy: _Anatomy, amplitudes: Array, delay: Array, sfreq: float) -> Array:
    """Source waveforms [N, sources, t] in the 0.6 s after each stimulus; amplitudes and delay (s): [N, 2 * sources]."""
    time = np.arange(round(0.6 * sfreq), dtype=np.float32) / np.float32(sfreq)
    at = time - (anatomy.latency + delay).astype(np.float32)[:, :, None]
    width, carrier = anatomy.width.astype(np.float32)[:, None], anatomy.carrier.astype(np.float32)[:, None]
    wave = np.exp(-0.5 * (at / width) ** 2) * np.cos(np.float32(2 * np.pi) * carrier * at)
    wave *= amplitudes.astype(np.float32)[:, :, None]
    early, late = np.split(wave, 2, 1)
    return early + late


def _coloured(rows: int, n: int, sfreq: float, spectrum: Callable[[Array], Array], rng: np.random.Generator) -> Array:
    """Gaussian noise [rows, n] of the given amplitude spectrum, unit variance within IN_BAND."""
    size = -(-n // 4096) * 4096
    frequency = np.fft.rfftfreq(size, 1 / sfreq)
    amplitude = spectrum(frequency)
    amplitude[0] = 0
    inside = (frequency >= IN_BAND[0]) & (frequency <= IN_BAND[1])
    amplitude = (amplitude * size / 2 / np.sqrt((amplitude[inside] ** 2).sum())).astype(np.float32)
    white = rng.standard_normal((rows, len(frequency), 2), dtype=np.float32).view(np.complex64)[..., 0]
    return np.fft.irfft(white * amplitude, size)[:, :n].astype(np.float32)


def _ongoing(world: TinyWorld, lead: Array, n: int, sfreq: float, rng: np.random.Generator) -> Array:
    """Ongoing activity [C, n] of one person: 1/f background, alpha, beta and sensor noise."""
    frequency = rng.uniform(8.5, 11.5)

    def rhythm(centre: float, width: float) -> Callable[[Array], Array]:
        return lambda f: np.exp(-0.5 * ((f - centre) / width) ** 2)

    sources = _coloured(lead.shape[1], n, sfreq, lambda f: 1 / np.maximum(f, 3.0), rng)
    sources *= world.pink / np.sqrt(lead.shape[1])
    sources[:2] += world.alpha / np.sqrt(2) * _coloured(2, n, sfreq, rhythm(frequency, 0.6), rng)
    sources[2:3] += world.beta * _coloured(1, n, sfreq, rhythm(2 * frequency, 1.5), rng)
    white = rng.standard_normal((len(lead), n), dtype=np.float32)
    density = sfreq / 2 / (min(IN_BAND[1], sfreq / 2) - IN_BAND[0])
    return lead.astype(np.float32) @ sources + np.float32(world.sensor * np.sqrt(density)) * white


def record(
    world: TinyWorld,
    electrodes: Array,
    sfreq: float,
    onsets: Array,
    codes: Array,
    n: int,
    rng: np.random.Generator,
) -> Array:
    """A person's recording [C, n] in µV: ongoing activity, and responses to `codes` at `onsets`."""
    anatomy = draw_anatomy(world)
    k = 2 * world.sources

    def own(dipoles: tuple[Array, Array]) -> Array:
        position, moment = (d + world.anatomy * rng.standard_normal(d.shape) for d in dipoles)
        return _lead_field(electrodes, (position, moment))

    visual, background = own(anatomy.visual), own(anatomy.ongoing)
    delay = world.delay * rng.standard_normal(k)
    data = _ongoing(world, background, n, sfreq, rng)
    jitter = world.latency_jitter * rng.standard_normal((len(onsets), 1))
    gain = np.clip(1 + world.gain_jitter * rng.standard_normal((len(onsets), 1)), 0.3, 2)
    sources = np.zeros((world.sources, n), np.float32)
    for rows in np.array_split(np.arange(len(onsets)), max(1, len(onsets) // 256)):
        waves = _waves(anatomy, gain[rows] * _amplitudes(anatomy, codes[rows]), delay + jitter[rows], sfreq)
        for onset, wave in zip(onsets[rows], waves, strict=True):
            sources[:, onset : onset + wave.shape[1]] += wave[:, : n - onset]
    ongoing = np.sqrt(world.pink**2 + world.alpha**2 + world.beta**2 + world.sensor**2)
    return data + (visual * world.snr * ongoing * anatomy.scale).astype(np.float32) @ sources


def _artefacts(world: TinyWorld, electrodes: Array, onsets: Array, labels: Array, n: int) -> Array:
    """Eye movements and muscle bursts [C, n] in µV whose direction, side and strength go with the class."""
    rng = generator(world, 5)
    angle = 2 * np.pi * np.arange(SHOWN) / SHOWN
    frontal = np.exp(2 * (electrodes[:, 1] - 1))
    left, right = np.exp(3 * (-electrodes[:, 0] - 1)), np.exp(3 * (electrodes[:, 0] - 1))
    time = np.arange(round(0.5 * world.sfreq)) / world.sfreq
    saccade = np.tanh((time - 0.22) / 0.008) - np.tanh((time - 0.42) / 0.02)
    data = np.zeros((len(electrodes), n), np.float32)
    bursts = _coloured(len(labels), len(time), world.sfreq, lambda f: (f > 20) * 1.0, rng)
    for onset, label, burst in zip(onsets, labels, bursts, strict=True):
        gaze = electrodes[:, 0] * np.cos(angle[label]) + electrodes[:, 2] * np.sin(angle[label])
        side = np.where(label % 2, left, right) * (1 + label // 2) / 3
        here = slice(onset, onset + len(time))
        data[:, here] += np.outer(frontal * gaze, 3 * saccade * (1 + 0.3 * rng.standard_normal()))
        data[:, here] += np.outer(side, burst * np.exp(-0.5 * ((time - 0.3) / 0.08) ** 2))
    return data * np.float32(world.artefacts * world.pink)


def paired_scenes(world: TinyWorld) -> tuple[Scenes, Array]:
    """The paired pictures as scenes, and the part of each [N] (index into PARTS), stratified by class."""
    rng = stream("paired", world.seed)
    scenes = draw_scenes(world.pictures, SHOWN, rng)
    parts = np.zeros(world.pictures, np.int64)
    for label in range(SHOWN):
        rows = rng.permutation(np.flatnonzero(scenes.label == label))
        held = round(len(rows) / 6)
        parts[rows[:held]], parts[rows[held : 2 * held]] = 1, 2
    return scenes, parts


def block_parts(world: TinyWorld, subject: int, recording: Recording) -> Array:
    """The part of each block of a paired recording (index into PARTS): two thirds train, a sixth val, a sixth test.

    In the blocked order that holds for the blocks of each class. ValueError where a class has fewer than three.
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
            raise ValueError(f"blocks={world.blocks}: a split by block needs three blocks of each class, better six")
        parts[rows[:held]], parts[rows[held : 2 * held]] = 1, 2
    return parts


def paired_recording(world: TinyWorld, subject: int) -> Recording:
    """One subject sees every paired picture once, in blocks. `onsets`, `pictures`, `blocks` are in time's order."""
    if world.order not in ORDERS:
        raise ValueError(f"order={world.order!r}: expected one of {', '.join(ORDERS)}")
    if subject not in SUBJECTS:
        raise ValueError(f"subject {subject}: expected one of {', '.join(map(str, SUBJECTS))}")
    if world.pictures % world.blocks or (world.order == "blocked" and world.blocks % SHOWN):
        raise ValueError(f"blocks={world.blocks}: expected a divisor of {world.pictures} pictures, and in the blocked "
                         f"order a multiple of {SHOWN} classes")
    scenes, _ = paired_scenes(world)
    rng = generator(world, 1, subject)
    shown = rng.permutation(len(scenes))
    if world.order == "blocked":
        by_class = np.concatenate([shown[scenes.label[shown] == label] for label in range(SHOWN)])
        shown = by_class.reshape(world.blocks, -1)[rng.permutation(world.blocks)].ravel()
    blocks = np.arange(len(shown)) * world.blocks // len(shown)
    length = world.n_times / world.sfreq + rng.uniform(*world.gap, len(shown))
    onsets = np.round((2 + np.cumsum(length) - length[0]) * world.sfreq).astype(np.int64)
    n = int(onsets[-1] + 3 * world.sfreq)
    electrodes = electrode_positions(world.n_chans)
    data = record(world, electrodes, world.sfreq, onsets, draw_codes(world, draw_anatomy(world), scenes)[shown], n, rng)
    if world.artefacts:
        data += _artefacts(world, electrodes, onsets, scenes.label[shown], n)
    if world.block_drift:
        gains = np.exp(world.block_drift * rng.standard_normal((world.blocks, world.n_chans)).astype(np.float32))
        data *= gains[blocks[np.clip(np.searchsorted(onsets, np.arange(n), "right") - 1, 0, None)]].T
    marks = tuple(
        (float(onset / world.sfreq), world.n_times / world.sfreq, CLASSES[label])
        for onset, label in zip(onsets, scenes.label[shown], strict=True)
    )
    return Recording(data, world.sfreq, channel_names(world.n_chans), marks, onsets, shown, blocks)


def corpus_recording(world: TinyWorld, number: int) -> Recording:
    """Recording `number` of the corpus, from device `number % len(DEVICES)` and a person seen nowhere else.

    Most have stimuli that are none of the pictures. In some the amplifier fails for some seconds: samples are missing
    (NaN) or constant. The last one was broken off at once.
    """
    device = DEVICES[number % len(DEVICES)]
    rng = generator(world, 2, number)
    n = round(world.seconds * device.sfreq)
    evoked = number % 10 >= round(10 * (1 - world.evoked_share))
    onsets = np.cumsum(rng.uniform(0.7, 1.2, int(world.seconds) if evoked else 0))
    onsets = np.round(onsets[onsets < world.seconds - 1] * device.sfreq).astype(np.int64)
    electrodes = electrode_positions(device.n_chans, device.turn)
    data = record(world, electrodes, device.sfreq, onsets, _other_codes(world, len(onsets), rng), n, rng)
    if rng.random() < world.faults:
        here = slice(begin := int(rng.uniform(0.2, 0.7) * n), begin + int(rng.uniform(2, 6) * device.sfreq))
        missing = rng.random() < 0.5
        data[:, here] = np.nan if missing else data[:, begin, None]
    if number == world.recordings - 1:
        data, onsets = data[:, : int(0.6 * device.sfreq)], onsets[:0]
    marks = tuple((float(onset / device.sfreq), 0.5, "stimulus") for onset in onsets) or ((0.0, 0.5, "rest"),)
    empty = np.zeros(len(onsets), np.int64)
    return Recording(data, device.sfreq, channel_names(device.n_chans), marks, onsets, empty[:0], empty)


def channel_names(n: int) -> tuple[str, ...]:
    """Names of n electrodes, which are those of no montage."""
    return tuple(f"E{i + 1:03d}" for i in range(n))
