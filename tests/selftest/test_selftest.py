"""The self-test: its lines, its time limit, its table, its refusals; and each check at small sizes (long)."""

from __future__ import annotations

import io
import json
import time

import pytest
import torch

from bench import runtime
from bench.cli import main
from bench.selftest import faults, inputs
from bench.selftest.checks import CHECKS, Check, Failed, Machine, check_device, check_products
from bench.selftest.probe import Enough, Probe, relative_error
from bench.selftest.run import run
from bench.selftest.table import WIDTH, Line, render
from models.frozen import load_clip, load_judge, load_unet, load_vae


def fail(machine):
    raise Failed("the loss is 3")


def break_down(machine):
    raise RuntimeError("CUDA error:\n an illegal memory access")


def sleep(machine):
    time.sleep(60)
    return {}


def run_checks(minutes, *checks):
    stream = io.StringIO()
    lines = run("cpu", False, minutes, stream, checks=[Check(check.__name__, check) for check in checks])
    return lines, [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_failed_check_is_a_line_with_its_reason_and_the_others_still_run():
    lines, written = run_checks(5, fail, break_down, check_device)
    assert [line.state for line in lines] == ["failed", "failed", "ok"]
    assert [each["ok"] for each in written] == [False, False, True]
    assert written[0]["reason"] == "the loss is 3"
    assert written[1]["reason"] == "RuntimeError: CUDA error: an illegal memory access"
    assert written[2]["sizes"] == "small"


def test_it_stops_when_the_minutes_are_over_and_names_what_was_not_run():
    lines, written = run_checks(0.02, sleep, check_device)
    assert [(line.name, line.state) for line in lines] == [("sleep", "not run"), ("check_device", "not run")]
    assert [each["reason"] for each in written] == ["the minutes were over before it ended", "the minutes were over"]
    assert "not run: sleep; check_device; give it more --minutes" in render(lines)


def test_the_table_fits_its_width_and_counts_the_outcomes():
    measured = {"ms_per_step": 123.456, "planned_ms_per_step": 1234.5, "peak_bytes": 123.4e9, "tflops": 612.3,
                "planned_bytes": 123.4e9, "share_of_products": 0.414, "planned_share": 0.4}
    lines = [Line(check.name, "ok", measured) for check in CHECKS]
    lines += [Line("pretrain, large batch", "failed", reason="word " * 60)]
    table = render(lines)
    assert max(map(len, table.splitlines())) <= WIDTH
    assert table.splitlines()[-1] == f"{len(CHECKS)} ok, 1 failed, 0 not run"
    assert "41% (40%)" in table


def test_real_sizes_without_a_gpu_are_refused_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "count_gpus", lambda: 0)
    assert main(["selftest"]) == 3
    assert capsys.readouterr().err == ("bench: the driver shows no GPU on this machine, and real sizes need one; for "
                                       "small networks on a CPU: bench selftest --dry\n")
    assert main(["selftest", "--device", "cpu"]) == 2
    assert "real sizes need a GPU" in capsys.readouterr().err
    assert main(["selftest", "--dry", "--minutes", "0"]) == 2
    assert "--minutes 0: a number above 0" in capsys.readouterr().err
    assert main(["selftest", "--dry", "--scratch", "absent"]) == 2
    assert "--scratch absent: no such folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_time_of_a_step_is_the_median_between_log_lines():
    probe = Probe()
    assert probe.seconds_per_step is None
    probe.reports = [(0, 0.0, {"loss": 3.0}), (20, 2.0, {"loss": 2.0}), (40, 22.0, {}), (60, 24.0, {})]
    assert probe.seconds_per_step == pytest.approx(0.1)
    assert probe.values("loss") == [3.0, 2.0]


def test_a_profiled_stage_ends_after_its_second_log_line_with_its_operators_counted():
    probe = Probe(profiled=True)
    probe(0, 100)
    torch.ones(2) + torch.ones(2)
    torch.ones(1).item()
    with pytest.raises(Enough):
        probe(2, 100)
    counts = probe.counts()
    assert counts["operators_per_step"] >= 2
    assert counts["reads_per_log_line"] == 1


def test_matrix_products_are_measured_in_the_dtype_of_the_stages(tmp_path):
    machine = Machine("cpu", False, tmp_path)
    values = check_products(machine)
    assert values["dtype"] == "float32"
    assert values["tflops"] == machine.products > 0
    assert "rates" not in values  # a CPU has no peak


def test_a_relative_error_is_over_all_tensors_together():
    a, b = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])], [torch.tensor([3.0, 0.0]), torch.tensor([[4.5]])]
    assert relative_error(a, b) == pytest.approx(0.5 / (9 + 20.25) ** 0.5)


def test_random_networks_of_real_formats_keep_the_size_of_what_passes_through_them():
    net = inputs.draw_network(lambda: torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.LayerNorm(64)), "cpu",
                              torch.float32)
    assert net[0].weight.std().item() == pytest.approx(1 / 8, rel=0.1)
    assert net[0].bias.abs().max() == 0
    assert (net[1].weight == 1).all()


@pytest.mark.long
def test_every_check_passes_at_small_sizes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["selftest", "--dry", "--minutes", "30"]) == 0
    written = [json.loads(line) for line in (tmp_path / "selftest.jsonl").read_text().splitlines()]
    assert [line["check"] for line in written] == [check.name for check in CHECKS]
    for name in ("out of memory", "out of memory, generate"):
        assert next(line for line in written if line["check"] == name)["parts"] > 1
    assert next(line for line in written if line["check"] == "resume")["relative_difference"] == 0


@pytest.mark.long
def test_parts_of_real_size_are_written_in_formats_that_load_completely(tmp_path):
    parts = {part.name: part.path for part in inputs.write_parts(tmp_path, inputs.DREAMDIFFUSION, "cpu", True)}
    for name, load in {"vae": load_vae, "unet": load_unet, "clip": load_clip, "judge": load_judge}.items():
        assert load(parts[name]) is not None


def test_memory_that_is_too_small_on_purpose_has_the_gpus_error():
    with faults.short_of_memory("cpu", 0, 4, lambda network: isinstance(network, torch.nn.Conv1d)):
        with pytest.raises(torch.OutOfMemoryError):
            torch.nn.Conv1d(2, 2, 1)(torch.ones(8, 2, 1))
        assert torch.nn.Linear(2, 2)(torch.ones(8, 2)).shape == (8, 2)  # other networks are left alone
