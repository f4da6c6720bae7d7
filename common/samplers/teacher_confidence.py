"""`confidence` that always asks the teacher."""

from common.samplers.base import Sampler, entropy


class TeacherConfidence(Sampler):
    needs_teacher = True

    def score(self, index):
        return -entropy(self.teacher_logits(index))
