"""Conversations: what the assistant says is to be predicted, by the template's marks or by what it appends."""

import json

import pytest

from tiny_texts import tokenizer
from tutelage.data import encode
from tutelage.errors import DataError

# Each turn as <role>content</s>, and a line break that no one says.
PLAIN = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<{{ m['role'] }}>{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|endoftext|>{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ m['content'] }}<|endoftext|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# What an earlier turn thought is gone once more follows, as in some templates of reasoning models.
FORGETFUL = PLAIN.replace(
    "{{ m['content'] }}", "{% if loop.last and m['role'] == 'assistant' %}(hm){% endif %}{{ m['content'] }}"
)
ASSISTANT_FIRST = PLAIN.replace("<assistant>{% endif %}", "<someone>{% endif %}")
TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "import json?"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "why?"},
    {"role": "assistant", "content": "to load"},
]


def chat(template, messages=TALK, length=256, **how):
    made = tokenizer(chat_template=template)
    (row,) = encode([{"messages": messages}], made, length, **how)
    return made, row


def spoken(made, row):
    """What is to be predicted, stretch by stretch."""
    stretches, ids, before = [], row["input_ids"].tolist(), False
    for token, counts in zip(ids, row["target_mask"].tolist(), strict=True):
        if counts and not before:
            stretches.append([])
        if counts:
            stretches[-1].append(token)
        before = counts
    return [made.decode(stretch) for stretch in stretches]


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_the_assistants_turns_are_predicted_with_their_ends(template):
    made, row = chat(template)
    assert spoken(made, row) == ["yes<|endoftext|>", "to load<|endoftext|>"]
    assert made.decode(row["input_ids"]) == made.apply_chat_template(TALK, tokenize=False)


def test_by_turns_and_by_marks_are_one():
    (_, plain), (_, marked) = chat(PLAIN), chat(MARKED)
    assert plain["labels"].tolist() == marked["labels"].tolist()


def test_the_prompt_has_the_ids_that_it_has_when_it_is_answered():
    made, row = chat(PLAIN)
    first = row["target_mask"].tolist().index(True)
    asked = made.apply_chat_template(TALK[:2], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert row["input_ids"].tolist()[:first] == list(asked)


def test_options_reach_the_template():
    made, row = chat(PLAIN.replace("<|endoftext|>", "{{ sign }}<|endoftext|>"), template_options={"sign": "!"})
    assert spoken(made, row) == ["yes!<|endoftext|>", "to load!<|endoftext|>"]


def test_templates_that_cannot_tell_are_refused(refused):
    with refused(DataError, "message 3", "only ever appends"):
        chat(FORGETFUL)
    made, row = chat(FORGETFUL, TALK[:3])  # one answer, and nothing follows it
    assert spoken(made, row) == ["(hm)yes<|endoftext|>"]
    with refused(DataError, "message 3", "generation"):
        chat(ASSISTANT_FIRST)
    with refused(DataError, "no chat template", "set tokenizer.chat_template"):
        chat(None)
    with refused(DataError, "refused the first .*: no system", "roles in the order"):
        chat("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}")


@pytest.mark.parametrize(
    ("messages", "came"),
    [("hello", "'messages' is str"), ([], "'messages' is list"), ([{"content": "a"}], "message 1"), ([3], "message 1")],
)
def test_bad_messages_are_named(messages, came, refused):
    with refused(DataError, came, "expected"):
        chat(PLAIN, messages)


def test_conversations_without_an_answer_are_counted_and_long_ones_are_not_cut(refused):
    made = tokenizer(chat_template=PLAIN)
    rows = encode([{"messages": TALK[:2]}, {"messages": TALK}], made, 256)
    assert len(rows) == 1
    assert rows.left_out == {"without a target": 1}
    with refused(DataError, "tokens; expected 20", "drop"):
        encode([{"messages": TALK}], made, 20)
    rows = encode([{"messages": TALK}, {"text": "a b"}], made, 20, long_completions="drop")
    assert rows.left_out == {"too long": 1}


def test_a_conversation_of_a_file(tmp_path):
    from tutelage.data import read_rows

    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": TALK}) + "\n")
    made = tokenizer(chat_template=PLAIN)
    (row,) = encode(read_rows(tmp_path / "talk.jsonl"), made, 256)
    assert spoken(made, row) == ["yes<|endoftext|>", "to load<|endoftext|>"]
