"""The modules beside a user's file: they win in the user's code, whatever their names, and nowhere else."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import bench
import models
from bench import FULL
from bench.errors import BenchError
from bench.experiment import ablation, encoders
from bench.experiment.scale import MICRO
from bench.modules import import_file


def write(folder, files):
    """Writes modules, by their paths without .py; returns the folder."""
    for name, text in files.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def run(folder, text, files=()):
    """The user's file with this text, imported."""
    write(folder, {"mine": text, **dict(files)})
    return import_file(folder / "mine.py", "mine_of_a_test")


@pytest.mark.parametrize("files", [
    {"models/nets": "WIDTH = 7\n"}, {"models/nets": "WIDTH = 7\n", "models/__init__": ""},
    {"models/nets/__init__": "WIDTH = 7\n"},
    {"models/nets": "from models.sizes import WIDTH\n", "models/sizes": "WIDTH = 7\n",
     "models/__init__": "from . import nets\n"}])
def test_a_users_own_models_win_in_the_users_file_and_the_suites_stay(tmp_path, files):
    before = dict(vars(models))
    mine = run(tmp_path, "from models.nets import WIDTH\nfrom models import pins, nets\nimport models.parameters\n"
                         "from models.parameters import PIXELS\n", files)
    assert mine.WIDTH == mine.nets.WIDTH == 7
    assert mine.pins is sys.modules["models.pins"]
    assert mine.PIXELS is sys.modules["models.parameters"].PIXELS
    assert sys.modules["models"] is models
    assert {key: vars(models)[key] for key in before} == before
    assert not {"models.nets", "models.sizes"} & set(sys.modules)
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("files", [{"models": "WIDTH = 7\n"}, {"models/__init__": "WIDTH = 7\n"}])
def test_a_users_file_models_wins_and_what_it_lacks_is_the_suites(tmp_path, files):
    mine = run(tmp_path, "import models\nfrom models import WIDTH, pins\nfrom models.parameters import PIXELS\n"
                         "assert models.WIDTH == WIDTH == 7\n", files)
    assert mine.pins is sys.modules["models.pins"]


def test_a_users_module_with_the_name_of_one_of_the_suite_is_the_users_in_the_users_code_only(tmp_path):
    mine = run(tmp_path, "from models.pins import MINE\nfrom models import parameters, pins\nimport models.nets\n"
                         "import models.nets as other\nWIDTH = models.nets.WIDTH + other.WIDTH\n",
               {"models/pins": "MINE = 1\n", "models/nets": "from models.pins import MINE\nWIDTH = MINE + 1\n",
                "models/__init__": ""})
    from models import pins

    assert (mine.MINE, mine.WIDTH) == (1, 4)
    assert mine.pins is not pins
    assert mine.parameters is sys.modules["models.parameters"]
    assert hasattr(pins, "Pinned")


def test_a_folder_called_bench_may_lie_beside_an_ablation(tmp_path):
    write(tmp_path, {"bench/__init__": "", "bench/rates": "RATE = 0.6\n", "mine": (
        "from bench import FULL, replace, rates\nimport bench.rates\nfrom bench.experiment.variant import Variant\n"
        "variants = [replace(FULL, name='mine', mask_ratio=rates.RATE), FULL]\nassert bench.rates.RATE == 0.6\n")})
    loaded = ablation.load(str(tmp_path / "mine.py"))
    assert loaded.variants == (replace(FULL, name="mine", mask_ratio=0.6), FULL)
    assert sys.modules["bench"] is bench


def test_a_script_called_bench_beside_an_ablation_is_not_run_for_what_it_does_not_define(tmp_path):
    write(tmp_path, {"bench": "raise RuntimeError('a script')\nspeed = 1\n", "mine": (
        "from bench import FULL, replace\nfrom bench.experiment.variant import On\n"
        "variants = [FULL, On(FULL, 'zero', eeg='zero')]\n")})
    assert len(ablation.load(str(tmp_path / "mine.py")).variants) == 2
    assert encoders.sources(tmp_path / "mine.py") == [tmp_path / "mine.py"]
    with pytest.raises(RuntimeError, match="a script"):
        run(tmp_path, "from bench import speed\n")


def test_of_a_whole_module_of_the_users_what_it_lacks_is_the_suites(tmp_path):
    text = "import bench\nimport models.nets\nSPEED, ROW, PINS = bench.speed, bench.FULL, models.pins\n"
    mine = run(tmp_path, text, {"bench": "speed = 1\n", "models/nets": "", "models/__init__": ""})
    assert (mine.SPEED, mine.ROW) == (1, FULL)
    assert mine.PINS is sys.modules["models.pins"]


def test_what_neither_has_is_said_with_the_users_folder(tmp_path):
    with pytest.raises(ImportError, match=rf"cannot import name 'absent' from 'models': neither {tmp_path} nor .*mod"):
        run(tmp_path, "from models import nets, absent\n", {"models/__init__": "", "models/nets": ""})
    with pytest.raises(ImportError, match="cannot import name 'Net' from '.*models.nets'"):
        run(tmp_path, "from models.nets import Net\n", {"models/nets": ""})
    with pytest.raises(ModuleNotFoundError, match=rf"No module named 'layers.deep' in {tmp_path}"):
        run(tmp_path, "import layers.deep\n", {"layers/__init__": ""})


def test_a_module_with_the_name_of_an_imported_library_wins_in_the_users_code_only(tmp_path):
    import calendar

    import rich

    mine = run(tmp_path, "import calendar, rich, os, numpy\n", {
        "calendar": "MINE = 1\n", "rich": "MINE = 2\n", "os": "MINE = 3\n"})
    assert (mine.calendar.MINE, mine.rich.MINE) == (1, 2)
    assert mine.os is sys.modules["os"]  # what is built into Python comes first, as in every script
    assert mine.numpy is np
    assert sys.modules["calendar"] is calendar
    assert sys.modules["rich"] is rich
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'rich\.console'"):
        run(tmp_path, "from rich.console import Console\n")


def test_a_folder_of_data_with_the_name_of_a_library_hides_nothing(tmp_path):
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "log.txt").write_text("")
    mine = run(tmp_path, "import rich\nfrom rich.console import Console\nfrom rich import extra, print\n",
               {"rich/extra": "X = 1\n"})
    import rich.console

    assert mine.rich is rich
    assert mine.Console is rich.console.Console
    assert mine.extra.X == 1
    assert mine.print is rich.print


def test_an_import_within_a_function_finds_the_modules_beside_the_file_later(tmp_path):
    mine = run(tmp_path, "def width():\n    from models.nets import WIDTH\n    from layers import DEPTH\n"
                         "    return WIDTH, DEPTH\n", {"models/nets": "WIDTH = 7\n", "layers": "DEPTH = 2\n"})
    assert mine.width() == (7, 2)


def test_modules_import_each_other_also_relatively_and_are_read_again(tmp_path):
    files = {"models/__init__": "from .nets import Net\n", "models/nets": "from layers import X\nfrom . import parts\n"
             "class Net:\n    width = X + parts.Y\n", "models/parts": "Y = 1\n", "layers": "X = 1\n"}
    first = run(tmp_path, "from models import Net\n", files)
    assert first.Net.width == 2
    second = run(tmp_path, "from models import *\n", files | {"layers": "X = 100\n"})
    assert second.Net.width == 101
    assert first.Net.width == 2


@pytest.mark.parametrize("package", ["layers", "models"])
@pytest.mark.parametrize("files", [{}, {"__init__": ""}])
def test_modules_beside_a_file_may_import_each_other_in_a_circle(tmp_path, package, files):
    files = {**files, "x": f"from {package} import y\nX = 1\n", "y": f"from {package} import x\nY = 2\n"}
    mine = run(tmp_path, f"from {package} import x\nY = x.y.Y\n",
               {f"{package}/{name}": text for name, text in files.items()})
    assert mine.Y == 2


def test_a_star_imports_the_submodules_that_a_users_package_lists(tmp_path):
    mine = run(tmp_path, "from models import *\n", {"models/__init__": "__all__ = ['X', 'sub']\nX = 1\n",
                                                    "models/sub": "Y = 2\n"})
    assert (mine.X, mine.sub.Y) == (1, 2)


def test_an_edit_within_the_same_second_is_seen(tmp_path):
    for number in range(3):
        mine = run(tmp_path, f"from layers import X\nY = {number}\n", {"layers": f"X = {number}\n"})
        assert mine.X == mine.Y == number


def test_objects_of_modules_beside_the_file_can_be_pickled_here_and_for_another_process(tmp_path):
    cloudpickle = pytest.importorskip("cloudpickle")
    mine = run(tmp_path, "from models.nets import Net, double\ndef four():\n    return double(2)\n",
               {"models/nets": "class Net:\n    width = 7\n\ndef double(x):\n    return 2 * x\n"})
    assert pickle.loads(pickle.dumps(mine.Net())).width == 7
    sent = cloudpickle.dumps((mine.Net(), mine.four))  # as joblib and Ray send them
    code = "import pickle, sys; net, four = pickle.loads(sys.stdin.buffer.read()); print(net.width, four())"
    done = subprocess.run([sys.executable, "-P", "-c", code], input=sent, capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout.decode().split() == ["7", "4"]


def test_libraries_installed_below_the_users_folder_stay_imported(tmp_path, monkeypatch):
    site = write(tmp_path / ".venv/lib/site-packages", {"only_here": "X = 1\n"})
    monkeypatch.syspath_prepend(site)
    mine = run(tmp_path, "import only_here\n")
    assert sys.modules.pop("only_here") is mine.only_here  # torch, imported twice, ends the process


def test_modules_that_importlib_finds_in_the_folder_are_forgotten_afterwards(tmp_path):
    text = "import importlib\nX = importlib.import_module('beside_alone').X\n"
    mine = run(tmp_path, text, {"beside_alone": "X = 3\n"})
    assert mine.X == 3
    assert "beside_alone" not in sys.modules


def test_in_a_checkout_of_the_suite_its_names_mean_the_suite(tmp_path):
    mine = run(tmp_path, "from models import pins\nimport bench.metrics\nfrom bench import FULL\n",
               {"bench/__init__": "", "bench/metrics": "WRONG = 1\n", "bench/experiment/stages": "",
                "models/__init__": "pins = 'other'\n"})
    assert mine.pins is sys.modules["models.pins"]
    assert not hasattr(bench.metrics, "WRONG")
    assert encoders.sources(tmp_path / "mine.py") == [tmp_path / "mine.py"]


ENCODER = """
from torch import nn
from models.nets import Mix

class Encoder(nn.Module):
    def __init__(self, channels, times, width, depth, heads):
        super().__init__()
        self.mix = Mix(channels, width)

    def forward(self, eeg):
        from models.nets import scale
        return self.mix(eeg).transpose(1, 2) * scale()
"""
NETS = """
from torch import nn
from models.masking import random_masking

class Mix(nn.Conv1d):
    def __init__(self, channels, width):
        super().__init__(channels, width, 8, stride=8)

def scale():
    return 0
"""


def test_the_hash_and_the_copy_for_workers_cover_a_users_own_models(tmp_path):
    import torch

    from bench.runtime import Runtime
    from bench.train.encoder import build

    write(tmp_path / "a", {"mine": ENCODER, "models/nets": NETS})
    row = replace(FULL, name="mine", encoder=str(tmp_path / "a/mine.py"), mask_ratio=None)
    first = encoders.resolve(row, MICRO)
    encoders.keep(first, tmp_path / "kept")
    assert sorted(file.relative_to(tmp_path / "kept" / first.code).as_posix() for file in
                  (tmp_path / "kept").rglob("*.py")) == ["mine.py", "models/nets.py"]
    write(tmp_path / "a", {"models/nets": NETS.replace("return 0", "return 1")})
    second = encoders.resolve(row, MICRO)
    assert second.code != first.code
    eeg = torch.randn(2, 32, 128)
    assert not build(first, 32, 128, Runtime(encoders=tmp_path / "kept"))(eeg).any()  # the copy, not the edited file
    assert build(second, 32, 128, Runtime())(eeg).any()
    with pytest.raises(BenchError, match="has changed since this stage was planned"):
        build(first, 32, 128, Runtime())


def test_a_bench_that_another_package_has_replaced_is_refused_in_one_line(monkeypatch, capsys):
    from bench.__main__ import main

    monkeypatch.setattr(sys, "argv", ["bench", "list"])
    assert main() == 0
    capsys.readouterr()
    with monkeypatch.context() as replaced:
        replaced.delattr(bench, "MovedModules")
        assert main() == 3
    assert "bench/__init__.py is not this project's (it lacks this project's names): " in capsys.readouterr().err
    monkeypatch.delattr("bench.cli.COMMANDS")
    assert main() == 3
    captured = capsys.readouterr()
    assert "bench/cli.py is not this project's (cannot import name 'COMMANDS'" in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not captured.out
