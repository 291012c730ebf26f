# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""What a step costs that 1, 2 and 4 processes share, beside one process. scripts/bench.sh distributed runs
it; docs/distributed.md says what the columns mean."""

import argparse
import csv
import json
import math
import os
import socket
import statistics
import subprocess

import torch
import torch.distributed as dist
from torch.distributed.optim import ZeroRedundancyOptimizer

COLUMNS = ["param_set", "ranks", "compute_ms", "compute_ratio", "transport_ms", "total_ratio", "balance",
           "reduction_ms", "state_bytes", "state_ratio", "sent_bytes", "sent_ratio", "step_sent_excess",
           "owners_reduction_ms", "owners_sent_ratio", "owners_sent_excess",
           "shards_compute_ratio", "shards_total_ratio", "shards_sent_ratio", "shards_state_ratio",
           "round_robin_balance", "zero_adamw_state_bytes"]


def gpt2_small(layers):
    """GPT-2 small, query, key and value apart: its embeddings, biases and norms follow AdamW."""
    width, vocabulary, context = 768, 50257, 1024
    matrices = layers * (4 * [(width, width)] + [(4 * width, width), (width, 4 * width)])
    others = [(vocabulary, width), (context, width)]
    others += layers * (8 * [(width,)] + [(4 * width,), (width,)]) + 2 * [(width,)]
    return matrices, others


def tiny():
    """The demo's language model at its default size."""
    width, layers, context, vocabulary = 128, 4, 64, 256
    matrices = layers * [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    return matrices, [(vocabulary, width), (context, width), (vocabulary, width)] + 9 * [(width,)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(program, matrices, others, steps, copies, *flags):
    """What `copies` processes say: ranks of one group, or as many that know nothing of each other."""
    name = lambda shapes: ["x".join(map(str, shape)) for shape in shapes]
    command = [program, "--steps", str(steps), "--matrices", *name(matrices), "--others", *name(others)]
    environment = dict(os.environ, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()),
                       WORLD_SIZE=str(copies), OMP_NUM_THREADS="1")
    processes = [
        subprocess.Popen(command + list(flags), stdout=subprocess.PIPE, text=True,
                         env=dict(environment, RANK=str(rank))) for rank in range(copies)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode != 0 for process in processes):
        raise SystemExit("a rank failed")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def median(results, key):
    return [statistics.median(result[key]) for result in results]


def cost(shape):
    """Of five quintic steps, in floating-point operations."""
    short, long = sorted((shape[0], math.prod(shape[1:])))
    return 5 * (4 * short**2 * long + 2 * short**3)


def round_robin_balance(matrices, ranks):
    """Keller Jordan's Muon: sorted by shape, one to each rank in turn."""
    load = [0] * ranks
    for i, shape in enumerate(sorted(matrices, reverse=True)):
        load[i % ranks] += cost(shape)
    return min(load) / max(load)


def zero_adamw_state(shapes, ranks):
    """The bytes of moments that ZeroRedundancyOptimizer gives its largest rank, by its own partition."""
    from torch.testing._internal.distributed.fake_pg import FakeStore
    dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    try:
        parameters = [torch.nn.Parameter(torch.empty(shape)) for shape in shapes]
        optimizer = ZeroRedundancyOptimizer(parameters, torch.optim.AdamW)
        return max(sum(2 * p.nbytes for group in groups for p in group["params"])
                   for groups in optimizer._partition_parameters())
    finally:
        dist.destroy_process_group()


def measure(program, param_set, matrices, others, ranks, steps):
    alone = run(program, matrices, others, steps, ranks, "--alone")
    shared = run(program, matrices, others, steps, ranks)
    at_owners = run(program, matrices, others, steps, ranks, "--owners")
    of_shards = run(program, matrices, others, steps, ranks, "--shards")
    one = statistics.median(median(alone, "compute"))
    compute = median(shared, "compute")
    total = [c + t for c, t in zip(compute, median(shared, "transport"))]
    slowest = compute.index(max(compute))
    state = max(result["state_bytes"] for result in shared)
    size = shared[0]["parameter_bytes"]
    step_sent, reduction_sent = median(shared, "step_sent"), median(shared, "reduction_sent")
    sent = [s + r for s, r in zip(step_sent, reduction_sent)]
    owners_step, owners_reduction = median(at_owners, "step_sent"), median(at_owners, "reduction_sent")
    owners_sent = [s + r for s, r in zip(owners_step, owners_reduction)]
    shards_total = [c + t for c, t in zip(median(of_shards, "compute"), median(of_shards, "transport"))]
    shards_sent = median(of_shards, "step_sent")
    needed = (ranks - 1) * size  # by all ranks together, in a step, and in a reduction to owners
    return {
        "param_set": param_set,
        "ranks": ranks,
        "compute_ms": max(compute),
        "compute_ratio": max(compute) / one,
        "transport_ms": median(shared, "transport")[slowest],
        "total_ratio": max(total) / one,
        "balance": min(compute) / max(compute),
        "reduction_ms": max(median(shared, "reduction")),
        "state_bytes": state,
        "state_ratio": state / alone[0]["state_bytes"],
        "sent_bytes": max(sent),
        "sent_ratio": max(sent) / (2 * needed / ranks) if ranks > 1 else float("nan"),
        "step_sent_excess": sum(step_sent) / needed - 1 if ranks > 1 else float("nan"),
        "owners_reduction_ms": max(median(at_owners, "reduction")),
        "owners_sent_ratio": max(owners_sent) / (2 * needed / ranks) if ranks > 1 else float("nan"),
        "owners_sent_excess": sum(owners_reduction) / needed - 1 if ranks > 1 else float("nan"),
        "shards_compute_ratio": max(median(of_shards, "compute")) / one,
        "shards_total_ratio": max(shards_total) / one,
        "shards_sent_ratio": max(shards_sent) / (2 * needed / ranks) if ranks > 1 else float("nan"),
        "shards_state_ratio": max(result["state_bytes"] for result in of_shards) / alone[0]["state_bytes"],
        "round_robin_balance": round_robin_balance(matrices, ranks),
        "zero_adamw_state_bytes": zero_adamw_state(matrices + others, ranks),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--quick", action="store_true", help="two layers of GPT-2 small in place of twelve")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--sets", nargs="+", default=["gpt2_small", "tiny"])
    args = parser.parse_args()

    sets = {"gpt2_small": gpt2_small(2 if args.quick else 12), "tiny": tiny()}
    print(f"LibTorch {torch.__version__}, one thread a rank, {os.cpu_count()} cores")
    print(" ".join(f"{column:>{max(len(column), 10)}}" for column in COLUMNS))
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for name in args.sets:
            matrices, others = sets[name]
            for ranks in args.ranks:
                row = measure(args.program, name, matrices, others, ranks,
                              args.steps if name == "gpt2_small" else 20 * args.steps)
                texts = [f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in COLUMNS]
                writer.writerow(dict(zip(COLUMNS, texts)))
                file.flush()
                print(" ".join(f"{text:>{max(len(c), 10)}}" for c, text in zip(COLUMNS, texts)), flush=True)
    print(args.out)


if __name__ == "__main__":
    main()
