"""What the teacher is surest of: a tiny student cannot use what is hard."""

from common.samplers.base import Sampler, entropy


class TeacherConfidence(Sampler):
    needs_teacher = True

    def score(self, index):
        return -entropy(self.targets.logits[0, index])
