"""`bench plan --gpu`: the price of a plan, what sharing saves, and what has no price.

After a change of a price, `PYTHONPATH=tests python tests/cost/test_price.py` writes these tables of
docs/paper-scale.md.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest
from paper import PAPER

from bench import runtime
from bench.cli import main
from bench.cost import counting, flops, memory, networks, price, rates, sizes
from bench.errors import ENVIRONMENT, USAGE, BenchError
from bench.experiment import ablation
from bench.experiment.graph import Row, counts, stages
from bench.experiment.scale import PAPER_SHORT, SCALES, TINY, Scale
from bench.experiment.stages import (
    Finetune,
    Generate,
    Numerics,
    Prepared,
    Pretrain,
    Score,
    Targets,
    TrainFeatures,
    Trials,
)
from bench.setup import weights
from bench.setup.rows import rows
from bench.systems import captions, linear, plan

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper-scale.md"
BEGIN, END = "<!-- {}: PYTHONPATH=tests python tests/cost/test_price.py -->", "<!-- end -->"


class Planned(Scale):
    """A scale whose frozen parts are known from their pins; no file is needed."""

    def weights(self, part):
        return weights.part(part)


PLANNED = Planned(**{field.name: getattr(PAPER, field.name) for field in fields(PAPER)})
PLANNED = replace(PLANNED, numerics=Numerics("cuda", "bfloat16"))
SHORT = replace(PLANNED, name="paper-short", sizes_like="paper", pretrain=PAPER_SHORT.pretrain)


def table(names=None, scale=PLANNED, seeds=(0,)):
    table2 = ablation.load("table2")
    return rows(table2.select(names) if names else table2.variants, scale, list(seeds))


@pytest.fixture(scope="module")
def table2():
    return price.price(table(), PLANNED, "h200")


@functools.cache
def table2_at_three_seeds(scale, choice):
    scale = replace(scale, pretrain_seeds=choice)
    return price.price(table(scale=scale, seeds=(0, 1, 2)), scale, "h200")


def of(table, cls):
    return next(stage for stage in stages(row.stage for row in table) if isinstance(stage, cls))


def test_table2_is_8_pretrainings_15_finetunings_15_generations_and_15_scorings_at_scale_paper(table2):
    counted = {name: own for name, own, _, _ in counts(table(), lambda stage: False)}
    assert [counted[name] for name in ("pretrain", "finetune", "generate", "score")] == [8, 15, 15, 15]
    assert {line.kind: (line.uses, line.distinct) for line in table2.kinds} == {
        "trials": (15, 1), "targets": (15, 1), "corpus": (11, 1), "reference": (15, 1),
        "trainfeatures": (15, 1), "pretrain": (11, 8),
        "finetune": (15, 15), "generate": (15, 15), "score": (15, 15)}


def test_table2_takes_at_most_56_eflop_where_a_naive_plan_takes_94(table2):
    assert PAPER.pretrain.steps * PAPER.pretrain.batch == 500 * 120_000
    assert PAPER.finetune.steps * PAPER.finetune.batch == 300 * 1600
    assert (PAPER.sampling.sampler, PAPER.sampling.steps, PAPER.sampling.guidance) == ("dpmsolver++", 25, 1)
    assert 50 * rates.EXA < table2.flops <= 56 * rates.EXA
    assert table2.naive >= 94 * rates.EXA
    assert table2.flops < table2.unshared < table2.naive


def test_rows_and_kinds_add_up_to_the_same_total(table2):
    assert sum(row.added for row in table2.rows) == sum(line.flops for line in table2.kinds) == table2.flops
    assert sum(row.hours for row in table2.rows) == pytest.approx(table2.hours)
    assert len(table2.rows) == 15


def test_rows_that_share_a_pretraining_pay_for_it_once(table2):
    first, *_, _, thirteenth, _ = table2.rows
    pretraining = flops.flops(of(table(["Full"]), Pretrain))
    assert thirteenth.variant == "13"
    assert first.added - thirteenth.added > pretraining
    assert thirteenth.alone - thirteenth.added > pretraining


def test_a_pretraining_costs_its_steps_times_its_batch():
    stage = of(table(["11"]), Pretrain)
    longer = replace(stage, schedule=replace(stage.schedule, steps=2 * stage.schedule.steps))
    assert flops.flops(longer) == 2 * flops.flops(stage)
    assert flops.flops(replace(stage, seed=7)) == flops.flops(stage)


def test_pretraining_every_seed_costs_three_times_and_at_paper_short_less_than_a_third_of_one_seeds():
    one, each, short = (next(line for line in table2_at_three_seeds(scale, choice).kinds if line.kind == "pretrain")
                        for scale, choice in ((PLANNED, "one"), (PLANNED, "each"), (SHORT, "each")))
    assert (one.distinct, each.distinct, short.distinct) == (8, 24, 24)
    assert each.flops == 3 * one.flops
    assert short.flops == each.flops // 10 < one.flops / 3


def test_paper_short_differs_from_paper_only_in_its_pretraining():
    short, paper = SCALES["paper-short"], SCALES["paper"]
    differ = {field.name for field in fields(Scale) if getattr(short, field.name) != getattr(paper, field.name)}
    assert differ == {"name", "sizes_like", "pretrain", "pretrain_seeds"}
    assert short.pretrain.warmup / short.pretrain.steps == paper.pretrain.warmup / paper.pretrain.steps
    for variant in ablation.load("systems").variants:
        assert plan(variant, PAPER.items(), SHORT, 0).pictures.kind == plan(
            variant, PAPER.items(), PAPER, 0).pictures.kind
    brain2image = next(v for v in ablation.load("systems").variants if v.system == "brain2image")
    assert plan(brain2image, PAPER.items(), SHORT, 0) == plan(brain2image, PAPER.items(), PAPER, 0)


def test_the_plan_states_the_hours_of_both_choices_of_pretrain_seeds(tmp_path, capsys):
    options = ["--ablation", "table2", "--variants", "3,11", "--scale", "paper", "--seeds", "0,1", "--store",
               str(tmp_path), "--gpu", "h200"]
    hours = {}
    for choice in ("one", "each"):
        assert main(["plan", *options, "--pretrain-seeds", choice]) == 0
        printed = capsys.readouterr().out
        lines = {line.split()[2]: line for line in printed.splitlines() if line.startswith("pretrain seeds ")}
        assert ["(chosen)" in lines[name] for name in ("each", "one")] == [choice == "each", choice == "one"]
        hours[choice] = {name: float(line.split(" GPU-hours")[0].split()[-1]) for name, line in lines.items()}
        total = float(printed.split(" GPU-hours, ")[0].split()[-1])
        assert hours[choice][choice] == total
        assert "2 pre-trainings" in lines["each"]
        assert "1 pre-trainings" in lines["one"]
        assert "no verdict about pre-training" in lines["one"]
    assert hours["one"] == hours["each"]
    assert hours["each"]["each"] > hours["each"]["one"]


def test_what_is_stored_costs_nothing_more(table2):
    done = set(stages(row.stage for row in table() if not row.beside))
    again = price.price(table(), PLANNED, "h200", stored=done.__contains__)
    assert (again.flops, again.hours) == (0, 0)
    assert again.unshared == table2.unshared
    assert all(line.stored == line.distinct for line in again.kinds)
    one = of(table(["8"]), Pretrain)
    less = price.price(table(), PLANNED, "h200", stored=lambda stage: stage == one)
    assert table2.flops - less.flops == flops.flops(one)


def test_features_of_training_images_cost_an_image_of_judge_and_clip_each():
    stage = of(table(["Full"]), TrainFeatures)
    image = networks.image_flops("judge", 224) + networks.clip_flops()[0]
    assert flops.flops(stage) == 1600 * image
    assert memory.disk(stage) == 1600 * (1024 + 768) * 4
    assert flops.naive(stage) == 0


def test_plms_takes_one_pass_more_than_steps_and_guidance_doubles_them():
    stage = of(table(["Full"]), Generate)

    def passes(**changes):
        return flops.evaluations(replace(stage, sampling=replace(stage.sampling, **changes)))

    assert passes() == 25
    assert passes(guidance=2.0) == 50
    assert passes(sampler="plms", steps=250) == 251


def test_crops_drawn_in_training_cost_an_encoding_in_every_step_and_none_before():
    rows = table(["Full"])
    stored, finetune = of(rows, Targets), of(rows, Finetune)
    online = replace(stored, views=0)
    assert flops.flops(stored) - flops.flops(online) == 2000 * 16 * networks.vae_flops("encode")
    more = flops.flops(replace(finetune, targets=online)) - flops.flops(finetune)
    assert more == 300 * 1600 * networks.vae_flops("encode")


def test_a_frozen_encoder_sees_every_trial_once():
    rows = table(["13", "14"])
    thirteenth, fourteenth = (row.stage.pictures.model for row in rows[:2])
    once = flops.flops(replace(fourteenth, schedule=replace(fourteenth.schedule, steps=0)))
    encoder = networks.encoder_flops(fourteenth.start.encoder, 128, 512)
    assert once == 1600 * encoder[0]
    assert flops.flops(thirteenth) - flops.flops(fourteenth) > 300 * 1600 * encoder[1] - 2 * once


def test_the_pixel_metrics_of_scores_take_cpu_time(table2):
    scores = [stage for stage in stages(row.stage for row in table()) if isinstance(stage, Score)]
    images = sum(sizes.count_trials(score.items) * sizes.samples_of(score.pictures) for score in scores)
    assert images > 0
    assert table2.cpu_hours * 3600 == pytest.approx(images * rates.PIXEL_METRICS)
    assert f"CPU: {table2.cpu_hours:.2f} hours of one core" in table2.render()


def test_a_network_of_unknown_size_is_named_and_not_priced():
    rows = table(["1"], replace(PLANNED, networks=("swav",)))
    text = price.price(rows, PLANNED, "h100").render()
    assert "swav" in next(line for line in text.splitlines() if "not counted" in line)
    assert flops.flops(of(rows, Score)) > 0


def test_hours_are_flops_over_the_stated_rate(table2):
    line = next(line for line in table2.kinds if line.kind == "finetune")
    assert line.hours == pytest.approx(line.flops / (989e12 * 0.8 * 0.3) / 3600)
    assert table2.energy(10) == 7.0


def test_more_gpus_change_the_time_and_not_the_price(table2):
    four = price.price(table(), PLANNED, "h200", 4)
    assert (four.flops, four.hours) == (table2.flops, table2.hours)
    assert table2.longest < table2.hours
    assert max(four.total_hours / 4, four.longest) < four.wall < table2.wall == pytest.approx(table2.total_hours)
    assert f"{four.wall:.1f} hours on 4 GPUs, one stage on each (longest chain" in four.render()


def test_a_small_gpu_gets_smaller_micro_batches_that_fit():
    needed = memory.memory(of(table(["Full"]), Finetune))
    large, small = runtime.GPUS["h200"], runtime.GPUS["4090"]
    assert needed.micro(large) == needed.batch == 25
    assert 1 <= needed.micro(small) < 25
    assert needed.peak(small) <= rates.HEADROOM * small.gigabytes * 1e9 < needed.peak(large)
    assert counting.Memory(10**12, 1, 4).micro(large) == 0


def test_the_released_codes_second_way_for_the_condition_has_its_price():
    plain = of(table(["2"]), Finetune)
    through_time = replace(plain, time_condition=True)
    assert flops.flops(through_time) > flops.flops(plain)
    assert memory.memory(through_time).peak(runtime.GPUS["h200"]) > memory.memory(plain).peak(runtime.GPUS["h200"])
    assert memory.trained_parameters(through_time)["tau"] - memory.trained_parameters(plain)["tau"] == 987_323


def test_a_pretraining_as_released_has_the_price_of_its_class_token_and_its_rounding():
    plain = replace(of(table(["Full"]), Pretrain), mask_ratio=0.85)
    token, rounded = replace(plain, class_token=True), replace(plain, rounding="kept")
    assert flops.flops(rounded) < flops.flops(plain) < flops.flops(token)  # 19, 20, and 21 tokens in the encoder
    assert memory.memory(token).fixed - memory.memory(plain).fixed == 18 * 1024
    assert flops.naive(token) == flops.naive(plain)


def test_another_tau_has_its_own_price():
    plain = of(table(["Full"]), Finetune)
    released, linear = (replace(plain, tau=kind) for kind in ("released", "linear"))
    assert memory.trained_parameters(released)["tau"] == 13_261 + 787_200
    assert memory.trained_parameters(linear)["tau"] == 128 * 77 + 77 + 787_200
    assert flops.flops(linear) < flops.flops(released)


def test_bytes_on_disk_are_those_of_the_arrays_that_are_written():
    rows = table(["Full"])
    assert memory.disk(of(rows, Generate)) == 200 * 5 * 512 * 512 * 3
    assert memory.disk(of(rows, Pretrain)) == 4 * 302_836_736
    assert memory.disk(of(rows, Targets)) == 2000 * (16 * 2 * 4 * 64 * 64 * 2 + 768 * 4)
    assert memory.trained_parameters(of(rows, Finetune))["unet"] == 43_962_560


def test_the_text_says_what_is_a_goal_and_that_nothing_was_measured(table2):
    text = table2.render()
    assert "40% (goal)" in text
    assert "no rate was measured on a GPU" in text
    assert "items: as published" in text
    assert "NVIDIA H200 Tensor Core GPU data sheet" in text
    assert all(f"\n{line.kind} " in text for line in table2.kinds)
    assert max(map(len, text.split("\n\n")[1].splitlines())) <= 120


def test_what_cannot_be_priced_is_refused_in_one_line():
    rows = table(["Full"])
    for call, code, words in (
            (lambda: price.price(rows, PLANNED, "v100"), USAGE, "there are: h200, h100, a100, 4090"),
            (lambda: price.price(rows, PLANNED, "h200", 0), USAGE, "expected 1 or more"),
            (lambda: price.price(rows, replace(PLANNED, numerics=Numerics()), "h200"), USAGE, "bfloat16"),
            (lambda: flops.flops(of(table(["1"], TINY), Generate)), USAGE, "tiny/"),
            (lambda: sizes.size(TINY.world, (4,)), USAGE, "prepared"),
            (lambda: sizes.size(Prepared("unheard_of", "", 63, 250, 250.0), (1,)), ENVIRONMENT,
             "bench data prepare unheard_of")):
        with pytest.raises(BenchError, match=words) as refused:
            call()
        assert refused.value.exit_code == code
        assert "\n" not in str(refused.value)


def test_items_are_counted_in_a_data_set_that_is_prepared(tmp_path):
    lines = ["item,subject,picture,label,block,position,part_item,part_single,part_subject"]
    lines += [f"{i},{4 if i < 6 else 1},{i % 4},{i % 2},-1,-1,{'train' if i % 3 else 'test'},"
              f"{'test' if i == 1 else ''}," for i in range(8)]
    (tmp_path / "trials.csv").write_text("\n".join(lines) + "\n")
    world = Prepared("own", "0" * 64, 128, 512, 1000.0, str(tmp_path))
    assert sizes.size(world, (4,)) == sizes.Size(4, {"train": 4, "test": 2}, 2, True)
    assert sizes.size(world, (1, 4)).trials == {"train": 5, "test": 3}
    assert sizes.size(world, (4,), "single") == sizes.Size(1, {"test": 1}, 1, True)
    trials = Trials(world, (4,), (5.0, 95.0))
    assert memory.disk(trials) == 6 * 128 * 512 * 2 + 4 * 512 * 512 * 3
    assert trials.kind == "trials"


def test_the_module_of_prices_loads_no_torch_until_it_counts():
    code = "import sys, bench.cost.price; print(*{'torch', 'diffusers', 'timm'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert loaded.strip() == ""


def tables(table2):
    """The page's tables of prices, in Markdown, by their marks."""
    naive = Counter()
    for row in table():
        if not row.beside:
            naive.update({stage.kind: flops.naive(stage) for stage in stages([row.stage])})
    by_kind = ["| stage | uses | distinct | EFLOP | EFLOP, naive |", "| :-- | --: | --: | --: | --: |"]
    by_kind += [f"| {line.kind} | {line.uses} | {line.distinct} | {line.flops / rates.EXA:,.3f} | "
                f"{naive[line.kind] / rates.EXA:,.3f} |" for line in table2.kinds if line.flops]
    by_kind.append(f"| total | | | {table2.flops / rates.EXA:,.1f} | {table2.naive / rates.EXA:,.1f} |")
    shares = ["| | share | of what | what it is |", "| :-- | --: | :-- | :-- |",
             f"| large matrix products | {rates.MATMUL.share:.0%} | peak | {rates.MATMUL.source} |"]
    of_system = plan(linear.Spec("linear"), PAPER.items(), PAPER, 0).pictures
    shares += [f"| {name} | {rate.share:.0%} | large matrix products | {rate.source} |"
               for name, rate in {**rates.RATES, of_system.kind: rates.rate(of_system)}.items()]
    gpus = ["| `--gpu` | TFLOP/s | GB | W | source |", "| :-- | --: | --: | --: | :-- |"]
    gpus += [f"| `{name}` | {gpu.tflops:g} | {gpu.gigabytes:g} | {gpu.watts:g} | {gpu.source} |"
             for name, gpu in runtime.GPUS.items()]
    designs = ["| scale | pretrain seeds | pre-trainings | of them, GPU-hours | all of Table 2, GPU-hours |",
               "| :-- | :-- | --: | --: | --: |"]
    for scale, choice in ((PLANNED, "one"), (PLANNED, "each"), (SHORT, "each")):
        priced = table2_at_three_seeds(scale, choice)
        line = next(line for line in priced.kinds if line.kind == "pretrain")
        designs.append(f"| `{scale.name}` | `{choice}` | {line.distinct} | {line.hours:.1f} | "
                       f"{priced.total_hours:.1f} |")
    return {"the plan of Table 2": by_kind, "the pre-trainings of three seeds": designs, "the rates": shares,
            "the GPUs": gpus}


def test_the_page_lists_the_prices_as_they_are(table2):
    page = PAGE.read_text()
    for mark, lines in tables(table2).items():
        shown = page.split(BEGIN.format(mark))[1].split(END)[0].strip()
        assert shown == "\n".join(lines), "rewrite it with: PYTHONPATH=tests python tests/cost/test_price.py"


def test_the_guided_system_is_priced_with_all_its_parts_and_beside_no_released_code_of_dreamdiffusions():
    chosen = ablation.load("guided_parts")
    table = [Row(name, 0, "real", plan(next(v for v in chosen.variants if v.name == name), PAPER.items(), PAPER, 0))
             for name in ("ATM", "with both")]
    priced = price.price(table, PAPER, "h100")
    lines = {line.kind: line for line in priced.kinds}
    assert [lines[kind].distinct for kind in ("guidedencoder", "guidedprior", "guidedpictures")] == [1, 1, 2]
    for own in ("guidedencoder", "guidedprior", "guidedpictures", "guidedlowlevel", "guidedcaptions"):
        assert lines[own].flops > 0
    trained = table[1].stage.pictures.captions
    assert sizes.count_trials(trained.items) == 62_160
    assert sizes.count_images(trained.items) == 15_540  # GIT processes each image once in an epoch
    turbo = 2 * (2_567_463_684 + counting.part_parameters("sdxl_vae") + 123_060_480 + 694_659_840)
    alone = price.price([Row("prior alone", 0, "real", plan(captions.Spec(), PAPER.items(), PAPER, 0))], PAPER, "h100")
    more = priced.weights - alone.weights - turbo - 698_391_064
    assert more == 4 * (counting.part_parameters("clip_h") + counting.part_parameters("git"))
    assert all(row.naive is None for row in priced.rows)
    assert "released code" not in priced.render()
    assert "GIT's captions" in priced.render()
    assert isinstance(alone.rows[0].naive, int)


if __name__ == "__main__":
    page = PAGE.read_text()
    for mark, lines in tables(price.price(table(), PLANNED, "h200")).items():
        before, after = page.split(BEGIN.format(mark))
        page = "\n\n".join([before + BEGIN.format(mark), "\n".join(lines), END + after.split(END, 1)[1]])
    PAGE.write_text(page)


def test_the_memory_of_a_forward_pass_is_what_lives_at_its_peak():
    x, weight = counting.meta(10, 25), counting.meta(25, 25)  # 1,000 bytes, not counted: they are there before

    def run():
        first = x @ weight
        second = first.relu().view(-1)  # a second kilobyte; a view takes none
        del first
        second += 1  # in place
        third = second.repeat(3)  # three more beside the second
        del second, third
        return x + 1

    assert counting.live_bytes(run) == 4000


def test_an_image_in_generation_is_sampled_beside_the_encoder_and_what_was_trained():
    full = of(table(["Full"]), Generate)
    known, trained = memory.memory(full), memory.trained_parameters(full.model)
    frozen = 2 * sum(map(counting.part_parameters, ("stable_diffusion_unet", "stable_diffusion_vae")))
    assert known.fixed == frozen + 4 * (trained["encoder"] + trained["tau"] + trained["head"]) + 2 * trained["unet"]
    assert known.batch == full.sampling.batch
