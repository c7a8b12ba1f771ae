"""Published CLIP features: order of the images, names, and files that are refused."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from formats import Bomb
from laptop import write_features

from bench.data.features import Features, read_features
from bench.errors import BenchError

CONCEPTS, EACH, TESTED, WIDTH = 6, 3, 5, 24


def listed(reverse=False):
    """The images in the order of a data set, which need not be the sorted one."""
    def images(part, count, each):
        folders = [f"{number + 1:05d}_{part}" for number in range(count)]
        folders = folders[::-1] if reverse else folders
        return [(folder, f"{folder}_{copy}.jpg") for folder in folders for copy in range(each)]

    return {"train": images("train", CONCEPTS, EACH), "test": images("test", TESTED, 1)}


@pytest.fixture
def train(tmp_path):
    write_features(tmp_path, CONCEPTS, EACH, TESTED, WIDTH)
    return tmp_path / "made_features_train.pt"


def edit(file, **changes):
    content = torch.load(file, weights_only=True)
    torch.save(content | {name: change(content[name]) for name, change in changes.items()}, file)


def refused(train, *said):
    with pytest.raises(BenchError) as caught:
        read_features(train, listed())
    assert "\n" not in str(caught.value)
    for text in said:
        assert text in str(caught.value)


def test_features_are_unit_vectors_in_the_order_of_the_images(train):
    found = read_features(train, listed())
    assert isinstance(found, Features)
    assert found.model == "made"
    assert [file.name for file in found.files] == ["made_features_train.pt", "made_features_test.pt"]
    expected = np.concatenate([torch.load(file, weights_only=True)["img_features"].float().numpy()
                               for file in found.files])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(found.images, expected, atol=1e-6)
    assert (found.images.shape, found.images.dtype) == ((CONCEPTS * EACH + TESTED, WIDTH), np.float32)
    assert found.classes.shape == (CONCEPTS + TESTED, WIDTH)


def test_a_file_without_names_is_in_the_sorted_order_of_the_paths(train):
    sorted_order, other = read_features(train, listed()), read_features(train, listed(reverse=True))
    rows = {image: row for row, image in enumerate(chain(*listed().values()))}
    again = [rows[image] for image in chain(*listed(reverse=True).values())]
    assert np.array_equal(other.images, sorted_order.images[again])
    assert np.array_equal(other.classes[:CONCEPTS], sorted_order.classes[:CONCEPTS][::-1])


def test_names_in_the_file_decide_the_order(train):
    plain, order = read_features(train, listed()), np.random.default_rng(0).permutation(CONCEPTS * EACH)
    content = torch.load(train, weights_only=True)
    names = [listed()["train"][row][1] for row in order]
    torch.save(content | {"img_features": content["img_features"][torch.tensor(order)], "img_names": names}, train)
    assert np.array_equal(read_features(train, listed()).images, plain.images)


def test_wrong_names_are_refused(train):
    content = torch.load(train, weights_only=True)
    names = [name for _, name in listed()["train"]]
    torch.save(content | {"img_names": ["other.jpg", *names[1:]]}, train)
    refused(train, "img_names lacks 1 of 18 images", "00001_train_0.jpg")
    torch.save(content | {"img_names": [names[1], *names[1:]]}, train)
    refused(train, "1 names twice")


@pytest.mark.parametrize(("change", "said"), [
    (lambda x: x[:-1], "img_features is [17, 24] float16; image_metadata.npy lists 18 images"),
    (lambda x: x[0], "img_features is [24] float16"),
    (lambda x: x.long(), "int64"),
    (lambda x: x * torch.tensor(float("nan")), "18 of 18 rows of img_features are zero or not finite"),
    (lambda x: x[:, :-1], "img_features has 23 dimensions, text_features has 24"),
    (lambda x: x.roll(EACH, 0), "nearer to the name of its own concept"),
])
def test_features_that_do_not_fit_the_images_are_refused(train, change, said):
    edit(train, img_features=change)
    refused(train, train.name, said)


def test_models_that_differ_are_refused(train):
    test = train.with_name("made_features_test.pt")
    edit(test, img_features=lambda x: x[:, :-2], text_features=lambda x: x[:, :-2])
    refused(train, "24 dimensions", "made_features_test.pt of 22")


def test_other_content_is_refused(train):
    torch.save(torch.zeros(3), train)
    refused(train, "holds Tensor; expected a dict of img_features and text_features")
    torch.save({"img_features": torch.zeros(3)}, train)
    refused(train, "a dict of img_features; expected")


def test_a_missing_and_a_truncated_file_are_refused(train):
    train.with_name("made_features_test.pt").unlink()
    refused(train, "made_features_test.pt does not exist")
    train.write_bytes(train.read_bytes()[:400])
    refused(train, "truncated, or another format")


def test_a_pickle_that_runs_code_is_refused_and_not_run(train, tmp_path):
    torch.save({"img_features": Bomb(tmp_path / "ran"), "text_features": torch.zeros(1)}, train)
    refused(train, "could run code, and is not read")
    assert not (tmp_path / "ran").exists()


def test_a_file_of_another_name_is_refused(tmp_path):
    refused(tmp_path / "features.pt", "expected a file <model>_features_train.pt")
