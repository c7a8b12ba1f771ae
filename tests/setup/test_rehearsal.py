"""The paper's code path on small files in the real formats, end to end and without a network."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest

from bench.experiment.scale import REHEARSAL
from bench.setup.places import resolve_paths

RUN = """
import socket, sys

connect = socket.socket.connect

def refuse(connection, *address):
    if connection.family != socket.AF_UNIX:  # by which processes of this machine talk
        raise AssertionError("something tried the network")
    return connect(connection, *address)

socket.socket.connect = refuse
from bench.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder in which `mask_ratio` was rehearsed; sockets do not connect."""
    folder = tmp_path_factory.mktemp("rehearsal")
    (folder / "offline.py").write_text(RUN)
    return folder, offline(folder, "run", "--ablation", "mask_ratio", "--workers", "2")


def offline(folder, command, *options):
    """What a command of `bench` ended with there, at scale rehearsal."""
    return subprocess.run([sys.executable, "offline.py", command, "--scale", "rehearsal", *options], cwd=folder,
                          capture_output=True, text=True, check=False,
                          env=os.environ | {"HOME": str(folder), "MNE_DATA": str(folder)})


def test_mask_ratio_is_rehearsed_end_to_end(done):
    folder, ran = done
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = pd.read_csv(folder / "results/rehearsal/mask_ratio.csv", dtype={"variant": str})
    assert set(rows["variant"]) >= {"Full", "5", "6", "7"}
    assert rows.loc[rows["metric"] != "failed", "value"].notna().all()
    assert set(rows["world"]) == {"rehearsal of imagenet_eeg"}
    assert rows.loc[rows["metric"] == "top1_label", "key"].unique().tolist() == ["1000 classes"]
    assert rows["leaky"].str.startswith("yes").all()  # each subject saw each class in one block
    assert "No number here has a meaning." in " ".join(ran.stdout.split())
    assert (folder / "results/rehearsal/mask_ratio.png").is_file()


def test_a_second_rehearsal_builds_nothing(done):
    folder, _ = done
    said = offline(folder, "plan", "--ablation", "mask_ratio")
    assert "a run now builds 0 stages" in said.stdout


def test_new_concepts_are_rehearsed_on_the_files_of_things_eeg2_with_every_path_of_the_guided_system(done):
    folder, _ = done
    ran = offline(folder, "run", "--ablation", "guided_parts", "--variants", "with both", "--workers", "1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = pd.read_csv(folder / "results/rehearsal/guided_parts.csv")
    rows = rows[rows["variant"] == "with both"].set_index("metric")
    assert rows.loc["pixcorr", "n"] == 5
    assert rows["value"].notna().all()
    assert set(rows["leaky"]) == {"no"}
    assert "top1_label" not in rows.index  # no judge knows the concepts
    world = resolve_paths(REHEARSAL, folder / ".bench").things.world
    assert (world.name, world.n_chans, world.n_times, world.sfreq) == ("rehearsal of things_eeg2", 63, 248, 250.0)


def test_a_row_whose_pretraining_has_no_corpus_of_its_windows_is_left_out_and_named(done):
    folder, _ = done
    said = offline(folder, "plan", "--ablation", "guided_parts")
    assert said.returncode == 0
    assert said.stderr.splitlines() == [
        f"bench: left out at scale rehearsal: variant '{name}': scale rehearsal has no corpus for pre-training with "
        "windows like the EEG of rehearsal of things_eeg2, [63, 248]"
        for name in ("Full on things", "Full on things / EEG shuffled")]
    assert "guided_parts at scale rehearsal: 16 variants" in said.stdout


def test_every_part_of_the_rehearsal_is_a_file_in_the_format_of_its_library(done):
    folder, _ = done
    at = resolve_paths(REHEARSAL, folder / ".bench")
    parts = {part.name.split("/")[1]: part.path for part in at.parts}
    for part, files in {"vae": ["config.json", "diffusion_pytorch_model.safetensors"],
                        "unet": ["config.json", "diffusion_pytorch_model.safetensors",
                                 "../scheduler/scheduler_config.json"],
                        "clip": ["open_clip_config.json", "open_clip_model.safetensors"],
                        "judge": ["config.json", "model.safetensors"]}.items():
        assert all(os.path.isfile(os.path.join(parts[part], file)) for file in files), part
