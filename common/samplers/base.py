"""The base of every query strategy: it asks a network, and queries the candidates that it scores highest."""

import torch
from torch import Tensor, nn

from common import augment, fast
from common.augment import View
from common.errors import InputError
from common.objective import Forward
from common.seeds import generator

CHUNK = 200  # candidates per forward pass: their activations are most of the memory that a query of a million adds


class Sampler:
    """A query strategy, built afresh each round. It overrides `score`, or `choose` if it selects a set jointly.

    It reads a network's `logits`, or its features and logits (`outputs`): the student's or, with `--query_by teacher`,
    the teacher's.
    A strategy that `learns` alongside the student implements `step` and registers its networks with `own`: they and
    their optimizers are saved and restored with the student's. If its D judges z, and so can train the student through
    the adversarial term of `objective.task_loss`, it sets `reaches_student` and implements `judge`.
    """

    learns = False
    reaches_student = False
    needs_teacher = False
    asks = False  # it asks one network, the one that `--query_by` names
    uses_features = False  # it reads that network's features as well as its logits
    needs_dropout = False  # it runs that network with dropout: of a teacher, `targets.net` rather than cached outputs
    oracle = False  # it reads the labels it asks for
    scores_are_logits = False  # scores are D's logits: where D is sure, sigmoids are all 1 in float32
    draws = 0  # latents that its update draws for each image
    together = CHUNK  # candidates scored at a time

    def __init__(self, args, this_round, student, targets):
        self.args, self.images, self.student, self.targets = args, this_round.images, student, targets
        self.labeled = this_round.labeled
        self.by_teacher = getattr(args, "query_by", "student") == "teacher"  # methods without a teacher lack the flag
        self.generator = generator(args.seed, "query", this_round.number)
        self.networks = nn.ModuleDict()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def score(self, index: Tensor) -> Tensor:
        """The scores (B,) of candidates (B,), indices of images; the highest are queried first."""
        raise NotImplementedError

    def choose(self, count: int, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Positions of the `count` chosen ones among the candidates, each once, and their scores, first choice first.

        By default the highest scores, ties in the candidates' order. Memory: one score per candidate, and one chunk of
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

        `noise` (draws, 2 * batch_size, latent) is standard normal; None if `draws` is 0.
        """
        raise NotImplementedError

    def look(self, index: Tensor) -> Tensor:
        """The candidates' images, (B, 3, S, S), unmirrored and normalized."""
        return augment.pixels(self.images.train, View(index))

    def own(self, name: str, network: nn.Module, rate: float) -> nn.Module:
        """Registers a network of the sampler, with Adam at this learning rate; returns it on the images' device."""
        self.networks[name] = network.to(self.images.device)
        self.optimizers[name] = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
        return network

    @torch.no_grad()
    def z_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the student's z, found in eval mode, which leaves batch norm's statistics as they are."""
        training = self.student.training
        self.student.eval()
        shape = self.student.features(self.look(self.labeled[:1])).shape[1:]
        self.student.train(training)
        return tuple(shape)

    @torch.no_grad()
    def query(self, count: int, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The `count` candidates that `choose` takes (all, if there are fewer) and their scores, first choice first.

        Scores that are logits are returned as probabilities.
        """
        self.student.eval()
        self.networks.eval()
        chosen, scores = self.choose(count, candidates)
        return candidates[chosen], scores.sigmoid() if self.scores_are_logits else scores

    def check(self, wanted: int, chosen: Tensor, scores: Tensor) -> None:
        """Raises InputError if a query chose too many or too few images (n,), or one twice, or has a score of NaN,
        which sorts above all others. It runs on the CPU: a query itself does not wait for the device."""
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
        """Logits (B, classes) of the network that is asked."""
        return self.teacher_logits(index) if self.by_teacher else self.student(self.look(index))

    def outputs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, d) and logits (B, classes) of the network that is asked, in one pass.

        The student's features are the input of its last linear layer; the teacher's are `teacher_features`.
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
        # no hook ran if `fast` replaced the only linear layer, or there is none
        features = seen[-1] if seen else self.student.pool(z)
        return features.flatten(1).float(), logits

    def all_outputs(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """`outputs` of any number of images, (N, d) and (N, classes), computed in chunks."""
        found = ()
        for start in range(0, len(index), CHUNK):
            outputs = self.outputs(index[start : start + CHUNK])
            found = found or tuple(each.new_empty(len(index), each.shape[1]) for each in outputs)
            for whole, part in zip(found, outputs, strict=True):
                whole[start : start + CHUNK] = part
        fast.release_freed_memory()  # of the forward passes, before a million features are processed
        return found

    def teacher_logits(self, index: Tensor) -> Tensor:
        """The teacher's cached logits (B, classes) of unmirrored images; with `--targets mean`, their views' mean."""
        return self.targets.logits[0, index]

    def teacher_features(self, index: Tensor) -> Tensor:
        """The teacher's cached z of the unmirrored images, averaged over its map, (B, C).

        Raises InputError if there is none: `--teacher` names a file of logits, and the strategy lacks `uses_features`.
        """
        if self.targets.precomputed:
            raise InputError(
                f"--sampler {self.args.sampler}: needs features, of which --teacher {self.args.teacher} has none"
            )
        return self.targets.z[0, index].float().mean((2, 3))


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """Takes one optimizer step; returns the loss without its graph."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits) (B, classes) -> (B,)."""
    log_p = logits.float().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
