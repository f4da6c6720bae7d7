"""Flags as users type them, right and wrong."""

import os
import subprocess
import sys

import pytest
import torch

from common import checks, cli, entry, machine, recipes, runs
from common.datasets import DATASETS
from common.errors import InputError
from common.teachers import trainer

from .conftest import METHODS, ROOT, parse, script
from .launcher import launch

# The README of the original release, word for word.
ORIGINAL = {
    "Single": "--expt single --num_images 50000 --num_val 5000  --lr_task 0.001",
    "Random": "--expt random --num_images 50000 --num_val 5000 --budget 5000 --initial_budget 5000 --subset 10000  "
    "--lr_task 0.001",
    "KD": "--expt kd ---num_images 50000 --num_val 5000 --budget 5000 --initial_budget 5000 --subset 10000  "
    "--lr_task 0.001",
    "EnCoDe": "--expt encode --num_images 50000 --num_val 5000 --budget 5000 --initial_budget 5000 --subset 10000  "
    "--lr_task 0.001",
}


def flags(method: str, *words: str, model: str = "AlexNet"):
    module = script(method, model)
    return cli.parse(module.__doc__, module.DEFAULTS, list(words))


def machine_free(args) -> dict:
    """The flags that say what is computed."""
    return runs.configuration(vars(args))


@pytest.mark.parametrize("method", METHODS)
def test_the_original_commands_are_understood(method):
    args = flags(method, *ORIGINAL[method].split())
    assert (args.expt, args.num_images, args.lr_task) == (method.lower(), 50000, 0.001)
    assert method == "Single" or args.subset == 10000


def test_no_default_is_a_private_path():
    """The authors' checkpoint path was private; ours are empty or below the repository."""
    for method in METHODS:
        for name, value in vars(flags(method)).items():
            if isinstance(value, str) and value.startswith("/"):
                assert value.startswith(str(ROOT)), name


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("KD", "--train_epoch 3", "--train_epoch: no such flag; did you mean --train_epochs?"),
        ("Random", "--lr_task fast", "--lr_task: 'fast' is not a number"),
        ("Random", "--lr_task 0", "--lr_task: 0 is out of range; it must be more than 0"),
        ("Random", f"--seed {2**63}", f"--seed: {2**63} is out of range; it must be at least 0 and at most 9.0072e+15"),
        ("Random", "--budget 0", "--budget: 0 is out of range; it must be at least 1"),
        ("KD", "--ema_decay 1", "--ema_decay: 1 is out of range; it must be at least 0 and at most 0.99999"),
        ("Random", "--batch_size 1.5", "--batch_size: '1.5' is not a whole number"),
        ("Random", "--num_val 50000", "--num_val 50000: must be less than --num_images 50000"),
        ("KD", "--num_val 0", "--num_val 0: --keep best chooses the epoch by validation images; add --keep last"),
        ("Random", "--batch_size 60000", "--batch_size 60000: an epoch of 50000 images has no update"),
        ("Random", "--sampler vae", "--sampler: EnCoDe has vae, Random has not"),
        ("Random", "--num_images 1 --num_val 1", "--num_images 1: it takes one to train on and one to validate on"),
        ("Random", "--sampler gap", "--sampler: KD and EnCoDe have gap, Random has not"),
        ("Random", "--sampler typo", "--sampler: invalid choice: 'typo'"),
        (
            "EnCoDe",
            "--sampler entropy --sampler_input images",
            "--sampler_input images: only --sampler vae sees images",
        ),
        ("KD", "--sampler discriminator", "--sampler: EnCoDe has discriminator, KD has not"),
        ("Single", "--recipe quick", "--recipe quick: is a teacher's; add --network teacher"),
        ("KD", "--recipe quick", "--recipe: invalid choice: 'quick'"),
        ("Random", "--recipe fair --network teacher", "--recipe fair: is a student's; leave out --network teacher"),
        ("KD", "--shift 3", "--shift 3: the teacher's outputs are of unmoved images; add --views 4"),
        ("EnCoDe", "--mixup 1", "--mixup 1: blends the pool's images; add --distill_on pool"),
        (
            "KD",
            "--mixup 1 --distill_on pool",
            "--mixup 1: blends the teacher's softened probabilities, and --logit_loss mse",
        ),
        (
            "KD",
            "--targets mean",
            "--targets mean: is of logits, and features of one view do not fit another; add "
            "--feat_wt 0 (now 500), or leave it out",
        ),
        ("KD", "--teacher_labels labeled --teacher t.pt", "--teacher t.pt: --teacher_labels labeled trains one"),
        ("KD", "--teacher t.pt", "--teacher t.pt: no such file; leave the flag out"),
        ("KD", "--teacher /", "--teacher /: is a folder; name a file of weights, as /round_00.pt of a run"),
        ("KD", "--views 1 --shift 2", "--shift 2: the teacher's outputs are of unmoved images; add --views 4"),
        ("EnCoDe", "--sampler_input images --image_size 40", "--image_size 40: --sampler_input images halves it 4"),
        ("KD", "--teacher_start before", "--teacher_start before: one teacher serves all rounds; add --teacher_labels"),
        ("KD", "--teacher_pool fixmatch", "--teacher_pool fixmatch: a teacher that saw every label"),
        ("KD", "--logit_loss typo", "--logit_loss: invalid choice: 'typo'"),
        ("KD", "--feature_loss typo", "--feature_loss: invalid choice: 'typo'"),
        ("KD", "--ce_wt 0 --logit_wt 0", "nothing would train the classifier"),
        ("Random", "--fast no", "--fast: invalid choice: 'no'"),
        ("Single", "--expt a/b", "--expt 'a/b': must be a plain folder name"),
        ("Single", "--budget 5", "--budget: no such flag; Random, KD, EnCoDe have it, Single has not"),
        ("Random", "--adv_wt 1", "--adv_wt: no such flag; EnCoDe has it, Random has not"),
        ("Single", "--extra", "--extra: only svhn has an extra split"),
        ("KD", "--take last", "--take: invalid choice: 'last'"),
    ],
)
def test_bad_flags_are_named_in_one_line(method, words, message):
    with pytest.raises(InputError) as caught:
        flags(method, *words.split())
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schedule", "cosine", "\"schedule\": 'cosine': invalid choice: 'cosine' (choose from"),
        ("sampler", "vae", "\"sampler\": 'vae': EnCoDe has vae, KD has not"),
        ("logit_loss", ["kl"], "\"logit_loss\": ['kl']: it must be one value"),
        ("batch_size", -4, '"batch_size": -4: -4 is out of range; it must be at least 1'),
        ("batch_size", 16.5, "\"batch_size\": 16.5: '16.5' is not a whole number"),
        ("lr_task", "fast", "\"lr_task\": 'fast': 'fast' is not a number"),
        ("lr_task", None, "\"lr_task\": None: 'None' is not a number"),
        ("budget", True, "\"budget\": True: 'True' is not a whole number"),
        ("nesterov", "no", "\"nesterov\": 'no': it must be True or False"),
        ("dry_run", 1, '"dry_run": 1: it must be True or False'),
        ("percents", 40, '"percents": 40: it must be a list'),
        ("percents", [10, 400], '"percents": [10, 400]: 400 is out of range'),
        ("device", 0, '"device": 0: it must be text'),
        ("model", "LeNet", "\"model\": 'LeNet': it must be one of AlexNet, ResNet, VGG"),
        ("method", "Kd", "\"method\": 'Kd': it must be one of Single, Random, KD, EnCoDe"),
        ("cutout", 3, "no such flag: cutout"),  # a plain method's: KD sets it itself
        ("train_epoch", 3, "no such flag: train_epoch"),
    ],
)
def test_defaults_are_held_to_what_the_flags_are(key, value, message):
    module = script("KD")
    with pytest.raises(InputError) as caught:
        cli.parse(module.__doc__, module.DEFAULTS | {key: value}, [])
    assert str(caught.value).startswith("DEFAULTS of ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"train_epoch": 7}, "gives it train_epoch; there is no such flag, see --help"),
        ({"logit_loss": "huber"}, "gives it \"logit_loss\": 'huber': invalid choice: 'huber'"),
        ({"temperature": -1.0}, 'gives it "temperature": -1.0: -1.0 is out of range; it must be more than 0'),
        ({"nesterov": 1}, 'gives it "nesterov": 1: it must be True or False'),
    ],
)
def test_an_own_recipe_is_held_to_what_the_flags_are(own, message, monkeypatch):
    """Regression: a misspelt flag was ignored, and the run had the script's value."""
    monkeypatch.setitem(recipes.STUDENTS, "mine", recipes.STUDENT | own)
    with pytest.raises(InputError) as caught:
        flags("KD", "--recipe", "mine")
    assert str(caught.value).startswith(f"--recipe mine: common/recipes.py {message}")
    assert "\n" not in str(caught.value)


def test_a_recipe_may_have_flags_of_one_method(monkeypatch):
    monkeypatch.setitem(recipes.STUDENTS, "mine", recipes.STUDENT | {"adv_wt": 0.5, "train_epochs": 7})
    kd, encode = flags("KD", "--recipe", "mine"), flags("EnCoDe", "--recipe", "mine")
    assert (kd.train_epochs, encode.train_epochs, encode.adv_wt) == (7, 7, 0.5)
    assert "adv_wt" not in kd


def test_defaults_may_be_written_as_python_has_them():
    written = {"percents": (10, 20.5), "nesterov": True, "feat_wt": 1, "weight_decay": 1e-5, "data_dir": "~/data"}
    module = script("KD")
    args = cli.parse(module.__doc__, module.DEFAULTS | written, [])
    assert (args.percents, args.nesterov, args.feat_wt, args.weight_decay) == ((10, 20.5), True, 1, 1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--device cuda:99", "--device cuda:99: this machine has"),
        ("--device 99", "--device cuda:99: this machine has"),
        ("--device 099", "--device cuda:99: this machine has"),
        ("--device tpu", "--device tpu: no such device"),
        ("--device cuda:", "--device cuda:: no such device"),
        ("--device cpu:", "--device cpu:: no such device"),
        ("--device cuda:²", "--device cuda:²: no such device"),
        ("--device ²", "--device ²: no such device"),
        ("--threads 1000000", "--threads 1000000: this process has"),
        ("--threads 100000000000000000000000", "--threads 100000000000000000000000: this process has"),
    ],
)
def test_what_the_machine_lacks_is_named_when_the_process_is_prepared(words, message):
    args = flags("Random", *words.split())
    with pytest.raises(InputError) as caught:
        machine.prepare(args)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_parsing_changes_nothing_in_the_process():
    """A driver without a GPU can parse for workers with one; `start` sets the process up."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), dict(os.environ)
    args = flags("KD", "--device", "cuda:7", "--threads", "3", "--amp", "auto")
    assert (args.device, args.threads, args.amp) == ("cuda:7", 3, "auto")
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), dict(os.environ)) == before


def test_start_prepares_the_process_before_main(monkeypatch):
    module = script("KD")
    monkeypatch.setattr("sys.argv", ["main.py", "--threads", "1", "--amp", "off", "--device", "cpu"])
    seen = []
    cli.start(lambda args: seen.append((args.device, args.threads, args.precision)), module.__doc__, module.DEFAULTS)
    assert seen == [("cpu", 1, "off")] and torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.allow_tf32


def test_the_quick_recipe_is_the_teachers_and_flags_count_over_it():
    words = ["--network", "teacher", "--recipe", "quick"]
    args = flags("Single", *words, "--lr_task", "0.03")
    expected = {"train_epochs": 11, "batch_size": 256, "lr_task": 0.03, "schedule": "onecycle", "nesterov": True}
    expected |= {"fold_bn": True, "shift": 6, "label_smoothing": 0.05, "feature_rms": 0.1}
    assert {name: getattr(args, name) for name in expected} == expected
    assert not flags("Random", *words, model="ResNet").fold_bn
    own = flags("Single", "--network", "teacher")
    assert (own.train_epochs, own.schedule, own.fold_bn) == (100, "step", False)


def test_the_best_recipe_is_the_fair_one_made_longer():
    words = "--teacher_pool self_training --teacher_pool_epochs 8 --temperature 0.8 --logit_wt 2 --train_epochs 120"
    for method in ("KD", "EnCoDe"):
        best, longer = flags(method, "--recipe", "best"), flags(method, "--recipe", "fair", *words.split())
        assert vars(best) == vars(longer) | {"recipe": "best"}
        assert (best.teacher_labels, best.keep, best.ce_wt, best.feat_wt) == ("labeled", "last", 0, 0)
    tuned = {"recipe": "best", "fold_bn": True, "weight_decay": 0.005}
    assert vars(flags("Random", "--recipe", "best")) == vars(flags("Random", "--recipe", "fair")) | tuned
    assert not flags("Random", "--recipe", "best", model="ResNet").fold_bn  # it keeps its own batch norm
    assert flags("KD", "--recipe", "best", "--train_epochs", "7").train_epochs == 7


def test_kd_trains_its_teacher_with_the_flags_of_the_quick_recipe():
    """`Single --network teacher --recipe quick` and the teacher that KD trains if there is none are the same run."""
    alone = machine_free(flags("Single", "--network", "teacher", "--recipe", "quick", "--expt", "teacher"))
    kd = flags("KD", "--step_size", "3", "--weight_decay", "0.1", "--seed", "9", "--amp", "off")
    kd.precision = "off"
    assert machine_free(trainer.shared_recipe(kd)) == alone


def test_few_passes_shorten_the_teacher_of_all_labels_too():
    """0.5 passes over 50 labels are one epoch of 48 images; 80 over 45,000 are more than its 11 epochs."""
    small = "--num_images 60 --num_val 10 --batch_size 16 --teacher_epochs 4 --teacher_batch_size 16 --amp off".split()  # noqa: SIM905
    few, many = flags("KD", *small, "--teacher_passes", "0.5"), flags("KD", "--teacher_passes", "80", "--amp", "off")
    few.precision = many.precision = "off"
    assert trainer.shared_recipe(few).train_epochs == 1
    assert trainer.shared_recipe(many).train_epochs == 11


@pytest.mark.parametrize(
    "words",
    [
        ["--num_images", "60", "--num_val", "10", "--percents", "50", "20"],
        ["--num_images", "60", "--num_val", "10", "--teacher", "nowhere.pt"],
        ["--num_images", "60", "--num_val", "10", "--initial_budget", "70"],
    ],
)
def test_counts_and_files_are_checked_before_a_run_has_a_folder(words, tmp_path, monkeypatch, capsys):
    module = script("KD")
    more = ["--dataset", "digits", "--device", "cpu", "--save_path", str(tmp_path / "runs"), "--batch_size", "16"]
    monkeypatch.setattr("sys.argv", ["main.py", *more, *words])
    with pytest.raises(SystemExit) as caught:
        cli.start(module.main, module.__doc__, module.DEFAULTS)
    assert caught.value.code == 2 and f"main.py: error: {words[4]}" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_bad_input_exits_with_2_and_writes_nothing(tmp_path):
    done = launch(
        "KD", "--dataset", "digits", "--device", "cpu", "--threads", "1", "--save_path", str(tmp_path / "runs")
    )
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.startswith("main.py: error: --num_images 50000: digits has 1438") and done.stderr.count("\n") == 1
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("started", "named"),
    [
        ("AlexNet/CIFAR10/KD/main.py", "main.py"),
        ("common/export/__main__.py", "export"),
        ("common/predict.py", "predict.py"),
    ],
)
def test_an_error_names_what_was_started(started, named, monkeypatch, capsys):
    """Not `__main__.py`, which is what Python calls a package started with `python -m`."""
    monkeypatch.setattr("sys.argv", [str(ROOT / started)])

    def main():
        raise InputError("no")

    with pytest.raises(SystemExit) as caught:
        entry.run(main)
    assert caught.value.code == 2 and capsys.readouterr().err == f"{named}: error: no\n"


def test_an_unwritable_save_path_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    words = ["--dataset", "digits", "--num_images", "200", "--num_val", "40", "--device", "cpu"]
    done = launch("Single", *words, "--threads", "1", "--save_path", f"{tmp_path}/file")
    assert done.returncode == 2 and "cannot be written" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["--recipe", "best", "--help"], ["-h", "--recipe=best", "--train_epochs", "9"]])
def test_help_beside_a_recipe_shows_the_recipes_values(words, capsys):
    module = script("KD")
    with pytest.raises(SystemExit) as ended:
        cli.parse(module.__doc__, module.DEFAULTS, words)
    shown = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert "--temperature TEMPERATURE softens" in shown and "standardized_kl, confident_kl (default: 0.8)" in shown
    assert "Lower it when the loss is not finite (default: 0.04)" in shown


def test_help_lists_a_data_set_that_was_added(monkeypatch, capsys):
    monkeypatch.setitem(DATASETS, "stripes", None)
    with pytest.raises(SystemExit):
        parse("Random", "--help")
    assert "stripes, an .npz (x_train" in " ".join(capsys.readouterr().out.split())


def test_help_groups_flags_and_shows_true_defaults():
    done = launch("EnCoDe", "--help")
    assert done.returncode == 0
    for text in (
        "label budget:",
        "sampler network:",
        "(default: 0.01)",
        "(default: 5e-05)",
        "python main.py --expt encode",
    ):
        assert text in " ".join(done.stdout.split()), text


@pytest.mark.parametrize(
    "name", ["report", "grid", "data", "predict", "export", "export.study", "analysis.separability"]
)
def test_help_of_a_tool_says_how_it_is_called_and_its_defaults(name, tmp_path):
    words = [sys.executable, "-m", f"common.{name}", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0 and done.stdout.startswith(f"usage: python -m common.{name} [-h]"), done.stderr
    told = " ".join(done.stdout.split())
    expected = {
        "report": "(default: report)",
        "grid": "experiments (default: Random KD EnCoDe)",
        "predict": "(default: 1)",
    }
    assert expected.get(name, "") in told
    assert "(default: None)" not in told and "(default: )" not in told and "(default: False)" not in told


def test_a_data_set_of_ones_own_is_found_again_from_any_folder(tmp_path, monkeypatch):
    """config.json has its full path; an older run has it as typed, which is the same data set."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    args = parse("Random", "--dataset", "../my.npz")
    assert args.dataset == str(tmp_path / "my.npz") and parse("Random", "--dataset", "digits").dataset == "digits"
    config = {"dataset": args.dataset, "num_val": 40}
    assert runs.differing({"dataset": "../my.npz", "num_val": 40}, config) == []
    assert runs.differing({"dataset": "../other.npz", "num_val": 40}, config) == [
        f"--dataset (was ../other.npz, now {args.dataset})"
    ]
    assert runs.differing({"dataset": "digits"}, {"dataset": "digits"}) == []
    assert runs.differing({"dataset": "Digits"}, {"dataset": "digits"}) == []  # runs kept capitals
    assert runs.differing({"dataset": "svhn"}, {"dataset": "digits"}) == ["--dataset (was svhn, now digits)"]


def test_flags_that_cancel_each_other_are_mentioned(capsys):
    flags("EnCoDe", "--train_epochs", "10", "--logit_loss", "kl")
    notes = capsys.readouterr().err
    assert "--warmup_epochs 10 covers all 10 epochs" in notes and "--logit_wt 5e-05" in notes
    flags("EnCoDe")
    assert capsys.readouterr().err == ""


def test_amp_is_off_where_it_would_be_emulated(monkeypatch):
    device = machine.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)  # has no units for it: half the speed
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert machine.amp("auto", device) == "off" and machine.amp("bf16", device) == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert machine.amp("auto", device) == "bf16" and machine.amp("off", device) == "off"


@pytest.mark.parametrize(
    ("model", "method", "least"), [("AlexNet", "KD", 63), ("AlexNet", "Random", 31), ("VGG", "EnCoDe", 32)]
)
def test_images_that_a_network_cannot_take_are_refused(model, method, least):
    """Regression: they raised a traceback from the first forward pass."""
    checks.image_size(parse(method, "--image_size", str(least), model=model))
    with pytest.raises(InputError, match=f"--image_size {least - 1}: {model} needs {least} pixels or more"):
        checks.image_size(parse(method, "--image_size", str(least - 1), model=model))


def test_an_image_that_only_the_pairs_teacher_cannot_take_is_no_matter_beside_a_file_of_logits(tmp_path):
    """Logits have no image size, and the pair's teacher is not used."""
    (tmp_path / "logits.npz").touch()
    words = ["--teacher", str(tmp_path / "logits.npz"), "--feat_wt", "0", "--targets", "mean"]
    checks.image_size(parse("KD", *words, "--image_size", "31"))
    with pytest.raises(InputError, match="--image_size 30: AlexNet needs 31 pixels or more"):
        checks.image_size(parse("KD", *words, "--image_size", "30"))


@pytest.mark.parametrize(("answer", "said"), [
    (KeyboardInterrupt, "stopped\n"),
    (MemoryError, "use fewer images at a time, or smaller ones\n"),
])  # fmt: skip
def test_a_tool_does_not_speak_of_what_only_a_training_has(answer, said, capsys):
    def main():
        raise answer

    with pytest.raises(SystemExit) as ended:
        entry.run(main)
    shown = capsys.readouterr().err
    assert ended.value.code in (2, 130) and shown.endswith(said) and "--" not in shown and "epoch" not in shown


def test_a_distillation_of_nothing_is_refused():
    with pytest.raises(InputError, match="--distill_on pool --feat_wt 0 --logit_wt 0: nothing is distilled"):
        parse("KD", "--distill_on", "pool", "--feat_wt", "0", "--logit_wt", "0")


@pytest.mark.parametrize(
    ("method", "words", "vain"),
    [
        ("KD", [], True),
        ("KD", ["--sampler", "margin"], True),
        ("KD", ["--sampler", "margin", "--query_by", "teacher"], False),
        ("KD", ["--sampler", "teacher_confidence"], False),
        ("EnCoDe", [], False),
    ],
)
def test_a_teacher_that_nothing_asks_is_mentioned(method, words, vain, capsys):
    parse(method, "--feat_wt", "0", "--logit_wt", "0", *words)
    assert ("nothing is distilled; Random does the same without a teacher" in capsys.readouterr().err) == vain


def test_a_data_set_has_one_name_however_it_is_typed():
    """Regression: runs of `Digits` and `digits` were two data sets in records, commands and teachers."""
    assert (
        parse("KD", "--dataset", "CIFAR10").dataset == "cifar10" and parse("KD", "--dataset", "SVHN", "--extra").extra
    )
    assert parse("KD", "--dataset", "My_Images").dataset.endswith("/My_Images")


def test_a_teacher_that_keeps_its_batch_norm_has_no_feature_rms(capsys):
    parse("KD", "--teacher_feature_rms", "3", model="ResNet")
    assert (
        "--teacher_feature_rms changes nothing here: ResNet's teacher keeps its batch norm" in capsys.readouterr().err
    )
    parse("KD", "--teacher_feature_rms", "3")
    assert not capsys.readouterr().err


def test_vaal_has_no_adversarial_term_to_warm_up_for(capsys):
    """Its adversary is the VAE: a warm-up as long as the training removes nothing."""
    parse("EnCoDe", "--sampler_input", "images", "--warmup_epochs", "2", "--train_epochs", "2")
    said = capsys.readouterr().err
    assert "--warmup_epochs changes nothing here" in said and "covers all" not in said
    parse("EnCoDe", "--warmup_epochs", "2", "--train_epochs", "2")
    assert "covers all 2 epochs" in capsys.readouterr().err
