"""Where the student is farthest from its teacher: KL(teacher || student) of their predictions, in nats.

Query by committee (McCallum & Nigam 1998) with a committee of two, one of which is trusted.
"""

from torch.nn import functional as F

from common.samplers.base import Sampler


class Gap(Sampler):
    needs_teacher = True

    def score(self, index):
        student = self.student(self.look(index)).float().log_softmax(1)
        teacher = self.teacher_logits(index).float().log_softmax(1)
        return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
