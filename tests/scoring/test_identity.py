"""Images of equal content are one image, whatever trial or row shows them."""

import numpy as np
from test_compare import one_thread as one_thread
from test_measure import ITEMS, build, items_of, metrics_of, write_trials
from test_measure import judge as judge

from bench.scoring.identity import identify_images
from bench.train.items import load


def test_images_of_equal_content_have_the_number_of_the_first():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)[[0, 1, 0, 2, 1]]
    assert identify_images(np.array([9, 7, 5, 3, 1]), images.__getitem__).tolist() == [9, 7, 9, 3, 7]
    assert identify_images(np.array([9, 9, 9]), images[[0, 0, 0]].__getitem__).tolist() == [9, 9, 9]
    flat = np.zeros((2, 8, 3), np.uint8)
    assert identify_images(np.arange(2), [flat, flat.reshape(4, 4, 3)].__getitem__).tolist() == [0, 1]


def test_a_data_set_with_one_row_of_pictures_for_each_trial_scores_as_with_one_for_each_image(tmp_path, judge,
                                                                                              monkeypatch):
    """Two people saw the same 20 images: perfect copies are identified for sure however the images are stored."""
    import test_measure

    once = build(tmp_path, judge, "once")

    def write_repeated(folder, order=None):
        write_trials(folder, order)
        trials = (folder / "trials.csv").read_text().splitlines()
        rows = [line.split(",") for line in trials]
        column = rows[0].index("picture")
        pictures = np.load(folder / "pictures.npy")
        shown = [int(row[column]) for row in rows[1:]]
        for number, row in enumerate(rows[1:]):
            row[column] = str(number)
        (folder / "trials.csv").write_text("\n".join(map(",".join, rows)) + "\n")
        np.save(folder / "pictures.npy", pictures[shown])
        return folder

    monkeypatch.setattr(test_measure, "write_trials", write_repeated)
    each = build(tmp_path, judge, "each")
    assert len(set(load(ITEMS, tmp_path / "each-trials").picture)) == 40
    for name in ("two_way_judge_features", "two_way_clip_tiny", "two_way_judge_layer2"):
        assert metrics_of(each).loc[name, "key"].endswith("among 20 pictures")
        assert items_of(each)[name].tolist() == items_of(once)[name].tolist()
        assert (items_of(each).set_index("sample").loc[0, name] == 1).all()
    assert items_of(each)["picture"].nunique() == 40, "the rows still say which picture a trial refers to"
