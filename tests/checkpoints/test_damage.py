"""A checkpoint that is damaged in any way is never gone on from: the older one leads to the same bytes."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from damage import OF_A_FILE, all_damage
from scoreboard import Trial
from subjects import EVERY, STEPS, SUBJECTS, OfATrainer, listening

from tutelage.errors import DamagedDataError, InputError
from tutelage.training import DistillationTrainer, last_checkpoint
from tutelage.training._checkpoints import rotate

OURS = [name for name in SUBJECTS if name != "transformers.Trainer"]
NEWEST, OLDER = STEPS - EVERY, STEPS - 2 * EVERY


@pytest.fixture(scope="module", params=OURS)
def trial(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTELAGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Trial(SUBJECTS[request.param](), tmp_path_factory.mktemp("trial"))


def sampled(trial):
    """Return each kind of damage once, and each file: of a recipe, whose trainer is the same, every eighth."""
    every = list(all_damage(trial.newest))
    files, of_files = len({name for _, name, _ in every if name}), len(OF_A_FILE)
    chosen = [every[kind * files + kind % files] for kind in range(of_files)] + every[of_files * files :]
    return chosen if isinstance(trial.subject, OfATrainer) else chosen[::8]


def check(trial, damage):
    tried = [(kind, name, trial.tried(kind, name, damaged)) for kind, name, damaged in damage]
    injected = [one for _, _, one in tried if one is not None]
    assert [one for one in injected if not (one.noticed and one.same and one.lost == 0)] == []
    return injected


def test_a_sample_of_damage(trial):
    assert check(trial, sampled(trial))


@pytest.mark.slow
def test_all_damage(trial):
    assert len(check(trial, all_damage(trial.newest))) > 150


@pytest.mark.slow
def test_damage_that_transformers_goes_on_with(tmp_path):
    """What these checkpoints are for: beside the same damage, transformers.Trainer goes on to other weights."""
    trial = Trial(SUBJECTS["transformers.Trainer"](), tmp_path)
    tried = [one for damage in all_damage(trial.newest) if (one := trial.tried(*damage)) is not None]
    assert sum(one.silent for one in tried) > 10
    assert sum(not one.same for one in tried) > 50


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Return a folder with two checkpoints, and the result of going on to the end."""
    root = tmp_path_factory.mktemp("stopped")
    return root / "stopped", OfATrainer().prepare(root)


@pytest.fixture
def folder(stopped, tmp_path):
    return shutil.copytree(stopped[0], tmp_path / "run")


def flip(path):
    OF_A_FILE["a bit in the middle"](path, None, None)


def test_what_was_left_is_said(folder, stopped, caplog):
    flip(folder / f"checkpoint-{NEWEST}" / "optimizer.safetensors")
    assert last_checkpoint(folder) == folder / f"checkpoint-{OLDER}"
    (record,) = caplog.records
    assert f"checkpoint-{NEWEST}/optimizer.safetensors was changed after it was written" in record.getMessage()
    assert f"the newest whole one is checkpoint-{OLDER}" in record.getMessage()


def test_a_damaged_checkpoint_that_was_named_is_refused(folder):
    newest = folder / f"checkpoint-{NEWEST}"
    flip(newest / "model.safetensors")
    with pytest.raises(DamagedDataError, match=r"model\.safetensors was changed after it was written"):
        OfATrainer().train(folder, resume=newest)
    with pytest.raises(InputError, match="no complete checkpoint at"):
        OfATrainer().train(folder, resume=folder / "checkpoint-5")


def test_where_none_is_whole_all_are_named(folder):
    flip(folder / f"checkpoint-{NEWEST}" / "scheduler.json")
    (folder / f"checkpoint-{OLDER}" / "trainer_state.json").unlink()
    with pytest.raises(DamagedDataError, match=r"no checkpoint in .* is whole; train without one") as caught:
        OfATrainer().train(folder, resume=True)
    assert f"checkpoint-{NEWEST}/scheduler.json was changed" in str(caught.value)
    assert f"checkpoint-{OLDER}/trainer_state.json is missing" in str(caught.value)
    assert last_checkpoint(folder) is None


def test_nothing_is_unpickled(folder, stopped):
    """Python tells of each class that a pickle names, whichever library reads it."""
    found, listens = [], [True]

    def hook(event, given):
        if listens and event == "pickle.find_class":
            found.append(given)

    sys.addaudithook(hook)
    result = OfATrainer().go_on(folder).result
    listens.clear()
    assert result == stopped[1]
    assert found == []
    assert not [path.name for path in folder.rglob("*") if path.suffix in {".pt", ".pth", ".bin", ".pkl"}]


def test_best_checkpoints_are_checked(tmp_path):
    best = {"eval_strategy": "steps", "eval_steps": EVERY, "load_best_model_at_end": True}

    class Damaging(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == STEPS - 1:
                for place in tmp_path.glob("checkpoint-*"):
                    flip(place / "model.safetensors")

    trainer = OfATrainer().trainer(tmp_path, **best, metric_for_best_model="loss", greater_is_better=True)
    trainer.add_callback(Damaging())
    with pytest.raises(DamagedDataError, match="so the best checkpoint cannot be trusted"):
        trainer.train()


class Older(DistillationTrainer):
    """Writes checkpoints as transformers does, and as tutelage did before it wrote manifests."""

    _save_optimizer_and_scheduler = transformers.Trainer._save_optimizer_and_scheduler
    _save_rng_state = transformers.Trainer._save_rng_state
    _save_scaler = transformers.Trainer._save_scaler

    def _save_checkpoint(self, model, trial):
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True)
        self._window.save(folder, 0)
        self._for_a_checkpoint = True
        transformers.Trainer._save_checkpoint(self, model, trial)


@pytest.fixture(scope="module")
def written_before(tmp_path_factory):
    folder = tmp_path_factory.mktemp("before") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subjects.DistillationTrainer", Older)
        OfATrainer().train(folder)
    shutil.rmtree(folder / f"checkpoint-{STEPS}")
    return folder


@pytest.fixture
def older(written_before, tmp_path):
    return shutil.copytree(written_before, tmp_path / "run")


def test_checkpoints_without_a_manifest_are_gone_on_from(older, stopped):
    with listening("tutelage") as told:
        assert OfATrainer().go_on(older).result == stopped[1]
    assert len(told) == 1
    assert f"checkpoint-{NEWEST} was written without a manifest" in told[0]
    assert "torch.load(weights_only=True)" in told[0]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
@pytest.mark.parametrize("kind", ["missing", "cut in half", "cut to nothing", "a folder", "a pipe"])
def test_those_are_checked_as_far_as_can_be(older, name, kind):
    OF_A_FILE[kind](older / f"checkpoint-{NEWEST}" / name, None, None)
    assert last_checkpoint(older) == older / f"checkpoint-{OLDER}"


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_the_files_of_torch_have_checksums(older, name):
    OF_A_FILE["a sector lost"](older / f"checkpoint-{NEWEST}" / name, None, None)
    assert last_checkpoint(older) == older / f"checkpoint-{OLDER}"


def test_what_has_no_optimizer_is_refused(tmp_path):
    OfATrainer().train(tmp_path, save_only_model=True)
    with pytest.raises(InputError, match="save_only_model=True"):
        OfATrainer().train(tmp_path, resume=tmp_path / f"checkpoint-{STEPS}")


def test_optimizers_with_states_of_their_own(tmp_path, monkeypatch):
    """A state that holds more than tensors and numbers is in torch's format, and goes on to the same bytes."""

    class Odd(torch.optim.SGD):
        def state_dict(self):
            return {**super().state_dict(), "odd": {1, 2}}

    def trainer(folder):
        made = OfATrainer().trainer(folder)
        made.optimizer = Odd(made.model.parameters(), lr=0.05, momentum=0.9)
        return made

    whole = trainer(tmp_path)
    whole.train()
    assert (tmp_path / f"checkpoint-{NEWEST}" / "optimizer.pt").is_file()
    shutil.rmtree(tmp_path / f"checkpoint-{STEPS}")
    resumed = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert all(value.equal(resumed.model.state_dict()[name]) for name, value in whole.model.state_dict().items())


@pytest.mark.parametrize("groups", ["more", "as many"])
def test_another_optimizer_is_refused(folder, groups):
    trainer = OfATrainer().trainer(folder)
    if groups == "more":
        optimizer = torch.optim.SGD([{"params": [weight]} for weight in trainer.distillation.parameters()], lr=1.0)
    else:
        trainer.create_optimizer()
        kept = [{"params": group["params"]} for group in trainer.optimizer.param_groups]
        optimizer = torch.optim.SGD(kept, lr=1.0)
    trainer.optimizer = optimizer
    with pytest.raises(InputError, match=r"the state of the optimizer in .* does not fit"):
        trainer.train(resume_from_checkpoint=True)


def left(folder):
    return sorted(int(path.name.rpartition("-")[2]) for path in folder.iterdir() if path.is_dir())


def test_the_last_whole_checkpoint_is_never_removed(folder):
    """Of three, two may stay: the damaged one goes first, and not the older one that is whole."""
    written = shutil.copytree(folder / f"checkpoint-{NEWEST}", folder / f"checkpoint-{STEPS}")
    (folder / f"checkpoint-{NEWEST}" / "model.safetensors").unlink()
    rotate(folder, 2, written, None)
    assert left(folder) == [OLDER, STEPS]
    rotate(folder, 1, written, str(folder / f"checkpoint-{OLDER}"))
    assert left(folder) == [OLDER, STEPS]
    rotate(folder, 1, written, None)
    assert left(folder) == [STEPS]


def test_checkpoints_of_later_steps_are_of_another_training(folder):
    """They go before the one that was gone on from, and the one that was written last stays in any case."""
    for step in (100, 101):
        shutil.copytree(folder / f"checkpoint-{OLDER}", folder / f"checkpoint-{step}")
    OfATrainer().train(folder, resume=folder / f"checkpoint-{OLDER}", save_total_limit=2, max_steps=NEWEST)
    assert left(folder) == [OLDER, NEWEST]


@pytest.mark.parametrize(("limit", "kept"), [(1, [6]), (2, [4, 6]), (None, [2, 4, 6]), (0, [2, 4, 6])])
def test_checkpoints_above_the_limit_are_removed(tmp_path, limit, kept):
    OfATrainer().train(tmp_path, save_total_limit=limit)
    assert left(tmp_path) == kept
    assert {path.name for path in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in kept} | {"metrics.jsonl"}
