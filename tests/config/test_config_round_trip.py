"""A recipe that is written and read again is equal, and the JSON Schema agrees with the schema on what it can say."""

import copy
import json
import pickle
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tutelage.config import Recipe, RecipeError, dump, json_schema, load, recipe_names, recipe_path
from tutelage.config._divergences import kinds

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NAME = st.text(string.ascii_letters, min_size=1, max_size=1).flatmap(
    lambda first: st.text(string.ascii_letters + string.digits + "_-", max_size=8).map(lambda rest: first + rest)
)
CLASS = st.one_of(st.integers(-5, 5), TEXT)


def positive(high=1e6):
    return st.floats(0, high, exclude_min=True, allow_nan=False)


def some(**optional):
    return st.fixed_dictionaries({}, optional=optional)


def merged(*parts):
    return st.tuples(*parts).map(lambda found: {key: value for part in found for key, value in part.items()})


PATH = TEXT.filter(lambda text: text and "\0" not in text)
LABELED = some(labeled=st.none() | st.integers(1, 1000))
DATA = st.one_of(
    merged(st.just({"source": "digits"}), LABELED, some(omit=st.lists(st.integers(0, 9), max_size=8, unique=True))),
    merged(
        st.fixed_dictionaries({"table": PATH.map(lambda path: path + ".csv"), "target": TEXT.filter(bool)}),
        LABELED,
        some(
            features=st.lists(TEXT.filter(bool), min_size=1, max_size=3, unique=True),
            test_fraction=st.floats(0.01, 0.99),
            omit=st.lists(CLASS, max_size=3, unique=True),
        ),
    ),
    merged(st.fixed_dictionaries({"images": PATH}), LABELED, some(test=PATH, size=st.integers(1, 512))),
)
MLP = st.fixed_dictionaries(
    {"mlp": merged(st.fixed_dictionaries({"hidden": st.lists(st.integers(1, 99), max_size=3)}), some(
        dropout=st.floats(0, 1, exclude_max=True), activation=st.sampled_from(["relu", "gelu", "tanh"])))}
)  # fmt: skip
FIT = some(epochs=st.integers(1, 9), learning_rate=positive(), weight_decay=st.floats(0, 1), seed=st.integers(0, 99))
STUDENT = merged(st.one_of(MLP, st.fixed_dictionaries({"timm": PATH}, optional={"pretrained": st.booleans()})))
TEACHER = st.one_of(
    merged(MLP, st.fixed_dictionaries({"fit": FIT})),
    merged(MLP, st.fixed_dictionaries({"weights": PATH})),
    st.fixed_dictionaries({"timm": PATH, "pretrained": st.just(True)}),
    st.fixed_dictionaries({"model": PATH}),
)


def terms(teacher):
    to_labels = [name for name, kind in kinds().items() if kind.pointwise and kind.infinite is not True]
    able = list(kinds()) if teacher == "teacher" else to_labels
    return st.sampled_from(able).flatmap(
        lambda kind: merged(
            st.just({"teacher": teacher}),
            st.fixed_dictionaries(
                {kind: st.none() | some(**{p.name: st.floats(0.1, 0.9) for p in kinds()[kind].parameters})}
            ),
            some(weight=positive(), temperature=positive(), scale_by_temperature=st.booleans()),
        )
    )


TRAINING = merged(
    st.one_of(some(epochs=st.integers(1, 99)), st.fixed_dictionaries({"steps": st.integers(1, 99)})),
    some(
        learning_rate=positive(),
        seeds=st.integers(1, 9) | st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True),
        mix=st.floats(0, 9),
        warmup=st.floats(0, 1, exclude_max=True),
        schedule=st.sampled_from(["cosine", "linear", "constant"]),
        precision=st.sampled_from(["float32", "bfloat16", "float16"]),
    ),
)
LLAMA = st.sampled_from([(8, 2, 1), (16, 4, 2), (24, 4, 4), (16, 2, None)]).map(
    lambda sizes: {
        "llama": {"hidden": sizes[0], "layers": 1, "heads": sizes[1], "key_value_heads": sizes[2], "intermediate": 9}
    }
)
LORA = some(
    rank=st.integers(1, 99), targets=st.lists(TEXT.filter(bool), min_size=1, max_size=2), dropout=st.floats(0, 0.9)
)
PRETRAINED = merged(
    st.fixed_dictionaries({"model": PATH}),
    some(revision=TEXT.filter(bool), dtype=st.sampled_from(["float32", "bfloat16", "float16", "auto"]), lora=LORA),
)
TEXT_FIT = merged(
    st.one_of(some(epochs=st.integers(1, 9)), st.fixed_dictionaries({"steps": st.integers(1, 9)})),
    some(warmup=st.floats(0, 1, exclude_max=True)),
)
TOKENIZER = st.one_of(
    st.fixed_dictionaries({"train": st.integers(258, 10**6)}),
    st.fixed_dictionaries({"model": PATH}, optional={"revision": TEXT.filter(bool)}),
)
TEXTS = merged(
    st.one_of(
        st.just({"source": "pystdlib"}),
        st.fixed_dictionaries(
            {"text": PATH}, optional={"test": PATH, "long_completions": st.sampled_from(["refuse", "drop"])}
        ),
    ),
    st.fixed_dictionaries({"tokenizer": TOKENIZER}),
    some(length=st.integers(2, 999), packing=st.booleans(), limit_tokens=st.integers(1, 10**6)),
)
LANGUAGE = st.fixed_dictionaries(
    {
        "task": st.just("causal_lm"),
        "data": TEXTS,
        "teacher": merged(LLAMA, st.fixed_dictionaries({"fit": TEXT_FIT})) | PRETRAINED,
        "student": LLAMA | PRETRAINED,
        "objective": terms("teacher").map(lambda term: {"soft": term}),
    },
    optional={"baseline": st.booleans()},
)
BERT = st.sampled_from([(8, 2), (15, 3), (7, 1)]).map(
    lambda sizes: {"bert": {"hidden": sizes[0], "layers": 1, "heads": sizes[1], "intermediate": 9}}
)
HIDDEN = st.fixed_dictionaries(
    {
        "task": st.just("masked_lm"),
        "data": merged(
            st.fixed_dictionaries({"text": PATH, "tokenizer": TOKENIZER}),
            some(mask=st.floats(0, 1, exclude_min=True), packing=st.just(False)),
        ),
        "teacher": merged(BERT, st.fixed_dictionaries({"fit": TEXT_FIT})) | PRETRAINED,
        "student": BERT | PRETRAINED,
        "objective": terms("teacher").map(lambda term: {"soft": term}),
    },
)
CLASSES = st.fixed_dictionaries(
    {
        "data": DATA,
        "teacher": TEACHER,
        "student": STUDENT,
        "objective": st.dictionaries(
            NAME.filter(lambda name: not name.startswith("eval_") and name not in ("loss", "step", "epoch")),
            terms("teacher") | terms("labels"),
            max_size=3,
        ).flatmap(lambda others: terms("teacher").map(lambda term: {**others, "the_soft_one": term})),
    },
    optional={"training": TRAINING, "baseline": st.booleans(), "description": TEXT},
)
RECIPES = CLASSES | LANGUAGE | HIDDEN


def written(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.yaml"
        path.write_text(text, "utf-8", newline="")
        return load(path)


def through_json(settings_of):
    """Return the recipe of a mapping: JSON is YAML, so this is how any mapping is written without our own writer."""
    return written(json.dumps(settings_of, ensure_ascii=True))


DIGITS = load("digits-few-labels").model_dump(mode="json", exclude_none=True)


@settings(max_examples=40)
@given(RECIPES)
@example({**DIGITS, "description": "yes: 1e-2 # no\n\t- x"})
def test_what_is_written_is_read(given_settings):
    # json.dumps writes characters beyond the first plane as two halves, which YAML does not know.
    text = json.dumps(given_settings, ensure_ascii=False).replace("\x7f", "\\u007f")
    text = "".join(sign if sign.isprintable() or sign == " " else f"\\U{ord(sign):08x}" for sign in text)
    recipe = written(text)
    again = written(dump(recipe))
    assert again == recipe
    assert list(again.objective) == list(recipe.objective)
    assert dump(again) == dump(recipe)
    assert pickle.loads(pickle.dumps(recipe)) == copy.deepcopy(recipe) == recipe
    assert violations(given_settings, json_schema()) == []
    assert violations(recipe.model_dump(mode="json"), json_schema()) == []


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes(name):
    recipe = load(name)
    assert recipe.description
    assert recipe.baseline
    # A quick one says that it is, and that its figures are those of one seed.
    assert len(recipe.training.seed_list) >= (1 if name.endswith("-quick") else 3)
    assert written(dump(recipe)) == recipe
    assert load(recipe_path(name)) == recipe
    # It is written for people: each with a header, and a command to type.
    text = recipe_path(name).read_text("utf-8")
    assert text.startswith("# ")
    assert f"tutelage train {name}" in text
    assert violations(json.loads(json.dumps(recipe.model_dump(mode="json", exclude_none=True))), json_schema()) == []


def test_a_recipe_does_not_change():
    recipe = load("digits-few-labels")
    for part, name in ((recipe, "baseline"), (recipe.training, "epochs"), (recipe.objective["soft"], "weight")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(part, name, 1)


def test_unknown_names():
    for name, near in (("digits-few-label", "digits-few-labels"), ("digits_omitted_class", "digits-omitted-class")):
        for call in (load, recipe_path):
            with pytest.raises(RecipeError, match=f"^{name}: no such file, .*did you mean '{near}'"):
                call(name)


def test_a_file_comes_before_a_shipped_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits-few-labels").mkdir()
    assert load("digits-few-labels").baseline  # a folder is no recipe
    Path("digits-few-labels").rmdir()
    Path("digits-few-labels").write_text("a: 1")
    with pytest.raises(RecipeError, match=r"digits-few-labels:1: a: unknown key"):
        load("digits-few-labels")


def test_loading_a_recipe_takes_no_torch_and_little_time():
    code = (
        "import sys, time; start = time.process_time(); import tutelage.config; "
        "tutelage.config.load('digits-few-labels'); print(time.process_time() - start); tutelage.config.json_schema(); "
        "print([name for name in ('torch', 'numpy', 'transformers', 'sklearn') if name in sys.modules])"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert {run.stdout.split("\n")[1] for run in runs} == {"[]"}
    assert min(float(run.stdout.split("\n")[0]) for run in runs) < 0.4


# --- the JSON Schema --------------------------------------------------------------------------------------------------


def violations(value, schema, root=None, at="$"):
    """Return where a value breaks a JSON Schema: the keywords that ours has, by draft 2020-12."""
    root = schema if root is None else root
    known = {"$defs", "$ref", "$schema", "additionalProperties", "anyOf", "const", "default", "description", "enum"}
    known |= {"exclusiveMaximum", "exclusiveMinimum", "items", "maximum", "maxLength", "minItems", "minLength"}
    known |= {"minimum", "oneOf", "properties", "required", "title", "type", "format", "minProperties"}
    assert set(schema) <= known, set(schema) - known
    if "$ref" in schema:
        *_, name = schema["$ref"].split("/")
        assert schema["$ref"] == f"#/$defs/{name}"
        return violations(value, root["$defs"][name], root, at)
    found = []
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}
    if (kind := schema.get("type")) is not None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits = number if kind == "number" else isinstance(value, types[kind])
        if not fits or (kind == "integer" and isinstance(value, bool)):
            return [f"{at}: {value!r} is no {kind}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: not in {schema['enum']}")
    for word, holds in (
        ("minimum", lambda bound: value >= bound),
        ("maximum", lambda bound: value <= bound),
        ("exclusiveMinimum", lambda bound: value > bound),
        ("exclusiveMaximum", lambda bound: value < bound),
        ("minLength", lambda bound: len(value) >= bound),
        ("maxLength", lambda bound: len(value) <= bound),
        ("minItems", lambda bound: len(value) >= bound),
        ("minProperties", lambda bound: len(value) >= bound),
    ):
        if word in schema and not holds(schema[word]):
            found.append(f"{at}: {word} {schema[word]}")
    for word, wanted in (("anyOf", range(1, 100)), ("oneOf", range(1, 2))):
        if word in schema and sum(violations(value, one, root, at) == [] for one in schema[word]) not in wanted:
            found.append(f"{at}: {word}")
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        found += [f"{at}.{name}: missing" for name in schema.get("required", []) if name not in value]
        for name, inner in value.items():
            if name in properties:
                found += violations(inner, properties[name], root, f"{at}.{name}")
            elif isinstance(more, dict):
                found += violations(inner, more, root, f"{at}.{name}")
            elif not more:
                found.append(f"{at}.{name}: unknown")
    for i, inner in enumerate(value if isinstance(value, list) else []):
        found += violations(inner, schema.get("items", {}), root, f"{at}[{i}]")
    return found


BROKEN = [
    {"task": "causal"},
    {"colour": "red"},
    {"training": {"epochs": "ten"}},
    {"training": {"epochs": True}},
    {"training": {"batch_size": 0}},
    {"training": {"lr": 1}},
    {"training": {"seeds": 0}},
    {"training": {"mix": -1}},
    {"student": {"mlp": {"hidden": [0]}}},
    {"student": {"mlp": {}}},
    {"student": {"mpl": {"hidden": [1]}}},
    {"student": {}},
    {"data": {"source": "digit"}},
    {"data": {"source": "digits", "target": "x"}},
    {"data": {"table": 5, "target": "x"}},
    {"objective": {"soft": {"forward_kl": {}, "reverse_kl": {}}}},
    {"objective": {"soft": {"forward_kl": {"beta": 1}}}},
    {"objective": {"soft": {"jensen_shannon": {"beta": 1.1}}}},
    {"objective": {"soft": {"skew_forward_kl": {"skew": 1}}}},
    {"objective": {"soft": {"forward_kl": {}, "teacher": "dean"}}},
    {"objective": {"soft": {"temperature": 4}}},
]


@pytest.mark.parametrize("broken", BROKEN, ids=json.dumps)
def test_the_json_schema_refuses_what_the_schema_refuses(broken):
    """An editor marks the mistakes of structure, types and ranges that loading would refuse."""
    good = load("digits-few-labels").model_dump(mode="json", exclude_none=True)
    assert violations({**good, **broken}, json_schema()) != []
    with pytest.raises(RecipeError):
        through_json({**good, **broken})


def test_the_json_schema_describes_each_setting():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(schema)) == schema
    assert set(schema["properties"]) == set(Recipe.model_fields)
    for name, part in {**schema["properties"], **schema["$defs"]["TrainingSpec"]["properties"]}.items():
        assert part.get("description"), name
    assert violations({}, schema) == ["$.data: missing", "$.student: missing", "$.objective: missing"]
