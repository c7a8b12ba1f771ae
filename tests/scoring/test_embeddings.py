"""`bench score-embeddings`: exact retrieval beside two independent implementations, intervals, and refusals."""

import re
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import hypergeom

from bench.cli import main
from bench.errors import BenchError
from bench.scoring.embeddings import EVERYBODY, Trials, read_embeddings, read_trials, score_embeddings
from bench.statistics import share_interval


def make(images=7, subjects=2, noise=1.0, seed=0):
    """A gallery [M, 5], embeddings of one trial for each image and subject, and which image each shows."""
    rng = np.random.default_rng(seed)
    gallery = rng.normal(size=(images, 5))
    image, subject = np.tile(np.arange(images), subjects), np.repeat([f"s{n}" for n in range(subjects)], images)
    return gallery[image] + noise * rng.normal(size=(len(image), 5)), gallery, Trials(image, subject)


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def test_accuracies_are_those_of_all_sets_of_distractors_one_by_one():
    eeg, gallery, trials = make()
    result = score_embeddings(eeg, gallery, trials, (1, 2), (2, 3, 5))
    for k, n in ((1, 2), (1, 3), (2, 3), (1, 5), (2, 5), (1, 7), (2, 7)):
        expected = []
        for query, shown in zip(eeg, trials.image, strict=True):
            others = [image for image in range(7) if image != shown]
            hits = [sum(cosine(query, gallery[image]) >= cosine(query, gallery[shown]) for image in chosen) < k
                    for chosen in combinations(others, n - 1)]
            expected.append(np.mean(hits))
        name = f"top-{k} of 7" if n == 7 else f"top-{k} {n}-way"
        np.testing.assert_allclose(result.rows[name], expected, rtol=0, atol=1e-12)
        assert result.summary.set_index(["subject", "metric"]).loc[(EVERYBODY, name), "value"] == pytest.approx(
            np.mean(expected), abs=1e-12)
    assert result.summary["chance"].tolist() == (result.summary["k"] / result.summary["n"]).tolist()


def test_200_way_accuracies_are_those_of_ranks_and_the_hypergeometric_distribution():
    eeg, gallery, trials = make(images=230, noise=3.0)
    result = score_embeddings(eeg, gallery, trials, (1, 5), (50, 200))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (eeg, gallery)]
    order = np.argsort(-(unit[0] @ unit[1].T), axis=1)
    rank = np.argmax(order == trials.image[:, None], axis=1)
    for k, n in ((1, 50), (5, 50), (1, 200), (5, 200)):
        np.testing.assert_allclose(result.rows[f"top-{k} {n}-way"], hypergeom(229, rank, n - 1).cdf(k - 1), rtol=0,
                                   atol=1e-12)
    np.testing.assert_array_equal(result.rows["top-5 of 230"], rank < 5)
    np.testing.assert_array_equal(result.rows["retrieved"], order[:, 0])


def test_random_embeddings_are_at_chance_and_another_order_of_the_gallery_changes_nothing():
    rng = np.random.default_rng(3)
    eeg, gallery = rng.normal(size=(100, 8)), rng.normal(size=(100, 8))
    summary = score_embeddings(eeg, gallery, Trials(np.arange(100), np.full(100, "")), (1,), (2, 10)).summary
    assert ((summary["low"] < summary["chance"]) & (summary["chance"] < summary["high"])).all()
    order = rng.permutation(100)
    again = score_embeddings(eeg, gallery[order], Trials(np.argsort(order), np.full(100, "")), (1,), (2, 10)).summary
    pd.testing.assert_frame_equal(summary, again)


def test_intervals_are_over_images_crossed_with_subjects_only_where_each_subject_saw_each_image():
    eeg, gallery, trials = make(images=20, subjects=3)
    full = score_embeddings(eeg, gallery, trials, (1,), ())
    values = full.rows["top-1 of 20"].to_numpy().reshape(3, 20)
    expected, row = share_interval(values), full.summary.iloc[0]
    assert (row["value"], row["low"], row["high"]) == (expected.mean, expected.low, expected.high)
    assert "CI: over images crossed with subjects" in full.notes
    alone = full.summary[full.summary["subject"] == "s1"].iloc[0]
    assert (alone["low"], alone["trials"]) == (share_interval(values[1][None]).low, 20)
    part = score_embeddings(eeg[1:], gallery, Trials(trials.image[1:], trials.subject[1:]), (1,), ())
    means = [values[1:, 0].mean(), *values[:, 1:].mean(0)]
    assert part.summary.iloc[0]["value"] == pytest.approx(np.mean(means))
    assert any("does not cover other subjects" in note for note in part.notes)


def test_equal_images_of_the_gallery_do_not_compete_and_ties_of_different_ones_are_wrong():
    eeg = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    twice = score_embeddings(eeg, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), Trials(np.array([2, 1, 0]),
                             np.full(3, "")), (1,), ())
    assert twice.images == 2
    assert twice.rows["top-1 of 2"].tolist() == [1, 1, 0]
    assert twice.rows["retrieved"].tolist() == [0, 1, -1]
    assert "3 rows of the gallery show 2 different images; equal ones do not compete" in twice.notes


@pytest.mark.parametrize(("array", "said"), [
    (np.zeros((3, 2, 2)), r"is \[3, 2, 2\] float64; expected an array of embeddings \[N, D\], floats"),
    (np.ones((3, 2), int), "is .* int64; expected"),
    (np.array([[1.0, 2], [np.nan, 1], [np.inf, 1]]), r"row 1 has NaN or infinite values \(2 of 3 rows\)"),
    (np.array([[1.0, 2], [0, 0]]), "row 1 has only zeros, which have no direction")])
def test_embeddings_without_a_direction_are_refused(array, said, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(BenchError, match=said):
        read_embeddings(tmp_path / "a.npy")


@pytest.mark.parametrize(("text", "said"), [
    ("picture\n0\n1\n", "has columns picture; expected image"),
    ("image\n0\n", "has 1 line below its header; expected one for each of 2 embeddings"),
    ("image\n0\n9\n", "1 image not in the gallery: 9; expected names such as 0, 1"),
    ("image,subject\n0,a\n1,\n", "a subject has no name"),
    ("image,subject\n0,a\n1,all\n", "or the name 'all'")])
def test_trials_that_do_not_fit_are_refused(text, said, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BenchError, match=said):
        read_trials(tmp_path / "t.csv", ["0", "1"], 2)


def test_spaces_of_other_dimensions_and_sets_that_are_too_large_are_refused():
    eeg, gallery, trials = make()
    with pytest.raises(BenchError, match="have 4 dimensions and those of the gallery 5"):
        score_embeddings(eeg[:, :4], gallery, trials, (1,), ())
    assert any("left out: 8-way, top-2 2-way: " in note for note in score_embeddings(
        eeg, gallery, trials, (1, 2), (2, 8)).notes)
    with pytest.raises(BenchError, match="nothing to score: top-7 of 7: a set has more than k images, and at most 7"):
        score_embeddings(eeg, gallery, trials, (7,), ())
    with pytest.raises(BenchError, match="the gallery has one different image"):
        score_embeddings(eeg[:2], gallery[:1], Trials(np.zeros(2, int), np.full(2, "")), (1,), ())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with six images, and embeddings of them in the shipped CLIP's space with noise."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(1)
    for name in "abcdef":
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    from bench.setup.spaces import embed_images, open_space

    made, _, images = embed_images(tmp_path / "images", open_space("tiny", None, "cpu"), "cpu")
    assert images.names == tuple("abcdef")
    np.save("eeg.npy", made)
    return tmp_path


def test_the_command_embeds_a_folder_and_writes_both_tables(folder, capsys):
    pd.DataFrame({"image": list("abcdef"), "subject": ["s1"] * 3 + ["s2"] * 3}).to_csv("t.csv", index=False)
    assert main(["score-embeddings", "eeg.npy", "--gallery", "images", "--trials", "t.csv", "--csv", "s.csv", "--rows",
                 "r.csv"]) == 0
    text = capsys.readouterr().out
    assert "top-1 of 6   100.0 [" in text
    assert "- space of the images: tiny/clip" in text
    assert max(map(len, text.splitlines())) <= 100
    summary, rows = pd.read_csv("s.csv"), pd.read_csv("r.csv")
    assert rows["retrieved"].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(summary["subject"]) == {"all", "s1", "s2"}
    assert (summary.loc[summary["k"] == 1, "value"] == 1).all()


def test_published_numbers_are_printed_beside_galleries_of_their_size(folder, capsys):
    rng = np.random.default_rng(0)
    np.save("e.npy", rng.normal(size=(200, 4)))
    assert main(["score-embeddings", "e.npy", "--gallery", "e.npy", "--space", "mine"]) == 0
    text = capsys.readouterr().out
    assert "Published retrieval among 200 images" in text
    assert re.search(r"^ATM-S +26[.]13 +55[.]32  ", text, re.MULTILINE)
    assert re.search(r"^AVDE +30[.]00 +58[.]20  ", text, re.MULTILINE), "its table has shares"
    assert max(map(len, text.splitlines())) <= 100
    assert "- space of the images: mine" in text


@pytest.mark.parametrize(("words", "said"), [
    (["--gallery", "images", "--space", "vgg"], "--space vgg: expected tiny, clip, clip-h, dinov2-g, or a folder"),
    (["--gallery", "images", "--space", "dinov2-g"], "no facebookresearch_dinov2_main in .*: get it with: python -c"),
    (["--gallery", "absent"], "absent does not exist; expected a folder of images"),
    (["--gallery", "eeg.npy", "--k", "0"], "--k 0: whole numbers from 1 on"),
    (["--gallery", "eeg.npy", "--ways", "2,x"], "--ways 2,x: whole numbers from 2 on"),
    (["--gallery", "five.npy"], "eeg.npy has 6 rows and five.npy 5 images; expected one row for each image, or --tri")])
def test_the_command_refuses_in_one_line(folder, capsys, monkeypatch, words, said):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    np.save("five.npy", np.load("eeg.npy")[:5])
    assert main(["score-embeddings", "eeg.npy", *words]) in (2, 3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.search(said, lines[0])
