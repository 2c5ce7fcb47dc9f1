"""Each network reads a batch in its own way: its padding, its precision, and its limits, told by name."""

import pytest
import torch
import transformers
from torch import nn

import tutelage as tl
from tiny_texts import SIZES, SOFT_AND_HARD, gpt2, llama
from tutelage.errors import InputWarning, ModuleError, ShapeError, VocabularyError
from tutelage.tasks import CausalLM, SequenceClassification, call, in_order_of, right_padded

# A row ends with what pads the others, one holds it in its middle, and one is alone.
ROWS = [[5, 6, 8, 9, 3], [11, 12], [13, 3, 15], [4]]
OBJECTIVE = tl.Objective(SOFT_AND_HARD)
HEADS = {"head_dim": 8, "num_key_value_heads": 1}
CLASSIFIERS = {
    "Llama": {},
    "Qwen3": HEADS,
    "GPT2": {"n_positions": 16, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "OPT": {"word_embed_proj_dim": 16, "ffn_dim": 32, "max_position_embeddings": 16},
    "Roberta": {"max_position_embeddings": 24},
    "Bert": {"max_position_embeddings": 16},
    "XLNet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
}


def classifier(kind, seed=0, pad=7, **changes):
    cls = getattr(transformers, f"{kind}ForSequenceClassification")
    sizes = {} if kind == "XLNet" else SIZES
    config = cls.config_class(**{**sizes, **CLASSIFIERS[kind], "vocab_size": 50, "num_labels": 3, **changes})
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, pad if pad in range(50) else None
    torch.manual_seed(seed)
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)
    config.pad_token_id = pad
    return model


def batch_of(rows, side="right", filler=3, longest=None):
    longest = longest or max(map(len, rows))

    def padded(row, value):
        missing = [value] * (longest - len(row))
        return missing + row if side == "left" else row + missing

    return {
        "input_ids": torch.tensor([padded(row, filler) for row in rows]),
        "attention_mask": torch.tensor([padded([1] * len(row), 0) for row in rows]),
    }


def one_by_one(model, rows=ROWS):
    return torch.cat([model(**batch_of([row])).logits for row in rows])


# --- the last token, whoever pads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("side", ["right", "left"])
@torch.no_grad()
def test_rows_are_read_as_alone(kind, side):
    pads = (7,) if kind == "Roberta" else (7, None, -1, 50)  # what is beyond the ids is none
    for pad in pads:
        model = classifier(kind, pad=pad)
        alone = one_by_one(model)
        for filler, longest in ((3, 5), (0, 9)):
            found = call(model, batch_of(ROWS, side, filler, longest)).logits
            torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5 * float(alone.abs().max()))
        assert model.config.pad_token_id == pad


def test_student_and_teacher_whose_tokenizers_pad_otherwise():
    student, teacher = classifier("GPT2", 1, pad=None), classifier("Llama", 2, pad=7)
    model = tl.DistillationModel(student, {"teacher": teacher}, OBJECTIVE, SequenceClassification())
    batch = {**batch_of(ROWS), "labels": torch.tensor([0, 2, -100, 1])}
    out = model.train()(**batch)
    out["loss"].backward()
    found = [parameter.grad.clone() for parameter in student.parameters() if parameter.grad is not None]
    q, p = one_by_one(student).log_softmax(-1), one_by_one(teacher).detach().log_softmax(-1)
    soft = (p.exp() * (p - q)).sum(-1).mean()
    hard = -(q[0, 0] + q[1, 2] + q[3, 1]) / 3
    assert out["parts"]["soft"].item() == pytest.approx(soft.item(), rel=1e-5)
    assert out["parts"]["hard"].item() == pytest.approx(hard.item(), rel=1e-5)
    student.zero_grad()
    (soft + hard).backward()
    wanted = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@torch.no_grad()
def test_through_wrappers_and_without_a_mask():
    model, rows = classifier("Llama", pad=None), [[5, 6, 3], [7, 8, 9]]
    without = {"input_ids": torch.tensor(rows)}
    torch.testing.assert_close(call(model, without).logits, one_by_one(model, rows), rtol=1e-5, atol=1e-5)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(call(compiled, batch_of(ROWS)).logits, one_by_one(model), rtol=1e-5, atol=1e-5)


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, attention_mask):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)


@torch.no_grad()
def test_a_module_of_the_users_that_hides_a_classifier_padded_otherwise_is_named_once(recwarn):
    wrapped, alike = Wrapped(classifier("GPT2", pad=7)), Wrapped(classifier("GPT2", pad=3))
    with pytest.warns(InputWarning, match=r"Wrapped wraps GPT2.*pad_token_id=7.*padded with 3"):
        call(wrapped, batch_of(ROWS))
    call(wrapped, batch_of(ROWS))
    call(alike, batch_of(ROWS))
    call(wrapped, {name: value[:1] for name, value in batch_of(ROWS).items()})
    assert not recwarn.list


@torch.no_grad()
def test_a_configuration_is_as_before_whatever_happens():
    model = classifier("Llama", pad=None)
    model.score.forward = lambda states: 1 / 0
    with pytest.raises(ZeroDivisionError):
        call(model, batch_of(ROWS))
    assert model.config.pad_token_id is None
    assert model.config.to_dict()["pad_token_id"] is None


@torch.no_grad()
def test_inputs_that_need_nothing_are_passed_on_as_they_are():
    model, seen = classifier("Llama", pad=3), []
    handle = model.register_forward_pre_hook(lambda _, args, given: seen.append(given), with_kwargs=True)
    batch = batch_of(ROWS)
    call(model, batch)
    handle.remove()
    assert all(torch.equal(seen[0][name], batch[name]) for name in batch)

    class Wrapper(nn.Module):
        """May know how its rows are padded, and so is given what they are."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return input_ids

    left = batch_of(ROWS, "left", 4)
    with pytest.warns(InputWarning, match="padded with 4"):
        assert torch.equal(call(Wrapper(), left), left["input_ids"])


class Pooled(nn.Module):
    """A network of the user's own, which reads rows as they come."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.inside, self.head = nn.Embedding(50, 16), nn.Linear(16, 3)

    def forward(self, input_ids, attention_mask):
        return self.head(self.inside(input_ids).mean(1))


def test_features_of_tokens_are_compared_at_the_same_tokens(refused):
    """Classifiers of transformers get rows padded on the side from which they are right; others as they come."""
    layers = {"Bert": "bert.encoder", "XLNet": "transformer", "own": "inside"}

    def model_of(student, teacher):
        networks = [Pooled() if kind == "own" else classifier(kind) for kind in (student, teacher)]
        hidden = tl.FeatureTerm(lambda one, other: (one - other).square().mean(), layers[student], layers[teacher])
        return tl.DistillationModel(networks[0], {"teacher": networks[1]}, tl.Objective({"hidden": hidden}))

    for student, teacher, side in (("own", "Bert", "left"), ("XLNet", "Bert", "left"), ("XLNet", "Bert", "right")):
        with refused(ShapeError, "the term 'hidden' compares activations of tokens", "of one length"):
            model_of(student, teacher)(**batch_of(ROWS, side))
    for student, teacher, side in (("own", "Bert", "right"), ("Bert", "Bert", "left"), ("own", "own", "left")):
        assert model_of(student, teacher)(**batch_of(ROWS, side))["loss"] >= 0
    assert model_of("XLNet", "Bert")(**batch_of([[5, 6], [7, 8]]))["loss"] > 0


# --- limits -----------------------------------------------------------------------------------------------------------


def lengths(kind):
    return {"Roberta": 24 - 8, "Bert": 16, "GPT2": 16, "OPT": 16}[kind]


@pytest.mark.parametrize("kind", ["GPT2", "Bert", "Roberta", "OPT"])
@torch.no_grad()
def test_rows_longer_than_the_positions(kind, refused):
    model, most = classifier(kind, pad=7), lengths(kind)
    rows = [[5] * 3, [6] * most]
    assert call(model, batch_of(rows)).logits.shape == (2, 3)
    came = rf"row 1 of a batch has {most + 1} tokens, and the student \({kind}"
    with refused(ShapeError, came, f"has {most} positions"):
        call(model, batch_of([[5] * 3, [6] * (most + 1)]), "the student")
    with refused(ShapeError, rf"the rows of a batch have {most + 1} tokens, padding included", "truncate or split"):
        call(model, batch_of(rows, longest=most + 1))


@torch.no_grad()
def test_positions_that_are_computed_have_no_such_limit():
    model = classifier("Llama", max_position_embeddings=4)
    assert call(model, batch_of(ROWS)).logits.shape == (4, 3)
    model.score.forward = lambda states: torch.zeros(2) + torch.zeros(3)
    with pytest.raises(RuntimeError, match="size of tensor"):
        call(model, batch_of(ROWS))
    # Documents that share a row have positions of their own.
    packed = {"input_ids": torch.full((1, 20), 5), "position_ids": torch.arange(10).repeat(2)[None]}
    assert call(classifier("GPT2"), packed).logits.shape == (1, 3)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_the_network_is_named(who, refused):
    networks = {"student": llama(1), "teacher": llama(2), who: gpt2(3)}
    model = tl.DistillationModel(networks["student"], {"teacher": networks["teacher"]}, OBJECTIVE, CausalLM())
    batch = batch_of([[5, 6, 7], [8] * 65])
    batch["labels"] = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    with refused(ShapeError, rf"row 1 .* 65 tokens, and the {who}.* \(GPT2LMHeadModel\) has 64 positions", "truncate"):
        model(**batch)
    strange = {name: value[:, :4].clone() for name, value in batch.items()}
    strange["input_ids"][1, 2] = 400
    networks = {"student": llama(1), "teacher": llama(2)}
    networks["teacher" if who == "student" else "student"].resize_token_embeddings(401, mean_resizing=False)
    shared = tl.VocabularyMap.prefix(400)
    model = tl.DistillationModel(networks["student"], {"teacher": networks["teacher"]}, OBJECTIVE, CausalLM(), shared)
    with refused(VocabularyError, rf"row 1 .* the id 400 at place 2, and the {who}.* for 400 ids", "from 0 to 399"):
        model(**strange)


@torch.no_grad()
def test_ids_of_other_kinds(refused):
    with refused(VocabularyError, "the id -1 at place 0", "embeddings for 400 ids"):
        call(llama(), {"input_ids": torch.tensor([[-1, 5]])})
    bert, batch = classifier("Bert"), batch_of(ROWS)
    with refused(ModuleError, "'token_type_ids': '2 to 2'", "'bert.embeddings.token_type_embeddings': 2"):
        call(bert, {**batch, "token_type_ids": torch.full_like(batch["input_ids"], 2)})
    table = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    with refused(ModuleError, r"the network \(Sequential\).*'tokens': '0 to 9'", "'0': 9"):
        call(table, {"tokens": torch.arange(10)[None]})


@torch.no_grad()
def test_padding_beyond_the_embeddings_is_no_fault_where_the_network_has_its_own():
    model = classifier("Llama", pad=7)
    torch.testing.assert_close(call(model, batch_of(ROWS, filler=50)).logits, one_by_one(model), rtol=1e-5, atol=1e-5)


# --- precision --------------------------------------------------------------------------------------------------------


def image_classifier(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).to(dtype).eval()


IMAGES = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_teacher_of_another_precision_reads_inputs_in_its_own(dtype):
    student, teacher = image_classifier(), image_classifier(dtype)
    model = tl.DistillationModel(student, {"teacher": teacher}, OBJECTIVE)
    batch = {"inputs": IMAGES, "labels": torch.tensor([0, 1, 2, 0, 1])}
    outs = [model.eval()(**batch) for _ in range(2)]
    wanted = teacher(IMAGES.to(dtype))
    for out in outs:
        assert torch.equal(out["teachers"]["teacher"], wanted)
        assert out["logits"].dtype == torch.float32
    # A student, too.
    half = tl.DistillationModel(image_classifier(dtype), {"teacher": image_classifier()}, OBJECTIVE).eval()
    assert torch.equal(half(**batch)["logits"], wanted)


def test_inputs_of_numpy_are_read_in_the_precision_of_the_networks():
    """NumPy's floats are doubles, unless one says otherwise."""
    student, teacher = image_classifier().train(), image_classifier()
    model = tl.DistillationModel(student, {"teacher": teacher}, OBJECTIVE)
    labels = torch.tensor([0, 1, 2, 0, 1])
    model(inputs=IMAGES.double(), labels=labels)["loss"].backward()
    found = [parameter.grad.clone() for parameter in student.parameters()]
    model.zero_grad()
    model(inputs=IMAGES, labels=labels)["loss"].backward()
    assert all(torch.equal(one, parameter.grad) for one, parameter in zip(found, student.parameters(), strict=True))


@torch.no_grad()
def test_one_that_brings_inputs_to_its_precision_itself_is_left_alone():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Linear(3, 2, dtype=torch.bfloat16)

        def forward(self, x):
            assert x.dtype == torch.float32
            return self.inside((x - 1000).bfloat16())

    x = torch.tensor([[1001.0, 1002.0, 1003.5]])
    assert torch.equal(call(own := Own(), {"x": x}), own(x))


@torch.no_grad()
def test_autocast_and_masks():
    network, x = nn.Linear(3, 2), torch.randn(2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(call(network, {"x": x}), network(x))
        assert call(nn.Linear(3, 2).bfloat16(), {"x": x}).dtype == torch.bfloat16

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Linear(3, 2).half()

        def forward(self, x, attention_mask):
            assert attention_mask.dtype == torch.float32
            return self.inside(x)

    assert call(Masked(), {"x": x, "attention_mask": torch.zeros(2, 3)}).dtype == torch.float16


def encoder(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


IDS = {"input_ids": torch.tensor([[5, 6, 7, 8]]), "labels": torch.tensor([[5, 6, 7, 8]])}
FLOATS = {"inputs": torch.ones(2, 3), "labels": torch.tensor([0, 1])}


@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize(
    ("make", "batch", "dtype"),
    [(gpt2, IDS, torch.float16), (encoder, FLOATS, torch.float16), (encoder, FLOATS, torch.float64)],
    ids=["GPT2 in half", "half", "double"],
)
def test_weights_that_autocast_does_not_bring_together_are_named(who, make, batch, dtype, refused):
    def model_of(dtype):
        networks = {"student": make(1), "teacher": make(2)}
        networks[who].to(dtype)
        task = CausalLM() if make is gpt2 else None
        return tl.DistillationModel(networks["student"], {"teacher": networks["teacher"]}, OBJECTIVE, task)

    name = type(make()).__name__
    given = rf"the {who}.* \({name}\) has weights of {dtype} and is computed in torch.bfloat16"
    with torch.autocast("cpu", torch.bfloat16):
        with refused(ModuleError, given, "load it with dtype=torch.bfloat16 or torch.float32"):
            model_of(dtype)(**batch)
        # What the message advises.
        losses = [model_of(advised)(**batch)["loss"].item() for advised in (torch.float32, torch.bfloat16)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@torch.no_grad()
def test_weights_in_half_that_autocast_does_bring_together():
    with torch.autocast("cpu", torch.bfloat16):
        found = call(llama().half(), {"input_ids": IDS["input_ids"]}).logits
        wanted = call(llama(), {"input_ids": IDS["input_ids"]}).logits
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05 * float(wanted.abs().max()))


@torch.no_grad()
def test_what_else_a_network_raises_is_its_own():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        call(nn.Linear(3, 2), {"x": torch.zeros(2, 4)})
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        call(nn.Linear(3, 2).half(), {"x": torch.zeros(2, 4)})
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), torch.autocast("cpu", torch.bfloat16):
        call(nn.Linear(3, 2).half(), {"x": torch.zeros(2, 4)})


# --- the types of ids, and devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32], ids=str)
@pytest.mark.parametrize("side", ["right", "left"])
def test_ids_of_a_narrow_type(dtype, side):
    model = tl.DistillationModel(llama(1), {"teacher": llama(2)}, OBJECTIVE, CausalLM())
    wide = batch_of([[5, 156, 255], [7, 200]], side)
    narrow = {**wide, "input_ids": wide["input_ids"].to(dtype)}
    losses = [model(**batch, labels=batch["input_ids"])["loss"].item() for batch in (wide, narrow)]
    assert losses[0] == losses[1]


def test_a_device_is_asked_for_nothing():
    """The meta device has no values to give."""
    batch = {name: value.to("meta") for name, value in batch_of(ROWS, "left").items()}
    batch["labels"] = batch["input_ids"]
    moved = right_padded(batch)
    assert {name: value.shape for name, value in moved.items()} == {name: value.shape for name, value in batch.items()}
    assert CausalLM().weights(moved).shape == CausalLM().targets(moved)[1].shape == (4, 4)
    assert in_order_of(batch, torch.zeros(4, 4, 7, device="meta")).shape == (4, 4, 7)
    for pad in (7, None):
        seen = []
        model = classifier("Llama", pad=pad).to("meta")
        model.forward = lambda input_ids, attention_mask, seen=seen: seen.append(input_ids.shape)
        call(model, {name: batch[name] for name in ("input_ids", "attention_mask")})
        assert seen == [(4, 5)]
