"""What a row changes, in a few words, generated from its settings: `no pre-training`, `encoder 458M`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from bench.data.tiny_things import TinyThings
from bench.experiment.stages import World
from bench.experiment.variant import FULL, On, Variant

WORDS: dict[tuple[str, Any], str] = {  # of a setting and its value; a missing one is written as "name value"
    ("mask_ratio", None): "no pre-training", ("align", None): "no CLIP", ("align", "label"): "labels instead of CLIP",
    ("aligned", "latent"): "h on tokens", ("sd_loss", False): "CLIP loss alone",
    ("time_condition", True): "condition through time step",
    ("tau", "released"): "tau as released", ("tau", "linear"): "tau linear",
    ("decoder_mlp_ratio", 1.0): "decoder MLP ratio 1", ("rounding", "kept"): "kept rounded",
    ("scaling", "released"): "scaled as released", ("cut", "truncated"): "EEG truncated",
    ("tune", "E"): "only E tuned", ("tune", "A"): "only A tuned",
    ("tune", "tau"): "only tau tuned", ("tune", "E+A+norm2"): "norm2 tuned",
    ("tune", "A-tau"): "only A tuned, tau frozen",
    ("encoder", "msm_channel"): "per-channel tokens", ("encoder", "msm_grid"): "grid tokens",
    ("size", "released"): "encoder MLP ratio 1", ("protocol", "things"): "things", ("classes", "none"): "empty caption",
    ("source", "vae"): "stimulus through VAE",
    ("eeg", "shuffled"): "EEG shuffled", ("eeg", "within_class"): "EEG shuffled within class",
    ("eeg", "other_trial"): "other trial of class", ("eeg", "surrogate"): "EEG surrogate",
    ("eeg", "zero"): "EEG zero", ("eeg", "mean"): "EEG mean", ("eeg", "pairs_shuffled"): "training pairs shuffled",
    ("eeg", "label"): "label as EEG", ("eeg", "clip"): "CLIP embedding as EEG",
    ("window", "blank"): "interval before stimulus", ("views", 0): "crops drawn anew", ("part", "val"): "on validation",
    ("snr", 0.0): "no signal", ("order", "blocked"): "class blocks",
}
IGNORED = {"no", "without", "with", "encoder", "decoder", "classe", "source", "split", "by", "at", "of", "the", "to",
           "on", "and", "for", "token"}


def describe_change(spec: Any) -> str:
    """What a row changes, such as "no pre-training, 1 to 95 Hz"; "" for Full.

    A Variant is compared with Full, another system with its defaults, after its name. An On adds what it changes in
    the items or the scale.
    """
    return ", ".join(_changes(spec))


def row_label(spec: Any) -> str:
    """A row's name and what it changes: "3  no pre-training".

    The change is left out where the name is in words ("EEG shuffled"), or already says it.
    """
    return "  ".join(filter(None, [spec.name, ", ".join(_unsaid(spec, _changes(spec)))]))


def describe_contrast(first: Any, second: Any) -> str:
    """The pair and what each side changes: "13 - 1 (no pre-training), both no CLIP"."""
    sides = [_changes(first), _changes(second)]
    both = [part for part in _unsaid(first, sides[0]) if part in _unsaid(second, sides[1])]
    shown = []
    for spec, parts, others in ((first, *sides), (second, *sides[::-1])):
        own = [part for part in _unsaid(spec, parts) if part not in others]
        shown.append(f"{spec.name} ({', '.join(own)})" if own else spec.name)
    return " - ".join(shown) + (f", both {', '.join(both)}" if both else "")


def _unsaid(spec: Any, parts: list[str]) -> list[str]:
    """The changes to write after a row's name: none after several words, else those whose words the name lacks."""
    if " " in spec.name and not re.match(r"\d", spec.name):
        return []
    name = _words(spec.name)
    return [part for part in parts if part not in (spec.system, "things") and not _words(part) <= name]


def _words(text: str) -> set[str]:
    """The words of a text in lower case and without the plural's s, without those that do not count."""
    words = (word.rstrip("s") or word for word in re.findall(r"[a-z]+|[\d.]+", text.lower()))
    return {word for word in words if word not in IGNORED}


def _changes(spec: Any) -> list[str]:
    """The changes, one text each: the system's, then those of what surrounds it."""
    if isinstance(spec, Variant):
        return list(_settings(spec, FULL))
    if isinstance(spec, On):
        return [*_changes(spec.of), *_items(spec)]
    of = [] if not hasattr(spec, "of") else _changes(spec.of)
    return [*([] if of[:1] == [spec.system] else [spec.system]), *of, *_settings(spec)]


def _settings(spec: Any, base: Any = None) -> Iterator[str]:
    """The settings that differ from those of `base`, or from the class's defaults."""
    for field in fields(spec):
        name, value = field.name, getattr(spec, field.name)
        default = getattr(base, name) if base else _default(field)
        if not field.compare or not field.init or name == "of" or value == default:
            continue
        if name == "settings":  # of a user's own system
            yield from (_text(each, given) for each, given in value)
        elif name == "encoder" and (name, value) not in WORDS:
            yield f"encoder {Path(str(value).partition('(')[0].removeprefix('braindecode:')).stem}"
        elif name == "file":
            yield f"file {Path(value).name}"
        else:
            yield _text(name, value)


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _items(spec: On) -> Iterator[str]:
    """What an On changes, in the order of its fields."""
    world = TinyThings() if spec.protocol == "things" else World()
    for field in fields(On)[2:]:
        value = getattr(spec, field.name)
        if not field.compare or value == field.default:
            continue
        if field.name == "subjects":
            row = len(value) > 2 and value == tuple(range(value[0], value[-1] + 1))
            shown = f"{value[0]} to {value[-1]}" if row else ", ".join(map(str, value))
            alone = len(value) == 1 and spec.protocol == "things" and spec.split.startswith("subject")
            yield f"subject{'s' * (len(value) > 1)} {shown}{' left out' * alone}"
        elif field.name == "band":
            yield f"{value[0]:g} to {value[1]:g} Hz"
        elif field.name == "epochs":
            yield f"{value} epochs"
        elif field.name == "split":
            if (spec.protocol, value) != ("things", "concept"):  # the default there
                yield f"split by {value.replace('_', ' ')}"
        elif field.name == "checkpoint":
            yield f"checkpoint {value[0]} of {value[1]}"
        elif field.name in ("sampling", "world"):
            yield from (_text("world" if name == "seed" else name, given) for name, given in value
                        if field.name == "sampling" or given != getattr(world, name))
        else:
            yield _text(field.name, value)


def _text(name: str, value: Any) -> str:
    """A setting in words."""
    words = {"size": "encoder", "mask_ratio": "mask"}.get(name, name.replace("_", " "))
    if (name, value) in WORDS:
        return WORDS[name, value]
    if isinstance(value, bool):
        return words if value else f"no {words}"
    if isinstance(value, (tuple, list)):
        return f"{words} {' to '.join(map(str, value))}"
    return f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"
