"""Encoders: the suite's by name, a user's own by the hash of its source."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from paper import PAPER

from bench import FULL
from bench.errors import ENVIRONMENT, USAGE, BenchError, NotAvailable
from bench.experiment import encoders
from bench.experiment.key import digest
from bench.experiment.scale import TINY
from bench.experiment.stages import Prepared
from bench.runtime import Runtime
from bench.train.encoder import build

needs_braindecode = pytest.mark.skipif(importlib.util.find_spec("braindecode") is None,
                                       reason="braindecode is not installed: pip install -e '.[braindecode]'")

OWN = '''
from torch import nn
from layers import pool

class Encoder(nn.Module):
    def __init__(self, channels, times, width, depth, heads):
        super().__init__()
        self.mix = nn.Conv1d(channels, width, 8, stride=8)

    def forward(self, eeg):  # [B, C, T] -> [B, L, width]
        return pool(self.mix(eeg)).transpose(1, 2)
'''


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "layers.py").write_text("def pool(x):\n    return x.relu()\n")
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    return tmp_path / "own.py"


def variant(path, **changes):
    return replace(FULL, name="own", encoder=str(path), mask_ratio=None, **changes)


def test_editing_the_file_or_a_module_beside_it_that_it_imports_changes_its_identity(own):
    first = encoders.resolve(variant(own), TINY)
    (own.parent / "unrelated.py").write_text("x = 2\n")
    assert encoders.resolve(variant(own), TINY) == first
    (own.parent / "layers.py").write_text("def pool(x):\n    return x.tanh()\n")
    second = encoders.resolve(variant(own), TINY)
    assert second != first
    own.write_text(OWN.replace("8, stride=8", "4, stride=4"))
    assert encoders.resolve(variant(own), TINY) not in (first, second)


def test_where_the_file_lies_is_no_part_of_its_identity(own, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("own.py", "layers.py"):
        (elsewhere / name).write_text((own.parent / name).read_text())
    assert encoders.resolve(variant(own), TINY) == encoders.resolve(variant(elsewhere / "own.py"), TINY)


def test_the_kept_copy_is_what_workers_load_even_when_the_file_is_edited_meanwhile(own, tmp_path):
    kept = tmp_path / "kept"
    value = encoders.resolve(variant(own), TINY)
    encoders.keep(value, kept)
    (own.parent / "layers.py").write_text("def pool(x):\n    return x * 0 - 1\n")
    eeg = torch.randn(2, 32, 128)
    tokens = build(value, 32, 128, Runtime(encoders=kept))(eeg)
    assert tokens.shape == (2, 16, TINY.size("297M").width)
    assert (tokens >= 0).all()
    newer = encoders.resolve(variant(own), TINY)
    encoders.keep(newer, kept)
    assert (build(newer, 32, 128, Runtime(encoders=kept))(eeg) == -1).all()


def test_a_source_that_is_not_the_planned_one_is_refused(own):
    value = encoders.resolve(variant(own), TINY)
    own.write_text(OWN + "\n# edited\n")
    with pytest.raises(BenchError, match="has changed since this stage was planned"):
        build(value, 32, 128, Runtime())


def test_a_mask_ratio_for_an_encoder_that_cannot_be_pretrained_names_both_cures(own):
    with pytest.raises(BenchError, match=r"set mask_ratio=None, or give it tokenize\(eeg\) and encode\("):
        encoders.resolve(replace(variant(own), mask_ratio=0.75), TINY)


@pytest.mark.parametrize(("text", "said"), [("x = 1\n", "has no class Encoder"), ("class\n", "cannot be read")])
def test_a_file_without_an_encoder_is_refused(tmp_path, text, said):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(BenchError, match=said):
        encoders.resolve(variant(tmp_path / "own.py"), TINY)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BenchError, match="cannot be read"):
        encoders.resolve(variant(tmp_path / "none.py"), TINY)


def named(text, scale=TINY, world=None, **changes):
    return encoders.resolve(variant(f"braindecode:{text}", **changes), scale, world)


@needs_braindecode
def test_a_model_of_braindecode_is_known_by_its_name_version_settings_and_the_eeg_it_is_for():
    value = named("EEGNet(D=1, F1=4)")
    assert (value.name, value.settings) == ("EEGNet", (("D", 1), ("F1", 4)))
    assert value.version == importlib.metadata.version("braindecode")
    assert (value.n_chans, value.n_times, value.sfreq, value.width) == (32, 128, 250.0, TINY.size("297M").width)
    assert value.channels[:2] == ("E001", "E002")
    assert value == named("EEGNet( F1=4,D=1)")
    others = [named("EEGNet"), named("EEGNet(D=1, F1=8)"), named("EEGConformer"), named("EEGNet", size="18.3M"),
              named("EEGNet", world=replace(TINY.world, sfreq=500.0)), replace(value, version="1.8.0")]
    assert len({digest(one) for one in [value, *others]}) == 7


@needs_braindecode
def test_planning_with_braindecode_imports_neither_it_nor_torch():
    code = ("import sys; from bench import FULL, replace; from bench.experiment import encoders; "
            "from bench.experiment.scale import TINY; "
            "encoders.resolve(replace(FULL, name='x', mask_ratio=None, encoder='braindecode:EEGNet'), TINY); "
            "print({'torch', 'braindecode', 'torchaudio', 'mne'} & set(sys.modules))")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@needs_braindecode
@pytest.mark.parametrize(("text", "said"), [
    ("EEGNett", "has no model 'EEGNett'; similar: EEGNet"),
    ("labram", "similar: Labram"),
    ("positions_from_chs_info", "has no model"),
    ("ATCNet(heads=2)", "braindecode's ATCNet has no setting 'heads'; similar: .*num_heads"),
    ("ATCNet(n_chans=2)", "has no setting 'n_chans'"),
    ("EEGNet(n_outputs=2)", "has no setting 'n_outputs'"),
    ("EEGNet(F1=4", "cannot be parsed"), ("EEGNet(4)", "cannot be parsed"),
    ("EEGNet(F1=open('x'))", "cannot be parsed"),
    ("EEGNet(**{'F1': 4})", "cannot be parsed"), ("EEGNet@", "cannot be parsed"), ("", "cannot be parsed"),
    ("os.system('x')", "cannot be parsed")])
def test_a_model_that_braindecode_does_not_have_is_refused_naming_those_near_it(text, said):
    with pytest.raises(BenchError, match=said) as error:
        named(text)
    assert error.value.exit_code == USAGE
    assert "\n" not in str(error.value)


@needs_braindecode
def test_a_mask_ratio_with_a_model_of_braindecode_names_both_cures():
    with pytest.raises(BenchError, match=r"braindecode's EEGNet .*set mask_ratio=None, or give it tokenize\(eeg"):
        encoders.resolve(replace(FULL, name="x", encoder="braindecode:EEGNet"), TINY)


def test_without_braindecode_the_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # of an installation that lacks it
    with pytest.raises(BenchError, match=r"pip install -e '\.\[braindecode\]'") as error:
        named("EEGNet")
    assert error.value.exit_code == ENVIRONMENT


@needs_braindecode
def test_weights_are_known_by_their_hash_wherever_they_lie(tmp_path):
    first, second = tmp_path / "a(1), b@c.pt", tmp_path / "moved.pt"
    first.write_bytes(b"1")
    second.write_bytes(b"1")
    value = named(f"EEGNet(F1=4)@{first}")
    assert value.weights.path == str(first)
    assert value == named(f"EEGNet(F1=4)@{second}")
    second.write_bytes(b"22")
    assert value != named(f"EEGNet(F1=4)@{second}")
    with pytest.raises(BenchError, match="no weights at") as error:
        named(f"EEGNet@{tmp_path / 'none.pt'}")
    assert error.value.exit_code == ENVIRONMENT


@needs_braindecode
def test_channels_are_those_that_the_data_set_states_and_none_are_made_up(tmp_path):
    unnamed = named("EEGNet", PAPER)
    assert (unnamed.n_chans, unnamed.channels, unnamed.montage) == (128, (), "")
    with pytest.raises(NotAvailable, match="needs electrode positions, which imagenet_eeg does not have"):
        named("InterpolatedLaBraM", PAPER)
    (tmp_path / "manifest.json").write_text('{"ch_names": ["Oz", "O1"]}')
    world = Prepared("things_eeg2", "0" * 64, 2, 100, 100.0, str(tmp_path))
    assert named("InterpolatedLaBraM", world=world).channels == ("Oz", "O1")
