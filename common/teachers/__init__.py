"""Teachers: how they are trained (`recipes`, `folding`, `training`), and where they come from (`teacher`)."""

from common.teachers.teacher import Teacher, publish
from common.teachers.training import fit

__all__ = ["Teacher", "fit", "publish"]
