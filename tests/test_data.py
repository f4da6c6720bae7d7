"""Images from every source, split by the seed alone."""

import hashlib
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from common import data, datasets
from common.datasets import cifar10, svhn
from common.errors import InputError

from .conftest import ROOT, parse


def npz(path: Path, **changes) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": rng.integers(0, 256, (9, 16, 16, 3), dtype=np.uint8),
        "y_test": np.arange(9) % 3,
    } | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def load(dataset, *words):
    counts = ["--num_images", "30", "--num_val", "6", "--num_classes", "3", "--batch_size", "5", "--image_size", "16"]
    return data.load(parse("Single", "--dataset", str(dataset), *counts, *words))


def test_npz_arrives_as_it_is(tmp_path):
    path = npz(tmp_path / "toy.npz")
    images = load(path)
    with np.load(path) as archive:
        assert np.array_equal(images.train.numpy(), archive["x_train"])
        assert np.array_equal(images.test_labels.numpy(), archive["y_test"])
    assert images.train.dtype == torch.uint8 and images.name.startswith("toy-")
    assert images.mirror  # unknown images: the experiment's --flip decides
    assert not load(path, "--flip", "no").mirror


def test_grey_images_become_rgb(tmp_path):
    grey = np.arange(30, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 16), np.uint8)
    images = load(npz(tmp_path / "grey.npz", x_train=grey, x_test=grey[:9]))
    assert images.train.shape == (30, 16, 16, 3) and images.train[7].unique().tolist() == [7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "no array y_test"),
        ({"x_train": np.zeros((30, 16, 16, 3), np.float32)}, "must be uint8"),
        ({"x_train": np.zeros((30, 16, 16, 4), np.uint8)}, "must be uint8"),
        ({"y_train": np.zeros(29, np.int64)}, "y_train must hold 30 integers"),
        ({"x_test": np.zeros((9, 8, 8, 3), np.uint8)}, "differ in size"),
    ],
)
def test_a_wrong_npz_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load(npz(tmp_path / "wrong.npz", **changes))


def test_a_corrupt_or_missing_file_is_refused(tmp_path):
    broken = npz(tmp_path / "broken.npz")
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(InputError, match="not a readable"):
        load(broken)
    with pytest.raises(InputError, match="neither a known data set"):
        load(tmp_path / "nowhere.npz")


def test_an_image_folder(tmp_path):
    for part, count in (("train", 10), ("test", 3)):
        for name in ("cat", "dog", "fox"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((16, 16, 3), number * 10, np.uint8)).save(folder / f"{number}.png")
    images = load(tmp_path)
    assert images.classes == ["cat", "dog", "fox"]
    assert images.train[11].unique().tolist() == [10] and images.labels[11].item() == 1
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "test" / "dog" / "small.png")
    with pytest.raises(InputError, match=r"small.png is \(8, 8\)"):
        load(tmp_path)
    with pytest.raises(InputError, match="needs train/<class>/"):
        load(tmp_path / "test")


def test_resizing_is_pils_bilinear():
    """Within one grey level of PIL, which the authors used image by image."""
    source = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    ours = data._resize(torch.from_numpy(source), 64).numpy().astype(int)
    for image, resized in zip(source, ours, strict=True):
        theirs = np.asarray(transforms.resize(Image.fromarray(image), [64, 64]))
        assert np.abs(resized - theirs).max() <= 1


def test_the_split_depends_on_the_seed_alone():
    first, again, other = (data.load(parse("Single", "--seed", seed)) for seed in ("5", "5", "6"))
    assert torch.equal(first.val, again.val) and torch.equal(first.pool, again.pool)
    assert not torch.equal(first.val, other.val)
    assert sorted([*first.val.tolist(), *first.pool.tolist()]) == list(range(200))
    assert torch.equal(data.load(parse("KD")).pool, first.pool)


def test_digits_keep_their_own_labels_and_are_not_mirrored():
    images = data.load(parse("Single", "--num_images", "1438"))
    assert (len(images.train), len(images.test)) == (1438, 359)
    assert images.origin.tolist() == list(range(1438)) and not images.mirror
    drawn = data.load(parse("Single"))
    assert len(set(drawn.origin.tolist())) == 200
    assert torch.equal(drawn.labels, images.labels[drawn.origin])
    assert torch.equal(drawn.train, images.train[drawn.origin])


def test_too_many_images_or_other_classes_are_refused_with_what_would_work():
    with pytest.raises(InputError, match="--num_images 5000: digits has 1438 training images; try --num_images 1438"):
        data.load(parse("Single", "--num_images", "5000"))
    with pytest.raises(InputError, match="--num_classes 7: digits has 10 classes"):
        data.load(parse("Single", "--num_classes", "7"))


def test_what_is_not_cifar10_is_never_taken_for_it(tmp_path, monkeypatch):
    """A damaged cache is made again, and what a source gives is checked before it is kept."""
    args = parse("Single", "--data_source", "npm")
    (tmp_path / "cifar10.npz").write_bytes(b"half a file")
    wrong = (np.zeros((10, 32, 32, 3), np.uint8), np.zeros(10, np.int64)) * 2
    monkeypatch.setattr(cifar10, "_npm", lambda folder: wrong)
    with pytest.raises(InputError, match="not CIFAR-10's"):
        cifar10.load(tmp_path, args)
    assert (tmp_path / "cifar10.npz").read_bytes() == b"half a file"
    monkeypatch.setattr(cifar10, "_npm", lambda folder: (_ for _ in ()).throw(RuntimeError("offline")))
    with pytest.raises(InputError, match=r"no download worked \(npm: offline\)"):
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
    again = data.load(parse("Single", *words))  # the decoded copy serves alone
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


def test_a_damaged_svhn_copy_is_made_again_and_a_damaged_file_refused(svhn_files, capsys):
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


def test_the_npm_package_is_decoded_to_the_official_layout(tmp_path):
    """PNGs with one image a row, row-major; labels as JSON under the package's own spelling."""
    folder = tmp_path / "package"
    folder.mkdir()
    rng = np.random.default_rng(0)
    batches = {name: rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8) for name in [*range(1, 6), "test"]}
    for name, pixels in batches.items():
        file = "test_batch.png" if name == "test" else f"data_batch_{name}.png"
        Image.fromarray(pixels.reshape(2, 1024, 3)).save(folder / file)
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
    with pytest.raises(InputError, match=r"--data_dir .*file/data: cannot be created"):
        cifar10.load(tmp_path / "file" / "data", parse("Single"))


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
