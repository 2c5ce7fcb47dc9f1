"""Which columns are compared: a map restricts both sides to them, and nothing that stands elsewhere matters."""

import copy
import pickle
import re

import pytest
import torch

import tutelage as tl
from tutelage.errors import DtypeError, EmptyInputError, ParameterError, VocabularyError

N = 5
# Three outcomes that both sides know under other ids; either side may be the wider one.
STUDENT_IDS, TEACHER_IDS = [4, 0, 2], [1, 3, 0]
SIZES = {"teacher-wider": (5, 9), "student-wider": (9, 4), "equal": (6, 6)}
# NaN and infinities stand for what an untrained padding column may hold, 1e4 for what would win any softmax.
JUNK = [1e4, -1e4, torch.inf, -torch.inf, torch.nan]


def labels_for(divergence, student_ids=STUDENT_IDS):
    return torch.tensor([student_ids[i % 3] for i in range(N)]) if divergence.needs_labels else None


def places_of(labels, student_ids):
    return None if labels is None else torch.tensor([student_ids.index(int(label)) for label in labels])


@pytest.mark.parametrize("cls", tl.divergences.ALL.values(), ids=tl.divergences.ALL)
@pytest.mark.parametrize(("wide", "narrow"), SIZES.values(), ids=SIZES)
def test_both_sides_renormalise_over_the_shared_columns(generator, cls, wide, narrow):
    divergence, labels = cls(), labels_for(cls())
    student = torch.randn(N, wide, generator=generator, requires_grad=True)
    teacher = torch.randn(N, narrow, generator=generator)
    shared = tl.VocabularyMap(STUDENT_IDS, TEACHER_IDS)
    value = tl.divergence(student, teacher, divergence, vocabulary=shared, labels=labels, temperature=2.0)
    gathered = tl.divergence(
        student[:, STUDENT_IDS],
        teacher[:, TEACHER_IDS],
        divergence,
        labels=places_of(labels, STUDENT_IDS),
        temperature=2.0,
    )
    torch.testing.assert_close(value, gathered, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(gradient, torch.autograd.grad(gathered, student)[0], rtol=1e-5, atol=1e-8)
    others = [i for i in range(wide) if i not in STUDENT_IDS]
    assert torch.equal(gradient[:, others], torch.zeros(N, len(others)))


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("cls", tl.divergences.ALL.values(), ids=tl.divergences.ALL)
def test_junk_in_padded_columns_changes_nothing(generator, cls, junk):
    divergence, labels = cls(), labels_for(cls(), [0, 1, 2])
    student, teacher = torch.randn(2, N, 3, generator=generator)
    shared = tl.VocabularyMap.prefix(3)

    def pad(logits, columns, value):
        return torch.nn.functional.pad(logits, (0, columns), value=value)

    clean = pad(student, 3, 0.0).requires_grad_()
    expected = tl.divergence(clean, pad(teacher, 1, 0.0), divergence, vocabulary=shared, labels=labels)
    expected.backward()
    dirty = pad(student, 3, junk).requires_grad_()
    value = tl.divergence(dirty, pad(teacher, 1, junk), divergence, vocabulary=shared, labels=labels)
    value.backward()
    assert value == expected
    assert torch.equal(dirty.grad, clean.grad)


@pytest.mark.parametrize("junk", [1e4, torch.nan])
def test_junk_in_padded_rows_of_a_head(generator, junk):
    hidden = torch.randn(N, 4, generator=generator, requires_grad=True)
    weight = torch.cat([torch.randn(3, 4, generator=generator), torch.full((2, 4), junk)]).requires_grad_()
    teacher = torch.randn(N, 3, generator=generator)
    value = tl.divergence(tl.HeadStates(hidden, weight), teacher, vocabulary=tl.VocabularyMap.prefix(3))
    expected = tl.divergence(hidden @ weight[:3].T, teacher)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    gradients = torch.autograd.grad(value, (hidden, weight))
    kept = weight[:3].detach().requires_grad_()
    plain = tl.divergence(tl.HeadStates(hidden, kept), teacher)
    for got, want in zip(gradients, torch.autograd.grad(plain, (hidden, kept)), strict=True):
        torch.testing.assert_close(got[: len(want)], want, rtol=1e-6, atol=1e-8)
    assert torch.equal(gradients[1][3:], torch.zeros(2, 4))


def test_a_prefix_is_a_map_of_equal_ids(generator):
    student, teacher = torch.randn(N, 6, generator=generator), torch.randn(N, 5, generator=generator)
    by_prefix = tl.divergence(student, teacher, vocabulary=tl.VocabularyMap.prefix(4))
    by_lists = tl.divergence(student, teacher, vocabulary=tl.VocabularyMap([0, 1, 2, 3], torch.arange(4)))
    shuffled = tl.divergence(student, teacher, vocabulary=tl.VocabularyMap([3, 1, 0, 2], [3, 1, 0, 2]))
    assert by_prefix == by_lists
    torch.testing.assert_close(shuffled, by_prefix, rtol=1e-6, atol=0)


def test_a_map_of_everything_changes_nothing(generator):
    student, teacher = torch.randn(2, N, 6, generator=generator)
    assert tl.divergence(student, teacher, vocabulary=tl.VocabularyMap.prefix(6)) == tl.divergence(student, teacher)


def test_labels_keep_the_whole_vocabulary(generator):
    student = torch.randn(N, 6, generator=generator)
    labels = torch.tensor([0, 5, 1, 4, 3])
    value = tl.divergence(student, tl.Labels(labels), vocabulary=tl.VocabularyMap.prefix(2))
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(student, labels), rtol=1e-6, atol=0)


# Ids of a sparse teacher are the teacher's: 7 is a student's 2, 3 is its 0, 5 its 4.
SPARSE = tl.VocabularyMap([2, 0, 4], [7, 3, 5])


@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
def test_ids_of_top_k_are_the_teachers(generator, tail):
    student = torch.randn(1, 6, generator=generator)
    logits = torch.tensor([[1.0, 0.0]])
    tails = {1.0: torch.tensor([0.5])}
    mapped = tl.TopK(torch.tensor([[7, 5]]), logits, tails, tail)
    direct = tl.TopK(torch.tensor([[0, 2]]), logits, tails, tail)
    value = tl.divergence(student, mapped, vocabulary=SPARSE)
    torch.testing.assert_close(value, tl.divergence(student[:, [2, 0, 4]], direct), rtol=1e-6, atol=0)


@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
def test_a_kept_id_outside_the_map_is_excluded_by_the_teacher(generator, tail):
    student = torch.randn(1, 6, generator=generator, requires_grad=True)
    tails = {1.0: torch.tensor([0.5])}
    # 6 has no counterpart; 999 is beyond every id that the map names.
    for stranger in (6, 999):
        teacher = tl.TopK(torch.tensor([[7, stranger, 5]]), torch.tensor([[1.0, 9.0, 0.0]]), tails, tail)
        without = tl.TopK(torch.tensor([[7, 5]]), torch.tensor([[1.0, 0.0]]), tails, tail)
        value, expected = (tl.divergence(student, side, vocabulary=SPARSE) for side in (teacher, without))
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
        got, want = (torch.autograd.grad(loss, student)[0] for loss in (value, expected))
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)
        assert torch.equal(got[:, [1, 3, 5]], torch.zeros(1, 3))


def test_ids_of_samples_are_the_teachers(generator):
    student = torch.randn(1, 6, generator=generator)
    weights = torch.tensor([[0.5, 0.25, 0.25]])
    mapped = tl.Sampled(torch.tensor([[7, 5, 7]]), weights, 1.0)
    direct = tl.Sampled(torch.tensor([[0, 2, 0]]), weights, 1.0)
    value = tl.divergence(student, mapped, vocabulary=SPARSE)
    torch.testing.assert_close(value, tl.divergence(student[:, [2, 0, 4]], direct), rtol=1e-6, atol=0)


def test_a_tail_beside_all_compared_columns_is_named(generator):
    """The kept ids are all the map compares: there is nowhere to put the tail's mass, and no -inf to blame."""
    teacher = tl.TopK(torch.tensor([[7, 3, 5]]), torch.zeros(1, 3), {1.0: torch.tensor([0.5])})
    with pytest.raises(tl.errors.InputError, match="log_tails"):
        tl.divergence(torch.randn(1, 6, generator=generator), teacher, vocabulary=SPARSE)


def test_the_same_map_of_ids_given_in_many_ways():
    maps = [
        tl.VocabularyMap([1, 0], [0, 2]),
        tl.VocabularyMap((1, 0), (0, 2)),
        tl.VocabularyMap(torch.tensor([1, 0]), torch.tensor([0, 2], dtype=torch.int32)),
        copy.deepcopy(tl.VocabularyMap([1, 0], [0, 2])),
        pickle.loads(pickle.dumps(tl.VocabularyMap([1, 0], [0, 2]))),
    ]
    student, teacher = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 9.0, 0.0]])
    assert len({tl.divergence(student, teacher, vocabulary=shared).item() for shared in maps}) == 1


def test_repr():
    assert repr(tl.VocabularyMap.prefix(7)) == "VocabularyMap.prefix(7)"
    assert repr(tl.VocabularyMap([0, 1], [0, 1])) == "VocabularyMap.prefix(2)"
    assert "2 columns" in repr(tl.VocabularyMap([1, 0], [0, 1]))


# --- what cannot be a map ---------------------------------------------------------------------------------------------

# Either side may be the wrong one, and the message must say which.
BAD_IDS = {
    "repeated": ([0, 3, 3], VocabularyError, "_ids contains id 3 2 times", "expected once"),
    "negative": ([0, -2, 1], VocabularyError, "_ids contains -2", "ids are >= 0"),
    "nested": ([[0, 1, 2]], VocabularyError, r"_ids has shape \(1, 3\)", r"shape \(n,\)"),
    "floats": ([0.0, 1.0, 2.0], DtypeError, "_ids has dtype torch.float32", "expected integers"),
    "booleans": ([True, False, True], DtypeError, "_ids has dtype torch.bool", "expected integers"),
    "empty": ([], EmptyInputError, "_ids is empty", "at least one shared column"),
    "words": (["a", "b", "c"], DtypeError, "_ids", "expected integers"),
    "nothing": (None, DtypeError, "_ids", "expected integers"),
}


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize(("bad", "error", "came", "remedy"), BAD_IDS.values(), ids=BAD_IDS)
def test_ids_that_cannot_be(bad, error, came, remedy, side):
    good = [0, 1, 2]
    with pytest.raises(error) as caught:
        tl.VocabularyMap(bad, good) if side == "student" else tl.VocabularyMap(good, bad)
    assert caught.type is error
    assert re.search(side + came, str(caught.value))
    assert re.search(remedy, str(caught.value))


def test_lists_of_different_lengths():
    with pytest.raises(VocabularyError, match="3 student ids came with 2 teacher ids; give one teacher id for each"):
        tl.VocabularyMap([0, 1, 2], [0, 1])


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3", None], ids=repr)
def test_prefix_of_nothing(n):
    with pytest.raises(ParameterError, match=re.escape(f"VocabularyMap.prefix({n!r})") + ".*integer >= 1"):
        tl.VocabularyMap.prefix(n)


@pytest.mark.parametrize("bad", [3, [0, 1], "prefix"], ids=repr)
def test_what_is_no_map(bad):
    with pytest.raises(tl.errors.InputError, match="VocabularyMap"):
        tl.divergence(torch.zeros(1, 3), torch.zeros(1, 3), vocabulary=bad)
