"""How long an answer takes is told of a network, and not of the moment at which it was timed."""

import itertools
import re

from tutelage.config import load
from tutelage.report import build_report
from tutelage.run_folder import RunFolder, read_json
from tutelage.runs import evaluate, run
from tutelage.runs._latency import latencies

QUICK = ["training.seeds=2", "training.steps=1", "teacher.fit.epochs=1"]


def test_networks_are_timed_in_turn():
    order = []
    networks = {
        name: {size: lambda name=name, size=size: order.append(name + size)} for size in ("1",) for name in "ab"
    }
    found = latencies(networks)
    assert order[:6] == ["a1", "b1"] * 3
    assert all(one != other for one, other in itertools.pairwise(order))
    assert found.keys() == {"a", "b"}
    assert all(0 < milliseconds < 1000 for sizes in found.values() for milliseconds in sizes.values())


def test_the_same_network_takes_as_long_in_every_row(clouds, tmp_path):
    """Student and baseline of all seeds are one network with other weights; the teacher is another."""
    run(load(clouds, QUICK), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    told = read_json(folder.latency)
    assert told.keys() == {"teacher", "student", "baseline"}
    assert told["student"] == told["baseline"] != told["teacher"]
    assert told["teacher"].keys() == told["student"].keys() == {"1", "256"}
    page = build_report(folder.path).read_text(encoding="utf-8")
    row = re.search(r"Latency, one row.*?</tr>", page, re.DOTALL)[0]
    teacher, student, baseline = re.findall(r"([\d.]+)\s*ms", row.replace("\xa0", " "))
    assert student == baseline == f"{told['student']['1']:.3g}"
    assert teacher == f"{told['teacher']['1']:.3g}"

    # What was measured stays; what was removed is measured anew.
    run(None, folder.path, resume=True)
    assert read_json(folder.latency) == told
    folder.latency.unlink()
    evaluate(folder.path)
    assert not folder.latency.exists()
    run(None, folder.path, resume=True)
    assert read_json(folder.latency) != told


def test_a_teacher_like_its_student_takes_as_long(clouds, tmp_path):
    run(load(clouds, [*QUICK, "student.mlp={hidden: [12], dropout: 0.1}"]), tmp_path / "run")
    told = read_json(RunFolder(tmp_path / "run").latency)
    assert told["teacher"] == told["student"] == told["baseline"]
