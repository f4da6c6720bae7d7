"""Teachers: how they are trained (`trainer`, `per_round`), kept (`store`), found (`teacher`), or
read as another network's logits (`precomputed`)."""

from common.teachers.store import needed, publish_run, shared_path
from common.teachers.teacher import Teacher, check, provide

__all__ = ["Teacher", "check", "needed", "provide", "publish_run", "shared_path"]
