"""Folders of images: read as they are, when they are asked for."""

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data import images
from tutelage.errors import DamagedDataError, DataError

RANDOM = np.random.default_rng(3)


def fill(folder, classes=("bee", "ant"), count=4, shape=(6, 5)):
    pixels = {}
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels[name, i] = RANDOM.integers(0, 256, size=shape, dtype=np.uint8)
            Image.fromarray(pixels[name, i]).save(folder / name / f"{i}.png")
    return pixels


def test_grey_images(tmp_path):
    pixels = fill(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"")
    data = images(tmp_path)
    assert data.classes == ("ant", "bee")
    assert (data.shape, data.kind) == ((1, 6, 5), "image")
    assert (len(data.train), len(data.test)) == (6, 2)
    for rows in (data.train, data.test):
        for row in (rows[i] for i in range(len(rows))):
            name, i = data.classes[row["labels"]], row["index"] % 4
            assert np.array_equal((row["inputs"] * 255).round().numpy()[0], pixels[name, i])
        assert torch.equal(rows.inputs, torch.cat(list(rows.batches(4))))
    same = images(tmp_path, size=None, test=tmp_path)
    assert len(same.train) == len(same.test) == 8


def test_one_in_colour_makes_all_of_them_so(tmp_path):
    fill(tmp_path)
    colours = RANDOM.integers(0, 256, size=(6, 5, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "ant" / "0.png")
    data = images(tmp_path, labeled=2)
    assert data.shape == (3, 6, 5)
    rows = {
        row["index"]: row["inputs"] for part in (data.fit, data.test) for row in (part[i] for i in range(len(part)))
    }
    assert np.array_equal((rows[0] * 255).round().permute(1, 2, 0).numpy(), colours)
    assert torch.equal(rows[1][0], rows[1][2])


def test_sizes(tmp_path, refused):
    fill(tmp_path)
    Image.new("L", (9, 9)).save(tmp_path / "bee" / "2.png")
    with refused(DataError, "2.png is 9 x 9 pixels", "give `size`"):
        images(tmp_path)
    assert images(tmp_path, size=4).train.inputs.shape == (6, 1, 4, 4)


def test_a_damaged_image_is_noticed(tmp_path, refused):
    fill(tmp_path, shape=(40, 40))
    file = tmp_path / "bee" / "1.png"
    whole = file.read_bytes()
    file.write_bytes(b"")
    with refused(DamagedDataError, r"1\.png", "cannot be read as an image"):
        images(tmp_path)
    file.write_bytes(whole[: len(whole) // 2])
    data = images(tmp_path)
    with refused(DamagedDataError, r"1\.png", "cannot be read as an image"):
        _ = data.train.inputs, data.test.inputs


@pytest.mark.parametrize(
    ("spoil", "came", "remedy"),
    [
        (lambda folder: (folder / "notes.txt").write_text(""), "notes.txt lies beside", "move it away"),
        (lambda folder: (folder / "ant" / "notes.txt").write_text(""), "notes.txt is no image", "move it away"),
        (lambda folder: (folder / "cow").mkdir(), "cow has no images", "no such folder"),
        (lambda folder: (folder / "bee").rename(folder.parent / "bee"), "one class only, 'ant'", "two classes"),
    ],
)
def test_folders_that_are_not_as_expected(tmp_path, refused, spoil, came, remedy):
    folder = tmp_path / "all"
    fill(folder)
    spoil(folder)
    with refused(DataError, came, remedy):
        images(folder)


def test_no_folder(tmp_path, refused):
    with refused(DataError, "not a folder", "folder of images per class"):
        images(tmp_path / "nowhere")
    with refused(DataError, "is empty", "folder of images per class"):
        images(tmp_path)
