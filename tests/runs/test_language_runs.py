"""Runs about texts: scored as transformers alone would score them, resumed to the same bytes, split over processes."""

import json
import math
import os
import re
import shutil
import signal
from functools import partial

import pytest
import torch
import transformers
from recipe_runs import finished
from safetensors.torch import load_file

from tutelage.cli._results import summary
from tutelage.config import load
from tutelage.data import train_tokenizer
from tutelage.errors import DamagedDataError, RecipeError
from tutelage.run_folder import RunFolder, read_json, read_lines
from tutelage.runs import Interrupted, Note, Progress, TeacherFitted, TeacherReused, evaluate, prepare, run

RECIPE = """
task: causal_lm
data: {text: texts.jsonl, test: held.jsonl, length: 24, tokenizer: {train: 300}}
teacher:
  llama: {hidden: 16, layers: 2, heads: 2, intermediate: 24}
  fit: {steps: 6, batch_size: 8, learning_rate: 0.02}
student: {llama: {hidden: 8, layers: 1, heads: 2, key_value_heads: 1, intermediate: 16}}
objective:
  soft: {forward_kl: {}, weight: 0.7}
  hard: {forward_kl: {}, teacher: labels, weight: 0.3}
training: {steps: 7, batch_size: 8, learning_rate: 0.02, warmup: 0.2, evaluations: 2, checkpoints: 2, device: cpu}
baseline: true
"""
SENTENCE = "the cat sat on a mat while one old dog ran to that red barn and back"
WORDS = SENTENCE.split()
MODEL_FILES = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def _texts(count, seed):
    chance = torch.Generator().manual_seed(seed)
    for _ in range(count):
        length = int(torch.randint(3, 40, (), generator=chance))
        yield " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (length,), generator=chance).tolist())


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Return the file of a recipe, its texts beside it."""
    folder = tmp_path_factory.mktemp("texts")
    for name, count in (("texts", 90), ("held", 12)):
        rows = [json.dumps({"text": text}) for text in _texts(count, seed=count)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "texts.yaml").write_text(RECIPE)
    return folder / "texts.yaml"


@pytest.fixture(scope="session")
def done(texts, tmp_path_factory):
    """A finished run, what it told, and its teacher's cache."""
    return finished(texts, tmp_path_factory)


def _alone(folder):
    """A model and its tokenizer as transformers alone reads them."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def _log_probs(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)


def _documents(tokenizer, texts, length=24):
    """The pieces of texts, one after the other: no packing, no padding, nothing of this package."""
    for line in (texts.parent / "held.jsonl").read_text().splitlines():
        ids = [*tokenizer(json.loads(line)["text"])["input_ids"], tokenizer.eos_token_id]
        for start in range(0, len(ids) - 1, length - 1):
            yield ids[start : start + length]


def test_scores_are_those_of_transformers_alone(done, texts):
    folder, _, _ = done
    teacher, tokenizer = _alone(folder.teacher.model)
    for arm in (folder.teacher, folder.arm(0, "student"), folder.arm(0, "baseline")):
        model, own = _alone(arm.model)
        assert own.get_vocab() == tokenizer.get_vocab()
        nll, kl, right, agree, tokens = 0.0, 0.0, 0, 0, 0
        for ids in _documents(tokenizer, texts):
            log_q, log_p, targets = _log_probs(model, ids), _log_probs(teacher, ids), torch.tensor(ids[1:])
            nll -= float(log_q.gather(1, targets[:, None]).sum())
            kl += float((log_p.exp() * (log_p - log_q)).sum())
            right += int((log_q.argmax(-1) == targets).sum())
            agree += int((log_q.argmax(-1) == log_p.argmax(-1)).sum())
            tokens += len(targets)
        scores = read_json(arm.scores)
        assert scores["tokens"] == tokens
        assert scores["nll"] == pytest.approx(nll / tokens, rel=1e-5)
        assert scores["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-5)
        assert scores["accuracy"] == pytest.approx(right / tokens, abs=1.5 / tokens)
        assert scores["parameters"] == sum(parameter.numel() for parameter in model.parameters())
        assert scores["bytes"] == (arm.model / "model.safetensors").stat().st_size
        if arm.path.name == "teacher":
            assert "kl" not in scores
        else:
            assert scores["kl"] == pytest.approx(kl / tokens, rel=1e-4, abs=1e-6)
            assert scores["agreement"] == pytest.approx(agree / tokens, abs=1.5 / tokens)


def test_the_scores_of_a_run_tell_the_gap_in_nats(done):
    folder, _, _ = done
    scores = read_json(folder.scores)
    means = {arm: scores[arm]["nll"]["mean"] for arm in ("teacher", "student", "baseline")}
    assert means["teacher"] < means["baseline"]
    closed = (means["baseline"] - means["student"]) / (means["baseline"] - means["teacher"])
    assert scores["gap_closed"]["mean"] == pytest.approx(closed)
    record = read_json(folder.record)
    assert (record["task"], record["kind"], record["status"]) == ("causal_lm", "text", "complete")


def test_the_piece_of_text_is_what_transformers_says_of_it(done):
    folder, _, _ = done
    piece = read_json(folder.text)
    networks = {"teacher": folder.teacher, "student": folder.arm(0, "student"), "baseline": folder.arm(0, "baseline")}
    models = {name: _alone(arm.model)[0] for name, arm in networks.items()}
    tokenizer = _alone(folder.teacher.model)[1]
    ids = tokenizer("".join(piece["tokens"]))["input_ids"]
    assert len(ids) == len(piece["tokens"]) > 5
    log_p = _log_probs(models["teacher"], ids)
    for name, model in models.items():
        log_q = _log_probs(model, ids)
        told = piece[f"{name}_nll"]
        assert told[0] is None
        expected = -log_q.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        assert told[1:] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-5)
        if name != "teacher":
            kl = (log_p.exp() * (log_p - log_q)).sum(-1)
            assert piece[f"{name}_kl"][1:] == pytest.approx(kl.tolist(), rel=1e-3, abs=1e-5)


def test_the_log_has_terms_and_held_out_scores(done):
    lines = read_lines(done[0].arm(0, "student").metrics)
    assert {"loss", "soft", "hard"} <= set(lines[0])
    measured = [line for line in lines if "eval_nll" in line]
    assert [line["step"] for line in measured] == [4, 7]
    assert {"eval_kl", "eval_agreement", "eval_accuracy"} <= set(measured[0])


def test_an_interrupted_run_goes_on_to_the_same_bytes(done, texts, tmp_path, monkeypatch, digests):
    folder, told, cache = done
    assert any(isinstance(event, TeacherFitted) for event in told)
    monkeypatch.setenv("TUTELAGE_CACHE", str(cache))
    events = []

    def stop_once(event):
        events.append(event)
        stopped = any(isinstance(one, Interrupted) for one in events)
        if isinstance(event, Progress) and event.arm == "student" and event.step == 3 and not stopped:
            os.kill(os.getpid(), signal.SIGINT)

    assert run(load(texts), tmp_path / "run", on_event=stop_once).status == "interrupted"
    assert run(None, tmp_path / "run", resume=True, on_event=events.append).status == "complete"
    assert any(isinstance(event, TeacherReused) and event.source == "cache" for event in events)
    assert digests(tmp_path / "run") == digests(folder.path)


def test_evaluate_finds_the_same_scores(done, monkeypatch):
    folder, _, cache = done
    monkeypatch.setenv("TUTELAGE_CACHE", str(cache))
    assert evaluate(folder.path) == read_json(folder.scores)


def test_two_processes_train_what_one_trains(done, texts, tmp_path, launched):
    folder, _, _ = done
    place, cache = tmp_path / "run", tmp_path / "cache"
    words = [str(texts), "--out", str(place), "--no-report", "--json"]
    (first, second) = launched(2, [words], {"TUTELAGE_CACHE": str(cache)})
    assert (first[1], second[1]) == (0, 0), (first, second)
    assert json.loads(first[0][0])["folder"] == str(place)
    assert second[0][0] == ""
    assert "student" not in second[0][1]
    for arm in ("teacher", "seed-0/student", "seed-0/baseline"):
        one, two = (load_file(root / arm / "model" / "model.safetensors") for root in (folder.path, place))
        assert one.keys() == two.keys()
        for name, weight in one.items():
            assert torch.allclose(weight, two[name], rtol=1e-5, atol=1e-5), (arm, name)
    lines = [read_lines(root / "seed-0/student/metrics.jsonl") for root in (folder.path, place)]
    for mine, theirs in zip(*lines, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
    assert len(list((cache / "teachers").glob("*/model.safetensors"))) == 1


def test_processes_that_do_not_divide_the_batch(texts, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match="8 rows cannot be shared by 3 processes"):
        prepare(load(texts), tmp_path / "run")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_models_of_folders_with_adapters(done, texts, tmp_path):
    folder, _, _ = done
    teacher, student = folder.teacher.model, folder.arm(0, "student").model
    recipe = load(
        texts,
        [
            "~data.tokenizer", f"teacher={{model: {teacher}}}", f"student={{model: {student}, lora: {{rank: 2}}}}",
            "baseline=false", "training.steps=3",
        ],
    )  # fmt: skip
    told = []
    run(recipe, tmp_path / "run", on_event=told.append)
    assert any(isinstance(event, Note) and "same tokenizer" in event.text for event in told)
    made = RunFolder(tmp_path / "run")
    # A teacher that was not fitted stays where it is; the student has its adapters merged, and learned something.
    assert not made.teacher.model.exists()
    trained, before = (load_file(place / "model.safetensors") for place in (made.arm(0, "student").model, student))
    assert trained.keys() == before.keys()
    assert not torch.equal(
        trained["model.layers.0.self_attn.q_proj.weight"], before["model.layers.0.self_attn.q_proj.weight"]
    )
    assert torch.equal(trained["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    assert evaluate(made.path) == read_json(made.scores)


@pytest.fixture
def other(done, tmp_path):
    """A model whose tokenizer is another one of the same size."""
    model, _ = _alone(done[0].teacher.model)
    model.save_pretrained(tmp_path / "other")
    train_tokenizer([json.__doc__], 300).save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def _problem(recipe, place):
    with pytest.raises(RecipeError) as caught:
        prepare(recipe, place)
    (problem,) = caught.value.problems
    return problem.path, problem.message


def test_another_tokenizer_is_refused(texts, other, tmp_path):
    path, message = _problem(load(texts, ["~teacher", f"teacher={{model: {other}}}"]), tmp_path / "run")
    assert path == "teacher"
    assert "tokens" in message
    assert "same tokenizer" in message
    path, message = _problem(load(texts, ["~student", f"student={{model: {other}}}"]), tmp_path / "run")
    assert path == "student"
    assert "not the one that makes tokens of the data" in message


def test_models_that_cannot_be_used(done, texts, tmp_path):
    (tmp_path / "empty").mkdir()
    path, message = _problem(
        load(texts, ["~teacher", f"teacher={{model: {tmp_path}/empty, fit: {{steps: 1}}}}"]), tmp_path / "run"
    )
    assert path == "teacher"
    assert "holds no config.json" in message
    folder = done[0].teacher.model
    path, message = _problem(
        load(texts, ["~teacher", f"teacher={{model: {folder}}}", "data.length=500"]), tmp_path / "run"
    )
    assert path == "teacher"
    assert "takes 24 tokens at most" in message
    assert not (tmp_path / "run").exists()


def test_weights_of_another_size(done, texts, tmp_path):
    weights = done[0].arm(0, "student").model
    path, message = _problem(load(texts, ["~teacher.fit", f"teacher.weights={weights}"]), tmp_path / "run")
    assert (path, "hidden_size 8" in message) == ("teacher.weights", True)


def test_a_damaged_model_is_damaged_data(done, texts, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(done[0].teacher.model, copy)
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedDataError, match=r"model\.safetensors is cut off"):
        prepare(load(texts, ["~teacher", f"teacher={{model: {copy}}}"]), tmp_path / "run")


@pytest.mark.parametrize("name", ["text.json", *(f"seed-0/student/model/{file}" for file in MODEL_FILES)])
def test_what_was_changed_is_named_and_nothing_is_written(done, tmp_path, name):
    copy = shutil.copytree(done[0].path, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for use in (evaluate, partial(run, None, resume=True)):
        with pytest.raises(DamagedDataError, match=rf"{re.escape(name)} was changed"):
            use(copy)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_models_are_what_the_recipe_says(done):
    model, tokenizer = _alone(done[0].arm(0, "student").model)
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_key_value_heads) == (8, 1, 1)
    assert config.vocab_size == len(tokenizer) == 300
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_table_tells_nats_and_perplexity(done):
    scores = read_json(done[0].scores)
    lines = summary(scores).splitlines()
    assert "nats per token of" in lines[0]
    assert [line.split()[0] for line in lines[1:4]] == ["teacher", "student", "baseline"]
    assert f"{scores['student']['nll']['mean']:.3f}" in lines[2]
