"""The examples of docs/adding.md: a user's encoder, system, data set and ablation, each in one file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import indent

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from bench import On, modules, own, systems
from bench.cli import main
from bench.errors import USAGE, BenchError
from bench.execute.build import build
from bench.experiment import ablation, encoders, graph
from bench.experiment.scale import MICRO
from bench.experiment.stages import CONTROLS, training
from bench.runtime import Runtime
from bench.train.encoder import build as build_encoder
from bench.train.generate import initial_noise
from bench.train.items import load
from bench.train.own import Run, UserFileError
from bench.train.own import generate_images as build_own

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("my_*.py"))
PAGE = (ROOT / "docs" / "adding.md").read_text()
ITEMS = MICRO.items()
ZEROS = """
import numpy as np

def pictures(train, test, run, **settings):
    return np.zeros((len(test.item), run.samples, 32, 32, 3), np.uint8)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder in which the page's commands were given at scale micro, and what was printed."""
    folder = tmp_path_factory.mktemp("mine")
    for file in EXAMPLES:
        shutil.copy(file, folder)
    (folder / "program.py").write_text(
        "import sys\nfrom bench.cli import main\n\nif __name__ == '__main__':\n    sys.exit(main(sys.argv[1:]))\n")

    def said(*command: str) -> str:
        ran = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False,
                             env=os.environ | {"COLUMNS": "120"})
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    said("my_data.py")
    return folder, said("program.py", "run", "--ablation", "my_ablation.py", "--pairs", "my_data", "--scale", "micro",
                        "--workers", "1")


@pytest.fixture
def there(done, monkeypatch):
    monkeypatch.chdir(done[0])
    monkeypatch.setenv("COLUMNS", "120")
    return done[0]


def test_the_page_shows_the_examples_as_they_stand():
    assert [file.name for file in EXAMPLES] == ["my_ablation.py", "my_data.py", "my_encoder.py", "my_system.py"]
    for file in EXAMPLES:
        assert f"\n\n{indent(file.read_text(), '    ').rstrip()}\n\n" in PAGE, file.name
        assert f"`{file.name}`" in PAGE


def test_the_page_names_all_that_a_system_is_given():
    public = {*Run.__dataclass_fields__, *(name for name in vars(Run) if not name.startswith("_"))}
    assert {name for name in public - {"numerics", "parts"} if f"run.{name}" not in PAGE} == set()


def test_the_examples_run_as_they_stand_on_a_data_set_of_ones_own(done):
    folder, printed = done
    rows = pd.read_csv(folder / "results/micro/my_data/my_ablation.csv", dtype={"variant": str})
    assert (rows["metric"] == "failed").sum() == 0
    assert set(rows["variant"]) >= {"3", "my encoder", "my system", "my system from the third on",
                                    "my system on shuffled EEG", "class name as text"}
    assert set(rows["world"]) == {"my_data"}
    assert set(rows["leaky"]) == {"no"}
    value = rows.set_index(["variant", "metric"])["value"]
    assert value["my system", "top1_label"] > value["my system on shuffled EEG", "top1_label"] + 0.1
    assert value["my system", "trained_parameters"] == (12 * 100 + 1) * 64
    assert value["my system", "retrieval_top5"] > value["my system on shuffled EEG", "retrieval_top5"]
    assert "Not run: Full, shuffled EEG (null)." in printed  # there is no corpus to pre-train it on
    assert (folder / "results/micro/my_data/my_ablation.png").is_file()


def test_a_second_run_builds_nothing_and_the_table_can_be_had_again(there, done, capsys):
    named = ["--pairs", "my_data", "--scale", "micro"]
    assert main(["plan", "--ablation", "my_ablation.py", *named]) == 0
    assert "a run now builds 0 stages" in capsys.readouterr().out
    assert main(["table", "my_ablation.py", *named]) == 0
    assert capsys.readouterr().out.strip() in done[1]


def test_rows_with_pretraining_are_left_out_and_named_where_no_corpus_fits(there, capsys):
    named = ["--pairs", "my_data", "--scale", "micro"]
    assert main(["plan", "--ablation", "clip", *named]) == 0
    said = capsys.readouterr()
    assert "clip at scale micro: 4 variants" in said.out
    left_out = re.findall("left out at scale micro: variant '(.+)': scale micro has no corpus for", said.err)
    assert left_out == ["Full", "13", "label"]
    assert main(["plan", "--ablation", "mask_ratio", *named]) == USAGE
    assert "can have none of its variants" in capsys.readouterr().err


def test_files_that_are_dropped_into_the_folders_are_found(tmp_path):
    for folder in ("bench", "models", "ablations"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "docs/examples/my_encoder.py", tmp_path / "models/encoders")
    (tmp_path / "bench/systems/black.py").write_text("""
from dataclasses import dataclass, field
from typing import ClassVar

from bench.experiment.key import Stage
from bench.experiment.kinds import Kind, register
from bench.experiment.stages import Items


@dataclass(frozen=True)
class Spec:
    name: str = field(compare=False)
    system: ClassVar[str] = "black"


@dataclass(frozen=True)
class Black(Stage):
    items: Items
    samples: int


def plan(spec, items, scale, seed):
    return scale.score(Black(items, scale.sampling.samples), items)


register({Black: Kind("bench.train.black:paint", "generate")})
""")
    (tmp_path / "ablations/mine.py").write_text(
        "from ablations.table2 import row3\nfrom bench import replace\nfrom bench.systems import black\n"
        "variants = [black.Spec('black'), replace(row3, name='mine', encoder='my_encoder')]\n"
        "contrasts = [('mine', 'black')]\n")

    def said(*arguments: str) -> str:
        ran = subprocess.run([sys.executable, "-c", "import bench, sys; from bench.cli import main; "
                              "assert bench.__file__.startswith(sys.argv[1]); sys.exit(main(sys.argv[2:]))",
                              str(tmp_path), *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    listed = json.loads(said("list", "--json"))
    assert "my_encoder" in listed["encoders"]
    assert "black" in listed["systems"]
    assert listed["ablations"]["mine"]["variants"] == ["black", "mine"]
    planned = {line.split()[0]: line.split()[1] for line in said("plan", "--ablation", "mine").splitlines()[1:]}
    assert planned["black"] == planned["finetune"] == "1"


def spec(folder, text=ZEROS, name="mine", **settings):
    """A row of a system whose file holds that text."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return own.Spec("mine", folder / f"{name}.py", settings)


def planned(row, seed=0):
    return systems.plan(row, ITEMS, MICRO, seed).pictures


def made(stage, store):
    """The folder of a stage of a user's file, built."""
    for one in graph.stages([stage], store.has):
        for source in modules.find_user_files(one):
            encoders.keep(source, store.encoders)
        build(one, store)
    return store.path(stage)


def pictures(stage, store):
    return np.load(made(stage, store) / "pictures.npy")


def test_the_examples_take_the_suites_own_eeg_too(micro):
    rows = ablation.load(str(ROOT / "docs/examples/my_ablation.py")).variants
    for row in rows:
        stage = planned(row)
        assert stage.items.trials == ITEMS.trials
        if isinstance(stage, own.Own):
            drawn = pictures(stage, micro)
            assert drawn.shape == (40, MICRO.sampling.samples, 32, 32, 3)
            assert (drawn[:, 0] != drawn[:, 1]).any((1, 2, 3)).all()  # the nearest, and the next
    encoder = encoders.resolve(rows[1], MICRO)
    assert build_encoder(encoder, 32, 128, Runtime())(torch.zeros(2, 32, 128)).shape == (2, 32, encoder.width)


def test_a_system_is_given_the_training_trials_and_of_the_items_the_eeg_alone(micro, tmp_path):
    text = """
import numpy as np

def pictures(train, test, run):
    assert sorted(vars(test)) == ["eeg", "item", "subject"], vars(test)
    known = np.unique(train.picture)
    assert len(train.pictures._file) == len(known) == len(train.item) == 160  # of 240
    seen = train.pictures[:].astype(float).mean((1, 2, 3)) + train.eeg.mean((1, 2)) + train.label
    value = [abs(seen - one).argmin() for one in test.eeg.mean((1, 2))]
    return np.repeat(train.pictures[value][:, None], run.samples, 1)
"""
    stage = planned(spec(tmp_path / "a", text))
    trials = micro.path(ITEMS.trials)
    train = load(training(ITEMS), trials)
    drawn = pictures(stage, micro)
    assert drawn.shape == (40, MICRO.sampling.samples, 32, 32, 3)
    assert {picture.tobytes() for picture in drawn[:, 0]} <= {picture.tobytes() for picture in train.pictures}

    other, out = tmp_path / "trials", tmp_path / "out"  # the same without what was shown in other parts
    shutil.copytree(trials, other)
    out.mkdir()
    table = pd.read_csv(other / "trials.csv")
    tested = table["part"] == "test"
    table.loc[tested, "label"] = 1 - table.loc[tested, "label"].clip(upper=1)
    table.to_csv(other / "trials.csv", index=False)
    shown = np.load(other / "pictures.npy")
    shown[table.loc[table["part"] != "train", "picture"]] = 0
    np.save(other / "pictures.npy", shown)
    build_own(stage, {ITEMS.trials: other}.__getitem__, out, Runtime())
    assert (out / "pictures.npy").read_bytes() == (micro.path(stage) / "pictures.npy").read_bytes()
    assert sorted(file.name for file in out.iterdir()) == ["item.npy", "pictures.npy"]


@pytest.mark.parametrize("eeg", CONTROLS)
def test_every_control_reaches_a_system(eeg, micro, tmp_path):
    text = """
import numpy as np

def pictures(train, test, run):
    assert train.eeg.shape[1:] == test.eeg.shape[1:]
    return np.zeros((len(test.item), run.samples, 32, 32, 3), np.uint8), test.eeg.reshape(len(test.item), -1)
"""
    row = On(spec(tmp_path / "a", text), eeg, eeg=eeg)
    seen = np.load(made(planned(row), micro) / "embedding.npy")
    items = replace(ITEMS, eeg=eeg)
    stage = planned(row)
    expected = load(items, micro.path(items.trials),
                    micro.path(stage.targets) / "embeddings.npy" if stage.targets else None)
    assert np.array_equal(seen, expected.eeg.reshape(len(seen), -1))


FITTED = """
import torch
from torch import nn
from layers import Net

def fit(train, run, width=4):
    net = Net(width)
    loss = nn.functional.mse_loss(net(torch.from_numpy(train.eeg)), torch.from_numpy(train.label).float())
    run.progress(1, 1, loss=loss.item())
    return net.state_dict()

def pictures(train, test, run, brightness=1.0):
    net = Net(len(run.fitted["mix.weight"]))
    net.load_state_dict(run.fitted)
    with torch.no_grad():
        shade = net(torch.from_numpy(test.eeg)).sigmoid() * 255 * brightness
    return shade.to(torch.uint8)[:, None, None, None, None].expand(-1, run.samples, 32, 32, 3)
"""
NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(32, width)

    def forward(self, eeg):
        return self.mix(eeg.std(-1)).mean(-1)
"""


@pytest.fixture
def fitted(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "layers.py").write_text(NET)
    return spec(tmp_path / "a", FITTED)


def test_what_fit_returns_reaches_pictures_and_is_counted(fitted, micro):
    stage = planned(fitted)
    drawn = pictures(stage, micro)
    assert len(np.unique(drawn)) > 1
    learnt = load_file(micro.path(stage.fit) / "fitted.safetensors")
    assert {name: list(tensor.shape) for name, tensor in learnt.items()} == {"mix.weight": [4, 32], "mix.bias": [4]}
    summary = json.loads((micro.path(stage.fit) / "summary.json").read_text())
    assert summary == {"trained_parameters": {"fit": 4 * 32 + 4}}


def test_rows_share_what_was_fitted_unless_it_is_fitted_otherwise(fitted):
    stage = planned(fitted)
    assert planned(On(fitted, "shuffled", eeg="shuffled")).fit == stage.fit
    darker = planned(replace(fitted, settings={"brightness": 0.5}))
    assert darker.fit == stage.fit
    assert darker != stage
    assert planned(replace(fitted, settings={"width": 8})).fit != stage.fit
    assert planned(fitted, seed=1).fit != stage.fit
    assert planned(On(fitted, "oracle", eeg="label")).fit != stage.fit


def test_a_system_is_known_by_its_source_its_modules_and_its_settings_and_not_by_its_place(fitted, tmp_path):
    stage, folder = planned(fitted), tmp_path / "a"
    shutil.copytree(folder, tmp_path / "b")
    assert planned(replace(fitted, file=tmp_path / "b" / "mine.py")) == stage
    assert planned(replace(fitted, settings={"width": 4})) != stage  # the file's default is not looked at
    (folder / "layers.py").write_text(NET.replace("std", "mean"))
    assert planned(fitted) != stage
    with pytest.raises(BenchError, match="was changed while the run was being planned"):
        encoders.keep(stage.source, tmp_path / "kept")


def test_random_numbers_that_a_file_forgot_to_seed_are_those_of_the_rows_seed(micro, tmp_path):
    text = """
import random
import numpy as np
import torch

def pictures(train, test, run):
    numbers = [random.random(), np.random.rand(), torch.rand(1).item()]
    return np.full((len(test.item), run.samples, 32, 32, 3), sum(numbers) * 80).astype(np.uint8), numbers * np.ones(
        (len(test.item), 3))
"""

    seen = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        state = torch.get_rng_state()
        build_own(planned(spec(tmp_path / "a", text), seed), micro.path, tmp_path / name, Runtime())
        assert torch.equal(torch.get_rng_state(), state)
        seen[name] = np.load(tmp_path / name / "embedding.npy")[0]
    assert np.array_equal(seen["first"], seen["again"])
    assert (seen["first"] != seen["other"]).all()


def test_the_noise_is_that_of_the_other_systems(micro, tmp_path):
    text = """
import numpy as np

def pictures(train, test, run):
    noise = run.noise(test, 2, 3)
    assert noise.shape == (len(test.item), run.samples, 2, 3)
    return np.zeros((len(test.item), run.samples, 32, 32, 3), np.uint8), noise.flatten(1)
"""
    folder = made(planned(spec(tmp_path / "a", text), seed=3), micro)
    item = np.load(folder / "item.npy")
    assert np.array_equal(np.load(folder / "embedding.npy"), initial_noise(item, 2, 3, (2, 3)).reshape(len(item), -1))


def test_a_system_may_use_the_suites_frozen_parts(micro, tmp_path):
    text = """
import torch
from bench.images import as_images
from models import frozen

def pictures(train, test, run):
    vae, clip, unet = run.vae(), run.clip(), run.unet()
    assert not any(p.requires_grad for part in (vae, clip, unet) for p in part.parameters())
    with torch.inference_mode(), run.autocast():
        words = clip.text_tokens(clip.tokenize(["a star", ""]))
        noise = run.noise(test, *frozen.latent_shape(unet))[:1].flatten(0, 1)
        latents = frozen.sample(unet, words[:1].expand(2, -1, -1), words[1:], noise, 2, 2.0, schedule=run.schedule())
        again = vae.decode(vae.encode(as_images(train.pictures[:38], run.device)))
    images = torch.cat([again, vae.decode(latents)])
    drawn = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    return drawn.repeat(2, 1, 1, 1).unflatten(0, (len(test.item), run.samples))
"""
    drawn = pictures(planned(spec(tmp_path / "a", text)), micro).reshape(80, 32, 32, 3)[:38]
    train = load(training(ITEMS), micro.path(ITEMS.trials))
    assert np.abs(drawn.astype(float) - train.pictures[:38]).mean() < 6


def test_a_file_may_hold_dataclasses_with_annotations_as_text(micro, tmp_path):
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n\n@dataclass\nclass Sizes:\n" \
           "    width: int = 3\n" + ZEROS
    assert not pictures(planned(spec(tmp_path / "a", text)), micro).any()


def test_a_system_with_models_of_its_own_is_built_from_the_copy_in_the_store(micro, tmp_path):
    text = """
from models.nets import black

def pictures(train, test, run):
    from models import frozen
    from models.nets import black
    assert frozen.load_vae
    return black(len(test.item), run.samples)
"""
    row = spec(tmp_path / "a", text)
    (tmp_path / "a/models").mkdir()
    (tmp_path / "a/models/nets.py").write_text("import numpy as np\nfrom bench.images import as_images\n\n"
        "def black(n, samples):\n    return np.zeros((n, samples, 32, 32, 3), np.uint8)\n")
    stage = planned(row)
    encoders.keep(stage.source, micro.encoders)
    shutil.rmtree(tmp_path / "a")  # as on another machine
    build(stage, micro)
    assert not np.load(micro.path(stage) / "pictures.npy").any()


@pytest.mark.parametrize(("returned", "said"), [
    ("np.zeros((39, 2, 32, 32, 3), np.uint8)", "uint8 [39, 2, 32, 32, 3]; expected uint8 [40, 2, 32, 32, 3] (items,"),
    ("np.zeros((40, 2, 64, 64, 3), np.uint8)", "uint8 [40, 2, 64, 64, 3]; expected uint8 [40, 2, 32, 32, 3]"),
    ("np.zeros((40, 2, 32, 32, 3))", "returned float64 [40, 2, 32, 32, 3]; expected uint8 [40, 2, 32, 32, 3] (items, "
     "samples, height, width, colours); for values from 0 to 1: (255 * x.clip(0, 1)).round().astype(np.uint8)"),
    ("np.full((40, 2, 32, 32, 3), np.nan)", "245,760 values are not finite"),
    ("[1, 2, 3]", "returned list of 3; expected uint8"),
    ("None", "returned NoneType; expected uint8"),
    ("(black, np.ones((39, 64)))", "the embedding is [39, 64]; expected [40, D'], a vector in CLIP's space"),
    ("(black, np.full((40, 64), np.inf))", "the embedding has values that are not finite"),
    ("(black, 'x')", "the embedding is str; expected an array"),
])
def test_what_a_system_returns_is_looked_at(returned, said, micro, tmp_path):
    text = "import numpy as np\n\nblack = np.zeros((40, 2, 32, 32, 3), np.uint8)\n\n" \
           f"def pictures(train, test, run):\n    return {returned}\n"
    with pytest.raises(BenchError) as caught:
        made(planned(spec(tmp_path / "a", text)), micro)
    assert str(caught.value).startswith("mine.py: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("returned", "said"), [
    ("[1]", "mine.py: fit returned list of 1; expected a dict of names and arrays or tensors"),
    ("{'w': 'x'}", "mine.py: fit's 'w' is str; expected an array or a tensor of numbers"),
    ("{'w': float('nan')}", "mine.py: fit's 'w' has values that are not finite"),
])
def test_what_fit_returns_is_looked_at(returned, said, micro, tmp_path):
    with pytest.raises(BenchError) as caught:
        made(planned(spec(tmp_path / "a", f"{ZEROS}\ndef fit(train, run):\n    return {returned}\n")), micro)
    assert said in str(caught.value)


def test_tables_that_a_system_returns_count_in_their_order_whatever_the_index(micro, tmp_path):
    text = f"""{ZEROS}
import pandas as pd

def fit(train, run):
    return {{"w": pd.Series([3.0, 1.0, 2.0], [7, 5, 7]), "v": pd.DataFrame([[1, 2], [3, 4]], [1, 0])}}
"""
    learnt = load_file(made(planned(spec(tmp_path / "a", text)).fit, micro) / "fitted.safetensors")
    assert learnt["w"].tolist() == [3, 1, 2]
    assert learnt["v"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(("text", "said"), [
    ("def pictures(train, test, run):\n    return 1 / 0\n", "mine.py, line 2: ZeroDivisionError: division by zero"),
    ("def pictures(train, test, run):\n    import numpy\n    return numpy.linalg.inv(numpy.zeros((2, 2)))\n",
     "mine.py, line 3: LinAlgError: Singular matrix"),
    ("import beside\ndef pictures(train, test, run):\n    return beside.half(test)\n",
     "beside.py, line 2: AttributeError: "),
    ("import sys\ndef pictures(train, test, run):\n    sys.exit('enough')\n", "mine.py, line 3: SystemExit: enough"),
    ("import nothing_such\ndef pictures(train, test, run):\n    pass\n", "mine.py, line 1: ModuleNotFoundError: "),
    ("def pictures(train, test, run):\n    raise ValueError('a\\nb')\n", "mine.py, line 2: ValueError: a b"),
])
def test_an_exception_is_told_with_its_line_in_the_users_file(text, said, micro, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "beside.py").write_text("def half(test):\n    return test.pictures / 2\n")
    with pytest.raises(UserFileError) as caught:
        made(planned(spec(tmp_path / "a", text)), micro)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None  # whose traceback goes to the log


GOOD = "def pictures(train, test, run, k, *, alpha=1.0):\n    pass\n"


@pytest.mark.parametrize(("text", "settings", "said"), [
    ("def pictures(:\n", {}, "cannot be read as Python: invalid syntax"),
    ("def draw(train, test, run):\n    pass\n", {}, "has no function pictures(train, test, run)"),
    ("def pictures(train, test):\n    pass\n", {}, "line 1: pictures must take (train, test, run)"),
    (f"def fit(train):\n    pass\n{GOOD}", {"k": 1}, "line 1: fit must take (train, run)"),
    (GOOD, {}, "line 1: pictures needs the setting 'k'; give it: settings={'k': ...}, or a default"),
    (GOOD, {"k": 1, "beta": 2}, "takes the setting 'beta'; there are: k, alpha"),
    (GOOD, {"k": 1, "train": 2}, "takes the setting 'train'; there are: k, alpha"),
    ("import beside\n" + GOOD, {"k": 1}, "beside.py, line 1, imported by"),
])
def test_a_file_that_cannot_be_planned_is_refused_in_one_line(text, settings, said, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "beside.py").write_text("def half(\n")
    with pytest.raises(BenchError) as caught:
        planned(spec(tmp_path / "a", text, **settings))
    assert said in str(caught.value)
    assert str(caught.value).startswith("variant 'mine': ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_and_settings_that_have_no_hash_are_refused(tmp_path):
    with pytest.raises(BenchError, match=r"variant 'mine': .*none\.py cannot be read as Python"):
        planned(own.Spec("mine", tmp_path / "none.py"))
    with pytest.raises(BenchError, match="file must be the path of a .py file, not 3"):
        own.Spec("mine", 3)
    for settings in ({"net": torch.nn.Linear(1, 1)}, {"rate": float("nan")}, {3: 4, "a": 1}, 5):
        with pytest.raises(BenchError, match="variant 'mine': settings must be names with numbers"):
            own.Spec("mine", "mine.py", settings)
    assert own.Spec("mine", "mine.py", {"b": [1, [2]], "a": "x"}).settings == (("a", "x"), ("b", (1, (2,))))
