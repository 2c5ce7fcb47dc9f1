"""Where a teacher's distributions come from. `LiveTeacher` runs a network beside the student."""

from __future__ import annotations

from tutelage.teachers._live import LiveTeacher

__all__ = ["LiveTeacher"]
