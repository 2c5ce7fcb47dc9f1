"""Runs about hidden tokens: what is scored and saved is what transformers alone makes of it."""

import json
import math

import pytest
import torch
import transformers
from masked_texts import written
from recipe_runs import finished

from tutelage.config import load
from tutelage.config.build import objective_of
from tutelage.data import MaskedCollator, encode_masked
from tutelage.model import DistillationModel
from tutelage.report import build_report
from tutelage.run_folder import BASELINE, RunFolder, read_json, read_lines
from tutelage.runs import TeacherFitted, TeacherReused, evaluate, prepare, run


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Return the file of a recipe, texts of the standard library beside it."""
    return written(tmp_path_factory.mktemp("masked"))


@pytest.fixture(scope="module")
def done(texts, tmp_path_factory):
    """Return the folder of a finished run, and its cache."""
    folder, told, cache = finished(texts, tmp_path_factory)
    assert any(isinstance(event, TeacherFitted) for event in told)
    return folder, cache


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
    assert "Pseudo-perplexity" in page
    assert ">Perplexity" not in page


def test_a_saved_encoder_is_a_teacher(done, texts, tmp_path, monkeypatch):
    folder, cache = done
    monkeypatch.setenv("TUTELAGE_CACHE", str(cache))
    overrides = ["~teacher", f"teacher.model={folder.teacher.model}", "baseline=false", "training.seeds=1"]
    overrides += ["~data.tokenizer", f"data.tokenizer.model={folder.teacher.model}"]
    summary = run(load(texts, overrides), tmp_path / "run")
    assert summary.scores["teacher"]["nll"]["mean"] == read_json(folder.scores)["teacher"]["nll"]["mean"]


def test_a_network_is_watched_on_the_tokens_that_it_is_scored_on(done):
    """All held-out rows are few enough to be watched, so the last evaluation says what the scores say, in any seed."""
    folder, _ = done
    for seed in (0, 1):
        for name in ("student", BASELINE):
            arm = folder.arm(seed, name)
            watched = [line for line in read_lines(arm.metrics) if "eval_nll" in line]
            scores = read_json(arm.scores)
            assert len(watched) == 2
            assert watched[-1]["eval_nll"] == pytest.approx(scores["nll"], rel=1e-5)
            assert watched[-1]["eval_accuracy"] == pytest.approx(scores["accuracy"], rel=1e-5)


def test_a_teacher_is_kept_for_its_own_share_and_length(texts, tmp_path):
    """The rows are shorter than both lengths, and equal: what differs is what is hidden, or the places of a BERT."""
    always = ["baseline=false", "training.seeds=1", "training.steps=1", "training.evaluations=1"]
    always += ["teacher.fit.steps=1", "data.length=200"]
    for number, (changes, event) in enumerate(
        [
            ([], TeacherFitted),
            ([], TeacherReused),
            (["data.mask=0.4"], TeacherFitted),
            (["data.length=210"], TeacherFitted),
        ]
    ):
        told = []
        run(load(texts, [*always, *changes]), tmp_path / f"{number}", on_event=told.append)
        assert any(isinstance(one, event) for one in told), changes
