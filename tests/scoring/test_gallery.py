"""Folders and arrays of pictures that anybody made: how they are decoded, matched, and what is refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bench.errors import USAGE, BenchError, join_names
from bench.images import decode, resize
from bench.scoring.gallery import open_gallery, pair, read_labels, unused_labels

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)


def folder(path, *names, picture=PICTURE):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path / name)
    path.mkdir(exist_ok=True)
    return path


def refused(match):
    return pytest.raises(BenchError, match=match)


def save(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return decode(tmp_path / name)


def test_a_picture_is_read_as_it_was_written(tmp_path):
    assert np.array_equal(save(tmp_path, Image.fromarray(PICTURE)), PICTURE)
    read = decode(tmp_path / "a.png")
    assert (read.shape, read.dtype) == ((12, 10, 3), np.uint8)


def test_grey_palette_and_bilevel_become_rgb(tmp_path):
    grey = PICTURE[..., 0]
    assert np.array_equal(save(tmp_path, Image.fromarray(grey)), np.repeat(grey[..., None], 3, 2))
    bits = save(tmp_path, Image.fromarray(grey > 127))
    assert np.array_equal(bits[..., 0], np.where(grey > 127, 255, 0))
    palette = Image.fromarray(PICTURE).quantize(16)
    assert np.array_equal(save(tmp_path, palette), np.asarray(palette.convert("RGB")))


def test_cmyk_becomes_rgb_without_a_profile(tmp_path):
    cmyk = Image.fromarray(np.full((8, 8, 4), (255, 0, 0, 0), np.uint8), "CMYK")
    assert (save(tmp_path, cmyk, "a.tif") == (0, 255, 255)).all()
    assert save(tmp_path, cmyk, "a.jpg").mean((0, 1)) == pytest.approx([0, 255, 255], abs=3)


def test_sixteen_bits_are_divided_by_257(tmp_path):
    levels = np.array([[0, 128, 129, 257 * 100, 65535]], np.uint16)
    assert save(tmp_path, Image.fromarray(levels))[0, :, 0].tolist() == [0, 0, 1, 100, 255]
    assert save(tmp_path, Image.fromarray(levels), "a.tif")[0, :, 2].tolist() == [0, 0, 1, 100, 255]


def test_transparency_is_laid_over_white(tmp_path):
    image = Image.fromarray(np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], np.uint8))
    assert save(tmp_path, image)[0].tolist() == [[255, 255, 255], [10, 20, 30], [204, 204, 204]]
    grey = Image.fromarray(np.array([[[7, 0], [7, 255]]], np.uint8), "LA")
    assert save(tmp_path, grey)[0].tolist() == [[255] * 3, [7] * 3]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([1, 2, 3, 4, 5, 6])
    assert save(tmp_path, palette, transparency=0)[0].tolist() == [[255] * 3, [4, 5, 6]]


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(save(tmp_path, Image.fromarray(PICTURE), exif=exif), PICTURE)


def test_resizing_is_pillows_bicubic_with_antialiasing_and_leaves_equal_sizes_alone():
    fine = np.tile(np.array([0, 255], np.uint8)[None, :, None], (64, 32, 3))
    small = resize(fine, (16, 8))
    assert small.shape == (16, 8, 3)
    assert abs(small[:, 1:-1].astype(float) - 127.5).max() < 12
    assert np.array_equal(small, np.asarray(Image.fromarray(fine).resize((8, 16), Image.Resampling.BICUBIC)))
    assert resize(PICTURE, (12, 10)) is PICTURE


def test_names_are_paths_below_the_folder_without_endings_and_other_files_are_left(tmp_path):
    path = folder(tmp_path / "f", "b.JPG", "a.png", "class/c.webp")
    (path / "notes.txt").write_text("x")
    (path / "._a.png").write_text("x")
    assert open_gallery(path).names == ("a", "b", "class/c")
    assert open_gallery(path).sizes == ((12, 10),) * 3
    assert open_gallery(path).skipped == {"ending .txt": ("notes.txt",), "hidden": ("._a.png",)}
    assert open_gallery(path).describe() == [f"left out of {path}: 1 ending .txt (notes.txt), 1 hidden (._a.png)"]


def test_class_folders_that_are_links_are_read(tmp_path):
    folder(tmp_path / "far", "x.png", "y.png")
    path = folder(tmp_path / "f", "cat/x.png", "cat/y.png")
    (path / "dog").symlink_to(tmp_path / "far")
    (path / "dog" / "up").symlink_to(path)
    assert open_gallery(path).names == ("cat/x", "cat/y", "dog/x", "dog/y")
    assert open_gallery(path).skipped == {"link to a folder above it": ("dog/up/",)}


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".pgm", ".tga", ".jp2", ".JFIF"])
def test_other_endings_of_images_are_read(tmp_path, ending):
    path = folder(tmp_path / "f", "a.png")
    image = Image.fromarray(PICTURE[..., 0] if ending == ".pgm" else PICTURE)
    image.save(path / f"b{ending}", format={".jfif": "JPEG", ".jpe": "JPEG"}.get(ending.lower()))
    gallery = open_gallery(path)
    assert gallery.names == ("a", "b")
    assert gallery.read(1).shape == (12, 10, 3)


def test_composed_and_decomposed_names_are_one_name(tmp_path):
    composed, decomposed = "caf\u00e9/\u00fc.png", "cafe\u0301/u\u0308_0.png"
    made, real = open_gallery(folder(tmp_path / "g", decomposed)), open_gallery(folder(tmp_path / "r", composed))
    assert pair(made, real).tolist() == [[0]]
    (tmp_path / "labels.csv").write_text("name,label\ncafe\u0301/u\u0308,3\n", encoding="utf-8")
    assert read_labels(tmp_path / "labels.csv", real.names, 4).tolist() == [3]


def test_two_files_whose_names_only_look_equal_are_refused(tmp_path):
    path = folder(tmp_path / "f", "\u00e9.png", "e\u0301.png")
    with refused(r"two images whose names are equal but for the form of their Unicode characters: "
                 r"'e\\u0301\.png' and '\\xe9\.png'; rename one") as error:
        open_gallery(path)
    assert error.value.exit_code == USAGE
    (tmp_path / "labels.csv").write_text("name,label\n\u00e9,1\ne\u0301,2\n", encoding="utf-8")
    with refused("labels some images twice: \u00e9"):
        read_labels(tmp_path / "labels.csv", ["\u00e9"], 4)


def test_pairs_match_by_name_whatever_the_ending_and_samples_by_their_number(tmp_path):
    reference = open_gallery(folder(tmp_path / "r", "x.jpg", "y_1.png"))
    one = open_gallery(folder(tmp_path / "one", "y_1.png", "x.png"))
    assert [[one.names[i] for i in row] for row in pair(one, reference)] == [["x"], ["y_1"]]
    many = open_gallery(folder(tmp_path / "many", *(f"{name}_{i}.png" for name in ("x", "y_1") for i in (0, 2, 10))))
    assert [[many.names[i] for i in row] for row in pair(many, reference)] == [
        ["x_0", "x_2", "x_10"], ["y_1_0", "y_1_2", "y_1_10"]]


def test_names_without_a_partner_are_listed_on_both_sides(tmp_path):
    made = open_gallery(folder(tmp_path / "g", "a.png", *(f"made{i}.png" for i in range(7))))
    real = open_gallery(folder(tmp_path / "r", "a.png", "lost.png"))
    with refused(r"7 of .*/g without a partner: made0, made1, made2, made3, made4 and 2 more; "
                 r"1 of .*/r without a partner: lost") as error:
        pair(made, real)
    assert error.value.exit_code == USAGE
    assert "\n" not in str(error.value)
    assert join_names("abcde") == "a, b, c, d, e"
    (tmp_path / "g" / "lost.heic").write_bytes(b"")
    with refused(r"; 1 ending \.heic \(lost\.heic\) left out of .*/g; expected"):
        pair(open_gallery(tmp_path / "g"), real)


def test_unequal_numbers_of_samples_are_refused(tmp_path):
    made = open_gallery(folder(tmp_path / "g", "a_0.png", "a_1.png", "b_0.png"))
    with refused("1 to 2 samples of an image.*fewer than 2 have: b"):
        pair(made, open_gallery(folder(tmp_path / "r", "a.png", "b.png")))


def test_a_place_without_pictures_is_refused(tmp_path):
    with refused("does not exist"):
        open_gallery(tmp_path / "none")
    with refused("contains no image"):
        open_gallery(folder(tmp_path / "empty"))
    (tmp_path / "empty" / "a.heic").write_text("x")
    with refused(r"contains no image .*; left out: 1 ending \.heic"):
        open_gallery(tmp_path / "empty")
    (tmp_path / "a.txt").write_text("x")
    with refused("is not one; expected a folder"):
        open_gallery(tmp_path / "a.txt")
    with refused("two images of one name: a.jpg and a.png"):
        open_gallery(folder(tmp_path / "twice", "a.png", "a.jpg"))


def test_a_file_that_is_no_picture_is_refused_at_once(tmp_path):
    path = folder(tmp_path / "f", "a.png")
    (path / "b.png").write_text("this is text")
    with refused("b.png cannot be read as an image"):
        open_gallery(path)
    (path / "b.png").write_bytes(b"")
    with refused("b.png cannot be read as an image"):
        open_gallery(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_truncated_file_is_refused(tmp_path, name):
    path = folder(tmp_path / "f", name, picture=RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[:len(whole) // 2])
    with refused(f"{name} cannot be read as an image") as error:
        open_gallery(path).read(0)
    assert "\n" not in str(error.value)


def test_an_animation_is_refused(tmp_path):
    frames = [Image.fromarray(np.full((4, 4, 3), level, np.uint8)) for level in (0, 255)]
    (tmp_path / "f").mkdir()
    frames[0].save(tmp_path / "f" / "a.gif", save_all=True, append_images=frames[1:])
    with refused("a.gif has several frames"):
        open_gallery(tmp_path / "f")
    frames[1].save(tmp_path / "f" / "a.gif")
    assert (open_gallery(tmp_path / "f").read(0) == 255).all()


def test_floating_point_pixels_in_a_file_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with refused("a.tif has floating-point pixels"):
        decode(tmp_path / "a.tif")


def test_a_picture_too_large_to_be_one_is_refused(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    with refused("cannot be read as an image: Image size"):
        open_gallery(tmp_path)


def array(tmp_path, values, name="a.npy"):
    np.save(tmp_path / name, values) if name.endswith("y") else np.savez(tmp_path / name, values)
    return open_gallery(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_arrays_are_pictures_whose_names_are_row_numbers(tmp_path, name):
    values = RNG.integers(0, 256, (3, 2, 5, 4, 3), dtype=np.uint8)
    flat, samples = array(tmp_path, values[:, 0], name), array(tmp_path, values, f"s{name}")
    assert flat.names == ("0", "1", "2")
    assert samples.names == ("0_0", "0_1", "1_0", "1_1", "2_0", "2_1")
    assert np.array_equal(samples.read(3), values[1, 1])
    assert pair(samples, flat).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert samples.sizes[0] == (5, 4)


def test_floating_point_arrays_are_in_0_to_1(tmp_path):
    values = np.array([0, 0.5, 1], np.float32)[:, None, None, None] * np.ones((3, 2, 2, 3), np.float32)
    assert [array(tmp_path, values).read(row)[0, 0, 0] for row in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_outside_0_to_1_is_clipped_and_said(tmp_path, dtype):
    exact = RNG.uniform(0, 1, (2, 4, 4, 3)).astype(dtype)
    exact[0, 0, 0], exact[1, 0, 0] = 0, 1
    rounded = exact.copy()
    rounded[0, 0, 0, 0], rounded[1, 0, 0, :2] = -1e-7, 1.0000002
    first, second = array(tmp_path, exact), array(tmp_path, rounded, "b.npy")
    assert all(np.array_equal(first.read(row), second.read(row)) for row in range(2))
    assert (first.clipped, second.clipped[0]) == (None, 3)
    [line] = second.describe()
    assert "b.npy: 3 values outside [0, 1] by rounding (-1" in line
    assert line.endswith("this changes no pixel")


GREY = np.full((2, 4, 4, 3), 0.5)
RAMP = np.linspace(0, 1, 96).reshape(2, 4, 4, 3)


@pytest.mark.parametrize(("values", "message"), [
    (GREY * 255, r"values from 127\.5 to 127\.5; .*in \[0, 1\]: divide by 255"),
    (GREY - 1, r"values from -0\.5.*\(array \+ 1\) / 2"),
    (GREY * 1e6, "scale it"),
    (RAMP * 1.04, r"values from 0 to 1\.04; .*: 4 of 96 values overshoot, .*: array\.clip\(0, 1\)$"),
    (RAMP * 1.03 - 0.03, r"values from -0\.03 to 1; .*overshoot.*array\.clip\(0, 1\)$"),
    (RAMP * 4 - 2, "scale it"),
    (RAMP * 300 - 20, r"array\.clip\(0, 255\) / 255"),
    (RAMP * 2.2 - 1.1, r"\(\(array \+ 1\) / 2\)\.clip\(0, 1\)"),
    (np.where(np.arange(2)[:, None, None, None] == 1, np.nan, GREY), "NaN or infinite values, the first in row 1"),
    (np.zeros((2, 3, 8, 8), np.uint8), r"expected channels last: save array\.transpose\(0, 2, 3, 1\)"),
    (np.zeros((2, 5, 3, 8, 8), np.uint8), r"transpose\(0, 1, 3, 4, 2\)"),
    (np.zeros((2, 8, 8), np.uint8), r"expected uint8, or float in \[0, 1\], \[N, H, W, 3\]"),
    (np.zeros((2, 8, 8, 4), np.uint8), "expected uint8"),
    (np.zeros((2, 8, 8, 3), np.int64), r"save array\.astype\('uint8'\)"),
    (np.zeros((0, 8, 8, 3), np.uint8), "contains no image"),
    (np.array([{}]), "cannot be read as an array")])
def test_arrays_of_another_layout_type_or_range_are_refused_with_the_cure(tmp_path, values, message):
    with refused(message) as error:
        array(tmp_path, values)
    assert error.value.exit_code == USAGE
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_array_and_one_with_several_are_refused(tmp_path):
    (tmp_path / "a.npy").write_text("text")
    with refused("cannot be read as an array"):
        open_gallery(tmp_path / "a.npy")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 broken")
    with refused("cannot be read as an array"):
        open_gallery(tmp_path / "b.npz")
    np.savez_compressed(tmp_path / "z.npz", x=np.random.default_rng(0).random((4, 8, 8, 3)))
    data = bytearray((tmp_path / "z.npz").read_bytes())
    data[len(data) // 2] ^= 1  # zlib or the check of the zip file finds it
    (tmp_path / "z.npz").write_bytes(data)
    with refused(r"z\.npz cannot be read as an array of images"):
        open_gallery(tmp_path / "z.npz")
    np.savez(tmp_path / "c.npz", x=GREY, y=GREY)
    with refused(r"contains 2 arrays \(x, y\); expected one"):
        open_gallery(tmp_path / "c.npz")


def test_labels_come_by_name_in_any_order(tmp_path):
    (tmp_path / "labels.csv").write_text("label,name\n3,b\n0,a\n99,else\n")
    assert read_labels(tmp_path / "labels.csv", ["a", "b"], 4).tolist() == [0, 3]
    assert unused_labels(tmp_path / "labels.csv", ["a", "b"]) == ["else"]


@pytest.mark.parametrize(("text", "message"), [
    ("name,label\na,0\n", "no label for 1 of 2 images: b"),
    ("name,label\n1.png,0\n2.png,1\n3.png,1\n", r"no label for 2 of 2 images: a, b; its first lines are 'name,label', "
     r"'1\.png,0', '2\.png,1'; expected the images' paths below their folder, without the ending, as names"),
    ("name,label\na,0\nb,4\n", r"1 labels that are not classes of the judge; expected 0 to 3, not b \(4\)"),
    (f"name,label\na,0\nb,{'9' * 5000}\n", "1 labels that are not classes of the judge"),
    ("name,label\na,-1\nb,star\n", r"2 labels .* a \(-1\), b \(star\)"),
    ("name,label\na,0\nb,1\na,1\n", "labels some images twice: a"),
    ("picture,class\na,0\n", "has columns picture, class; expected name and label"),
    ("", "cannot be read as a CSV")])
def test_labels_that_are_missing_or_no_class_are_refused(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with refused(message):
        read_labels(tmp_path / "labels.csv", ["a", "b"], 4)


def test_a_file_of_labels_that_is_not_there_is_refused(tmp_path):
    with refused("cannot be read as a CSV"):
        read_labels(tmp_path / "labels.csv", ["a"], 4)
