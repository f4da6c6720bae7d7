"""A network trained with its recipe: plainly, or with batch norm that is folded into it afterwards."""

from pathlib import Path

from common import augment, training
from common.augment import View
from common.evaluation import Fitted
from common.files import read_tensors, write_tensors
from common.networks import SplitNet
from common.teachers import folding
from common.teachers.consistency import OwnOutputs

UNFOLDED = "unfolded.pt"  # in a run's folder: the network with batch norm, for another training to go on from


def fit(
    args, run, this_round, net: SplitNet, targets=None, start: Path | None = None, unfolded: bool = False
) -> Fitted:
    """`training.fit` of `net`; with `--fold_bn` of a network with batch norm, which is then folded into `net`.

    `targets` are a teacher's outputs for the pool; with `own_outputs` among the flags they are the network's own.
    `start` is the folder of a run whose trained network this one goes on from; it was trained with `unfolded`.
    """
    trained = folding.with_batch_norm(args, net, this_round.number) if args.fold_bn else net
    if start is not None:
        trained.load_state_dict(read_tensors(start / UNFOLDED))
    if getattr(args, "own_outputs", False):
        targets = OwnOutputs(trained, this_round.images)
    fitted = training.fit(args, run, this_round, trained, targets=targets)
    if unfolded:
        write_tensors(run.folder / UNFOLDED, trained.state_dict())
    if not args.fold_bn:
        return fitted
    sample = augment.see(this_round.images.train, View(this_round.labeled[:250]))
    folding.fold(trained, net, sample, args.feature_rms)
    return fitted
