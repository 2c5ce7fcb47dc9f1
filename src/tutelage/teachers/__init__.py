"""Where a teacher's distributions come from. `LiveTeacher` runs a network beside the student."""

from __future__ import annotations

from tutelage.teachers._live import LiveTeacher
from tutelage.teachers._order import ClassOrder, class_order

__all__ = ["ClassOrder", "LiveTeacher", "class_order"]
