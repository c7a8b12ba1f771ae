"""The ablation `systems` at scale micro: every system on the same items, by the same code, beside its control."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from paper import PAPER, REHEARSAL
from safetensors.torch import save_file

from bench import On, systems
from bench.cli import main
from bench.cost.flops import system_cost
from bench.cost.price import price
from bench.experiment import ablation, graph
from bench.experiment.key import upstream
from bench.experiment.scale import MICRO, TINY
from bench.experiment.stages import Score, training
from bench.experiment.variant import sees_eeg
from bench.systems import thoughtviz
from bench.tables import literature, results
from bench.tables.build import table as build_table

SYSTEMS = ablation.load("systems")
OWN = ("Brain2Image GAN", "Brain2Image VAE", "ThoughtViz", "ATM", "linear baseline")


def score(name, at=MICRO, seed=0):
    variant = next(v for v in SYSTEMS.variants if v.name == name)
    return systems.plan(variant, at.items(), at, seed)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What one command leaves: a folder with a store and results."""
    folder = tmp_path_factory.mktemp("systems")
    names = [*OWN, "ThoughtViz with its leak", *(f"{name} / EEG shuffled" for name in OWN)]
    assert main(["run", "--ablation", "systems", "--scale", "micro", "--store", str(folder / "store"), "--results",
                 str(folder / "results"), "--variants", ",".join(names)]) == 0
    return folder


def keys(stages):
    return {stage.key for stage in stages}


def test_every_system_is_scored_on_the_same_items_by_the_same_code(run):
    found = results.read(run / "results" / "micro", "systems")
    scored = found.rows[found.rows["metric"] == "top1_label"]
    assert {*OWN, "ThoughtViz with its leak"} <= set(scored["variant"])
    assert scored["n"].nunique() == scored["judge"].nunique() == scored["key"].nunique() == 1
    items = found.items.groupby(["variant", "items"])["item"].unique().map(tuple)
    assert items.nunique() == 1


def test_the_leak_of_the_released_code_is_flagged_and_no_other_row_is(run):
    rows = results.read(run / "results" / "micro", "systems").rows
    leaky = rows[rows["metric"] == "top1_label"].set_index("variant")["leaky"]
    assert leaky["ThoughtViz with its leak"] == "yes: trained on the test trials (ThoughtVizGan)"
    assert set(leaky.drop("ThoughtViz with its leak")) == {"no"}


def test_the_audit_flags_the_row_before_anything_is_built(tmp_path, capsys):
    assert main(["audit", "--ablation", "systems", "--scale", "micro", "--store", str(tmp_path / "none")]) == 1
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert said.pop("ThoughtViz with its leak").startswith("yes: trained on the test trials (ThoughtVizGan)")
    assert all(verdict.startswith("no (its trials are not stored") for verdict in said.values())


def test_the_table_says_what_each_system_costs_and_what_papers_report_in_a_block_of_its_own(run):
    table = build_table(run / "results" / "micro", "systems", SYSTEMS)
    rows = {row.name: row for row in table.entries}
    for name in OWN:
        assert rows[name].seconds[0] > 0, name
        assert rows[name].means["trained_parameters"] > 1000
    assert rows["linear baseline"].seconds[1] > 0.1  # the others draw so few pictures in less than can be noted
    main_block, contrasts, literature = table.document.complete.blocks
    assert {"trained parameters", "training, s", "sampling, s"} <= {column.header for column in main_block}
    assert len(contrasts[0].cells) == len(SYSTEMS.contrasts)
    printed = {column.header: column.cells for column in literature}
    assert set(printed["system"]) == set(SYSTEMS.literature)
    assert ("ThoughtViz", "is", "5.43") in set(zip(printed["system"], printed["metric"], printed["value"], strict=True))
    assert {"value", "printed by"} & {column.header for column in main_block} == set()


def test_the_seconds_of_a_row_are_those_of_its_trainings_and_its_pictures(run):
    from bench.store.store import Store

    store, row = Store(run / "store"), score("Brain2Image GAN")
    noted = results.runs(run / "results" / "micro", "systems").set_index(["variant", "items"]).loc[
        ("Brain2Image GAN", "real")]
    trained = [store.manifest(stage)["wall_s"] for stage in graph.trainings(row)]
    assert len(trained) == 2
    assert float(noted["training_s"]) == pytest.approx(sum(trained), abs=0.06)
    assert float(noted["sampling_s"]) == pytest.approx(store.manifest(row.pictures)["wall_s"], abs=0.06)


def test_pictures_are_new_ones_and_not_all_the_same(run):
    from bench.store.store import Store

    for name in OWN:
        pictures = np.load(Store(run / "store").path(score(name).pictures) / "pictures.npy")
        assert len({picture.tobytes() for picture in pictures[:, 0]}) > 1, name


@pytest.mark.parametrize("name", OWN)
def test_a_control_is_the_same_training_with_another_eeg_at_the_test(name):
    real, shuffled = score(name), score(f"{name} / EEG shuffled")
    assert keys(graph.trainings(real)) == keys(graph.trainings(shuffled))
    assert real.pictures.key != shuffled.pictures.key


@pytest.mark.parametrize("name", OWN)
def test_shuffled_training_pairs_change_what_is_trained_and_nothing_peeks(name):
    variant = next(v for v in SYSTEMS.variants if v.name == name)
    row = systems.plan(On(variant, "x", eeg="pairs_shuffled"), MICRO.items(), MICRO, 0)
    assert keys(graph.trainings(row)).isdisjoint(keys(graph.trainings(score(name))))
    assert graph.leaky_trainings(row) == []


def test_controls_of_every_ablation_are_of_what_sees_the_eeg():
    seeing = {v.name for v in SYSTEMS.variants if sees_eeg(v)}
    assert set(OWN) <= seeing
    assert {"Full", "caption by EEGNet"} <= seeing
    assert not seeing & {"prior alone", "random training picture", "mean picture of the class"}
    added = [v.name for v in ablation.with_controls(SYSTEMS).variants[len(SYSTEMS.variants):]]
    assert added[0] == "Full / EEG shuffled"
    assert "ThoughtViz / EEG zero" in added
    assert not any(name.startswith(("prior alone", "random")) for name in added)


@pytest.mark.parametrize("at", [TINY, MICRO, REHEARSAL], ids=lambda at: at.name)
def test_every_row_plans_at_every_scale_that_runs_here(at):
    for variant in SYSTEMS.variants:
        assert isinstance(systems.plan(variant, at.items(), at, 0), Score)


def test_every_stage_of_a_system_has_a_price_at_the_papers_scale():
    table = [graph.Row(v.name, 0, "real", systems.plan(v, PAPER.items(), PAPER, 0)) for v in SYSTEMS.variants]
    priced = price(table, PAPER, "h100")
    lines = {line.kind: line for line in priced.kinds}
    for stage in graph.stages(row.stage for row in table):
        if type(stage).__module__.startswith("bench.systems."):
            cost = system_cost(stage)
            assert cost is not None, stage
            assert cost.flops > 0
            assert lines[type(stage).__name__.lower()].flops >= cost.flops
    assert "thoughtvizgan" in priced.render()


def test_a_system_has_no_sizes_for_a_scale_of_ones_own_and_says_for_which_it_has():
    from bench.errors import NotAvailable

    with pytest.raises(NotAvailable, match="system thoughtviz has no sizes for scale mine; it has sizes for: .*tiny"):
        systems.plan(thoughtviz.Spec("x"), TINY.items(), replace(TINY, name="mine"), 0)


def test_no_training_of_a_system_is_given_the_tested_part_but_by_the_leak():
    for variant in SYSTEMS.variants:
        row = systems.plan(variant, TINY.items(), TINY, 0)
        assert bool(graph.leaky_trainings(row)) == (variant.name == "ThoughtViz with its leak")
        assert training(row.items) != row.items
        assert row.items.trials in set(upstream(row))


def test_the_published_numbers_of_the_systems_are_there(tmp_path):
    published = pd.concat([pd.read_csv(path, dtype={"row": str}) for path in literature.PUBLISHED.glob("*.csv")])
    for name, rows in SYSTEMS.literature.items():
        assert set(rows) <= set(published["row"]), name


BAD = {
    "unknown": ("replace(row3, name='x', encoder='braindecode:EEGNot')", "no model 'EEGNot'; similar: EEGNet"),
    "weights": ("replace(row3, name='x', encoder='braindecode:EEGNet@w.safetensors')",
                r"w\.safetensors: tensor .* is \[16, 1, 16, 1\], expected \[16, 1, 32, 1\] for EEGNet"),
    "short for braindecode": ("On(replace(row3, name='x', encoder='braindecode:EEGConformer'), 'y', "
                              "world={'n_times': 24})",
                              "EEGConformer cannot take EEG of 32 channels and 24 times .* needs 99 times at least"),
    "short for ThoughtViz": ("On(thoughtviz.Spec('x'), 'y', world={'n_times': 24})",
                             "ThoughtViz's kernels need 30 samples of EEG, but these items have 24"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_network_cannot_take_ends_in_one_line_and_exit_2_before_anything_is_built(case, tmp_path, monkeypatch,
                                                                                         capsys):
    pytest.importorskip("braindecode", reason="the extra braindecode is not installed")
    monkeypatch.chdir(tmp_path)
    row, said = BAD[case]
    (tmp_path / "bad.py").write_text("from ablations.table2 import row3\nfrom bench import On, replace\n"
                                     f"from bench.systems import thoughtviz\nvariants = [{row}]\n")
    if case == "weights":
        from braindecode.models import EEGNet

        import models  # noqa: F401  (before torchaudio)

        other = EEGNet(n_chans=16, n_times=128, n_outputs=2, sfreq=250)
        save_file({name: tensor.contiguous() for name, tensor in other.state_dict().items()}, "w.safetensors")
    assert main(["run", "--ablation", "bad.py", "--scale", "micro"]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error)
    assert len(error.strip().splitlines()) == 1
    assert not list((tmp_path / ".bench").rglob("MANIFEST.json"))
