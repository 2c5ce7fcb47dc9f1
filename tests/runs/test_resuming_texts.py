"""Runs about hidden tokens and classes of texts, stopped and resumed, or shared by processes, are one run."""

import os
import signal

import labelled_texts
import masked_texts
import pytest
import torch
from safetensors.torch import load_file

from tutelage.config import load
from tutelage.run_folder import read_lines
from tutelage.runs import Interrupted, Progress, run

ALWAYS = ["training.seeds=1", "baseline=false"]


KINDS = [masked_texts, labelled_texts]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the files of the recipes."""
    return {kind: kind.written(tmp_path_factory.mktemp("texts")) for kind in KINDS}


@pytest.fixture(scope="module")
def by_two_processes(files, tmp_path_factory, launched):
    """Return the folders of runs that two processes trained."""
    place = tmp_path_factory.mktemp("two")
    folders = {kind: place / kind.__name__ for kind in KINDS}
    runs = [[str(files[kind]), *ALWAYS, "--out", str(folders[kind]), "--no-report"] for kind in KINDS]
    ended = launched(2, runs, {"TUTELAGE_CACHE": str(place / "cache")})
    assert [code for _, code in ended] == [0, 0], ended
    return folders


@pytest.fixture(scope="module", params=KINDS, ids=["masked", "labelled"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def whole(kind, files, tmp_path_factory):
    """Return the file of a recipe, and the folder of its run."""
    file, folder = files[kind], tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_CACHE", str(folder.parent / "cache"))
        run(load(file, ALWAYS), folder)
    return file, folder


@pytest.mark.parametrize("step", [1, 4])
def test_an_interrupted_run_goes_on_to_the_same_bytes(whole, tmp_path, digests, step):
    file, folder = whole
    events = []

    def stop_once(event):
        events.append(event)
        stopped = any(isinstance(one, Interrupted) for one in events)
        if isinstance(event, Progress) and (event.arm, event.step) == ("student", step) and not stopped:
            os.kill(os.getpid(), signal.SIGINT)

    assert run(load(file, ALWAYS), tmp_path / "run", on_event=stop_once).status == "interrupted"
    assert run(None, tmp_path / "run", resume=True).status == "complete"
    assert digests(tmp_path / "run") == digests(folder)


def test_two_processes_train_what_one_trains(kind, whole, by_two_processes):
    """Rows are of uneven lengths, and some have no label: what a step divides by is counted over both processes."""
    (_, folder), shared = whole, by_two_processes[kind]
    for arm in ("teacher", "seed-0/student"):
        one, two = (load_file(root / arm / "model" / "model.safetensors") for root in (folder, shared))
        assert one.keys() == two.keys()
        # The bias of a key changes no attention: its gradient is rounding alone, which Adam makes as large as any.
        for name, weight in ((name, weight) for name, weight in one.items() if not name.endswith("key.bias")):
            assert torch.allclose(weight, two[name], rtol=1e-4, atol=1e-4), (arm, name)
    lines = [read_lines(root / "seed-0/student/metrics.jsonl") for root in (folder, shared)]
    for mine, theirs in zip(*lines, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)
