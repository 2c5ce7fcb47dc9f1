"""What a batch means: how the networks are called, what is the student's side and what the teacher's, what is labelled.

`Classification` is the one task so far. A task for language models has the same questions to answer, per token.
"""

from __future__ import annotations

from tutelage.tasks._calling import call
from tutelage.tasks._classification import Classification
from tutelage.tasks._task import Task

__all__ = ["Classification", "Task", "call"]
