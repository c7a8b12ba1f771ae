"""What a run shows while it runs."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace

import pytest
from rich.console import Console

from bench import FULL
from bench.cost import forecast
from bench.execute import progress
from bench.execute.progress import Display, StageProgress, format_seconds, rate
from bench.experiment import graph
from bench.experiment.scale import MICRO
from bench.setup import rows as rows_

ROWS = rows_.rows([replace(FULL, name=name, mask_ratio=ratio) for name, ratio in (("Full", 0.75), ("5", 0.25))],
                 MICRO, [0, 1])
TODO = graph.stages(stage for row in ROWS for stage in graph.report_stages(row))
NAMES = {stage: f"{stage.kind} (Full, seed 0)" for stage in TODO}


def of(name):
    return next(stage for stage in TODO if stage.kind == name)


def terminal(width=80, height=30):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)


def seen(display):
    """The lines that are drawn now."""
    console = display.console
    return ["".join(part.text for part in line).rstrip() for line in console.render_lines(display.view())]


@pytest.mark.parametrize("width", [24, 40, 80, 200])
@pytest.mark.parametrize("height", [6, 12, 50])
def test_the_picture_is_never_wider_or_taller_than_the_terminal(width, height):
    display = Display(terminal(width, height), 2)
    with display.showing(TODO, NAMES, ROWS):
        for stage in TODO[:10]:
            display.started(stage)
            display.advanced(stage, 10, 2000, {"loss": 0.123456})
        lines = seen(display)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert any("of " in line for line in lines)


def test_a_picture_with_room_lists_every_row_with_its_state_and_the_running_stages_with_step_rate_loss_and_time_left(
        monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    display = Display(terminal(120, 60), 2)
    with display.showing(TODO, NAMES, ROWS):
        for name in ("trials", "corpus"):
            display.started(of(name))
            display.finished(of(name), 3.0)
        display.started(of("pretrain"))
        display.advanced(of("pretrain"), 100, 1000, {"loss": 0.75})
        now[0] += 10
        display.advanced(of("pretrain"), 200, 1000, {"loss": 0.5, "lr": 1.0})
        display.started(of("reference"))
        display.failed(of("reference"), "no room")
        text = seen(display)
    assert len([line for line in text if re.match(r"(Full|5)\S*( \S+)* +[01] +", line)]) == sum(
            row.variant in ("Full", "5") for row in ROWS)
    line, = [line for line in text if "200/1000" in line]
    assert line.split()[-5:] == ["200/1000", "10", "0.500", "80", "s"]
    assert re.search(r"^Full +0 +failed$", "\n".join(text), re.M)  # every row needs the reference
    assert re.search(rf"^2 of {len(TODO)} stages, 1 failed, about .* left$", text[-1])


def test_of_many_rows_those_that_run_or_failed_are_listed_and_the_rest_counted():
    rows = [row for row in rows_.rows([replace(FULL, name="row")], MICRO, range(40)) if not row.beside]
    rows = [replace(row, variant=f"row {row.seed}") for row in rows]
    todo = graph.stages(stage for row in rows for stage in graph.report_stages(row))
    display = Display(terminal(80, 24), 2)
    with display.showing(todo, {}, rows):
        running = next(row.stage.pictures.model.start for row in rows if row.variant == "row 7")
        failed = next(row.stage.pictures.model.start for row in rows if row.variant == "row 8")
        display.started(failed)
        display.failed(failed, "no roots")
        display.started(running)
        text = "\n".join(seen(display))
    assert re.search(r"row 7 +7 +pretrain", text)
    assert re.search(r"row 8 +8 +failed", text)
    assert "row 9" not in text
    assert re.search(r"other rows: \d+ waiting", text)


def test_the_time_left_is_the_forecast_corrected_by_what_was_seen(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(forecast, "seconds", lambda stage: 1000.0)
    display = Display(terminal(), 2)
    chain = graph.stages([ROWS[0].stage])
    with display.showing(chain, {}, []):
        assert display.left(0.0) is None
        for stage in chain:
            if stage.kind not in ("generate", "score"):
                display.started(stage)
                display.finished(stage, 2000.0)  # twice the forecast
        left = display.left(0.0)
    assert left == pytest.approx(4000, rel=0.1)  # one needs the other: two workers do not help
    with display.showing(TODO, {}, []):
        first, = [stage for stage in TODO if stage.kind == "corpus"]
        display.started(first)
        display.finished(first, 1000.0)
        assert display.left(0.0) == pytest.approx((len(TODO) - 1) * 1000 / 2, rel=0.01)


def test_a_rate_is_of_the_last_minute_and_begins_anew_with_another_pass():
    stage = StageProgress("it", 1.0)
    stage.report(0.0, 1, 1000, 0.5)
    assert rate(stage.reports) is None
    for second in range(1, 200):
        stage.report(float(second), second * (1 if second < 100 else 3), 1000, None)
    assert rate(stage.reports) == pytest.approx(3, rel=0.02)
    assert stage.loss == 0.5
    stage.report(200.0, 1, 1000, None)
    assert rate(stage.reports) is None


def test_without_a_terminal_there_are_plain_lines_alone():
    file = io.StringIO()
    display = Display(Console(file=file, width=30))
    with display.showing(TODO, NAMES, ROWS):
        display.started(of("trials"))
        display.advanced(of("trials"), 1, 2, {})
        display.tick()
        display.finished(of("trials"), 3.2)
        display.started(of("corpus"))
        display.failed(of("corpus"), "no [room] on a disk whose name is longer than the line")
    assert file.getvalue().splitlines() == [
        f"[1/{len(TODO)}] trials (Full, seed 0): built in 3 s",
        f"[2/{len(TODO)}] corpus (Full, seed 0): FAILED: no [room] on a disk whose name is longer than the line"]


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (89, "89 s"), (600, "10 min"), (11100, "3 h 05"),
                                               (187200, "2 d 4 h")])
def test_times_are_spelled_for_people(seconds, text):
    assert format_seconds(seconds) == text


def test_on_a_terminal_a_run_shows_its_rows_and_ctrl_c_gives_the_cursor_back(tmp_path):
    program = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # may come ignored
               "from bench.cli import main; sys.exit(main(sys.argv[1:]))")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 50, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", "--ablation", "mask_ratio", "--scale", "micro", "--workers", "1",
         "--store", str(tmp_path / "s"), "--results", str(tmp_path / "r")],
        stdin=theirs, stdout=theirs, stderr=theirs, env=env | {"TERM": "xterm"}, start_new_session=True)
    os.close(theirs)
    text, until, interrupted = "", time.monotonic() + 60, False
    while time.monotonic() < until and select.select([ours], [], [], 60)[0]:
        try:
            text += os.read(ours, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        if not interrupted and "\x1b[?25l" in text and re.search(r"0 of \d+ stages", text):
            interrupted = True
            os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    os.close(ours)
    assert interrupted
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")
    assert re.search(r"^Full +0 +(waiting|trials|corpus|reference)\b", shown, re.M)
    assert "interrupted; complete stages are kept" in shown
