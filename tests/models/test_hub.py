"""Pretrained models: whole safetensors at a known commit, or an error that says what came and what to do."""

from __future__ import annotations

import http.server
import json
import logging
import shutil
import struct
import threading

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tutelage.errors import DamagedDataError, MissingPackageError, ModelError, ParameterError
from tutelage.models import load_pretrained

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tiny(**changes):
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **{
                "vocab_size": 50,
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "intermediate_size": 24,
                "pad_token_id": 0,
                **changes,
            }
        )
    )


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    place = tmp_path_factory.mktemp("originals")
    tiny().save_pretrained(place / "whole")
    tiny().save_pretrained(place / "shards", max_shard_size="8KB")
    return place


@pytest.fixture(params=["whole", "shards"])
def either(request, originals, tmp_path):
    return shutil.copytree(originals / request.param, tmp_path / request.param)


@pytest.fixture
def whole(originals, tmp_path):
    return shutil.copytree(originals / "whole", tmp_path / "model")


@pytest.fixture
def shards(originals, tmp_path):
    return shutil.copytree(originals / "shards", tmp_path / "model")


def change(folder, file="config.json", **entries):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_what_was_saved_comes_back(either):
    saved, found = tiny().state_dict(), load_pretrained(either, auto="causal_lm")
    assert found.state_dict().keys() == saved.keys()
    assert all(torch.equal(found.state_dict()[name], weight) for name, weight in saved.items())
    assert found.config._commit_hash is None
    half = load_pretrained(str(either), auto="causal_lm", dtype="bfloat16", device="cpu")
    assert {weight.dtype for weight in half.state_dict().values()} == {torch.bfloat16}
    half.save_pretrained(either.parent / "half")
    assert load_pretrained(either.parent / "half", auto="causal_lm", dtype="auto").dtype == torch.bfloat16
    assert load_pretrained(either.parent / "half", auto="causal_lm").dtype == torch.float32


def test_a_tied_matrix_is_not_missing(tmp_path):
    tiny(tie_word_embeddings=True).save_pretrained(tmp_path)
    found = load_pretrained(tmp_path, auto="causal_lm")
    assert found.lm_head.weight is found.model.embed_tokens.weight


# --- weights that are not what they should be -----------------------------------------------------------------------


def test_pickles_are_not_read(whole, refused):
    weights = load_file(whole / "model.safetensors")
    (whole / "model.safetensors").unlink()

    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was read",)

    torch.save({**weights, "trap": Trap()}, whole / "pytorch_model.bin")
    with refused(ModelError, r"no model.safetensors, but pytorch_model.bin", "safetensors: choose"):
        load_pretrained(whole, auto="causal_lm")
    change(whole, transformers_weights="pytorch_model.bin")
    with refused(ModelError, r"weights of its own \('pytorch_model.bin'\)", "remove the entry"):
        load_pretrained(whole, auto="causal_lm")


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_weights_cut_off(either, refused, kept):
    file = sorted(either.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:kept])
    with refused(DamagedDataError, f"{file.name} cannot be read as safetensors", "fetch it again"):
        load_pretrained(either, auto="causal_lm")


def test_shards_mixed_up(shards, refused):
    first, second = sorted(shards.glob("*.safetensors"))[:2]
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with refused(DamagedDataError, rf"{first.name} and .* disagree on \d+ tensors", "at one revision"):
        load_pretrained(shards, auto="causal_lm")
    first.unlink()
    with refused(DamagedDataError, f"lacks {first.name}", "fetch it again"):
        load_pretrained(shards, auto="causal_lm")
    first.write_bytes(kept)
    load_pretrained(shards, auto="causal_lm")
    change(shards, "model.safetensors.index.json", weight_map={"lm_head.weight": "../elsewhere.safetensors"})
    with refused(ModelError, r"'../elsewhere.safetensors'", "beside it"):
        load_pretrained(shards, auto="causal_lm")
    change(shards, "model.safetensors.index.json", weight_map=[])
    with refused(DamagedDataError, "no 'weight_map'", "fetch it again"):
        load_pretrained(shards, auto="causal_lm")


def test_one_shard_of_another_model(shards, tmp_path, refused):
    """The names are right, the shape is not: as after a fetch across two versions."""
    tiny(hidden_size=24, num_attention_heads=2).save_pretrained(tmp_path / "other", max_shard_size="8KB")
    place = json.loads((shards / "model.safetensors.index.json").read_text())["weight_map"]["lm_head.weight"]
    weights = load_file(shards / place)
    weights["lm_head.weight"] = torch.zeros(50, 24)
    save_file(weights, shards / place, metadata={"format": "pt"})
    with refused(ModelError, r"'lm_head.weight' with \(50, 24\) where \(50, 16\)", "of two models"):
        load_pretrained(shards, auto="causal_lm")


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_no_weight_is_made_up(whole, refused, name):
    weights = load_file(whole / "model.safetensors")
    del weights[name]
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    with refused(ModelError, f"no weights for 1 parts of LlamaForCausalLM, '{name}'", "fetch it again"):
        load_pretrained(whole, auto="causal_lm")


def test_no_layer_is_left_out(whole, refused):
    change(whole, num_hidden_layers=1)
    with refused(ModelError, r"weights for 9 parts .*'model.layers.1", "as many layers"):
        load_pretrained(whole, auto="causal_lm")


# --- heads of classifiers -------------------------------------------------------------------------------------------


def test_a_new_head_is_for_students_and_is_said(whole, refused, caplog):
    with refused(ModelError, "no weights for 1 parts.*'score.weight'", "pass classes"):
        load_pretrained(whole, auto="sequence_classification")
    with caplog.at_level(logging.WARNING, "tutelage"):
        found = load_pretrained(whole, auto="sequence_classification", classes=3)
    assert "the head for 3 classes is new and untrained (score.weight)" in caplog.text
    assert found.score.weight.shape == (3, 16)
    found.save_pretrained(whole / "trained")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tutelage"):
        again = load_pretrained(whole / "trained", auto="sequence_classification", classes=3)
        assert torch.equal(
            load_pretrained(whole / "trained", auto="sequence_classification").score.weight, again.score.weight
        )
    assert torch.equal(again.score.weight, found.score.weight)
    assert caplog.text == ""
    with refused(ModelError, r"'score.weight' with \(3, 16\) where \(4, 16\)", "number of classes"):
        load_pretrained(whole / "trained", auto="sequence_classification", classes=4)


def test_a_head_may_be_new_and_nothing_below_it(tmp_path, refused):
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    # Its pooler is new as well: it belongs to the head.
    assert load_pretrained(tmp_path, auto="sequence_classification", classes=2).classifier.weight.shape == (2, 16)
    load_pretrained(tmp_path, auto="token_classification", classes=2)
    load_pretrained(tmp_path, auto="masked_lm")
    weights = load_file(tmp_path / "model.safetensors")
    del weights["bert.encoder.layer.0.output.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with refused(ModelError, "'bert.encoder.layer.0.output.dense.bias'", "fetch it again"):
        load_pretrained(tmp_path, auto="sequence_classification", classes=2)


# --- folders that are no model, and code -----------------------------------------------------------------------------


def test_code_of_a_repository_is_not_run(whole, refused):
    (whole / "modeling_mine.py").write_text("raise SystemExit('this was run')")
    for kind in ("llama", "mine"):
        change(whole, model_type=kind, auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
        with refused(ModelError, r"code of its own \('auto_map' in config.json: AutoModelForCausalLM\)", "never run"):
            load_pretrained(whole, auto="causal_lm")


@pytest.mark.parametrize(
    ("entries", "came"),
    [
        ({"model_type": "mine"}, "model type `mine`"),
        ({"hidden_act": "swosh"}, "KeyError: 'swosh'"),
        ({"num_attention_heads": "two"}, "num_attention_heads"),
    ],
)
def test_configurations_that_make_no_model(whole, refused, entries, came):
    change(whole, **entries)
    with refused(ModelError, f"cannot be loaded for causal_lm: .*{came}", "expected a model that transformers has"):
        load_pretrained(whole, auto="causal_lm")


def test_other_folders(whole, tmp_path, refused):
    with refused(ModelError, "cannot be loaded for masked_lm.*LlamaConfig", "for this task"):
        load_pretrained(whole, auto="masked_lm")
    (tmp_path / "empty").mkdir()
    with refused(ModelError, "holds no config.json", "layout of transformers"):
        load_pretrained(tmp_path / "empty", auto="causal_lm")
    (whole / "adapter_config.json").write_text("{}")
    with refused(ModelError, "holds an adapter", "merge"):
        load_pretrained(whole, auto="causal_lm")
    for text, came in [("{", "is not JSON"), ("[]", "holds a list"), ("\xff", "is not JSON")]:
        (whole / "config.json").write_text(text, encoding="latin-1")
        with refused(DamagedDataError, f"config.json {came}", "fetch it again"):
            load_pretrained(whole, auto="causal_lm")
    with refused(ModelError, "is a folder and came with revision='v1'", "expected none"):
        load_pretrained(whole, auto="causal_lm", revision="v1")
    for name in (tmp_path / "nowhere", "./nowhere", "a/b/c", "~/nowhere"):
        with refused(ModelError, "is no folder", "owner/model"):
            load_pretrained(name, auto="causal_lm")


def test_arguments(whole, refused, monkeypatch):
    for arguments, came in [
        ({"auto": "seq2seq"}, r"auto='seq2seq'"),
        ({"auto": "causal_lm", "dtype": "float8"}, r"dtype='float8'"),
        ({"auto": "causal_lm", "quantize": "3bit"}, r"quantize='3bit'"),
        ({"auto": "causal_lm", "classes": 3}, r"classes=3"),
        ({"auto": "token_classification", "classes": True}, r"classes=True"),
        ({"auto": "causal_lm", "device": "gpu"}, r"device='gpu'"),
    ]:
        with refused(ParameterError, came, "expected|has no classes"):
            load_pretrained(whole, **arguments)
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with refused(MissingPackageError, "quantize='8bit' takes bitsandbytes", "pip install 'bitsandbytes'"):
        load_pretrained(whole, auto="causal_lm", quantize="8bit")


# --- the hub, on the loopback ----------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch, originals):
    """A cache of the hub with one repository in it, in the layout of its documentation; nothing can be fetched."""
    repository = tmp_path / "hub" / "models--owner--kept"
    shutil.copytree(originals / "whole", repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return repository


def test_what_is_kept_is_loaded_offline_at_its_commit(cache, refused):
    for revision in (None, "main", COMMIT):
        found = load_pretrained("owner/kept", auto="causal_lm", revision=revision)
        assert found.config._commit_hash == COMMIT
    with refused(ModelError, "owner/gone is not kept on this machine", "connection, or pass the folder"):
        load_pretrained("owner/gone", auto="causal_lm")
    with refused(ModelError, "owner/kept at revision 'v2' is not kept", "connection"):
        load_pretrained("owner/kept", auto="causal_lm", revision="v2")


@pytest.mark.parametrize(
    ("status", "code", "came", "remedy"),
    [
        (403, "GatedRepo", "owner/model is gated", "accept it on the model's page"),
        (401, "RepoNotFound", "neither a folder here nor a repository", "check the name"),
        (404, "RevisionNotFound", "'v9' is not there", "a branch, a tag or a commit"),
        (500, "", "cannot be fetched.*500", "connection"),
    ],
)
def test_what_the_hub_refuses(tmp_path, monkeypatch, refused, status, code, came, remedy):
    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 (the name that http.server calls)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        constants = huggingface_hub.constants
        place = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", place)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", place, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with refused(ModelError, came, remedy):
            load_pretrained("owner/model", auto="causal_lm", revision="v9")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_header_that_lies_is_damage(whole, refused):
    file = whole / "model.safetensors"
    file.write_bytes(struct.pack("<Q", 1 << 40) + file.read_bytes()[8:])
    with refused(DamagedDataError, "cannot be read as safetensors", "fetch it again"):
        load_pretrained(whole, auto="causal_lm")
