"""Flags that have no effect are named, and no others."""

import argparse
import re

import pytest
import torch

from common import cli, unused_flags
from common.losses import LOGIT_LOSSES, UNSOFTENED

from .conftest import parse, script


@pytest.mark.parametrize(
    ("method", "words", "said"),
    [
        (
            "EnCoDe",
            "--sampler margin --adv_wt 5",
            "note: --adv_wt changes nothing here: --sampler margin trains no network",
        ),
        (
            "EnCoDe",
            "--sampler discriminator --beta=2",
            "note: --beta changes nothing here: --sampler discriminator has no",
        ),
        (
            "EnCoDe",
            "--sampler margin --warmup_epochs 3",
            "note: --warmup_epochs changes nothing here: --sampler margin",
        ),
        (
            "EnCoDe",
            "--sampler_input images --image_size 64 --warmup_epochs 3",
            "note: --warmup_epochs changes nothing here: no adversarial term reaches the student",
        ),
        ("EnCoDe", "--adv_wt 0 --warmup_epochs 3", "note: --warmup_epochs changes nothing here: with --adv_wt 0"),
        ("Random", "--feature_rms 3", "note: --feature_rms changes nothing here: without --fold_bn nothing is scaled"),
        ("Random", "--recipe fair --step_size 3", "note: --step_size changes nothing here: --schedule onecycle has no"),
        ("Random", "--ema_decay 0.9", "note: --ema_decay changes nothing here: --keep best averages no weights"),
        ("Random", "--percents 10 20 --budget 9", "note: --budget changes nothing here: --percents says how many"),
        (
            "KD",
            "--recipe fair --label_smoothing 0.1",
            "note: --label_smoothing changes nothing here: with --ce_wt 0 no",
        ),
        ("KD", "--recipe fair --lr_dec 0.1", "note: --lr_dec changes nothing here: with --feat_wt 0 no features are"),
        ("KD", "--recipe fair --teacher_seed 1", "note: --teacher_seed changes nothing here: a teacher of"),
        ("KD", "--temperature 2", "note: --temperature changes nothing here: --logit_loss mse softens nothing"),
        ("KD", "--logit_wt 0 --logit_loss kl", "note: --logit_loss changes nothing here: with --logit_wt 0 no logits"),
        (
            "KD",
            "--teacher_more_epochs 2",
            "note: --teacher_more_epochs changes nothing here: with --teacher_start anew",
        ),
        ("KD", "--teacher_pool_epochs 2", "note: --teacher_pool_epochs changes nothing here: with --teacher_pool none"),
        ("KD", f"--teacher {__file__} --teacher_lr 2", "note: --teacher_lr changes nothing here: --teacher names one"),
        ("KD", f"--teacher {__file__} --teacher_weight_decay 1", "note: --teacher_weight_decay changes nothing here"),
        ("KD", f"--teacher {__file__} --teacher_pool_epochs 1", "note: --teacher_pool_epochs changes nothing here"),
        ("Random", "--fold_bn --feature_rms 3 --network teacher --step_size 3", ""),
        ("KD", "--logit_loss dkd --logit_wt 1 --temperature 2 --feature_loss mse --lr_dec 1 --teacher_seed 3", ""),
        ("KD", "--logit_loss confident_kl --logit_wt 1 --temperature 2", ""),
        ("KD", "--recipe best --teacher_pool_epochs 3 --teacher_start before --teacher_more_epochs 1", ""),
        (
            "KD",
            "--recipe fair --teacher_feature_rms 0.5",
            "note: --teacher_feature_rms changes nothing here: with --feat_wt 0 no features are compared",
        ),
        ("KD", "--feat_wt 0 --logit_wt 1 --teacher_feature_rms 0.5", ""),  # the shared teacher may serve others
        ("KD", "--keep ema --ema_decay 0.9 --label_smoothing 0.1 --budget 5000 --initial_budget 5000", ""),
        ("EnCoDe", "--sampler vae --adv_wt 5 --beta 2 --latent_dim 7 --warmup_epochs 2", ""),
        ("EnCoDe", "--sampler discriminator --adv_wt 5 --lr_disc 1 --warmup_epochs 2", ""),
    ],
)
def test_a_flag_that_changes_nothing_is_named(method, words, said, capsys):
    module = script(method)
    cli.parse(module.__doc__, module.DEFAULTS, words.split())
    printed = capsys.readouterr().err
    assert printed.startswith(said) and printed.count("\n") == bool(said)


def test_a_logit_loss_of_ones_own_may_use_the_temperature(monkeypatch, capsys):
    monkeypatch.setitem(LOGIT_LOSSES, "mine", lambda student, teacher, args: student.sum() / args.temperature)
    module, words = script("KD"), ["--logit_loss", "mine", "--logit_wt", "1", "--temperature", "2"]
    cli.parse(module.__doc__, module.DEFAULTS, words)
    assert not capsys.readouterr().err


def test_the_views_of_a_teacher_of_logits_are_said_to_be_in_vain():
    args = parse("KD", "--feat_wt", "0", "--targets", "mean", "--views", "8")
    assert unused_flags.notes(args, {"views"}) == []
    args.teacher = "logits.npz"
    (note,) = unused_flags.notes(args, {"views"})
    assert note == "--views changes nothing here: a --teacher of logits has them without views"


def test_the_temperature_is_said_to_be_in_vain_where_it_is():
    """The note's criterion: each loss at two temperatures."""
    student, teacher = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(1)) * 3
    for name, loss in LOGIT_LOSSES.items():
        at = [loss(student, teacher, argparse.Namespace(temperature=t, fast="off")) for t in (1.0, 4.0)]
        assert (at[0] == at[1]) == (name in UNSOFTENED), name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--keep ema --train_epochs 1", "after 351 updates 70% of the average is still what it began with"),
        ("--keep ema --train_epochs 1", r"with --ema_decay 0.9858 it is 1%$"),
        ("--keep ema --train_epochs 9", ""),  # 0.999 ** 3158 is 4%
        ("--keep ema --train_epochs 1 --ema_decay 0.99", ""),
        ("--keep last --train_epochs 1", ""),
    ],
)
def test_an_average_that_is_mostly_initial_weights_is_named(words, said, capsys):
    module = script("Random")
    words += " --num_images 45000 --num_val 5000 --batch_size 128"
    cli.parse(module.__doc__, module.DEFAULTS, words.split())
    printed = capsys.readouterr().err.strip()
    assert bool(re.search(f"--keep ema: .*{said}", printed)) if said else not printed
    assert pytest.approx(0.70, abs=0.01) == 0.999**350 and pytest.approx(0.007, abs=0.001) == 0.9858**350
