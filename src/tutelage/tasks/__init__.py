"""What a batch means: how the networks are called, what is the student's side and what the teacher's, what is labelled.

`Classification` asks once for each row, `SequenceClassification` too; `CausalLM`, `MaskedLM` and `TokenClassification`
ask for every token.
"""

from __future__ import annotations

from tutelage.tasks._calling import batch_length, call, check_one_each
from tutelage.tasks._causal_lm import CausalLM
from tutelage.tasks._choice import task_of
from tutelage.tasks._classification import Classification
from tutelage.tasks._labels import UNLABELLED, widened
from tutelage.tasks._masked_lm import MaskedLM
from tutelage.tasks._packed import leak_between_documents
from tutelage.tasks._padding import in_order_of, right_padded
from tutelage.tasks._reading import read_alike
from tutelage.tasks._sequence_classification import SequenceClassification
from tutelage.tasks._suits import check_teacher
from tutelage.tasks._task import Task
from tutelage.tasks._token_classification import TokenClassification
from tutelage.tasks._unmasked import warn_of_unmasked_padding

__all__ = [
    "UNLABELLED",
    "CausalLM",
    "Classification",
    "MaskedLM",
    "SequenceClassification",
    "Task",
    "TokenClassification",
    "batch_length",
    "call",
    "check_one_each",
    "check_teacher",
    "in_order_of",
    "leak_between_documents",
    "read_alike",
    "right_padded",
    "task_of",
    "warn_of_unmasked_padding",
    "widened",
]
