"""Ablation files: the suite's, and a user's own."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.experiment import ablation
from bench.experiment.variant import Variant


def test_every_ablation_of_the_suite_loads_and_its_contrasts_name_variants_that_differ():
    for name in ablation.names():
        loaded = ablation.load(name)
        by_name = {variant.name: variant for variant in loaded.variants}
        assert len(set(loaded.variants)) == len(loaded.variants)
        assert loaded.contrasts
        for a, b in loaded.contrasts:
            assert by_name[a] != by_name[b]


def differing(a: Variant, b: Variant) -> set[str]:
    return {name for name in ("mask_ratio", "align", "sd_loss", "tune", "size", "encoder")
            if getattr(a, name) != getattr(b, name)}


@pytest.mark.parametrize("name", ["table2", "mask_ratio", "encoder_size", "freezing", "clip", "pretraining", "figure5"])
def test_a_contrast_differs_in_one_factor(name):
    loaded = ablation.load(name)
    by_name = {variant.name: variant for variant in loaded.variants}
    for a, b in loaded.contrasts:
        assert len(differing(by_name[a], by_name[b])) == 1, (a, b)


def test_the_slices_of_table_2_are_its_rows():
    whole = {variant.name: variant for variant in ablation.load("table2").variants}
    assert len(whole) == 15
    for name in ("mask_ratio", "encoder_size", "pretraining"):
        for variant in ablation.load(name).variants:
            assert whole[variant.name] == variant


def test_rows_2_4_and_11_share_the_architecture_of_two_layers():
    from bench.experiment.scale import TINY

    rows = {variant.name: variant for variant in ablation.load("table2").variants}
    assert {rows[name].size for name in ("2", "4", "11")} == {"18.3M"}
    assert TINY.size("18.3M").depth == 2


GOOD = "from bench import FULL, replace\nvariants = [FULL, replace(FULL, name='half', mask_ratio=0.5)]\n"


def test_a_users_own_file_is_an_ablation_named_after_it(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text('"""My question."""\n' + GOOD)
    mine = ablation.load(str(path))
    assert (mine.name, mine.title, mine.published) == ("mine", "My question.", None)
    assert [variant.name for variant in mine.select(["half"])] == ["half"]


@pytest.mark.parametrize(("text", "said"), [
    ("import no_such_module\n", r"mine.py, line 1: does not import: ModuleNotFoundError: .*no_such_module"),
    ("x = 1\ny = (\n", r"mine.py, line 2: does not import: SyntaxError"),
    ("x = 1\n", "`variants` must be a list"),
    ("variants = []\n", "`variants` must be a list"),
    ("variants = ['Full']\n", "`variants` must be a list"),
    ("from bench import FULL\nvariants = [FULL, FULL]\n", "two variants are called 'Full'"),
    ("import sys\nsys.exit(7)\n", "mine.py, line 2: does not import: SystemExit: 7"),
    ("raise ValueError('two\\nlines')\n", "ValueError: two lines"),
    (GOOD + "contrasts = [1]\n", "contrast 1 must be a pair of names"),
    (GOOD + "contrasts = [('half', 'Full')]\nprimary = [('Full', 'half')]\n",
     "primary names .* not one of the contrasts"),
    (GOOD.replace("FULL, replace(FULL, name='half'", "replace(FULL, name='Full'"), "must be the suite's Full"),
    (GOOD.replace("name='half'", "name='half', encoder=3"), "encoder and size must be text"),
    (GOOD + "contrasts = [('Full', 'whole')]\n", "contrast .* must be a pair of names among: Full, half"),
    ("from bench import FULL, replace\nvariants = [replace(FULL, mask_ratio=1.5)]\n", "between 0 and 1"),
])
def test_a_file_that_is_no_ablation_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(BenchError, match=said) as caught:
        ablation.load(str(path))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_file_with_the_name_of_an_ablation_of_the_suite_is_refused(tmp_path):
    (tmp_path / "table2.py").write_text(GOOD)
    with pytest.raises(BenchError, match="the suite's ablation 'table2' has the same name"):
        ablation.load(str(tmp_path / "table2.py"))


def test_an_unknown_ablation_or_variant_is_refused_naming_those_that_exist():
    with pytest.raises(BenchError, match="no ablation 'mask'; there are: .*mask_ratio, .*table2, .*or give a path"):
        ablation.load("mask")
    with pytest.raises(BenchError, match="no variant '15' in table2; there are: Full, 1, 2"):
        ablation.load("table2").select(["15"])
    with pytest.raises(BenchError, match=r"no file none\.py"):
        ablation.load("none.py")


def test_controls_beside_an_ablation_take_the_eeg_of_every_variant_away():
    plain = ablation.load("mask_ratio")
    controlled = ablation.with_controls(plain)
    assert controlled.variants[:4] == plain.variants
    added = controlled.variants[4:]
    assert [v.name for v in added[:3]] == ["Full / EEG shuffled", "Full / EEG surrogate", "Full / EEG zero"]
    assert len(added) == 12
    assert all(v.eeg_free and v.of in plain.variants for v in added)


def test_a_name_with_a_comma_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from bench import FULL, replace\nvariants = [replace(FULL, name='a, b')]\n")
    with pytest.raises(BenchError, match="'a, b' has a comma"):
        ablation.load(str(path))


def test_rows_that_cannot_know_the_stimulus_say_so():
    free = {v.name for v in ablation.load("controls").variants if getattr(v, "eeg_free", False)}
    assert {"EEG shuffled", "EEG zero", "no condition", "random training picture", "time of recording only"} <= free
    assert not free & {"Full", "oracle: label", "mean picture of the class", "caption by EEGNet", "3"}
    blocks = ablation.load("block_design").variants
    confounded = {v.name: v.eeg_free for v in blocks if v.name.startswith("drift alone")}
    assert confounded == {"drift alone / blocked / by item": False, "drift alone / blocked / by block": False,
                          "drift alone / interleaved / by item": True, "drift alone / interleaved / by block": True}


def test_every_row_is_there_once_for_each_subject_with_its_contrasts_and_its_controls():
    chosen = ablation.load("mask_ratio", [1, 4], controls=True)
    names = [variant.name for variant in chosen.variants]
    assert len(names) == 4 * 2 * (1 + 3)
    rows = {variant.name: variant for variant in chosen.variants}
    assert rows["5 / subject 1"].subjects == (1,)
    assert rows["5 / subject 1"].of.mask_ratio == 0.25
    shuffled = rows["Full / subject 4 / EEG shuffled"]
    assert (shuffled.subjects, shuffled.eeg, shuffled.eeg_free) == ((4,), "shuffled", True)
    assert ("Full / subject 1", "5 / subject 1") in chosen.contrasts
    assert chosen.published is None  # the paper's numbers are of one subject
    block = ablation.load("block_design", [2]).variants[0]
    assert (block.subjects, dict(block.world)["order"]) == ((2,), "blocked")


@pytest.mark.parametrize(("text", "said"), [
    ("9", "expected all, or some of 1, 2, 3, 4, 5, 6"), ("1,1", "expected all, or some of 1, 2, 3, 4, 5, 6"),
    ("four", "numbers of subjects"), ("1,", "numbers of subjects"), ("-1", "numbers of subjects")])
def test_subjects_that_the_data_set_does_not_have_are_refused_with_those_it_has(text, said):
    from bench.commands.options import read_subjects
    from bench.experiment.scale import TINY

    def resolve(text):
        return ablation.resolve_subjects(read_subjects(text), TINY)

    assert resolve("all") == [1, 2, 3, 4, 5, 6]
    assert resolve("4,1") == [4, 1]
    with pytest.raises(BenchError, match=f"--subjects {text}: .*{said}"):
        resolve(text)
