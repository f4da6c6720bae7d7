"""What every query strategy shares: the network it asks, and a query of the candidates that it scores highest."""

import torch
from torch import Tensor, nn

from common import augment, fast
from common.augment import View
from common.errors import InputError
from common.objective import Forward
from common.seeds import generator

CHUNK = 200  # candidates a forward pass: their activations are most of what a query adds to the memory of a million


class Sampler:
    """Built anew in each round; a strategy overrides `score`, or `choose` where it selects a set jointly.

    It asks a network for its `logits`, or for features and logits (`outputs`): the student, or with
    `--query_by teacher` the teacher.
    One that `learns` beside the student has `step`, and hands its networks to `own`: they and their optimizers are
    saved and restored with the student's. If its D judges z, so that its verdict can train the student through the
    adversarial term of `objective.task_loss`, it sets `reaches_student` and has `judge`.
    """

    learns = False
    reaches_student = False
    needs_teacher = False
    asks = False  # it asks one network, which `--query_by` names
    uses_features = False  # it reads that network's features beside its logits
    needs_dropout = False  # it runs that network with dropout: a teacher itself, `targets.net`, and not cached outputs
    oracle = False  # it reads the labels it asks for
    scores_are_logits = False  # a score is D's logit: where D is sure, sigmoids are all 1 in float32
    draws = 0  # its update draws so many latents for each image
    together = CHUNK  # candidates that are scored together

    def __init__(self, args, this_round, student, targets):
        self.args, self.images, self.student, self.targets = args, this_round.images, student, targets
        self.labeled = this_round.labeled
        self.by_teacher = getattr(args, "query_by", "student") == "teacher"  # methods without a teacher lack the flag
        self.generator = generator(args.seed, "query", this_round.number)
        self.networks = nn.ModuleDict()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def score(self, index: Tensor) -> Tensor:
        """One score (B,) for each candidate image (B,): the higher, the sooner it is queried."""
        raise NotImplementedError

    def choose(self, count: int, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Where the `count` queried ones stand among the candidates, each once, and their scores, first choice first.

        Here the highest scores; equal ones in the candidates' order. Memory: one score a candidate, and one chunk of
        images at a time.
        """
        scores = torch.empty(len(candidates), device=candidates.device)
        for start in range(0, len(candidates), self.together):  # into one array: pieces would fragment the heap
            scores[start : start + self.together] = self.score(candidates[start : start + self.together])
        best = scores.sort(descending=True, stable=True).indices[:count]
        return best, scores[best]

    def judge(self, z: Tensor) -> Tensor:
        """D's logit (B,) that an image with features z (B, C, h, w) is labelled."""
        raise NotImplementedError

    def step(self, labeled: Forward, unlabeled: Forward, noise: Tensor | None) -> dict[str, Tensor]:
        """One update of the sampler's own networks on a batch of each pool; returns its losses.

        `noise` (draws, B of both pools, latent) is standard normal; None where `draws` is 0.
        """
        raise NotImplementedError

    def look(self, index: Tensor) -> Tensor:
        """The candidates themselves, (B, 3, S, S), unmirrored and normalized."""
        return augment.pixels(self.images.train, View(index))

    def own(self, name: str, network: nn.Module, rate: float) -> nn.Module:
        """Takes a network of the sampler's, with its Adam of this rate; returns it, on the images' device."""
        self.networks[name] = network.to(self.images.device)
        self.optimizers[name] = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
        return network

    @torch.no_grad()
    def z_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the student's z. In eval mode: else the look would move its batch norm's statistics."""
        training = self.student.training
        self.student.eval()
        shape = self.student.features(self.look(self.labeled[:1])).shape[1:]
        self.student.train(training)
        return tuple(shape)

    @torch.no_grad()
    def query(self, count: int, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The `count` candidates that `choose` takes (all, if there are fewer) and their scores, first choice first.

        Logits are given as probabilities.
        """
        self.student.eval()
        self.networks.eval()
        chosen, scores = self.choose(count, candidates)
        return candidates[chosen], scores.sigmoid() if self.scores_are_logits else scores

    def check(self, wanted: int, chosen: Tensor, scores: Tensor) -> None:
        """Raises InputError where the images (n,) of a query are too many or too few, one is there twice, or a score
        is NaN, which is the highest of all. On the CPU: a query itself does not wait for the device."""
        found = len(chosen.unique())
        if not wanted == found == len(chosen) == len(scores):
            raise InputError(
                f"--sampler {self.args.sampler}: chose {len(chosen)} images ({found} different) of {wanted} asked for, "
                f"with {len(scores)} scores; its `choose` must give each image once"
            )
        if scores.isnan().any():
            raise InputError(
                f"--sampler {self.args.sampler}: {scores.isnan().sum()} of {wanted} scores are NaN: its formula's, or "
                "the outputs' of the network that it asks; a lower --lr_task keeps these finite"
            )

    def logits(self, index: Tensor) -> Tensor:
        """Of the network that is asked, (B, classes)."""
        return self.teacher_logits(index) if self.by_teacher else self.student(self.look(index))

    def outputs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, d) and logits (B, classes) of the network that is asked, in one pass.

        The student's features are what its classifier's last linear layer sees, the teacher's are `teacher_features`.
        """
        if self.by_teacher:
            return self.teacher_features(index), self.teacher_logits(index)
        z, seen = self.student.features(self.look(index)), []
        linear = [layer for layer in self.student.modules() if isinstance(layer, nn.Linear)]
        handles = [layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for layer in linear]
        try:
            logits = self.student.classifier(z)
        finally:
            for handle in handles:
                handle.remove()
        # no hook ran where `fast` replaced its only linear layer, or it has none
        features = seen[-1] if seen else self.student.pool(z)
        return features.flatten(1).float(), logits

    def all_outputs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """`outputs` of any number of images, (N, d) and (N, classes), looked at in chunks."""
        found = ()
        for start in range(0, len(index), CHUNK):
            outputs = self.outputs(index[start : start + CHUNK])
            found = found or tuple(each.new_empty(len(index), each.shape[1]) for each in outputs)
            for whole, part in zip(found, outputs, strict=True):
                whole[start : start + CHUNK] = part
        fast.release_freed_memory()  # the forward passes', before what is done with a million features
        return found

    def teacher_logits(self, index: Tensor) -> Tensor:
        """Of the images themselves, with `--targets mean` the mean of their views', (B, classes), looked up."""
        return self.targets.logits[0, index]

    def teacher_features(self, index: Tensor) -> Tensor:
        """The teacher's z of the unmirrored images, averaged over its map, (B, C), looked up.

        Raises InputError where it has none: `--teacher` names a file of logits, and the strategy lacks `uses_features`.
        """
        if self.targets.precomputed:
            raise InputError(
                f"--sampler {self.args.sampler}: needs features, of which --teacher {self.args.teacher} has none"
            )
        return self.targets.z[0, index].float().mean((2, 3))


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """One update; returns the loss without its graph."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits) (B, classes) -> (B,)."""
    log_p = logits.float().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
