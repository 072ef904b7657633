"""Some steps of a subset of weights that ``fully_shard`` has cut, by several processes; or by a test, of whole weights.

Not a test: ``sharded_run.py FOLDER CASES`` forks processes, so that what loads slowly is loaded once. ``CASES`` is in
JSON, by number of processes, a list of options of ``DynamicSubset``, ``lr`` and ``free``. Into ``FOLDER/<n>/<i>`` go
what the first of n processes holds after each step of the i-th case, ``<step>.safetensors``, and what it ``saved``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed, nn

import foretune
from foretune.testing import toys
from foretune.tuners.dynamic_subset import DynamicSubset
from foretune.tuners.subset.model import at_base, base_hash, dst_optimizer, learned, put, subset_of, tensors_of

STEPS = 4
Held = dict[str, torch.Tensor]


def network() -> nn.Module:
    """A toy whose heads, matrices and vectors have row counts that two and three processes cannot all share evenly."""
    made = toys.loud(toys.network("bert", labels=1), 5.0)
    del made.bert.encoder.layer[1:]
    return made


def attached(made: nn.Module, options: dict) -> nn.Module:
    more = tuple(options.pop("more", ()))
    return DynamicSubset(density=0.05, more=more, **options).attach(made, ("classifier",))


def optimizer_of(model: nn.Module, free: bool = False, lr: float = 0.01) -> torch.optim.Optimizer:
    kind, settings = dst_optimizer(model, lr=lr, steps=STEPS, free=free)
    return kind([{"params": [p for p in model.parameters() if p.requires_grad]}], **settings)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int, rank: int = 0, world: int = 1) -> None:
    """On this process's share of twelve texts."""
    model.train()
    batch = {name: tensor[rank::world] for name, tensor in toys.batch(model, (6, 4, 5) * 4, seed=number).items()}
    model(**batch).logits.square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def run(made: nn.Module, options: dict, see: Callable[[int, Held], None], rank: int = 0, world: int = 1) -> nn.Module:
    """``STEPS`` steps; ``see`` is given what is held after each."""
    known = {name: options.pop(name) for name in ("free", "lr") if name in options}
    model = attached(made, options)
    optimizer = optimizer_of(model, **known)
    for number in range(STEPS):
        step(model, optimizer, number, rank, world)
        see(number, {name: tensor.detach().clone() for name, tensor in learned(model).items()})
    return model


def sharded() -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    made = network()
    for layer in made.bert.encoder.layer:
        fully_shard(layer)
    return fully_shard(made)


def process(rank: int, world: int, folder: Path, cases: list[dict]) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    for case, options in enumerate(cases):
        place = folder / str(case)

        def see(number: int, held: Held, place: Path = place) -> None:
            if rank == 0:
                place.mkdir(exist_ok=True)
                save_file({name: tensor.contiguous() for name, tensor in held.items()}, place / f"{number}.safetensors")

        model = run(sharded(), dict(options), see, rank, world)
        tuner = DynamicSubset(density=0.05, **{k: v for k, v in options.items() if k not in ("free", "lr")})
        tuner.save(model, place / "saved")
        distributed.barrier()
        check_base(model, options)
        if case == 1:
            check_resumed(dict(options), rank, world)
            check_wrapped(place / "wrapped", rank, world)
    distributed.destroy_process_group()


def check_base(model: nn.Module, options: dict) -> None:
    """Below the subset lies the seed, also for a pass that follows another without a backward pass."""
    batch = toys.batch(model)
    model.eval()
    with torch.no_grad():
        tuned = model(**batch).logits
        with at_base(model):
            assert torch.equal(model(**batch).logits, network()(**batch).logits)
        assert torch.equal(model(**batch).logits, tuned)
    whole = attached(network(), {name: value for name, value in options.items() if name == "more"})
    assert base_hash(model) == base_hash(whole)


def check_resumed(options: dict, rank: int, world: int) -> None:
    """What was interrupted goes on, on fresh shards and with the state that each process kept, to the same bits."""
    free = options.pop("free", False)
    ends = []
    for pause in (None, 2):
        model = attached(sharded(), dict(options))
        optimizer = optimizer_of(model, free)
        for number in range(STEPS - 1):
            if number == pause:
                held, state = learned(model), optimizer.state_dict()
                held = {name: tensor.detach().clone() for name, tensor in held.items()}
                model = attached(sharded(), dict(options))
                optimizer = optimizer_of(model, free)
                put(model, held)
                optimizer.load_state_dict(state)
            step(model, optimizer, number, rank, world)
        ends.append([parameter.to_local().clone() for parameter in tensors_of(model).values()])
        assert any(len(part.index) > 0 for part in subset_of(model).parts)
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def check_wrapped(folder: Path, rank: int, world: int) -> None:
    """A ``SubsetModel`` around shards trains, switches its subset off and on, and saves what one process loads."""
    model = foretune.get_peft_model(sharded(), DynamicSubset(density=0.05))
    step(model, optimizer_of(model), 0, rank, world)
    batch = toys.batch(model)
    model.eval()
    with torch.no_grad():
        tuned = model(**batch).logits
        with model.disable_adapter():
            assert torch.equal(model(**batch).logits, network()(**batch).logits)
        assert torch.equal(model(**batch).logits, tuned)
        model.save_pretrained(folder)
        distributed.barrier()
        assert torch.equal(foretune.SubsetModel.from_pretrained(network(), folder)(**batch).logits, tuned)


def spawned(world: int, folder: Path, cases: list[dict]) -> bool:
    """Whether all of ``world`` processes came to an end."""
    folder.mkdir()
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            try:
                process(rank, world, folder, cases)
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        children.append(child)
    return sum(os.waitpid(child, 0)[1] for child in children) == 0


def main(folder: str, cases: str) -> None:
    torch.set_num_threads(1)
    ended = [spawned(int(world), Path(folder) / world, of_it) for world, of_it in json.loads(cases).items()]
    sys.exit(not all(ended))


if __name__ == "__main__":
    main(*sys.argv[1:])
