"""Recipes about hidden tokens: what is refused, where, and with what to write instead."""

import pytest
import transformers
from masked_texts import python_lines, written
from recipe_runs import check_refused

from tutelage.config import load
from tutelage.data import train_tokenizer
from tutelage.errors import RecipeError
from tutelage.runs import prepare

LLAMA = "{llama: {hidden: 8, layers: 1, heads: 2, intermediate: 8}, fit: {steps: 1}}"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Return the file of a recipe, texts of the standard library beside it."""
    return written(tmp_path_factory.mktemp("masked"))


@pytest.mark.parametrize(
    ("overrides", "place", "words"),
    [
        (["data.packing=true"], "data.packing", "would see each other"),
        (["task=causal_lm"], "data.mask", "remove it, or write `task: masked_lm`"),
        (["task=classification"], "data", "these are texts"),
        (["data.long_completions=drop"], "data.long_completions", "no completions"),
        (["data.mask=0"], "data.mask", "expected a number > 0"),
        (["student={mlp: {hidden: [4]}}"], "student", "mlp makes no encoders; expected {bert:"),
        (["~teacher", f"teacher={LLAMA}"], "teacher", "llama makes no encoders; expected {bert:"),
        (["task=causal_lm"], "student", "bert makes no causal language models; expected {llama:"),
        (["task=classification"], "student", "a model of texts, and the task is classification"),
        (["student.bert.heads=3"], "student.bert.heads", "divide hidden=8"),
        (["training.mix=0.5"], "training.mix", "cannot be mixed"),
        (["~data.tokenizer"], "student", "brings no tokenizer; give one: `tokenizer: {train: 2048}`"),
        (
            ["~data.tokenizer", "~teacher", "teacher={model: /a/teacher}"],
            "student",
            "`tokenizer: {model: /a/teacher}` in `data`, that of the teacher",
        ),
        (
            ["~data.tokenizer", "~teacher", "teacher={model: owner/teacher, revision: v1}"],
            "student",
            "`tokenizer: {model: owner/teacher, revision: v1}` in `data`",
        ),
    ],
)
def test_what_the_schema_refuses(texts, overrides, place, words):
    check_refused(texts, overrides, place, words)


def test_a_tokenizer_without_a_mask_or_padding_is_refused(texts, tmp_path):
    train_tokenizer(python_lines(50), 300).save_pretrained(tmp_path / "causal")
    overrides = ["~data.tokenizer", f"data.tokenizer.model={tmp_path / 'causal'}"]
    with pytest.raises(RecipeError, match="no mask token"):
        prepare(load(texts, overrides), tmp_path / "run")
    unpadded = train_tokenizer(python_lines(50), 300, for_encoder=True)
    unpadded.pad_token = None
    unpadded.save_pretrained(tmp_path / "unpadded")
    with pytest.raises(RecipeError, match=r"data\.tokenizer.*neither a padding"):
        prepare(load(texts, [overrides[0], f"data.tokenizer.model={tmp_path / 'unpadded'}"]), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"data\.length.*expected room"):
        prepare(load(texts, ["data.length=2"]), tmp_path / "run")


def test_prompts_are_no_texts(texts, tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(ValueError, match="row 1 has no 'text'"):
        prepare(load(texts, [f"data.test={tmp_path / 'prompts.jsonl'}"]), tmp_path / "run")


def test_more_places_than_a_roberta_has_are_refused(texts, tmp_path):
    """It counts places from the padding's id on: of 20 there are 18."""
    tokenizer = train_tokenizer(python_lines(50), 300, for_encoder=True)
    config = transformers.RobertaConfig(
        vocab_size=300,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=20,
        pad_token_id=1,
    )
    transformers.RobertaForMaskedLM(config).save_pretrained(tmp_path / "roberta")
    tokenizer.save_pretrained(tmp_path / "roberta")
    overrides = ["~teacher", "~student", f"student.model={tmp_path / 'roberta'}", "~data.tokenizer", "~objective.soft"]
    overrides += ["baseline=false", "data.length=19"]
    with pytest.raises(RecipeError, match="takes 18 tokens at most"):
        prepare(load(texts, overrides), tmp_path / "run")


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_model_that_looks_back_alone_is_no_masked_language_model(texts, tmp_path, role):
    """What the trainer would say of it is said before anything is trained."""
    tokenizer = train_tokenizer(python_lines(50), 300, for_encoder=True)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=300, is_decoder=True, pad_token_id=tokenizer.pad_token_id, **sizes)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    overrides = [f"~{role}", f"{role}.model={tmp_path / 'bert'}", "~data.tokenizer"]
    overrides += ["data.tokenizer.model=" + str(tmp_path / "bert"), "baseline=false"]
    with pytest.raises(RecipeError, match=rf"{role}.* BertForMaskedLM.* causal language modelling") as caught:
        prepare(load(texts, overrides), tmp_path / "run")
    assert caught.value.problems[0].path == role


def test_weights_are_those_of_the_recipes_bert(texts, tmp_path):
    plan = prepare(load(texts), tmp_path / "run")
    plan.subject.save(plan.subject.network("student", 4), "student", tmp_path / "saved")
    weights = f"student.weights={tmp_path / 'saved'}"
    loaded = prepare(load(texts, [weights]), tmp_path / "run").subject.network("student", 0).state_dict()
    saved = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "saved").state_dict()
    assert all((loaded[f"model.{name}"] == saved[name]).all() for name in saved)
    with pytest.raises(RecipeError, match=r"hidden_size 8, and the recipe's 16; .* change `bert`"):
        prepare(load(texts, [weights, "student.bert.hidden=16"]), tmp_path / "run")
