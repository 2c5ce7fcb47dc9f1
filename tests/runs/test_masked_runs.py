"""Runs about hidden tokens: what is scored and saved is what transformers alone makes of it."""

import argparse
import json
import math
from pathlib import Path

import pytest
import torch
import transformers

from tutelage.config import load
from tutelage.config.build import objective_of
from tutelage.data import MaskedCollator, encode_masked, train_tokenizer
from tutelage.errors import RecipeError
from tutelage.model import DistillationModel
from tutelage.report import build_report
from tutelage.run_folder import BASELINE, RunFolder, read_json
from tutelage.runs import TeacherFitted, TeacherReused, evaluate, prepare, run

RECIPE = """
task: masked_lm
data: {text: texts.jsonl, test: held.jsonl, length: 24, tokenizer: {train: 300}, mask: 0.2}
teacher:
  bert: {hidden: 16, layers: 2, heads: 2, intermediate: 24}
  fit: {steps: 6, batch_size: 8, learning_rate: 0.02}
student: {bert: {hidden: 8, layers: 1, heads: 2, intermediate: 16}}
objective:
  soft: {forward_kl: {}, weight: 0.7}
  hard: {forward_kl: {}, teacher: labels, weight: 0.3}
training: {steps: 7, batch_size: 8, learning_rate: 0.02, evaluations: 2, checkpoints: 2, device: cpu, seeds: 2}
baseline: true
"""


def python_lines(count):
    """Return so many lines of Python's own source, of some length."""
    lines = (line.strip() for line in Path(argparse.__file__).read_text().splitlines())
    return [line for line in lines if len(line) > 20][:count]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Return the file of a recipe, texts of the standard library beside it."""
    folder = tmp_path_factory.mktemp("masked")
    lines = python_lines(130)
    for name, part in (("texts", lines[:110]), ("held", lines[110:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    file = folder / "recipe.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def done(texts, tmp_path_factory):
    """Return the folder of a finished run, and its cache."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("TUTELAGE_CACHE", str(cache))
        told = []
        folder = tmp_path_factory.mktemp("done") / "run"
        run(load(texts), folder, on_event=told.append)
        assert any(isinstance(event, TeacherFitted) for event in told)
    return RunFolder(folder), cache


def _alone(folder):
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def test_scores_are_those_of_transformers_alone(done, texts):
    folder, _ = done
    teacher, tokenizer = _alone(folder.teacher.model)
    rows = encode_masked(
        [json.loads(line) for line in (texts.parent / "held.jsonl").read_text().splitlines()], tokenizer, 24
    )
    hide = MaskedCollator.of(tokenizer, 0.2, seed=0)
    assert max(len(row["input_ids"]) for row in rows) == 24
    for arm in (folder.teacher, folder.arm(0, "student"), folder.arm(1, "student"), folder.arm(1, BASELINE)):
        model, own = _alone(arm.model)
        assert own.get_vocab() == tokenizer.get_vocab()
        nll, kl, right, tokens = 0.0, 0.0, 0, 0
        for row in rows:
            batch = hide([row])
            at = batch["labels"] != -100
            with torch.no_grad():
                out = model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"])
                log_p = teacher(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[at].log_softmax(-1)
            log_q = out.logits[at].log_softmax(-1)
            count = int(at.sum())
            nll, tokens = nll + float(out.loss) * count, tokens + count
            kl += float((log_p.exp() * (log_p - log_q)).sum())
            right += int((log_q.argmax(-1) == batch["labels"][at]).sum())
        scores = read_json(arm.scores)
        assert scores["tokens"] == tokens
        assert scores["nll"] == pytest.approx(nll / tokens, rel=1e-5)
        assert scores["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-5)
        assert scores["accuracy"] == pytest.approx(right / tokens, abs=1.5 / tokens)
        if arm.path.name != "teacher":
            assert scores["kl"] == pytest.approx(kl / tokens, rel=1e-3, abs=1e-6)


def test_the_loss_on_labels_is_the_models_own(texts, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    subject = prepare(load(texts), tmp_path / "run").subject
    student = subject.network("student", 0)
    batch = subject.few(subject.train, subject.collator(BASELINE, 3))
    model = DistillationModel(student, {}, objective_of(load(texts), BASELINE), subject.task)
    with torch.no_grad():
        own = student.model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss
        assert float(model(**batch)["loss"]) == pytest.approx(float(own), rel=1e-5)
    assert int(batch["target_mask"].sum()) > 4


def test_each_token_of_the_piece_is_hidden_once(done):
    folder, _ = done
    piece = read_json(folder.text)
    model, tokenizer = _alone(folder.arm(0, "student").model)
    told, length = piece["student_nll"], len(piece["tokens"])
    assert told[0] is told[-1] is None  # [CLS] and [SEP]
    assert None not in told[1:-1]
    ids = torch.tensor(tokenizer("".join(piece["tokens"][1:-1]))["input_ids"])
    assert len(ids) == length
    for place in range(1, length - 1):
        # A fifth is hidden at a time: this one, and every fifth token before and after it.
        hidden = (
            (torch.arange(length) % 5 == place % 5) & (torch.arange(length) > 0) & (torch.arange(length) < length - 1)
        )
        with torch.no_grad():
            logits = model(torch.where(hidden, tokenizer.mask_token_id, ids)[None]).logits[0, place]
        expected = -float(logits.log_softmax(-1)[ids[place]])
        assert told[place] == pytest.approx(expected, rel=1e-4)


def test_evaluated_anew_it_scores_the_same_and_the_teacher_is_kept(done, texts, tmp_path, monkeypatch):
    folder, cache = done
    monkeypatch.setenv("TUTELAGE_CACHE", str(cache))
    before = folder.scores.read_bytes()
    evaluate(folder.path)
    assert folder.scores.read_bytes() == before
    told = []
    run(load(texts, ["training.seeds=1"]), tmp_path / "again", on_event=told.append)
    assert any(isinstance(event, TeacherReused) and event.source == "cache" for event in told)
    again = RunFolder(tmp_path / "again").arm(0, "student")
    assert again.scores.read_bytes() == folder.arm(0, "student").scores.read_bytes()


def test_the_page_says_what_was_hidden(done):
    folder, _ = done
    page = build_report(folder.path).read_text()
    tokens = int(read_json(folder.teacher.scores)["tokens"])
    assert f"{tokens} hidden tokens of held-out text" in page
    assert "Each token was hidden once" in page


def test_a_saved_encoder_is_a_teacher(done, texts, tmp_path, monkeypatch):
    folder, cache = done
    monkeypatch.setenv("TUTELAGE_CACHE", str(cache))
    overrides = ["~teacher", f"teacher.model={folder.teacher.model}", "baseline=false", "training.seeds=1"]
    overrides += ["~data.tokenizer", f"data.tokenizer.model={folder.teacher.model}"]
    summary = run(load(texts, overrides), tmp_path / "run")
    assert summary.scores["teacher"]["nll"]["mean"] == read_json(folder.scores)["teacher"]["nll"]["mean"]


@pytest.mark.parametrize(
    ("overrides", "place", "words"),
    [
        (["data.packing=true"], "data.packing", "would see each other"),
        (["task=causal_lm"], "data.mask", "remove it, or write `task: masked_lm`"),
        (["task=classification"], "data", "these are texts"),
        (["data.long_completions=drop"], "data.long_completions", "no completions"),
        (["data.mask=0"], "data.mask", "expected a number > 0"),
        (["student={mlp: {hidden: [4]}}"], "student", "mlp makes no encoders; expected {bert:"),
        (["student.bert.heads=3"], "student.bert.heads", "divide hidden=8"),
        (["training.mix=0.5"], "training.mix", "cannot be mixed"),
        (["~data.tokenizer"], "student", "brings no tokenizer"),
    ],
)
def test_what_the_schema_refuses(texts, overrides, place, words):
    with pytest.raises(RecipeError) as caught:
        load(texts, overrides)
    assert any(problem.path == place and words in problem.message for problem in caught.value.problems), caught.value


def test_a_tokenizer_without_a_mask_is_refused(texts, tmp_path):
    train_tokenizer(python_lines(50), 300).save_pretrained(tmp_path / "causal")
    overrides = ["~data.tokenizer", f"data.tokenizer.model={tmp_path / 'causal'}"]
    with pytest.raises(RecipeError, match="no mask token"):
        prepare(load(texts, overrides), tmp_path / "run")
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
