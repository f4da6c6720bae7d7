"""The objective's terms against values computed by hand, in float32 under any autocast."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common import losses, objective, report
from common.objective import Forward, Outputs

from .conftest import BUDGET, TOY, run

WEIGHTS = {"ce_wt": 1.0, "feat_wt": 0.0, "logit_wt": 0.0, "adv_wt": 0.0, "label_smoothing": 0.0}
WEIGHTS |= {"feature_loss": "mse", "logit_loss": "mse", "temperature": 4.0, "fast": "auto"}


def args(**changes):
    return SimpleNamespace(**WEIGHTS | changes)


class Student(nn.Module):
    """C(z) is z's first two values, doubled."""

    def classifier(self, z):
        return 2 * z.flatten(1)[:, :2]


class Untouchable(nn.Module):
    """Fails when it is called."""

    def forward(self, z):
        raise AssertionError("computed a term of weight 0")


def phi(z):
    return z + 1


def sampler():
    """D(z) is the sum of z's values times a weight of 0.5."""
    linear = nn.Linear(2, 1, bias=False)
    nn.init.constant_(linear.weight, 0.5)
    networks = nn.ModuleDict({"discriminator": linear})
    return SimpleNamespace(networks=networks, judge=lambda z: linear(z.flatten(1))[:, 0])


def seen(*rows, y=None, teacher=None):
    z = torch.tensor(rows)[:, :, None, None]
    return Forward(None, z, None if y is None else torch.tensor(y), teacher)


def terms(flags, labeled, distilled=None, unlabeled=None, decoder=phi, D=None):
    return objective.task_loss(flags, Student(), decoder, D, labeled, distilled, unlabeled)


def test_cross_entropy_is_of_the_labelled_batch():
    found = terms(args(ce_wt=3.0), seen([0.0, math.log(3) / 2], y=[1]))
    assert found.keys() == {"ce"}
    assert found["ce"].item() == pytest.approx(3 * math.log(4 / 3))  # probabilities 1/4, 3/4
    plain = objective.cross_entropy(torch.tensor([[0.0, math.log(3)]]), torch.tensor([1]))  # without smoothing
    assert plain.item() == pytest.approx(math.log(4 / 3))


def test_label_smoothing_takes_its_share_from_the_label():
    found = terms(args(label_smoothing=0.2), seen([0.0, math.log(3) / 2], y=[1]))
    assert found["ce"].item() == pytest.approx(-(0.9 * math.log(3 / 4) + 0.1 * math.log(1 / 4)))


def test_features_and_logits_are_distilled_with_their_weights():
    teacher = Outputs(torch.tensor([[4.0, 2.0]])[:, :, None, None], torch.tensor([[1.0, 3.0]]))
    labeled = seen([1.0, 2.0], y=[0], teacher=teacher)
    found = terms(args(feat_wt=10.0, logit_wt=7.0), labeled, labeled)
    assert found["feat"].item() == pytest.approx(10 * ((2 - 4) ** 2 + (3 - 2) ** 2) / 2)  # phi(z) = (2, 3)
    assert found["logit"].item() == pytest.approx(7 * ((2 - 1) ** 2 + (4 - 3) ** 2) / 2)  # C(z) = (2, 4)
    assert list(found) == ["ce", "feat", "logit"]


def test_another_batch_is_distilled_against_its_own_teacher_outputs():
    teacher = Outputs(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2))
    labeled, pool = seen([9.0, 9.0], y=[0]), seen([1.0, 0.0], teacher=teacher)
    found = terms(args(feat_wt=1.0, logit_wt=1.0), labeled, pool)
    assert found["feat"].item() == pytest.approx((2**2 + 1) / 2)
    assert found["logit"].item() == pytest.approx(2**2 / 2)
    assert found["ce"].item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("on_pool", [False, True])
def test_features_and_logits_train_the_student(on_pool):
    """Their gradients in z by hand, with cross entropy beside them; and phi's."""
    teacher = Outputs(torch.tensor([[4.0, 2.0]])[:, :, None, None], torch.tensor([[1.0, 3.0]]))
    labeled = seen([1.0, 2.0], y=[0], teacher=teacher)
    distilled = seen([1.0, 2.0], teacher=teacher) if on_pool else labeled
    z, shift = distilled.z.requires_grad_(), torch.ones(2, 1, 1, requires_grad=True)
    found = terms(args(feat_wt=10.0, logit_wt=7.0), labeled, distilled, decoder=lambda z: z + shift)
    feat = torch.autograd.grad(found["feat"], [z, shift], retain_graph=True)
    assert [grad.flatten().tolist() for grad in feat] == [[-20.0, 10.0]] * 2  # 10 (phi(z) - T): (2, 3) and (4, 2)
    (logit,) = torch.autograd.grad(found["logit"], [z])
    assert logit.flatten().tolist() == [14.0, 14.0]  # 7 (C(z) - T) 2: (2, 4) and (1, 3)


def test_a_term_of_weight_0_is_not_computed():
    teacher = Outputs(torch.zeros(1, 2, 1, 1), torch.tensor([[2.0, 0.0]]))
    pool = seen([1.0, 0.0], teacher=teacher)
    judge = SimpleNamespace(networks=nn.ModuleDict(), judge=Untouchable())
    only_logits = args(ce_wt=0.0, logit_wt=1.0)
    found = terms(only_logits, Forward(None, None), pool, pool, Untouchable(), judge)
    assert found.keys() == {"logit"} and found["logit"].item() == 0
    same = Forward(None, pool.z, torch.tensor([0]), teacher)
    assert terms(only_logits, same, same, None, Untouchable()).keys() == {"logit"}


def test_the_adversarial_term_wants_both_pools_taken_for_labelled():
    D = sampler()
    labeled, unlabeled = seen([2.0, 0.0], y=[0]), seen([-4.0, 0.0])
    z = [batch.z.requires_grad_() for batch in (labeled, unlabeled)]
    found = terms(args(adv_wt=6.0), labeled, None, unlabeled, D=D)
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2  # D says 1 and -2
    assert found["adv"].item() == pytest.approx(6 * expected)
    found["adv"].backward()
    assert all((grad.grad < 0).any() and not (grad.grad > 0).any() for grad in z)  # both are pushed up
    weight = D.networks["discriminator"].weight
    assert weight.grad is None and weight.requires_grad  # D judges, it does not learn


def test_the_sampler_loss_wants_the_pools_told_apart():
    """The authors' code gave both pools target 1, so that D learned nothing."""
    labeled, unlabeled = torch.tensor([1.0, 0.0]), torch.tensor([-2.0])
    expected = ((math.log(1 + math.exp(-1)) + math.log(2)) / 2 + math.log(1 + math.exp(-2))) / 2
    assert objective.sampler_loss(labeled, unlabeled).item() == pytest.approx(expected)


def test_the_vaes_terms_are_both_means():
    x, rebuilt = torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 3.0, 1.0]])
    mean, log_variance = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, math.log(4)]])
    divergence = (3**2 / 2 + (4 - 1 - math.log(4)) / 2) / 2
    found = objective.vae_loss(x, rebuilt, mean, log_variance, beta=5.0)
    assert found.item() == pytest.approx(12 / 4 + 5 * divergence)


def test_kl_is_hintons():
    """Two classes, temperature 3: p = softmax(teacher / 3) = (3/4, 1/4), q = (1/2, 1/2); the mean over the batch."""
    student, teacher = torch.zeros(2, 2), torch.tensor([[3 * math.log(3), 0.0], [0.0, 0.0]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    flags = args(logit_loss="kl", temperature=3.0)
    assert objective.logit_loss(flags, student, teacher).item() == pytest.approx(9 * divergence / 2)


def test_an_unknown_loss_is_an_error():
    for loss in (objective.logit_loss, objective.feature_loss):
        with pytest.raises(KeyError, match="typo"):
            loss(args(logit_loss="typo", feature_loss="typo"), torch.zeros(1, 2), torch.zeros(1, 2))


def both_precisions(loss, *shapes):
    """A loss and its gradients for bfloat16 inputs under autocast, and for the same values in float32."""
    source = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=source).to(torch.bfloat16) for shape in shapes]
    found = []
    for enabled, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        tensors = [tensor.to(dtype).requires_grad_() for tensor in inputs]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = loss(*tensors)
        assert value.dtype == torch.float32
        # pseudo_label's gradient reaches only the student
        found.append((value, torch.autograd.grad(value, tensors, allow_unused=True, materialize_grads=True)))
    return found


Y = torch.tensor([1, 0, 3, 2])
LOSSES = {
    "ce": (lambda z: objective.cross_entropy(z, Y, 0.1), [(4, 10)]),
    "sampler": (objective.sampler_loss, [(4,), (4,)]),
    "adversarial": (objective.adversarial_loss, [(4,), (4,)]),
    "vae": (lambda *tensors: objective.vae_loss(*tensors, 0.7), [(4, 9), (4, 9), (4, 3), (4, 3)]),
    **{
        name: (lambda z, t, name=name: objective.logit_loss(args(logit_loss=name), z, t.float()), [(4, 10)] * 2)
        for name in losses.LOGIT_LOSSES
    },
    **{
        f"features {name}": (
            lambda z, t, name=name: objective.feature_loss(args(feature_loss=name), z, t.float()),
            [(4, 3, 2, 2)] * 2,
        )
        for name in losses.FEATURE_LOSSES
    },
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_float32_under_bfloat16_autocast(name):
    """The value equals float32's bit for bit; a gradient is rounded once, on its way back to a bfloat16 input."""
    (rounded, gradients), (exact, expected) = both_precisions(*[LOSSES[name][0], *LOSSES[name][1]])
    assert rounded.item() == exact.item()
    for mine, other in zip(gradients, expected, strict=True):
        assert torch.equal(mine.float(), other.to(torch.bfloat16).float())


def test_a_small_kl_is_not_negative_under_bfloat16():
    """In bfloat16, log_softmax makes it negative, and its gradient up to a fifth wrong."""
    teacher = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = objective.logit_loss(args(logit_loss="kl"), teacher * 1.01, teacher.float())
    assert 0 < found.item() < 1e-2


def test_a_loss_with_a_matrix_product_is_float32_too(monkeypatch):
    """Autocast rounds the product to bfloat16 whatever its inputs; and a loss gets the run's flags."""

    def relations(student, teacher, args):
        a, b = (tensor.flatten(1) @ tensor.flatten(1).T for tensor in (student, teacher))
        return args.temperature * F.mse_loss(a, b)

    monkeypatch.setitem(losses.LOGIT_LOSSES, "relations", relations)
    monkeypatch.setitem(losses.FEATURE_LOSSES, "relations", relations)
    flags = args(logit_loss="relations", feature_loss="relations", temperature=3.0)
    for loss, shape in ((objective.logit_loss, (4, 10)), (objective.feature_loss, (4, 3, 2, 2))):
        (rounded, _), (exact, _) = both_precisions(lambda z, t, loss=loss: loss(flags, z, t.float()), shape, shape)
        assert rounded.item() == exact.item() > 0


@pytest.mark.slow
def test_a_loss_is_one_function_and_one_line(tmp_path, teacher, monkeypatch):
    """Its flag offers it, results.csv names it, and it has its own row in the report."""

    def l1(student, teacher, args):
        return F.l1_loss(student, teacher)

    monkeypatch.setitem(losses.LOGIT_LOSSES, "l1", l1)
    monkeypatch.setitem(losses.FEATURE_LOSSES, "l1", l1)
    words = [*TOY, *BUDGET, "--rounds", "1", "--train_epochs", "1", "--teacher", str(teacher), "--logit_wt", "0.1"]
    words += ["--save_path", str(tmp_path)]
    run("KD", *words)
    run("KD", *words, "--logit_loss", "l1", "--feature_loss", "l1", "--expt", "l1")
    head, row = (line.split(",") for line in (tmp_path / "l1-seed5" / "results.csv").read_text().splitlines())
    assert row[head.index("logit_loss")] == row[head.index("feature_loss")] == "l1"
    folders = [tmp_path / "kd-seed5", tmp_path / "l1-seed5"]
    labels = report.results.read(folders).rows["label"].tolist()
    assert labels == ["CM+KD†", "CM+KD (feature_loss l1, logit_loss l1)†"]
