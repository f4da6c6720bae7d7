"""Teachers: how they are trained (`recipes`, `folding`, `training`), and where they come from (`teacher`)."""

from common.teachers.teacher import Teacher, needed, provide, publish, published
from common.teachers.training import fit

__all__ = ["Teacher", "fit", "needed", "provide", "publish", "published"]
