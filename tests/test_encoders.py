"""Encoders: the suite's by name, a user's own by the hash of its source."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench import FULL, encoders
from bench.errors import BenchError
from bench.runtime import Runtime
from bench.scale import TINY
from bench.train.encoder import build

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
    first = encoders.encoder(variant(own), TINY)
    (own.parent / "unrelated.py").write_text("x = 2\n")
    assert encoders.encoder(variant(own), TINY) == first
    (own.parent / "layers.py").write_text("def pool(x):\n    return x.tanh()\n")
    second = encoders.encoder(variant(own), TINY)
    assert second != first
    own.write_text(OWN.replace("8, stride=8", "4, stride=4"))
    assert encoders.encoder(variant(own), TINY) not in (first, second)


def test_where_the_file_lies_is_no_part_of_its_identity(own, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("own.py", "layers.py"):
        (elsewhere / name).write_text((own.parent / name).read_text())
    assert encoders.encoder(variant(own), TINY) == encoders.encoder(variant(elsewhere / "own.py"), TINY)


def test_the_kept_copy_is_what_workers_load_even_when_the_file_is_edited_meanwhile(own, tmp_path):
    kept = tmp_path / "kept"
    value = encoders.encoder(variant(own), TINY)
    encoders.keep(value, kept)
    (own.parent / "layers.py").write_text("def pool(x):\n    return x * 0 - 1\n")
    eeg = torch.randn(2, 32, 128)
    tokens = build(value, 32, 128, Runtime(encoders=kept))(eeg)
    assert tokens.shape == (2, 16, TINY.size("297M").width)
    assert (tokens >= 0).all()
    newer = encoders.encoder(variant(own), TINY)
    encoders.keep(newer, kept)
    assert (build(newer, 32, 128, Runtime(encoders=kept))(eeg) == -1).all()


def test_a_source_that_is_not_the_planned_one_is_refused(own):
    value = encoders.encoder(variant(own), TINY)
    own.write_text(OWN + "\n# edited\n")
    with pytest.raises(BenchError, match="not the source that this stage was planned with"):
        build(value, 32, 128, Runtime())


def test_a_mask_ratio_for_an_encoder_that_cannot_be_pretrained_names_both_cures(own):
    with pytest.raises(BenchError, match=r"set mask_ratio=None, or give it tokenize\(eeg\) and encode\("):
        encoders.encoder(replace(variant(own), mask_ratio=0.75), TINY)


@pytest.mark.parametrize(("text", "said"), [("x = 1\n", "holds no class Encoder"), ("class\n", "cannot be read")])
def test_a_file_without_an_encoder_is_refused(tmp_path, text, said):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(BenchError, match=said):
        encoders.encoder(variant(tmp_path / "own.py"), TINY)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BenchError, match="cannot be read"):
        encoders.encoder(variant(tmp_path / "none.py"), TINY)
