"""One of two processes that write checkpoints together, and go on from them; run by test_ranks."""

import errno
import shutil
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from damage import OF_A_FILE
from subjects import EVERY, STEPS, OfATrainer

from file_faults import fail_at
from tutelage.errors import RunFolderError
from tutelage.training import last_checkpoint

GIVEN = {"ddp_backend": "gloo", "per_device_train_batch_size": 2}


def state(trainer):
    return [value.clone() for value in trainer.distillation.state_dict().values()]


def goes_on_from_the_newest_whole(folder, rank):
    whole = OfATrainer().train(folder, **GIVEN)
    newest = folder / f"checkpoint-{STEPS - EVERY}"
    assert {path.name for path in newest.glob("*_[01].*")} == {
        f"{name}_{one}.{ending}"
        for one in (0, 1)
        for name, ending in (("log_window", "json"), ("rng_state", "json"), ("rng_state", "safetensors"))
    }
    dist.barrier()
    if rank == 0:
        shutil.rmtree(folder / f"checkpoint-{STEPS}")
        OF_A_FILE["a bit in the middle"](newest / "rng_state_1.safetensors", None, None)
    dist.barrier()
    resumed = OfATrainer().train(folder, resume=True, **GIVEN)
    assert all(torch.equal(one, other) for one, other in zip(state(whole), state(resumed), strict=True))
    assert whole.state.log_history[:-1] == resumed.state.log_history[:-1]


def what_one_cannot_write_none_has_written(folder, rank):
    """The second process has no room for its part of the second checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        # Its first checkpoint takes these: its folder, what it has summed, its weights, its random numbers.
        fail_at(patch, 8 if rank == 1 else 0, errno.ENOSPC)
        with pytest.raises(OSError if rank == 1 else RunFolderError) as caught:
            OfATrainer().train(folder, **GIVEN)
    assert ("No space left" if rank == 1 else "another process could not write its part") in str(caught.value)
    dist.barrier()
    assert last_checkpoint(folder) == folder / f"checkpoint-{EVERY}"
    assert not list(folder.glob(".*"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    root, index = Path(sys.argv[1]), int(sys.argv[2])
    goes_on_from_the_newest_whole(root / "resumed", index)
    what_one_cannot_write_none_has_written(root / "full", index)
    dist.destroy_process_group()
