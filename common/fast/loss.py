"""The mean squared error with a gradient in the memory order of its input."""

from torch import Tensor
from torch.nn import functional as F


def mse_loss(student: Tensor, teacher: Tensor, choice: str = "auto") -> Tensor:
    """Mean squared error of two tensors of one shape; with choice `off`, torch's own.

    torch's gradient is contiguous whatever the input's layout, and reordering it to that of a decoder's output takes
    longer than the loss. The mean does not depend on the order of dimensions, so both are permuted to the student's.
    """
    if choice == "off":
        return F.mse_loss(student, teacher)
    memory = sorted(range(student.dim()), key=student.stride, reverse=True)
    return F.mse_loss(student.permute(memory), teacher.permute(memory))
