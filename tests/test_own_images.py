"""A user's own images: of any size and mode, described before use, with commands that then work."""

import io
import os
import shlex
import shutil
import struct
import subprocess
import sys
import zlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import make_dataset

from common import budget, cli, data, imbalance, proposal, survey
from common.datasets import folder, pixels
from common.errors import InputError

from .conftest import ROOT, parse, prepared, script
from .toys import Quiet, toy_session


def saved(image: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    """The image as read back from a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


def gray16(*levels: int) -> Image.Image:
    return saved(Image.fromarray(np.array([levels], np.uint16)))


def test_every_mode_becomes_8_bit_rgb():
    red = np.full((2, 2, 3), (200, 10, 20), np.uint8)
    as_red = [
        saved(Image.fromarray(red)),
        saved(Image.fromarray(red).quantize(4)),
        saved(Image.fromarray(red).convert("RGBA")),
    ]
    assert all(np.array_equal(pixels.rgb(image), red) for image in as_red)
    gray = saved(Image.fromarray(np.array([[0, 7, 255]], np.uint8)))
    assert pixels.rgb(gray).tolist() == [[[0] * 3, [7] * 3, [255] * 3]]
    assert gray16(0).mode.startswith("I")
    assert pixels.rgb(gray16(0, 256, 257 * 100, 257 * 100 + 129, 65535)).tolist() == [
        [[0] * 3, [1] * 3, [100] * 3, [101] * 3, [255] * 3]
    ]
    one_bit = saved(Image.fromarray(np.array([[True, False]])))
    assert pixels.rgb(one_bit).tolist() == [[[255] * 3, [0] * 3]]
    assert pixels.rgb(saved(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), "TIFF")).tolist() == [[[255] * 3]]


def test_what_is_transparent_is_white():
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (0, 0, 0, alpha))
    assert pixels.rgb(saved(image))[0, :, 0].tolist() == [255, 127, 0]
    palette = Image.new("P", (1, 1))
    palette.putpalette([0, 0, 0])
    assert pixels.rgb(saved(palette, transparency=0)).tolist() == [[[255] * 3]]


def test_a_photograph_is_turned_as_its_camera_says():
    image = Image.fromarray(np.arange(2, dtype=np.uint8).reshape(1, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    assert pixels.rgb(saved(image, exif=exif))[:, 0, 0].tolist() == [0, 1]


def test_levels_without_a_meaning_are_refused():
    for image in (Image.new("F", (1, 1)), Image.new("I", (1, 1), 70000), Image.new("I", (1, 1), -1)):
        with pytest.raises(ValueError, match=r"8 or 16 bits|16 bits hold 0 to 65535"):
            pixels.rgb(image)


def test_a_stack_is_refused_and_a_thumbnail_is_not(tmp_path):
    """Regression: of a microscope's TIFF, its first image was trained on. A camera's second JPEG is the same photo."""
    sizes = {"stack.tif": [(4, 4), (2, 2), (4, 4)], "photo.tif": [(4, 4), (2, 2)], "photo.jpg": [(4, 4), (4, 4)]}
    for name, (first, *others) in sizes.items():
        more = {"save_all": True, "append_images": [Image.new("L", size, 9) for size in others]}
        Image.new("L", first, 200).save(tmp_path / name, "MPO" if name.endswith("jpg") else None, **more)
    with pytest.raises(ValueError, match="it is a stack of 2 images; save each as a file of its own"):
        pixels.read(tmp_path / "stack.tif", 4)
    assert all((pixels.read(tmp_path / name, 4) == 200).all() for name in ("photo.tif", "photo.jpg"))


@pytest.mark.parametrize("turned", [False, True])
def test_the_central_square_is_taken(turned, tmp_path):
    """7x4: columns 1 to 4 of 0 to 6 are the middle, cropped at both ends."""
    levels = np.repeat(np.arange(7, dtype=np.uint8)[None] * 10, 4, axis=0)
    Image.fromarray(levels.T if turned else levels).save(tmp_path / "a.png")
    found = pixels.read(tmp_path / "a.png", 4)[..., 0]
    assert (found.T if turned else found).tolist() == [[10, 20, 30, 40]] * 4
    assert pixels.read(tmp_path / "a.png", 2).shape == (2, 2, 3)


@pytest.fixture
def birds(tmp_path):
    """36 training and 9 test images of three classes, varied in size and shape, with two copies in the test set."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 3)):
        for name in ("crow", "duck", "gull's"):
            for number in range(count):
                path = tmp_path / "my birds" / part / name / f"{number:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                shape = (20 + number, 30, 3)
                Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    root = tmp_path / "my birds"
    (root / "test" / "duck" / "00.png").write_bytes((root / "train" / "duck" / "05.png").read_bytes())
    Image.open(root / "train" / "crow" / "03.png").save(root / "test" / "duck" / "01.png", compress_level=0)
    (root / "train" / "crow" / "11.png").unlink()
    (root / "notes.txt").write_text("")
    return root


def test_a_folder_is_described(birds, capsys):
    survey.main([str(birds)])
    said = capsys.readouterr().out
    assert f"{birds}: 35 training and 9 test images, 3 classes" in said
    assert "sizes       from 30x20 to 30x31, 41 not square: the shorter side is resized to 64" in said
    assert "modes       RGB 44" in said and "classes     duck 12 + 3, gull's 12 + 3, crow 11 + 3 (tr" in said
    assert "balance     the largest class has 1.09 times" in said
    assert "duplicates  2 test images are training images too" in said and "1 with another class" in said
    assert "test/duck/00.png = train/duck/05.png, test/duck/01.png = train/crow/03.png" in said
    assert "second time" not in said


def test_what_is_no_image_by_its_name_is_said_and_what_is_hidden_is_none(birds, capsys):
    image = Image.open(birds / "train" / "crow" / "00.png")
    for name in ("train/crow/a.gif", "train/duck/b.GIF", "test/crow/Thumbs.db", "train/crow/.DS_Store"):
        image.save(birds / name, "GIF")
    (birds / "train" / "crow" / ".ipynb_checkpoints").mkdir()
    image.resize((9, 9)).save(birds / "train" / "crow" / ".ipynb_checkpoints" / "00-checkpoint.png")
    (birds / "train" / "crow" / "._00.png").write_bytes(b"what macOS puts beside 00.png")
    survey.main([str(birds)])
    said = capsys.readouterr().out
    assert "35 training and 9 test images" in said
    assert "left out    3 files whose names are no image's (.gif 2, .db 1; the first: test/crow/Thumbs.db)" in said
    for path in (birds / "train" / "crow").glob("[0-9]*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"train/crow/ holds no image; .*\(\.jpg, \.jpeg, \.png, .*\.webp\)"):
        folder.load(birds, 16)


def test_named_data_is_described(capsys):
    survey.main(["digits"])
    said = capsys.readouterr().out
    assert (
        "digits: 1438 training and 359 test images, 10 classes" in said and "size        8x8, resized to 64x64" in said
    )
    assert "duplicates  none" in said and "--dataset digits --num_images 1438" in said
    assert said.count("--lr_task 0.01)") == 1 and said.count("--lr_task 0.004 --lr_dec 0.004 --feat_wt 100") == 2
    survey.main(["digits", "--model", "ResNet"])
    said = capsys.readouterr().out
    assert "--recipe quick --batch_size 32 --train_epochs 17 --lr_task 0.025" in said  # 0.1 at a batch of 128
    assert said.count("--batch_size 16 --train_epochs 17 ") == 4
    assert said.count("--lr_task 0.1)") == 1  # the student's alone; distilled ones end in --feat_wt or --warmup_epochs
    assert said.count("--lr_task 0.1 --lr_dec 0.01 --feat_wt 10)") == 1
    assert said.count("--lr_task 0.1 --lr_dec 0.01 --feat_wt 10 --warmup_epochs 3)") == 1


def test_a_copy_without_a_label_is_no_other_class(birds, tmp_path, capsys):
    """The image in train/unlabeled/ has no class yet."""
    (birds / "train" / "unlabeled").mkdir()
    shutil.move(birds / "train" / "duck" / "05.png", birds / "train" / "unlabeled")
    survey.main([str(birds), "--labels", str(tmp_path / "none.csv")])
    said = capsys.readouterr().out
    assert "2 test images are training images too" in said and "1 with another class" in said  # the crow in test/duck
    assert "test/duck/00.png = train/unlabeled/05.png" in said


def test_the_commands_look_where_the_data_was_found(tmp_path, capsys):
    survey.main(["digits"])
    assert "--data_dir" not in capsys.readouterr().out
    survey.main(["digits", "--data_dir", str(tmp_path / "my data")])
    for _, words in printed(capsys.readouterr().out):
        assert words[words.index("--data_dir") + 1] == str(tmp_path / "my data")


@pytest.mark.parametrize(
    ("y", "why"),
    [([0, 0, 0], "one class: there is nothing to tell apart"), ([1], "one training image: a run needs one")],
)
def test_no_command_is_printed_that_could_not_run(y, why, tmp_path, capsys):
    images = np.zeros((len(y), 8, 8, 3), np.uint8)
    np.savez(tmp_path / "few.npz", x_train=images, y_train=y, x_test=images, y_test=y)
    survey.main([str(tmp_path / "few.npz")])
    said = capsys.readouterr().out
    assert f"warning     {why}" in said and "main.py" not in said


def test_a_first_round_of_fewer_labels_than_classes_is_said(tmp_path, capsys):
    """A tenth of 30 images is labelled first: enough for three classes, one too few for four."""
    images = np.zeros((30, 8, 8, 3), np.uint8)
    for classes, warned in ((3, False), (4, True)):
        y = np.arange(30) % classes
        np.savez(tmp_path / "few.npz", x_train=images, y_train=y, x_test=images, y_test=y)
        survey.main([str(tmp_path / "few.npz")])
        said = "warning     the 3 labels of a first round are fewer than the 4 classes: " in capsys.readouterr().out
        assert said == warned


def printed(said: str) -> list[tuple[str, list[str]]]:
    """(method, words) of each command, as a shell parses it."""
    lines = [line for line in said.splitlines() if line.startswith("(cd ")]
    split = [shlex.split(line.strip("()")) for line in lines]
    assert all(words[0] == "cd" and words[2:5] == ["&&", "python", "main.py"] for words in split)
    return [(words[1].split("/")[-1], words[5:]) for words in split]


def test_the_printed_commands_work(birds, tmp_path, capsys, monkeypatch):
    """All are planned as printed; each is trained for an epoch, in the printed order."""
    monkeypatch.setattr("common.plan.seconds_an_update", lambda *_: 1.0)
    survey.main([str(birds), "--model", "ResNet"])
    commands = printed(capsys.readouterr().out)
    assert [method for method, _ in commands] == ["Single", "Random", "KD", "EnCoDe", "KD"]
    fair = "--batch_size 16 --train_epochs 60 --lr_task 0.005 --teacher_batch_size 16 --teacher_lr 0.015"
    assert " ".join(commands[-1][1]).endswith(f"--recipe fair --expt fair {fair}")  # 0.04 at 128, 0.03 at 32
    for method, words in commands:
        assert (ROOT / "ResNet" / "CIFAR10" / method / "main.py").exists()
        quick = ["--save_path", str(tmp_path), "--device", "cpu", "--threads", "1", "--train_epochs", "1"]
        quick += ["--warmup_epochs", "0"] if method == "EnCoDe" else []
        quick += ["--rounds", "2"] if method != "Single" else []
        for more in (["--dry_run"], quick):
            module = script(method, "ResNet")
            module.main(prepared(module, [*words, *more]))
    assert "training one first" not in capsys.readouterr().out  # the first command's teacher is where KD looks
    assert (tmp_path / "encode-seed2023" / "round_01.pt").exists()
    assert (tmp_path / "fair-seed2023" / "round_01.pt").exists()


def test_the_command_that_prints_commands_can_be_pasted(birds):
    with pytest.raises(InputError) as refused:
        data.load(parse("Random", "--dataset", str(birds), "--num_classes", "4"))
    assert shlex.split(str(refused.value).split("`")[1]) == ["python", "-m", "common.data", str(birds)]


def test_files_that_are_no_images_are_named_at_once(birds):
    wrong = [birds / "train" / "crow" / "01.png", birds / "test" / "duck" / "02.png"]
    for path in wrong:
        path.write_bytes(b"no image")
    with pytest.raises(InputError) as refused:
        folder.load(birds, 16)
    message = str(refused.value)
    assert "2 files are not readable images: train/crow/01.png (cannot identify" in message
    assert "test/duck/02.png (cannot identify" in message and message.endswith("; remove them")


def test_a_pipe_is_not_waited_for(birds):
    os.mkfifo(birds / "train" / "crow" / "pipe.png")
    with pytest.raises(InputError, match=r"crow/pipe\.png is not a readable image \(it is a pipe"):
        folder.load(birds, 16)


def test_memory_is_asked_for_before_an_image_is_read(birds, monkeypatch):
    monkeypatch.setattr(folder.memory, "available", lambda: 44 * 16 * 16 * 3 * 1.1)
    monkeypatch.setattr(pixels, "read", None)
    with pytest.raises(InputError, match=r"its 35 \+ 9 images take .* at --image_size 16, .* are available"):
        folder.load(birds, 16)


@pytest.mark.parametrize(("images", "expected"), [
    (50_000, "--num_images 50000 --num_val 5000 --initial_budget 5000 --budget 5000 --subset 10000 --batch_size 128"),
    (8_000, "--num_images 8000 --num_val 800 --initial_budget 800 --budget 800 --subset 1600 --batch_size 64"),
    (20, "--num_images 20 --num_val 2 --initial_budget 2 --budget 2 --subset 4 --batch_size 16"),
    (2, "--num_images 2 --num_val 1 --initial_budget 1 --budget 1 --subset 2 --batch_size 2"),
])  # fmt: skip
def test_proposed_counts_are_accepted(images, expected, tmp_path):
    flags = dict.fromkeys(["num_images", "num_val", "initial_budget", "budget", "subset", "batch_size"])
    words = proposal.words(proposal.counts(images), Namespace(**flags, dataset="digits"))
    assert words == expected
    own = proposal.words(proposal.counts(images), Namespace(**flags, dataset=str(tmp_path)))
    assert own == f"{expected}; `python -m common.data {tmp_path}` at the repository's root prints whole commands"
    module = script("Random")
    args = cli.parse(module.__doc__, module.DEFAULTS, words.split())
    assert args.initial_budget <= args.num_images - args.num_val and args.subset >= args.budget


def test_proposed_counts_are_accepted_with_percents():
    """Regression: two tenths as subset, for steps of 30%, and budgets, which `--percents` replaces."""
    module, percents = script("Random"), "--percents 10 40 50".split()  # noqa: SIM905
    args = cli.parse(module.__doc__, module.DEFAULTS, [*percents, "--subset", "15000"])
    words = proposal.words(proposal.counts(1438), args)
    assert words == "--num_images 1438 --num_val 143 --subset 431 --batch_size 16"  # 575 - 144 labels
    args = cli.parse(module.__doc__, module.DEFAULTS, [*percents, *words.split()])
    assert budget.label_counts(args, data.pool_size(args)) == [144, 575, 719]


@pytest.mark.parametrize("images", [50_000, 8_000, 200, 20, 2])
def test_proposed_counts_leave_labels_to_train_on(images):
    """With `--val_labels bought` the first round's labels pay for validation too."""
    module = script("Random")
    for more in ({}, {"validation": max(1, images // 10)}):
        found = proposal.counts(images, bought=True, **more)
        words = [word for name, value in found.items() for word in (f"--{name}", str(value))]
        args = cli.parse(module.__doc__, module.DEFAULTS, [*words, "--val_labels", "bought"])
        assert budget.label_counts(args, data.pool_size(args))[0] > args.num_val == found["num_val"] > 0
    assert proposal.counts(8000, bought=True)["num_val"] == 80 and proposal.counts(8000)["num_val"] == 800


def test_a_term_that_drowns_the_cross_entropy_is_named_once(monkeypatch):
    """After the first epoch of the first round, with the weight that would balance it."""
    found = {"loss": 21.0, "ce": 0.5, "feat": 20.0, "logit": 0.5}
    args = parse("KD", "--feat_wt", "500")
    said = imbalance.note(args, found)
    assert said.startswith("note: --feat_wt 500 makes its term 40 times the cross entropy") and "\n" not in said
    assert said.endswith("--feat_wt 12 makes them equal")
    assert imbalance.note(args, found | {"feat": 5.0}) == "" and imbalance.note(args, {"feat": 1.0}) == ""
    assert "--logit_wt 5e-05 makes its term 20 times" in imbalance.note(args, found | {"feat": 0.0, "logit": 10.0})

    class Kept(Quiet):
        def __init__(self):
            super().__init__()
            self.lines = []

        def log(self, message):
            self.lines.append(message)

    for number, expected in ((0, 1), (1, 0)):
        session = toy_session("KD", "--train_epochs", "3", "--feat_wt", "0.01", "--lr_task", "0.003", run=Kept())
        session.round.number = number
        monkeypatch.setattr("common.evaluation.accuracy", lambda *_: 50.0)
        monkeypatch.setattr("common.imbalance.DWARFS", 0.0)
        for _ in range(2):
            session.train_epoch(Quiet())
        assert sum("--feat_wt" in line for line in session.run.lines) == expected


@pytest.mark.parametrize("image", [gray16(0, 255), gray16(0, 4095), Image.fromarray(np.array([[0, 200]], np.int32))])
def test_gray_that_would_become_black_is_refused(image):
    """8 or 12 bits in a file of 16 or 32: divided by 257, nothing of them is left."""
    with pytest.raises(ValueError, match=r"its levels go to \d+ of 65535; stretch them to 16 bits, or save it with 8"):
        pixels.rgb(image)
    assert not pixels.rgb(gray16(0, 0)).any()


@pytest.mark.parametrize(("levels", "black"), [(4095, True), (255, True), (4096, False), (65535, False)])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_of_16_bits_that_would_become_black_is_refused(channels, levels, black, tmp_path):
    """Regression: Pillow keeps the upper byte, in which 8 or 12 bits have nothing, and says nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels16 = np.full((4, 4, channels), levels, ">u2")
    header = struct.pack(">IIBBBBB", 4, 4, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels16)
    path = tmp_path / "deep.png"
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    if black:
        with pytest.raises(ValueError, match="levels go to less than 4096 of 65535; stretch them to 16 bits, or"):
            pixels.read(path, 4)
    elif channels == 3:
        assert (pixels.read(path, 4) == levels >> 8).all()


def test_unlabeled_images_behind_a_link_are_found(birds, tmp_path):
    """Regression: `rglob` passes links to folders over, where a class may be one."""
    (birds / "train" / "unlabeled").mkdir()
    (birds / "train" / "unlabeled" / "batch").symlink_to(birds / "train" / "crow")
    found = folder.listing(birds)
    assert (found.y_train < 0).sum() == 11 and len(found.train) == 35 + 11


def test_a_link_that_leads_back_up_does_not_multiply_a_class(birds):
    """Regression: a link from a class's folder to itself made 42 training images of one, silently."""
    before = folder.listing(birds)
    (birds / "train" / "crow" / "again").symlink_to(birds / "train" / "crow")
    (birds / "test" / "duck" / "up").symlink_to(birds)
    after = folder.listing(birds)
    assert after.train == before.train and after.test == before.test


def test_a_classs_images_have_the_order_that_torchvision_gives_them(birds):
    """Finished runs and seeds depend on it: a folder's own images before those of its folders."""
    crow = birds / "train" / "crow"
    for name in ("A/00.png", "00/z.PNG", "00/.hidden.png", "zz/a/1.png", "zz/b.png", "B/00.txt"):
        (crow / name).parent.mkdir(parents=True, exist_ok=True)
        (crow / name).write_bytes((crow / "00.png").read_bytes())
    found = make_dataset(str(birds / "train"), {"crow": 0, "duck": 1, "gull's": 2}, folder.IMG_EXTENSIONS)
    expected = [Path(file) for file, _ in found if ".hidden" not in file]
    assert folder.listing(birds).train == expected and len(expected) == 39


def test_a_link_to_an_image_that_is_not_there_is_refused(birds):
    (birds / "train" / "crow" / "gone.png").symlink_to(birds / "nowhere.png")
    with pytest.raises(InputError, match=r"train/crow/gone\.png is not a readable image"):
        folder.load(birds, 16)


def test_images_that_no_run_would_see_are_not_passed_over(birds, capsys):
    """Regression: test images beside the classes' folders, and classes behind the first images of --take first."""
    words = ["--dataset", str(birds), "--num_images", "20", "--num_val", "2", "--num_classes", "3", "--batch_size", "2"]
    data.load(parse("Single", *words))
    assert "--take first" not in capsys.readouterr().err
    data.load(parse("Single", *words, "--take", "first"))
    assert "--take first: the first 20 images have none of 1 of 3 classes; --take drawn" in capsys.readouterr().err
    shutil.copy(birds / "test" / "crow" / "00.png", birds / "test" / "new.png")
    with pytest.raises(
        InputError, match=r"1 images in test/ lie in no class's folder \(the first: test/new.png\); move"
    ):
        data.load(parse("Single", *words))


def test_a_large_image_is_read_without_a_warning(tmp_path):
    Image.new("L", (15, 10)).save(tmp_path / "large.png")
    code = f"""
from pathlib import Path
from PIL import Image
from common.datasets import pixels
Image.MAX_IMAGE_PIXELS = 100
print(pixels.read(Path({str(tmp_path / "large.png")!r}), 8).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(8, 8, 3)\n", "")


def test_one_class_is_refused_without_a_count_that_is_refused_too(tmp_path):
    source = np.random.default_rng(0)
    images = {f"x_{part}": source.integers(0, 256, (12, 8, 8, 3), np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "one.npz", **images, y_train=np.zeros(12, int), y_test=np.zeros(12, int))
    words = ["--num_images", "12", "--num_val", "2", "--batch_size", "5", "--num_classes", "2"]
    with pytest.raises(InputError, match=r"one\.npz: has one class, there is nothing to tell apart"):
        data.load(parse("Single", "--dataset", str(tmp_path / "one.npz"), *words))
