"""Any model of braindecode as an EEG encoder: the input of its final layer becomes tokens."""

from __future__ import annotations

import inspect
import json
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import mne
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.signal import resample_poly
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MNE renames montages
    import braindecode.models as zoo

FEATURES_FIRST = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm,
                  nn.InstanceNorm1d, nn.InstanceNorm2d)  # features on axis 1; other layers' are on the last axis
WIDTHS = ("out_channels", "out_features", "num_features", "num_channels", "normalized_shape", "embed_dim")
UNNAMED = ("STEEGFormer",)  # would look the channels' names up in a list that it downloads
BY_NAME = ("BENDR", "Labram", "STEEGFormer")  # their weights are for channels identified by name
LONGEST = 2048  # times up to which a longer window is tried for a model that refuses a shorter one


@dataclass(frozen=True)
class Signal:
    """The properties of EEG [B, n_chans, n_times]: sfreq in Hz; names and positions of channels if known.

    positions: [n_chans, 3], m, in MNE's head frame (x to the right, y to the front).
    """

    n_chans: int
    n_times: int
    sfreq: float
    names: tuple[str, ...] = ()
    positions: np.ndarray | None = None

    def __str__(self) -> str:
        return f"EEG of {self.n_chans} channels and {self.n_times} times at {self.sfreq:.6g} Hz"

    def chs_info(self) -> list[dict[str, Any]] | None:
        """The channels in braindecode's format; None if their names are unknown."""
        if not self.names:
            return None
        channels: list[dict[str, Any]] = [{"ch_name": name, "kind": "eeg"} for name in self.names]
        if self.positions is not None:
            for channel, position in zip(channels, self.positions, strict=True):
                channel["loc"] = np.concatenate([position, np.zeros(9)])
        return channels


class Encoder(nn.Module):
    """EEG [B, C, T] -> tokens [B, L, width]: a model of braindecode up to its final layer, then one linear map.

    settings: the model's keyword arguments. Two of them define the EEG that the model gets: resampled to `sfreq`, then
    padded with zeros at its end to `n_times`. Without them it gets the EEG unchanged.

    The input of the final layer is [B, F], one token, or has more axes. Then the feature axis is that of the last layer
    with weights before it: the only axis as long as that layer is wide, else axis 1 for convolutions and their norms,
    and the last axis for others. The other axes are tokens, in order. A final layer that is a list has as many inputs,
    each one token. A model without a final layer gives its output.

    The final layer, and everything else that no token depends on, is not a parameter of the module. weights: a file of
    the whole model (`load_weights`). Raises ValueError, in one line, for what cannot be built.
    """

    def __init__(self, model: str, signal: Signal, width: int, settings: dict[str, Any] | None = None,
                 weights: Path | None = None):
        super().__init__()
        device = torch.get_default_device()
        with (torch.device("cpu"), torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings(),
              mne.use_log_level("ERROR")):
            warnings.simplefilter("ignore")  # about windows and rates; see docs/systems.md
            settings = dict(settings or {})
            self.signal = effective_signal(signal, settings.pop("sfreq", None), settings.pop("n_times", None))
            self.register_buffer("resample", _resampling(signal, self.signal), persistent=False)
            self.model = build_model(model, self.signal, width, settings)
            if weights is not None:
                if model in BY_NAME and not (signal.names or "chan_pos_idx" in settings):
                    raise ValueError(f"weights of braindecode's {model} identify channels by name; the data set has no "
                                     "names")
                load_weights(self.model, weights)
            self._inputs: list[Tensor] = []
            self._replace_head()
            features, self._axis = self._probe(model)
            self.project = nn.Linear(features.shape[self._axis], width)
        self.to(device)

    def forward(self, eeg: Tensor) -> Tensor:
        features = self._features(eeg)
        if features.ndim == 2:
            return self.project(features)[:, None]
        return self.project(features.movedim(self._axis, -1).flatten(1, -2))

    def _features(self, eeg: Tensor) -> Tensor:
        """The input of the final layer."""
        if self.resample is not None:
            eeg = eeg @ self.resample
        eeg = F.pad(eeg, (0, self.signal.n_times - eeg.shape[-1]))
        self._inputs.clear()
        output = run_model(self.model, eeg, self.signal)
        inputs = self._inputs or [output]
        features = torch.stack(inputs, 1) if len(inputs) > 1 else inputs[0]
        self._inputs.clear()
        return features

    def _replace_head(self) -> None:
        """Replaces the final layer by one that records its input."""
        final = getattr(self.model, "final_layer", None)
        if isinstance(final, nn.ModuleList):
            self.model.final_layer = nn.ModuleList(_Recorder(self._inputs) for _ in final)
        elif final is not None:
            self.model.final_layer = _Recorder(self._inputs)

    def _probe(self, name: str) -> tuple[Tensor, int]:
        """The final layer's input for noise, and its feature axis; unused parameters become constants."""
        ran: list[nn.Module] = []
        layers = [layer for layer in self.model.modules() if layer_width(layer)]
        handles = [layer.register_forward_hook(lambda layer, *_: ran.append(layer)) for layer in layers]
        noise = torch.randn((2, self.signal.n_chans, self.signal.n_times), generator=torch.Generator().manual_seed(0))
        self.model.eval()
        resample, self.resample = self.resample, None
        features = self._features(noise)
        self.resample = resample
        for handle in handles:
            handle.remove()
        if not isinstance(features, Tensor) or features.ndim < 2 or not features.requires_grad:
            raise ValueError(f"braindecode's {name} has no output that can be used as tokens")
        features.sum().backward()
        for path, parameter in list(self.model.named_parameters()):
            if parameter.grad is None:
                parent, _, leaf = path.rpartition(".")
                module = self.model.get_submodule(parent)
                del module._parameters[leaf]
                module.register_buffer(leaf, parameter.detach(), persistent=False)
        self.model.zero_grad(set_to_none=True)
        self.model.train()
        if not ran or features.ndim == 2:
            return features.detach(), 1
        axes = [axis for axis in range(1, features.ndim) if features.shape[axis] == layer_width(ran[-1])]
        default = 1 if isinstance(ran[-1], FEATURES_FIRST) else features.ndim - 1
        return features.detach(), axes[0] if len(axes) == 1 else default


class _Recorder(nn.Module):
    """Replaces a final layer: appends its (first) input to a list and returns it."""

    def __init__(self, inputs: list[Tensor]):
        super().__init__()
        self._inputs = inputs

    def forward(self, features: Tensor, *_: Any, **__: Any) -> Tensor:
        self._inputs.append(features)
        return features


def layer_width(layer: nn.Module) -> int:
    """The number of features that a layer with its own weights outputs; 0 for any other module."""
    if isinstance(layer, (nn.LSTM, nn.GRU)):
        return layer.hidden_size * (1 + layer.bidirectional)
    if "weight" not in layer._parameters and not hasattr(layer, "parametrizations") and not isinstance(
            layer, nn.MultiheadAttention):
        return 0
    width = next((getattr(layer, name) for name in WIDTHS if hasattr(layer, name)), 0)
    return width[-1] if isinstance(width, tuple) else width


def effective_signal(signal: Signal, sfreq: float | None = None, n_times: int | None = None) -> Signal:
    """The EEG after resampling to `sfreq` and padding to `n_times`. Raises ValueError if that would cut it."""
    for name, value in (("sfreq", sfreq), ("n_times", n_times)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
            raise ValueError(f"{name} must be a number above 0, not {value!r}")
    if sfreq is not None:
        ratio = _ratio(signal.sfreq, sfreq)
        resampled = -(-signal.n_times * ratio.numerator // ratio.denominator)
        signal = replace(signal, n_times=resampled, sfreq=float(sfreq))
    if n_times is not None:
        if n_times < signal.n_times or n_times != int(n_times):
            raise ValueError(f"n_times={n_times} would cut the EEG, which has {signal.n_times} times at "
                             f"{signal.sfreq:.6g} Hz; set at least as many")
        signal = replace(signal, n_times=int(n_times))
    return signal


def _ratio(sfreq: float, target: float) -> Fraction:
    return (Fraction(target) / Fraction(sfreq).limit_denominator(10_000)).limit_denominator(1000)


def _resampling(signal: Signal, target: Signal) -> Tensor | None:
    """The linear map [T, T'] of scipy.signal.resample_poly (its low-pass, zeros beyond the ends); None: same rate."""
    if signal.sfreq == target.sfreq:
        return None
    ratio = _ratio(signal.sfreq, target.sfreq)
    return torch.from_numpy(resample_poly(np.eye(signal.n_times), ratio.numerator, ratio.denominator, axis=1)).float()


def run_model(model: nn.Module, eeg: Tensor, signal: Signal) -> Any:
    """A model's output for EEG, with the channels' names if its forward pass takes them (LaBraM)."""
    if signal.names and "ch_names" in inspect.signature(model.forward).parameters:
        return model(eeg, ch_names=list(signal.names))
    return model(eeg)


def build_model(model: str, signal: Signal, n_outputs: int, settings: dict[str, Any]) -> nn.Module:
    """A model of braindecode that has processed such EEG once.

    Raises ValueError, in one line, if it cannot be built; if a longer window would do, with the least number of times.
    """
    def attempt(n_times: int) -> nn.Module:
        net = _construct(model, replace(signal, n_times=n_times), n_outputs, settings).eval()
        with torch.no_grad():
            run_model(net, torch.zeros(2, signal.n_chans, n_times), signal)
        return net.train()

    try:
        return attempt(signal.n_times)
    except Exception as error:  # models raise anything if their kernels do not fit
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"braindecode's {model} cannot take {signal}"
        cause = error
    if not signal.names and ("chs_info" in reason or "ch_names" in reason):
        raise ValueError(f"{message}: it needs to know the channels, which the data set does not describe ({reason})"
                         ) from cause
    least = None
    if not isinstance(cause, _NotTheLength):
        patch = settings.get("patch_size") or getattr(
            inspect.signature(getattr(zoo, model)).parameters.get("patch_size"), "default", 0)
        least = _find_least_times(attempt, signal.n_times, patch if isinstance(patch, int) else 0)
    if least is None:
        raise ValueError(f"{message}: {reason}") from cause
    raise ValueError(f"{message}; it needs {least} times at least ({reason}); set n_times={least} to append zeros, or "
                     "use smaller kernels") from cause


class _NotTheLength(ValueError):
    """A problem that a longer window does not solve."""


def _construct(model: str, signal: Signal, n_outputs: int, settings: dict[str, Any]) -> nn.Module:
    kind = getattr(zoo, model)
    accepted = inspect.signature(kind).parameters
    chs_info = None if model in UNNAMED else signal.chs_info()
    arguments = {"n_chans": signal.n_chans, "n_times": signal.n_times, "sfreq": signal.sfreq, "n_outputs": n_outputs,
                 "chs_info": chs_info}
    if chs_info is None:
        if "chs_info" in accepted and accepted["chs_info"].default is inspect.Parameter.empty:
            raise _NotTheLength("it needs the positions of the electrodes, which the data set does not state")
        del arguments["chs_info"]
    if model == "REVE":
        _check_reve_positions()
    try:
        return kind(**{name: value for name, value in arguments.items() if name in accepted} | settings)
    except TypeError as error:
        raise _NotTheLength(str(error)) from error


def _check_reve_positions() -> None:
    """Raises _NotTheLength if REVE would download its positions of electrodes."""
    folder = mne.get_config("REVE_POSITIONS_PATH") or mne.get_config("MNE_DATA") or Path.home() / "mne_data"
    file = Path(folder).expanduser() / "reve_positions.json"
    try:
        json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise _NotTheLength(f"it would download positions of electrodes; put its reve_positions.json at {file}"
                            ) from error


def _find_least_times(attempt: Callable[[int], Any], n_times: int, patch: int) -> int | None:
    """The least number of times above n_times for which `attempt` does not raise; None if none is found."""
    def works(times: int) -> bool:
        try:
            attempt(times)
        except Exception:  # models raise anything if their kernels do not fit
            return False
        return True

    candidates = [*([-(-n_times // patch) * patch] if patch else []), n_times * 4, n_times * 16]
    above = next((times for times in candidates if n_times < times <= LONGEST and works(times)), None)
    if above is None:
        return None
    below = n_times
    while above - below > 1:
        middle = (above + below) // 2
        if works(middle):
            above = middle
        else:
            below = middle
    return above


def head_names(model: nn.Module) -> list[str]:
    """The exact names of the tensors of a model's final layer, the classification, which is not used."""
    final = getattr(model, "final_layer", None)
    return [] if final is None else [f"final_layer.{name}" for name in final.state_dict()]


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads all tensors of a model from a file: safetensors, or torch's (weights only; a dict of tensors, or one under
    "state_dict").

    Tensors of `head_names` may be missing or have another shape, and are not read. Of all others none may be missing,
    unknown or of another shape. braindecode's former names (`mapping`) are accepted. Raises ValueError that names the
    file and the tensor.
    """
    renamed = model.mapping or {} if hasattr(model, "mapping") else {}
    tensors = {renamed.get(name, name): tensor for name, tensor in _read_tensors(path).items()}
    unused, state = set(head_names(model)), model.state_dict()
    missing, unknown = sorted(state.keys() - unused - tensors.keys()), sorted(tensors.keys() - state.keys())
    if missing or unknown:
        problem = f"lacks {_join(missing)}" if missing else f"has {_join(unknown)}, which the model does not have"
        unread = ", ".join(sorted(unused)) or "none"
        raise ValueError(f"{path} {problem}; only the classification is not read: {unread}")
    for name in state.keys() - unused:
        if tensors[name].shape != state[name].shape:
            raise ValueError(f"{path}: tensor {name} is {list(tensors[name].shape)}, expected "
                             f"{list(state[name].shape)} for {type(model).__name__} with these settings and this EEG")
    kept = {name: state[name] for name in unused}
    nn.Module.load_state_dict(model, {name: tensors[name] for name in state.keys() - unused} | kept)


def _join(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as weights without running its code ({type(error).__name__}); save a "
                         "state_dict, best as safetensors") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ValueError(f"{path} is not a dict of tensors; save a state_dict, best as safetensors")
    return content
