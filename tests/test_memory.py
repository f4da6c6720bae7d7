"""What does not fit in memory goes to the disk or is refused; the process does not die."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common import data, distillation, machine, memory, networks, plan
from common.augment import View
from common.errors import InputError

from .conftest import ROOT, parse


@pytest.fixture
def scarce(monkeypatch):
    """A function that sets the available memory in bytes."""
    return lambda count: monkeypatch.setattr(memory, "available", lambda: count)


def test_what_is_available_is_read_from_the_kernel_and_the_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available() == math.inf
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:   3000 kB\n")
    assert memory.available() == 3000 * 1024
    older = [tmp_path / "memory" / f"memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat")]
    newer = [tmp_path / f"memory.{name}" for name in ("max", "current", "stat")]
    (tmp_path / "memory").mkdir()
    for files, without in ((older, 2**63 - 4096), (newer, "max")):
        for file, content in zip(files, (without, 1_000_000, "active_file 9\ninactive_file 40000"), strict=True):
            file.write_text(f"{content}\n")
        assert memory.available() == 3000 * 1024
        files[0].write_text("1500000\n")
        assert memory.available() == 540_000  # pages read from files can be dropped
        files[0].unlink()


def test_the_peak_is_in_mb_whatever_the_systems_unit(monkeypatch):
    monkeypatch.setattr(machine.resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=3 * 2**20))
    for system, megabytes in (("linux", 3 * 1024), ("darwin", 3)):
        monkeypatch.setattr(machine.sys, "platform", system)
        assert machine.peak_memory(torch.device("cpu")) == {"peak_memory_mb": megabytes, "peak_gpu_memory_mb": 0}


def test_sizes_are_said_for_people():
    assert [memory.megabytes(count) for count in (12_345_678, 3.14e9)] == ["12 MB", "3.1 GB"]


def test_an_array_of_more_than_half_the_memory_is_mapped_from_a_file(tmp_path, scarce):
    scarce(100)
    small = memory.empty((5, 2), torch.float32, tmp_path / "small")  # 40 bytes
    assert not memory.spilled(small)
    large = memory.empty((7, 2), torch.float32, tmp_path / "large")  # 56 bytes
    assert small.shape == (5, 2) and not (tmp_path / "small").exists()
    assert memory.spilled(large)
    maps = Path("/proc/self/maps")
    assert not maps.exists() or f"{tmp_path}/large (deleted)" in maps.read_text()
    assert large.fill_(3).sum() == 42 and not list(tmp_path.iterdir())  # a process killed now leaves nothing behind


def test_a_disk_without_room_is_refused_before_anything_is_mapped(small_disk, scarce):
    """Writing to a mapped page for which the disk has no room is a signal, without an error message."""
    scarce(100)
    with pytest.raises(OSError, match="No space left"):
        memory.empty((8, 1024, 1024), torch.float32, small_disk / "large")
    assert not list(small_disk.iterdir())


@pytest.mark.slow
def test_teacher_outputs_on_the_disk_are_those_in_memory(random_images, tmp_path, scarce):
    teacher = networks.build(parse("KD"), "teacher")
    usual = distillation.cache(teacher, random_images, tmp_path / "usual")
    view = View(torch.tensor([3, 0, 7]), torch.tensor([True, False, True]))
    scarce(100)
    for _ in ("made", "read"):
        spilled = distillation.cache(teacher, random_images, tmp_path / "spilled")
        assert all(torch.equal(a, b) for a, b in zip(usual.of(view), spilled.of(view), strict=True))
    assert len(list((tmp_path / "spilled").glob("outputs-*.pt"))) == 1
    files = [next((tmp_path / name).glob("outputs-*.pt")).read_bytes() for name in ("usual", "spilled")]
    assert files[0] == files[1]


def test_images_that_do_not_fit_are_refused_with_their_size(scarce):
    needed = (200 + 359) * 64 * 64 * 3
    scarce(needed / 0.9 + 1)
    data.load(parse("Single"))
    scarce(needed / 0.9 - 1)
    with pytest.raises(InputError, match="--num_images 200 --image_size 64: the images take 7 MB, 8 MB are available"):
        data.load(parse("Single"))


@pytest.mark.slow
def test_the_plan_says_what_grows_with_the_images(tmp_path, capsys, scarce):
    args = parse("KD", "--save_path", str(tmp_path))
    images = data.load(args)
    assert distillation.size(args, images) == 200 * (256 + 10) * 4  # one view; z is (256, 1, 1)
    scarce(300_000)
    plan.show(args, images)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("memory"))
    assert "images 7 MB, teacher's outputs 0 MB (more than half of what is available: kept on the disk)" in line


def test_a_query_that_cannot_be_measured_ends_the_benchmark():
    """ResNet has no dropout for BALD. Regression: the benchmark waited forever for the process that had failed."""
    words = "--count 60 --labeled 20 --budget 10 --strategies random bald".split()  # noqa: SIM905
    command = [sys.executable, "benchmarks/scale.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "--sampler bald: the teacher of ResNet has no dropout" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("random               10 of 40:")
