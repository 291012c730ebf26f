# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Trains a small network from Python with the C++ optimizer, over the process group of torch.distributed.

    torchrun --standalone --nproc-per-node 2 examples/distributed/python/train.py

The first run compiles root_extension.cpp, about a minute; it needs a compiler, ninja and the headers of Python.
"""
import argparse
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.cpp_extension import load

HERE = Path(__file__).resolve().parent


def build(folder):
    """The extension, compiled by rank 0 and then loaded by all."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    if dist.get_rank() > 0:
        dist.barrier()
    module = load("root_extension", [str(HERE / "root_extension.cpp")], build_directory=str(folder),
                  extra_include_paths=[str(HERE.parents[2] / "include")],
                  extra_cflags=["-O2"])
    if dist.get_rank() == 0:
        dist.barrier()
    return module


def spiral(count, generator):
    """Points of three arms of a spiral, and which arm each belongs to."""
    label = torch.randint(3, (count,), generator=generator)
    radius = torch.rand(count, generator=generator)
    angle = 4 * radius + label * 2 * torch.pi / 3
    angle += 0.1 * torch.randn(count, generator=generator)
    return torch.stack((radius * angle.cos(), radius * angle.sin()), 1), label


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--build", default=HERE.parents[2] / "build/python_extension",
                        help="where the extension is compiled")
    arguments = parser.parse_args()

    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    extension = build(arguments.build)

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64),
                                torch.nn.Tanh(), torch.nn.Linear(64, 3))
    lr = 0.02
    optimizer = extension.DistributedRoot(list(model.named_parameters()), lr, 0.0, dist.group.WORLD)
    data = torch.Generator().manual_seed(1)
    for step in range(arguments.steps):
        optimizer.set_lr(lr * (1 - step / arguments.steps))
        points, label = spiral(64 * ranks, data)  # all ranks draw the same, and take a part each
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(points[rank::ranks]), label[rank::ranks]).backward()
        optimizer.step()

    points, label = spiral(2000, data)
    accuracy = (model(points).argmax(1) == label).float().mean().item()
    values = torch.cat([p.detach().flatten() for p in model.parameters()])
    theirs = [torch.empty_like(values) for _ in range(ranks)]
    dist.all_gather(theirs, values)
    equal = all(torch.equal(values, other) for other in theirs)
    if rank == 0:
        print(f"{ranks} ranks: accuracy {accuracy:.3f}; parameters "
              f"{'are equal on all of them' if equal else 'differ between them'}")
    dist.destroy_process_group()
    sys.exit(not equal or accuracy < 0.9)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
