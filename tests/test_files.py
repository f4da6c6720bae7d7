"""Files are complete, old or new, despite concurrent writers and disk errors; damaged files are never read."""

import errno
import os
import random
import signal
import time
import zipfile
from pathlib import Path

import pytest
import torch

from common import files
from common.errors import Damaged, InputError

from .launcher import SERVER

CONTENT = {
    "round": 3,
    "name": "encode",
    "training": {"net": {"features.0.weight": torch.arange(300.0).view(3, 100)}, "momentum": [torch.ones(7), None]},
}


def same(found, expected) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected


def in_process(target, *arguments):
    process = SERVER.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def until(condition, process) -> None:
    for _ in range(6000):
        if condition():
            return
        assert process.is_alive()
        time.sleep(0.01)
    pytest.fail("nothing happened for a minute")


# --- replaced whole or not at all ---


def _replace_often(path: Path, number: int) -> None:
    for _ in range(60):
        files.write_tensors(path, {"number": number, "values": torch.full((500,), number)})


def test_processes_that_replace_one_file_leave_one_whole_version(tmp_path):
    path = tmp_path / "state.pt"
    writers = [in_process(_replace_often, path, number) for number in range(4)]
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            found = files.read_tensors(path)
            assert found["values"].eq(found["number"]).all()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert [each.name for each in tmp_path.iterdir()] == ["state.pt"]


def _die_while_replacing(path: Path) -> None:
    with files.replacing(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    path, other = tmp_path / "run [1].csv", tmp_path / "other.csv"
    for each in (path, other):
        process = in_process(_die_while_replacing, each)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".run [[]1].csv.*.tmp"))) == 1
    with files.replacing(path) as temporary:
        temporary.write_text("first")
        files.write_text(path, "second")
        assert path.read_text() == "second" and temporary.read_text() == "first"
    assert path.read_text() == "first"
    assert {each.name.split(".")[1] for each in tmp_path.iterdir() if each != path} == {"other"}  # its own writer's


def test_a_block_that_fails_leaves_the_file_before(tmp_path):
    path = tmp_path / "results.csv"
    files.write_text(path, "before\n")
    with pytest.raises(KeyError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_bytes() == b"before\n" and list(tmp_path.iterdir()) == [path]


def test_rows_that_cannot_be_had_leave_the_csv_before(tmp_path):
    def rows(count):
        yield "a", "b"
        yield from ((1, 'x, "y"') for _ in range(count))
        if count > 2:
            raise KeyError

    path = tmp_path / "results.csv"
    files.write_csv(path, rows(1))
    with pytest.raises(KeyError):
        files.write_csv(path, rows(3))
    assert path.read_bytes() == b'a,b\n1,"x, ""y"""\n' and list(tmp_path.iterdir()) == [path]


def test_a_path_that_is_no_text_is_written_legibly(tmp_path):
    """A byte that is not UTF-8 becomes a surrogate, which UTF-8 cannot encode."""
    files.write_text(tmp_path / "table.md", "runs/\udcff-seed1 ñ\n")
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == "runs/\\udcff-seed1 ñ\n"


@pytest.mark.parametrize("write", ["tensors", "text"])
def test_a_full_disk_is_an_oserror_and_the_file_before_stays(small_disk, write):
    path = small_disk / "state.pt"
    files.write_tensors(path, CONTENT)
    with pytest.raises(OSError, match=r"state\.pt'$") as raised:
        if write == "tensors":
            files.write_tensors(path, {"values": torch.zeros(2_000_000)})  # 8 MB
        else:
            files.write_text(path, "8 bytes " * 1_000_000)
    assert raised.value.errno == errno.ENOSPC
    assert same(files.read_tensors(path), CONTENT)
    assert list(small_disk.iterdir()) == [path]


def test_ctrl_c_while_a_file_is_written_stays_one(tmp_path, monkeypatch):
    """Regression: torch's archive writer turned it into a RuntimeError: a traceback, or a grid's next run."""
    path = tmp_path / "state.pt"
    files.write_tensors(path, CONTENT)

    class Interrupted:
        def __init__(self, file):
            self.file, self.written = file, 0

        def write(self, data):
            self.written += len(data)
            if self.written > 500:
                raise KeyboardInterrupt
            return self.file.write(data)

    make = files._Archive.__init__
    monkeypatch.setattr(files._Archive, "__init__", lambda self, file: make(self, Interrupted(file)))
    with pytest.raises(KeyboardInterrupt):
        files.write_tensors(path, CONTENT | {"round": 4})
    assert same(files.read_tensors(path), CONTENT)
    assert list(tmp_path.iterdir()) == [path]


# --- checksummed ---


def test_a_tensor_file_is_read_by_us_by_torch_and_by_zip(tmp_path):
    path = tmp_path / "state.pt"
    files.write_tensors(path, CONTENT)
    for mmap in (False, True):
        assert same(files.read_tensors(path, mmap=mmap), CONTENT)
        assert same(torch.load(path, weights_only=True, mmap=mmap), CONTENT)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_equal_contents_are_equal_bytes(tmp_path):
    for name in ("a.pt", "b.pt"):
        files.write_tensors(tmp_path / name, CONTENT)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_alone_are_read(tmp_path, zipped):
    path = tmp_path / "authors.pth"
    torch.save(CONTENT, path, _use_new_zipfile_serialization=zipped)
    for mmap in (False, True):
        assert same(files.read_tensors(path, mmap=mmap), CONTENT)


@pytest.mark.parametrize("flips", [500, pytest.param(0, marks=pytest.mark.campaign)])
def test_no_flipped_bit_is_ever_read_as_something_else(tmp_path, flips):
    """Of 500 bits, or of all: either the file is damaged, or the bit has no meaning (a date, padding)."""
    path = tmp_path / "state.pt"
    files.write_tensors(path, CONTENT)
    whole = path.read_bytes()
    size, damaged_files = 8 * len(whole), 0
    entry = whole.rindex(b"PK\1\2", 0, whole.rindex(b"/data/0"))  # in the archive's list
    kind = entry + 38  # 16 for a folder, whose bytes torch does not read
    drawn = random.Random(flips).sample(range(size), flips) if flips else range(size)
    for bit in [0, size - 1, 8 * kind + 4, *drawn]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert same(files.read_tensors(path, mmap=bit % 2 == 0), CONTENT)
        except Damaged:
            damaged_files += 1
    assert damaged_files > 0.7 * len(drawn)
    values = whole.index(torch.arange(300.0).numpy().tobytes())  # each byte of these counts
    for place in range(values, values + 1200, 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        for mmap in (False, True):
            with pytest.raises(Damaged, match=r"damaged \(the checksum of its \S+/data/0 does not match\)"):
                files.read_tensors(path, mmap=mmap)


def test_an_archive_that_another_tool_packed_is_read(tmp_path):
    """Python's zipfile keeps file modes where torch keeps nothing."""
    files.write_tensors(tmp_path / "a.pt", CONTENT)
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        assert new.infolist()[0].external_attr
    assert same(files.read_tensors(tmp_path / "b.pt"), CONTENT)


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -72])
def test_a_file_cut_short_is_damaged_and_the_message_says_what_to_do(tmp_path, kept):
    path = tmp_path / "state.pt"
    files.write_tensors(path, CONTENT)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError) as raised:
        files.read_tensors(path, "delete it to start the run anew")
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and message.endswith("; delete it to start the run anew")
    assert "\n" not in message


def test_other_files_are_not_taken_for_a_state(tmp_path):
    path = tmp_path / "state.pt"
    torch.save([1, 2], path)
    with pytest.raises(Damaged, match="holds a list, not a dictionary"):
        files.read_tensors(path)
    path.write_text("not a checkpoint")
    with pytest.raises(Damaged, match=r"not readable \(not a file of tensors from torch.save\)"):
        files.read_tensors(path)
    with pytest.raises(FileNotFoundError):
        files.read_tensors(tmp_path / "nowhere.pt")


# --- locked ---


def _hold(path: Path, held: Path, release: Path) -> None:
    with files.locked(path, "nobody"):
        held.touch()
        while not release.exists():
            time.sleep(0.01)


def test_what_keeps_arrays_from_being_read_is_said(tmp_path):
    """Including a file without read permission, which was called no archive."""
    with pytest.raises(Damaged, match=r"not a readable .npz file \(.*Is a directory"):
        files.read_arrays(tmp_path, ["train"])
    with pytest.raises(Damaged, match=r"not a readable .npz file \(.*No such file"):
        files.read_arrays(tmp_path / "gone.npz", ["train"])


def test_whoever_waits_for_a_lock_says_for_what_once(tmp_path, capfd):
    path, held, release = (tmp_path / name for name in (".lock", "held", "release"))
    holder = in_process(_hold, path, held, release)
    until(held.exists, holder)
    assert files.lock(path) is None
    stderr = tmp_path / "stderr"
    stderr.touch()
    waiter = in_process(_wait, path, stderr)
    until(stderr.read_text, waiter)
    release.touch()
    holder.join()
    waiter.join()
    assert waiter.exitcode == holder.exitcode == 0
    expected = f"waiting for another run that trains the teacher ({path})\n"
    assert stderr.read_text() == expected
    with files.locked(path, "nobody"):
        assert files.lock(path) is None
    files.lock(path).close()
    assert capfd.readouterr().err == ""


def _wait(path: Path, stderr: Path) -> None:
    os.dup2(os.open(stderr, os.O_WRONLY), 2)
    files.lock(path, wait=True, purpose="another run that trains the teacher").close()


def test_a_lock_that_cannot_be_had_at_all_is_no_other_process(tmp_path, monkeypatch):
    def refused(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refused)
    with pytest.raises(OSError, match="No locks available"):
        files.lock(tmp_path / ".lock")
    files.write_text(tmp_path / "log.txt", "replaced all the same")


def test_who_may_read_a_file_stays(tmp_path):
    path = tmp_path / "labels.csv"
    files.write_text(path, "a")
    path.chmod(0o640)
    files.write_text(path, "b")
    assert path.read_text() == "b" and path.stat().st_mode & 0o777 == 0o640


def test_what_a_link_leads_to_is_replaced_and_not_the_link(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "labels.csv").write_text("before")
    link = tmp_path / "labels.csv"
    link.symlink_to("shared/labels.csv")
    files.write_text(link, "after")
    assert link.is_symlink() and (tmp_path / "shared" / "labels.csv").read_text() == "after"
    assert not list(tmp_path.glob(".*")) and not list((tmp_path / "shared").glob(".*"))
