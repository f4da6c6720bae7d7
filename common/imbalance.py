"""Notes a distillation term that drowns the cross entropy: once, after the first epoch, while there is time to stop."""

DWARFS = 10.0  # times the cross entropy


def note(args, losses: dict[str, float]) -> str:
    """One line for each term that is more than DWARFS times the cross entropy, with the weight that makes them equal.

    Args:
        losses: the first epoch's means of the weighted terms, by their names in `objective.task_loss`.
    """
    cross_entropy, lines = losses.get("ce", 0.0), []
    for name, flag in (("feat", "feat_wt"), ("logit", "logit_wt")):
        if cross_entropy > 0 and losses.get(name, 0.0) > DWARFS * cross_entropy:
            ratio = losses[name] / cross_entropy
            lines.append(
                f"note: --{flag} {getattr(args, flag):g} makes its term {ratio:.0f} times the cross entropy, so that "
                f"this hardly counts; --{flag} {getattr(args, flag) / ratio:.2g} makes them equal"
            )
    return "\n".join(lines)
