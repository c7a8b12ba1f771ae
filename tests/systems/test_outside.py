"""A system from an installed package outside the suite: no file of the suite names it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from bench.errors import ENVIRONMENT

SYSTEM = '''
"""Toy: every image of an item is the mean training image, brightened by the power of the item's EEG."""

from dataclasses import dataclass, field
from typing import ClassVar

from bench.experiment.key import Stage
from bench.experiment.kinds import FrozenPart, Kind, register, register_parts
from bench.experiment.stages import Items, Weights, training


@dataclass(frozen=True)
class Spec:
    name: str = field(default="toy", compare=False)
    gain: float = 1.0
    system: ClassVar[str] = "toy"


@dataclass(frozen=True)
class Schedule:
    gain: float


@dataclass(frozen=True)
class ToyMean(Stage):
    items: Items
    schedule: Schedule
    seed: int


@dataclass(frozen=True)
class ToyImages(Stage):
    mean: ToyMean
    items: Items
    paint: Weights
    samples: int


def plan(spec, items, scale, seed):
    paint = scale.weights("vae" if scale.prior else "toy_paint")
    mean = ToyMean(training(items), Schedule(spec.gain), seed)
    return scale.score(ToyImages(mean, items, paint, scale.sampling.samples), items)


register({
    ToyMean: Kind("toy.build:mean", "finetune", trains=True, forecast="toy.cost:seconds", cost="toy.cost:cost"),
    ToyImages: Kind("toy.build:images", "generate", forecast="toy.cost:seconds", cost="toy.cost:cost", rate="generate",
                    omits="paint that dries"),
})
register_parts({"toy_paint": FrozenPart(pin="toy.parts:PAINT", size="toy.cost:paint_bytes")})
'''
BUILD = '''
import json

import numpy as np

from bench.train.items import load


def mean(stage, inputs, out, runtime):
    items = load(stage.items, inputs(stage.items.trials))
    np.save(out / "mean.npy", items.pictures[:].astype(float).mean(0))
    (out / "summary.json").write_text(json.dumps({"trained_parameters": {"mean": 3072}, "losses": {"none": 0.0}}))


def images(stage, inputs, out, runtime):
    items = load(stage.items, inputs(stage.items.trials))
    power = stage.mean.schedule.gain * np.sqrt((items.eeg**2).mean((1, 2)))
    images = np.load(inputs(stage.mean) / "mean.npy") * power[:, None, None, None, None]
    images = np.repeat(images.clip(0, 255).astype(np.uint8), stage.samples, 1)
    np.save(out / "pictures.npy", images)
    np.save(out / "item.npy", items.item)
'''
COST = '''
from bench.cost.counting import Cost
from toy.system import ToyMean


def seconds(stage):
    return 36_000.0 if isinstance(stage, ToyMean) else 1.0


def cost(stage):
    return Cost(3 * 10**18, None, 5 * 10**9) if isinstance(stage, ToyMean) else Cost(10**18, None, 0)


def paint_bytes():
    return 7 * 10**9
'''
PARTS = '''
from models.pins import File, Part

PAINT = Part((File("paint.safetensors", 7_000_000_000, "0123abcd"),), "CC0", "toy/paint", "main")
'''
ABLATION = '''"""A toy from outside."""

from bench import On
from toy.system import Spec

toy = Spec("toy")
variants = [toy, Spec("bright toy", gain=2.0), On(toy, "toy / EEG shuffled", eeg="shuffled", eeg_free=True)]
contrasts = [("toy", "toy / EEG shuffled")]
'''
CHECKS = '''
import json
from pathlib import Path

from bench import systems
from bench.execute import worker
from bench.execute.engines import settings
from bench.experiment.key import dump, load
from bench.experiment.scale import MICRO
from bench.setup import weights
from bench.store.store import Store
from toy.system import Spec

stage = systems.plan(Spec("toy"), MICRO.items(), MICRO, 1).pictures.mean
store = Store(Path("store"))
worker.write_request(store, stage)
print(json.dumps({"names": systems.names(), "kinds": settings.kinds(), "part": weights.part("toy_paint").sha256,
                  "known": weights.known_names(), "read": load(dump(stage), stage.key) == stage, "key": stage.key}))
'''


def install(folder, name, files, entry):
    """Writes a package and its metadata as pip would."""
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[eeg2image_bench.systems]\n{name} = {entry}\n")


def run(folder, *command, code=0):
    """Runs Python with the folder's packages; returns standard output, and standard error after a failure."""
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": str(folder / "packages"), "COLUMNS": "120"})
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the package, an ablation, and what `bench run` left and printed."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "packages").mkdir()
    install(folder / "packages", "toy", {"toy/__init__.py": "", "toy/system.py": SYSTEM, "toy/build.py": BUILD,
                                         "toy/cost.py": COST, "toy/parts.py": PARTS}, "toy.system")
    (folder / "mine.py").write_text(ABLATION)
    (folder / "printed").write_text(run(folder, "-m", "bench", "run", "--ablation", "mine.py", "--scale", "micro",
                                        "--store", "store", "--workers", "1"))
    return folder


def test_an_installed_system_is_listed(folder):
    assert "toy" in json.loads(run(folder, "-m", "bench", "list", "--json"))["systems"]
    assert "toy" not in json.loads(subprocess.run([sys.executable, "-m", "bench", "list", "--json"], cwd=folder,
                                                  capture_output=True, check=True).stdout)["systems"]


def test_its_rows_run_in_the_workers_and_its_forecast_is_printed(folder):
    rows = pd.read_csv(folder / "results/micro/mine.csv", dtype={"variant": str})
    assert not (rows["metric"] == "failed").any()
    assert {"toy", "bright toy", "toy / EEG shuffled"} <= set(rows["variant"])
    assert set(rows["leaky"]) == {"no"}
    value = rows.set_index(["variant", "metric"])["value"]
    assert value["toy", "trained_parameters"] == 3072
    printed = (folder / "printed").read_text()
    assert "about 1201 minutes" in printed  # two trainings of ten hours on one worker
    assert "toy / EEG shuffled" in printed


def test_its_stages_are_priced_by_its_own_cost(folder):
    printed = run(folder, "-m", "bench", "plan", "--ablation", "mine.py", "--scale", "paper", "--gpu", "h100")
    rows = {line.split()[0]: line.split() for line in printed.splitlines() if line.split()}
    cells = [line.split() for line in printed.splitlines() if line.startswith("toymean ")]
    assert cells[0] == ["toymean", "2", "0", "0", "2"]  # rows, controls, stored, to build
    assert cells[1][1:5] == ["3", "2", "0", "6.00"]  # uses, distinct, stored, EFLOP
    assert cells[1][-1] == "10.0"  # GB
    assert "30%" in rows["toyimages"]  # its rate is that of `generate`
    assert "paint that dries" in printed
    without = run(folder, "-m", "bench", "plan", "--ablation", "table2", "--variants", "Full", "--scale", "paper",
                  "--gpu", "h100")
    assert frozen_gigabytes(printed) == pytest.approx(frozen_gigabytes(without) + 7, abs=0.11)


def frozen_gigabytes(printed):
    """The size of the frozen parts in a price."""
    return float(re.search(r"([\d.]+) GB [^\d]*frozen parts", printed)[1])


def test_its_frozen_part_and_its_kinds_are_known_and_an_engines_worker_builds_its_stage(folder):
    (folder / "checks.py").write_text(CHECKS)
    checks = json.loads(run(folder, "checks.py"))
    assert "toy" in checks["names"]
    assert {"toymean", "toyimages", "finetune"} <= set(checks["kinds"])
    assert checks["part"] == "0123abcd"
    assert "toy_paint" in checks["known"]
    assert checks["read"]
    built = run(folder, "-P", "-m", "bench.execute.worker", checks["key"], "--store", "store", "--device", "cpu")
    assert built == f"toymean {checks['key']} is complete\n"


@pytest.mark.parametrize(("text", "said"), [
    ("import no_such_module\n", "(ModuleNotFoundError: No module named 'no_such_module')"),
    ("x = 1\n", "(AttributeError: module 'broken' has no attribute 'plan')")])
def test_a_package_that_is_no_system_is_named_in_one_line(text, said, tmp_path):
    (tmp_path / "packages").mkdir()
    install(tmp_path / "packages", "broken", {"broken/__init__.py": text}, "broken")
    (tmp_path / "row.py").write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\n\n\n@dataclass(frozen=True)\nclass Spec:\n"
        "    name: str\n    system: ClassVar[str] = 'broken'\n\n\nvariants = [Spec('row')]\n")
    printed = run(tmp_path, "-m", "bench", "run", "--ablation", "row.py", "--scale", "micro", code=ENVIRONMENT)
    assert printed.startswith("bench: system 'broken' cannot be loaded from the installed package 'broken' " + said)
    assert printed.count("\n") == 1
