"""Five hundred damaged recipes, in a process of its own that watches what they make Python do.

Prints one JSON line: how many were refused and accepted, what else was raised, what was imported, opened or run while
they were loaded, and the memory at the end. Run by test_config_fuzz.
"""

import json
import random
import re
import sys
import tempfile
from pathlib import Path

from tutelage.config import RecipeError, load, recipe_path

VALUES = [
    "", "~", "true", "no", "0", "-1", "1.5", "1e400", ".nan", "-.inf", "0x1F", "'text'", '"\\ud83d"', "[]", "[[[]]]",
    "{}", "{a: {b: {c: 1}}}", "!!python/object:os.system {}", "!!python/object/apply:os.system ['echo']",
    "!import_call {key: os.getcwd}", "!include /etc/passwd", "&a [*a]", "*a", "{<<: {epochs: 1}}", "| \n   block",
    "9" * 5000, "12:30:00", "2024-01-01", "[1, 2", "{1: 2, [3]: 4}", "teacher", "labels", "\x00", "\x85", "\ufeff", "é",
]  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz_:{}[]#&*!|>'\"%@`,-? \t\n\x00\x7f\u2028é"


# What the shipped recipes do not use.
OTHER = """\
data: {table: rows.csv, target: kind, features: [a, b], test: held.npz, omit: [x, 3], missing: [-1, NA]}
teacher:
  model: saved/model
student:
  timm: resnet18
  weights: start.safetensors
objective:
  near: {jensen_shannon: {beta: 0.3}, temperature: 2.0, scale_by_temperature: false}
  far:
    alpha_beta: {alpha: 0.2, beta: 0.7}
    weight: 3
  hard: {forward_kl: , teacher: labels}
training:
  steps: 100
  warmup: 0.1
  schedule: linear
  precision: bfloat16
  seeds: [3, 4]
"""

TEXTS = """\
task: causal_lm
data:
  text: notes/*.txt
  test: held.jsonl
  length: 128
  packing: false
  limit_tokens: 5000
  long_completions: drop
  tokenizer: {model: some/model, revision: main}
teacher:
  llama: {hidden: 32, layers: 2, heads: 4, key_value_heads: 2, intermediate: 64}
  fit: {steps: 10, warmup: 0.1}
student:
  {model: some/model, revision: main, dtype: bfloat16, lora: {rank: 4, alpha: 8.0, targets: [q_proj], dropout: 0.1}}
objective:
  soft: {reverse_kl: {}, temperature: 2}
training: {steps: 10}
"""

HIDDEN = """\
task: masked_lm
data: {text: notes.jsonl, test_fraction: 0.2, length: 64, mask: 0.3, packing: false, tokenizer: {train: 900}}
teacher:
  bert: {hidden: 32, layers: 2, heads: 4, intermediate: 64}
  fit: {steps: 10}
student:
  bert: {hidden: 8, layers: 1, heads: 2, intermediate: 16}
  weights: start
objective:
  soft: {forward_kl: {}}
training: {steps: 10}
"""


def typo(text, chance):
    place = chance.randrange(len(text))
    kind = chance.randrange(4)
    letter = chance.choice(LETTERS)
    middle = {0: letter + text[place], 1: "", 2: letter, 3: text[place] * 2}[kind]
    return text[:place] + middle + text[place + 1 :]


def value(text, chance):
    lines = text.split("\n")
    line = chance.choice([i for i, line in enumerate(lines) if ":" in line] or [0])
    lines[line] = f"{lines[line].split(':')[0]}: {chance.choice(VALUES)}"
    return "\n".join(lines)


def line_moved(text, chance):
    lines = text.split("\n")
    line = lines.pop(chance.randrange(len(lines)))
    if chance.random() < 0.6:
        indent = " " * chance.choice([0, 1, 2, 4, 30])
        lines.insert(chance.randint(0, len(lines)), chance.choice([line, indent + line.strip()]))
    return "\n".join(lines)


def line_twice(text, chance):
    lines = text.split("\n")
    line = chance.randrange(len(lines))
    return "\n".join([*lines[: line + 1], *lines[line:]])


def nested(text, chance):
    lines = text.split("\n")
    line = chance.randrange(len(lines))
    depth = chance.choice([1, 5, 19, 20, 21, 500])
    opening, closing = chance.choice(["[]", ("{a: ", "}"), ("- ", "")])
    lines[line] = f"{lines[line].split(':')[0]}: {opening * depth}1{closing * depth}"
    return "\n".join(lines)


def garbage(text, chance):
    data = bytearray(text.encode())
    for _ in range(chance.choice([1, 3, 30])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def cut(text, chance):
    return text[: chance.randrange(len(text))]


MUTATIONS = [typo, typo, value, value, line_moved, line_twice, nested, garbage, cut]
PLACES = [
    "data.tokenizer",
    "student.lora.targets",
    "training.epochs",
    "objective.soft",
    "teacher",
    "data",
    "student.mlp.hidden",
    "a.b.c",
    "",
    "objective..x",
]


def mutant(number, shipped):
    """Return the bytes of a recipe and its overrides: one to four mutations of a shipped one."""
    chance = random.Random(number)
    text = chance.choice(shipped)
    for _ in range(chance.randint(1, 4)):
        if isinstance(text, str) and text:
            text = chance.choice(MUTATIONS)(text, chance)
    places = [chance.choice(PLACES) for _ in range(chance.choice([0, 0, 1, 3]))]
    overrides = [f"{chance.choice('~ ')}{at}{chance.choice('= ')}{chance.choice(VALUES)}".strip() for at in places]
    return text if isinstance(text, bytes) else text.encode(), overrides


def faults(error):
    """Return what is wrong with an error's message: it must be a line for each problem, that any terminal can show."""
    lines = str(error).split("\n")
    if not error.problems or len(lines) != len(error.problems):
        yield f"{len(lines)} lines for {len(error.problems)} problems"
    for problem in error.problems:
        if not problem.message or not str(problem).isprintable() or len(str(problem)) > 600:
            yield f"a message nobody can read: {str(problem)[:300]!r}"


def main(amount):
    shipped = [recipe_path(name).read_text("utf-8") for name in ("digits-few-labels", "digits-omitted-class")]
    recipes = [*shipped, recipe_path("pystdlib-lm").read_text("utf-8"), OTHER, TEXTS, HIDDEN]
    counts = {"refused": 0, "accepted": 0}
    raised, seen = [], []
    watching = False

    def watch(event, arguments):
        if watching and event in ("import", "exec", "compile", "os.system", "subprocess.Popen", "socket.connect"):
            seen.append(f"{event} {str(arguments)[:80]}")
        if watching and event == "open" and str(arguments[0]) != str(path):
            seen.append(f"open {arguments[0]}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        # Once without watching, for what loading any recipe, and refusing any, brings in.
        load("digits-few-labels")
        path.write_text("a: 1")
        for overrides in ([], ["student=["]):
            try:
                load(path, overrides)
            except RecipeError as error:
                str(error)
        sys.addaudithook(watch)
        for number in range(amount):
            data, overrides = mutant(number, recipes)
            path.write_bytes(data)
            watching = True
            try:
                load(path, overrides)
                counts["accepted"] += 1
            except RecipeError as error:
                raised += [f"{number}: {fault}" for fault in faults(error)]
                counts["refused"] += 1
            except BaseException as error:
                raised.append(f"{number}: {type(error).__name__}: {str(error)[:200]}")
            finally:
                watching = False
    before = list(seen)
    watching = True
    import wave  # noqa: F401  # proves that an import would have been seen

    watching = False
    blind = "import ('wave'" not in str(seen[len(before) :])
    # The peak of this program; getrusage would count the process that started it, too.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    memory = int(peak[1]) / 1024
    sys.stdout.write(json.dumps({**counts, "raised": raised, "seen": before, "blind": blind, "megabytes": memory}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
