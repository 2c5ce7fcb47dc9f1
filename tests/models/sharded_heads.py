"""One of two processes: a loss on HeadStates under DDP and FSDP2 against the dense loss of one process.

Run by test_heads_sharded.py: python sharded_heads.py RANK FOLDER.
"""

from __future__ import annotations

import copy
import sys

import pytest
import torch
import torch.distributed as dist
import transformers
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import tutelage as tl
from tutelage.errors import ModelError
from tutelage.models import HeadModel, find_head

WORLD, V = 2, 50


class Step(nn.Module):
    """The loss inside the forward of what is wrapped, as in DistillationModel: a sum over all rows of all ranks."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, ids: torch.Tensor, labels: torch.Tensor, rows: int) -> torch.Tensor:
        loss = tl.divergence(self.student(input_ids=ids), tl.Labels(labels), reduction="sum")
        return loss / rows * WORLD  # gradients are averaged over ranks


def model(tied: bool) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": tied}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, V, (4, 5), generator=generator), torch.randint(0, V, (4, 5), generator=generator)


def expected(network: nn.Module) -> dict[str, torch.Tensor]:
    """The gradients of plain transformers and PyTorch, on the whole batch."""
    ids, labels = data()
    nn.functional.cross_entropy(network(input_ids=ids).logits.flatten(0, 1), labels.flatten()).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def check(step: nn.Module, rank: int, prefix: str, wanted: dict[str, torch.Tensor], what: str) -> None:
    ids, labels = data()
    mine = slice(0, 1) if rank == 0 else slice(1, 4)  # rows unevenly spread
    step(ids[mine], labels[mine], ids.numel()).backward()
    found = dict(step.named_parameters())
    assert found.keys() == {prefix + name for name in wanted}, f"{what}: {sorted(found)}"
    for name, gradient in wanted.items():
        grad = found[prefix + name].grad
        whole = grad.full_tensor() if isinstance(grad, DTensor) else grad
        torch.testing.assert_close(
            whole, gradient, atol=1e-6, rtol=1e-5, msg=lambda text, n=name: f"{what} {n}: {text}"
        )


def shard(step: Step, again: bool) -> Step:
    for layer in step.student.model.model.layers:
        fully_shard(layer)
    return fully_shard(step, reshard_after_forward=again)


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    for tied in (False, True):
        wanted = expected(model(tied))
        check(DistributedDataParallel(Step(HeadModel(model(tied)))), rank, "module.student.model.", wanted, "DDP")
        for again in (False, True):
            step = shard(Step(HeadModel(model(tied))), again)
            assert isinstance(find_head(step.student.model).weight, DTensor)
            check(step, rank, "student.model.", wanted, f"FSDP2 tied={tied} reshard={again}")
    inside = HeadModel(copy.deepcopy(model(False)))
    fully_shard(inside.model)
    with pytest.raises(ModelError, match="fully_shard to the HeadModel"):
        inside(input_ids=data()[0])
    dist.destroy_process_group()
    print(f"rank {rank} agrees")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
