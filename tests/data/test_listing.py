"""Listing a folder: links are followed, circles end, and everything that is left out is counted."""

import pytest

from bench.data.listing import describe_counts, describe_names, describe_skipped, list_files
from bench.errors import BenchError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def names(folder):
    return [path.relative_to(folder).as_posix() for path in list_files(folder, (".png", ".jpg")).files]


def test_folders_that_are_links_are_read_also_two_to_one_place(tmp_path):
    folder = touch(tmp_path / "f", "cat/1.png", "cat/2.JPG")
    touch(tmp_path / "elsewhere", "1.png", "deep/2.png")
    (folder / "dog").symlink_to(tmp_path / "elsewhere")
    (folder / "kitten").symlink_to(folder / "cat")
    (folder / "one.png").symlink_to(folder / "cat/1.png")
    assert names(folder) == ["cat/1.png", "cat/2.JPG", "dog/1.png", "dog/deep/2.png", "kitten/1.png", "kitten/2.JPG",
                             "one.png"]
    assert not list_files(folder, (".png", ".jpg")).skipped


def test_the_folder_itself_may_be_a_link(tmp_path):
    touch(tmp_path / "f", "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "f")
    assert names(tmp_path / "link") == ["a.png"]


def test_a_link_to_a_folder_above_it_ends_and_is_counted(tmp_path):
    folder = touch(tmp_path / "top/f", "a/1.png", "b/2.png")
    (folder / "a/self").symlink_to(folder / "a")
    (folder / "a/up").symlink_to("..")
    (folder / "a/top").symlink_to(tmp_path / "top")
    (folder / "a/to_b").symlink_to(folder / "b")
    (folder / "b/to_a").symlink_to(folder / "a")
    listing = list_files(folder, (".png",))
    assert names(folder) == ["a/1.png", "a/to_b/2.png", "b/2.png", "b/to_a/1.png"]
    assert set(listing.skipped) == {"link to a folder above it"}
    assert {"a/self/", "a/up/", "a/top/", "a/to_b/to_a/", "b/to_a/to_b/"} <= set(*listing.skipped.values())


def test_what_is_left_out_is_counted_by_reason_with_names(tmp_path):
    folder = touch(tmp_path / "f", "a.png", "x/b.txt", "c.txt", "d.heic", "README", "._a.png", ".cache/e.png")
    skipped = list_files(folder, (".png",)).skipped
    assert skipped == {"ending .heic": ("d.heic",), "ending .txt": ("c.txt", "x/b.txt"), "hidden": ("._a.png",),
                       "hidden folder": (".cache/",), "no ending": ("README",)}
    assert describe_skipped(skipped).startswith("1 ending .heic (d.heic), 2 ending .txt (c.txt, x/b.txt), 1 hidden")
    assert describe_skipped({"hidden": list("abcd")}) == "4 hidden (a, b, c, ...)"
    assert describe_skipped({}) == ""


def test_counts_and_names_are_described_shortly():
    assert describe_counts({"flat": 3, "gap": 1200, "short": 3}) == "gap: 1,200, flat: 3, short: 3"
    assert describe_counts({}) == "nothing"
    assert describe_names(list("abc"), 2) == "a, b and 1 more"
    assert describe_names(["a"]) == "a"


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path):
    with pytest.raises(BenchError, match="gone cannot be listed: No such file"):
        list_files(tmp_path / "gone", (".png",))
