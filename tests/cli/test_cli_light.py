"""The commands that train nothing: quick, without torch, data on stdout and talk on stderr."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from importlib import metadata

import pytest
from cli_process import environment, processor_seconds, refused, tutelage, tutelage_here

import tutelage as tl
from tutelage import config
from tutelage.execution._backends import BACKENDS

COMMANDS = ["demo", "train", "validate", "evaluate", "report", "init", "ls", "schema", "env"]


@pytest.fixture
def here(capfd, monkeypatch, tmp_path):
    """The command line in this process, in a folder of its own: a process of its own takes half a second to begin."""
    return partial(tutelage_here, cwd=tmp_path, capfd=capfd, monkeypatch=monkeypatch)


# --- help -------------------------------------------------------------------------------------------------------------


def test_help_comes_at_once(tmp_path):
    assert processor_seconds(["--help"], tmp_path) < 0.5
    assert processor_seconds(["train", "--help"], tmp_path) < 0.5


def test_help_names_every_command(tmp_path):
    done = tutelage("--help", cwd=tmp_path)
    assert done.code == 0
    assert done.err == ""
    for command in COMMANDS:
        assert f" {command} " in done.out
    # Without a command there is nothing to do: help, but no success.
    bare = tutelage(cwd=tmp_path)
    assert bare.code == 2
    assert bare.out.strip() == done.out.strip()


def test_every_command_has_help(here):
    for command in COMMANDS:
        done = here(command, "--help")
        assert done.code == 0
        assert f"tutelage {command}" in done.out


def test_the_version(tmp_path):
    done = tutelage("--version", cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, f"tutelage {tl.__version__}\n", "")


def test_the_script_is_the_module(tmp_path):
    script = os.path.join(os.path.dirname(sys.executable), "tutelage")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout == f"tutelage {tl.__version__}\n"


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "digits-few-labels", "--dry-rum"], "--dry-run"),
        (["--bogus"], "--bogus"),
        (["train"], "give a recipe"),
        (["train", "digits-few-labels", "--resume", "x"], "its own recipe"),
        (["train", "--resume", "x", "--out", "y"], "its own folder"),
        (["validate"], "RECIPE"),
        (["demo", "--seeds", "0"], "--seeds"),
        (["demo", "--seeds", "many"], "--seeds"),
        (["ls", "recipies"], "recipes"),
        (["env", "surplus"], "surplus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_cannot_be_understood(tmp_path, here, words, said):
    done = here(*words)
    refused(done, 2, "--help")
    assert said.lower() in done.err.lower()
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where_and_may_stand_anywhere(tmp_path):
    for words, variables in [
        (["validate", "nowhere.yaml", "--debug"], {}),
        (["--debug", "validate", "nowhere.yaml"], {}),
        (["validate", "nowhere.yaml"], {"TUTELAGE_DEBUG": "1"}),
    ]:
        done = tutelage(*words, cwd=tmp_path, **variables)
        assert done.code == 2
        assert "Traceback" in done.err
        assert "nowhere.yaml: no such file" in done.err.splitlines()[-1]
    refused(tutelage("validate", "nowhere.yaml", cwd=tmp_path, TUTELAGE_DEBUG="0"), 2, "nowhere.yaml")


# --- no torch ---------------------------------------------------------------------------------------------------------

LIGHT = [
    ["--help"],
    ["train", "--help"],
    ["ls"],
    ["validate", "digits-few-labels"],
    ["schema"],
    ["init"],
    ["train", "nowhere.yaml"],
    ["report", "nowhere"],
]


# What a command loads stays loaded: after all of them there is what any of them loads.
ONE_AFTER_THE_OTHER = """
import sys
from tutelage.cli import main
for words in {words}:
    main(words)
    print("after", *words, *{{name.partition(".")[0] for name in sys.modules}}, file=sys.stderr)
"""


def test_light_commands_load_nothing_heavy(tmp_path):
    code = ONE_AFTER_THE_OTHER.format(words=LIGHT)
    given = {"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True, "check": True}
    done = subprocess.run([sys.executable, "-c", code], **given)
    lines = [line.split() for line in done.stderr.splitlines() if line.startswith("after ")]
    assert len(lines) == len(LIGHT)
    for line in lines:
        assert "tutelage" in line
        assert {"torch", "numpy", "transformers", "matplotlib", "sklearn"}.isdisjoint(line), line


# --- validate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", config.recipe_names())
def test_shipped_recipes_are_valid(here, name):
    done = here("validate", name)
    assert (done.code, done.out) == (0, f"{name} is valid\n")
    assert re.match(rf"next: (.*/)?tutelage train {name}$", done.err.splitlines()[-1])


def test_validate_as_json_tells_the_whole_recipe(here):
    done = here("validate", "digits-few-labels", "training.seeds=[4, 7]", "--json")
    told = json.loads(done.out)
    assert (done.code, told["valid"], told["problems"]) == (0, True, [])
    assert told["recipe"]["training"]["seeds"] == [4, 7]
    assert told["recipe"]["training"]["schedule"] == "cosine"  # a default, which stands in no file


MISTAKES = """\
data: {source: digits, labeled: -3}
student: {mlp: {hiden: [16]}}
objective:
  hard: {forward_kl: {}, teacher: labels, weight: heavy}
"""


def test_all_mistakes_come_at_once_with_their_lines(tmp_path, here):
    (tmp_path / "mistakes.yaml").write_text(MISTAKES)
    done = tutelage("validate", "mistakes.yaml", cwd=tmp_path)
    refused(done, 2, "mistakes.yaml:1: data.labeled", "mistakes.yaml:2:", "'hidden'", "mistakes.yaml:4:")

    as_json = here("validate", "mistakes.yaml", "--json")
    told = json.loads(as_json.out)
    assert (as_json.code, told["valid"]) == (2, False)
    assert {problem["line"] for problem in told["problems"]} == {1, 2, 4}
    assert all(problem["file"] == "mistakes.yaml" and problem["message"] for problem in told["problems"])


@pytest.mark.parametrize("command", ["validate", "train"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits-few-label"], "did you mean 'digits-few-labels'"),
        (["digits-few-labels", "training.epochs=many"], "training.epochs"),
        (["digits-few-labels", "training.epoch=3"], "did you mean 'epochs'"),
        (["digits-few-labels", "epochs"], "epochs"),
        (["digits-few-labels", "~teacher"], "teacher"),
        (["."], "folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_recipe_that_cannot_be_used(tmp_path, here, command, words, said):
    refused(here(command, *words), 2, said)
    assert list(tmp_path.iterdir()) == []


# --- init -------------------------------------------------------------------------------------------------------------


def test_init_copies_a_recipe_and_overwrites_nothing(tmp_path, here):
    done = here("init")
    assert (done.code, done.out) == (0, "digits-few-labels.yaml\n")
    copy = tmp_path / "digits-few-labels.yaml"
    assert copy.read_bytes() == config.recipe_path("digits-few-labels").read_bytes()
    assert here("validate", copy.name).code == 0

    copy.write_text("mine")
    refused(here("init"), 2, "digits-few-labels.yaml is there already")
    assert copy.read_text() == "mine"

    other = here("init", "digits-omitted-class", tmp_path, cwd="/")
    assert other.out == f"{tmp_path}/digits-omitted-class.yaml\n"
    refused(here("init", "digits-few-labels", "no/such/place.yaml"), 1, "no/such")
    refused(here("init", "digits", "new.yaml"), 2, "digits-few-labels")
    assert not (tmp_path / "new.yaml").exists()


# --- ls, schema, env --------------------------------------------------------------------------------------------------


def test_ls_lists_what_there_is(here):
    done = here("ls", "--json")
    told = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    names = {kind: [entry["name"] for entry in entries] for kind, entries in told.items()}
    assert names == {
        "recipes": config.recipe_names(),
        "divergences": list(tl.divergences.ALL),
        "models": ["mlp", "timm", "llama", "bert", "model"],
        "backends": list(BACKENDS),
    }
    assert all(entry["summary"].endswith(".") for entries in told.values() for entry in entries)
    parameters = {entry["name"]: entry["parameters"] for entry in told["divergences"]}
    for kind, cls in tl.divergences.ALL.items():
        assert {name: value["default"] for name, value in parameters[kind].items()} == vars(cls())
    assert parameters["skew_forward_kl"]["skew"] == {"default": 0.1, "low": 0.0, "high": 1.0, "open": ["low", "high"]}

    for kind, listed in names.items():
        one = here("ls", kind)
        assert one.code == 0
        assert one.out.splitlines()[0] == kind
        assert [line.split()[0].partition("{")[0] for line in one.out.splitlines()[1:]] == listed


def test_the_schema_is_json_and_goes_into_a_file(tmp_path, here):
    done = here("schema")
    assert json.loads(done.out) == config.json_schema()
    assert here("schema", "--out", "recipe.json").out == "recipe.json\n"
    assert json.loads((tmp_path / "recipe.json").read_text()) == config.json_schema()
    refused(here("schema", "--out", "recipe.json"), 2, "recipe.json is there already")


def test_env_tells_versions_and_no_secrets(tmp_path, here, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "a-secret-of-mine")
    done = here("env", "--json")
    told = json.loads(done.out)
    assert done.code == 0
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    assert told["packages"]["torch"] == metadata.version("torch")
    assert told["threads"] >= 1
    assert "a-secret-of-mine" not in done.out + done.err
    plain = tutelage("env", cwd=tmp_path)
    assert told["packages"]["torch"] in plain.out


def test_a_reader_that_has_seen_enough(tmp_path):
    """`tutelage ls | head -1` is no error worth a traceback."""
    code = f"{sys.executable} -m tutelage schema | head -1"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.stdout == "{\n"
    assert done.stderr == ""


def test_a_terminal_that_knows_only_ascii(tmp_path):
    done = tutelage("ls", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.code == 0
    assert "alpha_beta" in done.out
