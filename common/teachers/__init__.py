"""Teachers: how they are trained (`recipes`, `folding`, `training`, `fair`), kept (`store`), and found (`teacher`)."""

from common.teachers.store import needed, publish, published
from common.teachers.teacher import Teacher, provide
from common.teachers.training import fit

__all__ = ["Teacher", "fit", "needed", "provide", "publish", "published"]
