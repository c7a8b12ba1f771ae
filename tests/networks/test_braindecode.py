"""Models of braindecode as encoders.

`PYTHONPATH=tests python tests/networks/test_braindecode.py` rewrites the table of docs/systems.md.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paper import PAPER
from safetensors.torch import save_file

from bench import FULL, systems
from bench.errors import ENVIRONMENT, USAGE, BenchError, NotAvailable
from bench.execute.build import build as build_stage
from bench.experiment import ablation, encoders, graph
from bench.experiment.scale import MICRO, TINY
from bench.experiment.stages import Finetune
from bench.runtime import Runtime
from bench.store.store import Store
from bench.train.encoder import build, check

if importlib.util.find_spec("braindecode") is None:
    # "test" installs it; but it brings torchaudio, of which a machine with a torch of its own may have none that fits
    pytest.skip("braindecode is not installed: pip install -e '.[braindecode]'", allow_module_level=True)

from models import braindecode

pytestmark = pytest.mark.filterwarnings("ignore:Parameter 'final_layer_with_constraint:DeprecationWarning")

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"
FEW = "EEGNet(F1=2, D=1, F2=2)"


def value(text, scale=TINY):
    return encoders.resolve(replace(FULL, name="x", encoder=f"braindecode:{text}", mask_ratio=None), scale)


def built(text, scale=TINY, seed=0):
    known = value(text, scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(known, known.n_chans, known.n_times, Runtime())


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def row(name):
    """A line of the table: what a model's encoder is at both shapes, or why it is not."""
    cells, why = [], {}
    for scale, short in ((TINY, "tiny"), (PAPER, "ImageNet-EEG")):
        try:
            encoder = built(name, scale).eval()
            with torch.no_grad():
                tokens = encoder(noise(2, encoder.signal.n_chans, encoder.signal.n_times)).shape[1]
            count = sum(p.numel() for p in encoder.parameters())
            cells += [f"{count:,}", f"{tokens} x {encoder.project.in_features}"]
        except (BenchError, NotAvailable) as error:
            cells += ["", ""]
            least = re.search(r"needs (\d+) times", str(error))
            said = re.sub(rf".*(Hz: |braindecode's {name} )", "", str(error))
            said = re.split(r"\. |; |, (?:of )?which| \(\d+ channels", said)[0].strip(".")
            why.setdefault(f"needs {least[1]} times" if least else said.removeprefix("it "), []).append(short)
    remarks = [f"{'both' if len(where) == 2 else where[0]}: {said}" for said, where in why.items()]
    return f"| {name} | {' | '.join(cells)} | {'; '.join(remarks)} |"


def table():
    """The table of docs/systems.md."""
    return "\n".join(["| model | tiny | tokens | ImageNet-EEG | tokens | where it does not work, why |",
                      "| :-- | --: | --: | --: | --: | :-- |", *map(row, sorted(encoders.braindecode_models()))])


def rows_of_the_page():
    return {line.split(" | ")[0].strip("| "): line for line in PAGE.read_text().splitlines()
            if line.startswith("| ") and line.count("|") == 7 and not line.startswith(("| model", "| :--"))}


of_the_pages_version = pytest.mark.skipif(importlib.metadata.version("braindecode") not in PAGE.read_text(),
                                          reason="the page was written with another version of braindecode")


@of_the_pages_version
def test_the_page_has_a_line_for_every_model_that_braindecode_exports():
    assert sorted(rows_of_the_page()) == sorted(encoders.braindecode_models())


@of_the_pages_version
@pytest.mark.parametrize("name", ["ATCNet", "AttnSleep", "EEGNet", "SignalJEPA_PostLocal", "SyncNet"])
def test_the_pages_lines_are_what_these_models_do(name):
    assert row(name) == rows_of_the_page()[name]


@pytest.mark.long
def test_the_pages_table_is_what_all_models_do():
    assert table() in PAGE.read_text()


@pytest.mark.parametrize(("text", "shape", "features"), [
    ("EEGNet", (4, 96), 16),  # [B, 16, 1, 4] of a convolution
    ("ShallowFBCSPNet", (2, 96), 40),  # [B, 40, 2, 1]
    ("BrainModule", (128, 96), 320),  # [B, 320, 128] of a convolution of width 640, halved by its gate
    ("EEGPT(depth=1, embed_dim=32)", (12, 96), 32),  # [B, 3, 4, 32] of a LayerNorm
    ("CBraMod(n_times=200, n_layer=1)", (32, 96), 200),  # [B, 32, 1, 200] of a linear layer
    ("TCN", (128, 96), 30),  # no final layer of its own: [B, 128, 30]
    ("BDTCN", (72, 96), 96),  # its outputs, as many as the width: [B, 96, 72]
    ("EEGConformer", (1, 96), 32)])
def test_tokens_are_all_axes_but_the_features_of_what_enters_the_final_layer(text, shape, features):
    encoder = built(text).eval()
    with torch.no_grad():
        assert encoder(noise(3, 32, 128)).shape == (3, *shape)
    assert encoder.project.in_features == features


def test_what_enters_the_final_layer_is_what_a_hook_on_the_models_own_sees():
    from braindecode.models import EEGNet

    whole, encoder = EEGNet(n_chans=32, n_times=128, n_outputs=96).eval(), built("EEGNet").eval()
    missing = encoder.model.load_state_dict(
        {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith("final_layer.")})
    assert not missing.missing_keys
    entered = []
    whole.final_layer.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    with torch.no_grad():
        whole(noise(3, 32, 128))
        expected = encoder.project(entered[0][:, :, 0].transpose(1, 2))  # [3, 16, 1, 4]
        torch.testing.assert_close(encoder(noise(3, 32, 128)), expected)


def test_each_window_of_atcnet_is_a_token():
    encoder = built("ATCNet", PAPER).eval()
    eeg = noise(2, 128, 512)
    later = eeg.clone()
    later[..., -90:] += 1
    with torch.no_grad():
        changed = (encoder(eeg) - encoder(later)).abs().amax((0, 2))
    assert len(changed) == 4
    assert changed[-1] > changed[0]


def test_tokens_of_a_convolution_are_in_the_order_of_time():
    encoder = built("ShallowFBCSPNet", PAPER).eval()
    eeg = noise(1, 128, 512)
    later = eeg.clone()
    later[..., 480:] += 1
    with torch.no_grad():
        changed = (encoder(eeg) != encoder(later)).any(-1)[0]
    assert not changed[:20].any()
    assert changed[-1]


@pytest.mark.parametrize("text", ["EEGNet", "MSVTNet", "FBCNet", "CBraMod(n_times=200, n_layer=1)"])
def test_every_parameter_of_an_encoder_changes_its_tokens_and_the_classification_is_none_of_them(text):
    encoder = built(text).requires_grad_(True)  # as fine-tuning opens it
    encoder.eval()(noise(2, 32, 128)).sum().backward()
    assert not [name for name, p in encoder.named_parameters() if p.grad is None]
    assert not [name for name in encoder.state_dict() if "final_layer" in name or "head" in name]


def test_the_filter_bank_that_braindecode_holds_constant_is_no_parameter():
    encoder = built("FBCNet")
    assert not [name for name, _ in encoder.named_parameters() if "fir" in name]
    assert [name for name, _ in encoder.named_buffers() if "fir" in name]


def test_the_model_hears_the_true_rate_and_the_true_places_of_the_electrodes():
    model = built("InterpolatedLaBraM(num_layers=1, num_heads=1)").model
    assert (model.sfreq, model.n_times) == (250.0, 128)
    places = np.array([channel["loc"][:3] for channel in model.chs_info])
    np.testing.assert_allclose(np.linalg.norm(places, axis=1), 0.095)
    assert places[:, 2].min() > 0  # on the upper half of the head
    assert model.interpolation_layer.matrix.shape == (128, 32)


def test_eeg_is_resampled_to_the_rate_that_is_asked_for_and_filled_up_with_zeros():
    encoder = built(FEW.replace(")", ", sfreq=200, n_times=150)"))
    seen = []
    encoder.model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    time = torch.arange(128) / 250
    with torch.no_grad():
        encoder.eval()(torch.sin(2 * np.pi * 20 * time).expand(2, 32, 128))
    assert encoder.model.sfreq == 200
    assert seen[0].shape == (2, 32, 150)
    inside = slice(20, 83)  # away from the ends, beyond which resampling takes the EEG for zero
    expected = torch.sin(2 * np.pi * 20 * torch.arange(103) / 200)
    torch.testing.assert_close(seen[0][0, 0, inside], expected[inside], atol=0.02, rtol=0)
    assert not seen[0][..., 103:].any()


@pytest.mark.parametrize(("text", "said"), [
    ("CBraMod", "needs 200 times at least .* set n_times=200"),
    ("SleepStagerBlanco2020", "EEG of 32 channels and 128 times at 250 Hz; it needs 450 times at least"),
    ("EEGNet(n_times=100)", "n_times=100 would cut the EEG, which has 128 times"),
    ("EEGNet(sfreq=-1)", "sfreq must be a number above 0"),
    ("EEGNet(colour=1)", "cannot take EEG of 32 channels and 128 times at 250 Hz: .*colour"),
    ("Labram(num_layers=1)", "'E001'.* use InterpolatedLaBraM"),
    ("BENDR", "20 channels, specific order"),
    ("SensingDynamics", "16-channel .* got n_chans=32")])
def test_eeg_that_a_model_cannot_take_is_one_clear_line(text, said):
    with pytest.raises(BenchError, match=said) as error:
        check(value(text))
    assert error.value.exit_code == USAGE
    assert "\n" not in str(error.value)
    assert text.split("(")[0] in str(error.value) or "n_times" in str(error.value) or "sfreq" in str(error.value)


def test_the_least_number_of_times_that_is_named_is_enough_and_one_less_is_not():
    check(value("SleepStagerBlanco2020(n_times=450)"))
    with pytest.raises(BenchError, match="needs 450 times"):
        check(value("SleepStagerBlanco2020(n_times=449)"))


def test_reve_without_its_positions_is_refused_and_asks_no_network(alone, monkeypatch, tmp_path):
    monkeypatch.setenv("REVE_POSITIONS_PATH", str(tmp_path))
    with pytest.raises(BenchError, match=r"would download positions of electrodes; put .*reve_positions.json"):
        check(value("REVE"))


def test_an_oracles_input_is_refused():
    with pytest.raises(BenchError, match=r"planned for EEG \[32, 128\], not \[1, 10\].*encoder='linear'"):
        build(value("EEGNet"), 1, 10, Runtime())


@pytest.fixture
def weights(tmp_path):
    """All tensors of a small EEGNet with three classes, and where to keep such."""
    from braindecode.models import EEGNet

    torch.manual_seed(7)
    model = EEGNet(n_chans=32, n_times=128, n_outputs=3, F1=2, D=1, F2=2)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, tmp_path / "w.safetensors"


def test_weights_are_loaded_whole_but_for_the_classification_whatever_the_file(weights):
    tensors, file = weights
    save_file(tensors, file)
    torch.save(tensors, file.with_suffix(".pt"))
    torch.save({"state_dict": tensors, "epoch": 3}, file.with_suffix(".pth"))
    headless = {name: tensor for name, tensor in tensors.items() if not name.startswith("final_layer.")}
    save_file(headless, file.with_name("headless.safetensors"))
    for path in (file, file.with_suffix(".pt"), file.with_suffix(".pth"), file.with_name("headless.safetensors")):
        found = built(f"{FEW}@{path}").model.state_dict()
        assert found.keys() == headless.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in headless.items())


def test_the_classification_that_is_not_read_is_listed_by_its_exact_names():
    from braindecode.models import EEGNet

    model = EEGNet(n_chans=32, n_times=128, n_outputs=3)
    assert braindecode.head_names(model) == ["final_layer.conv_classifier.weight", "final_layer.conv_classifier.bias"]


@pytest.mark.parametrize(("change", "said"), [
    (lambda t: t | {"conv_temporal.weight": torch.zeros(2, 1, 1, 9)},
     r"tensor conv_temporal.weight is \[2, 1, 1, 9\], expected \[2, 1, 1, 64\]"),
    (lambda t: {k: v for k, v in t.items() if k != "bnorm_1.weight"}, "lacks bnorm_1.weight; only the classification"),
    (lambda t: t | {"other": torch.zeros(1)}, "has other, which the model does not have; .*conv_classifier.bias"),
    (lambda t: t | {"final_layer.old": torch.zeros(1)}, "has final_layer.old, which")])
def test_weights_that_are_not_the_models_are_refused_naming_file_and_tensor(weights, change, said):
    tensors, file = weights
    save_file(change(tensors), file)
    with pytest.raises(BenchError, match=said) as error:
        check(value(f"{FEW}@{file}"))
    assert str(file) in str(error.value)
    assert error.value.exit_code == USAGE


def test_a_file_whose_code_would_have_to_run_is_refused(weights):
    _, file = weights
    torch.save({"weight": Path("x")}, file.with_suffix(".pt"))
    file.write_bytes(b"no weights")
    for path in (file, file.with_suffix(".pt")):
        with pytest.raises(BenchError, match="cannot be read as weights without running its code"):
            check(value(f"{FEW}@{path}"))


def test_weights_that_changed_after_the_plan_are_refused(weights):
    tensors, file = weights
    save_file(tensors, file)
    planned = value(f"{FEW}@{file}")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, file)
    with pytest.raises(BenchError, match="is missing or has changed since this stage was planned") as error:
        check(planned)
    assert error.value.exit_code == ENVIRONMENT


def test_weights_that_know_channels_by_name_need_a_data_set_that_states_them(weights):
    _, file = weights
    file.write_bytes(b"whatever")
    with pytest.raises(BenchError, match="Labram identify channels by name; the data set has no names"):
        check(value(f"Labram(num_layers=1, n_times=600)@{file}", PAPER))


def test_one_seed_gives_one_encoder_and_another_seed_another():
    first, again, other = (built(FEW, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["project.weight"], other["project.weight"])


@pytest.fixture(scope="module")
def finetune():
    row = replace(FULL, name="x", mask_ratio=None, encoder=f"braindecode:{FEW}")
    stage = systems.plan(row, MICRO.items(), MICRO, 0).pictures.model
    assert isinstance(stage, Finetune)
    return stage


def test_fine_tuning_with_a_model_of_braindecode_gives_the_same_bytes_twice(micro, finetune, tmp_path):
    folder = build_stage(finetune, micro)
    again = Store(tmp_path)
    for stage in graph.needs(finetune):
        target = again.path(stage)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(micro.path(stage))
    repeated = build_stage(finetune, again)
    for name in ("model.safetensors", "finetune.json"):
        assert (folder / name).read_bytes() == (repeated / name).read_bytes()


def test_its_fine_tuned_encoder_makes_pictures_and_its_real_parameters_are_counted(micro, finetune):
    row = replace(FULL, name="x", mask_ratio=None, encoder=f"braindecode:{FEW}")
    generate = systems.plan(row, MICRO.items(), MICRO, 0).pictures
    assert generate.model == finetune
    build_stage(finetune, micro)
    pictures = np.load(build_stage(generate, micro) / "pictures.npy")
    assert pictures.shape[1:] == (2, 32, 32, 3)
    said = json.loads((micro.path(finetune) / "finetune.json").read_text())
    assert said["encoder_parameters"] == sum(p.numel() for p in built(FEW, MICRO).parameters())
    assert said["trained_parameters"]["encoder"] == said["encoder_parameters"]


def test_training_an_encoder_lowers_its_loss():
    encoder = built("EEGNet(drop_prob=0.0)").train()
    eeg, target = noise(48, 32, 128), noise(48, 4, 96)
    optimizer = torch.optim.AdamW(encoder.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = (encoder(eeg) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.98 * losses[0]


def test_flops_are_counted_on_the_meta_device():
    from bench.cost import networks

    forward, both = networks.encoder_flops(value("EEGNet"), 32, 128)
    assert forward >= 2 * 8 * 64 * 32 * 128  # the convolution in time alone: 8 filters of 64 taps
    assert both > 2 * forward


def test_the_ablation_has_row_3_with_every_encoder_and_at_the_papers_scale_all_but_one():
    chosen = ablation.load("encoders")
    assert {v.mask_ratio for v in chosen.variants} == {None}
    assert len({v.encoder for v in chosen.variants}) == len(chosen.variants)
    for scale, absent in ((TINY, []), (PAPER, ["LaBraM 2 of 12 layers"])):
        lacking = []
        for v in chosen.variants:
            try:
                encoders.resolve(v, scale)
            except NotAvailable:
                lacking.append(v.name)
        assert lacking == absent


@pytest.mark.skipif(torch.version.cuda is None, reason="torch was built without CUDA, and torchaudio asks for nothing")
def test_torchaudio_of_another_minor_version_of_cuda_is_imported_and_of_another_major_one_refused(monkeypatch):
    from torchaudio._extension.utils import _check_cuda_version  # as it was when torchaudio was imported here

    built_for = torch.ops._torchaudio.cuda_version()
    major, minor = built_for // 1000, built_for % 1000 // 10
    monkeypatch.setattr(torch.version, "cuda", f"{major}.{minor + 1}")
    assert _check_cuda_version() == built_for
    monkeypatch.setattr(torch.version, "cuda", f"{major - 1}.{minor}")
    with pytest.raises(RuntimeError, match="compiled with different CUDA versions"):
        _check_cuda_version()


if __name__ == "__main__":
    text = PAGE.read_text()
    text = re.sub(r"(with\s+braindecode) \S+\.\n\n.*", "", text, flags=re.DOTALL)
    version = importlib.metadata.version("braindecode")
    PAGE.write_text(f"{text}with braindecode {version}.\n\n{table()}\n")
