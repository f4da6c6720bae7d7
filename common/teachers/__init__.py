"""Teachers: how they are trained (`recipes`, `folding`, `training`, `fair`), kept (`store`), found (`teacher`), or
read as another network's logits (`precomputed`)."""

from common.teachers.store import needed, publish, published
from common.teachers.teacher import Teacher, check, provide
from common.teachers.training import fit

__all__ = ["Teacher", "check", "fit", "needed", "provide", "publish", "published"]
