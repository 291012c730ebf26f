# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Memory of a step: what it allocates beyond what was held before it, and what optimizers keep.
scripts/bench.sh memory runs it; docs/performance.md says what the columns mean."""

import argparse
import csv
import os

import torch

from optimizers import (Ours, Problem, TorchAdamW, TorchMuon, as_matrix, load_module, parameter_sets,
                        release_workspace)

COLUMNS = ["param_set", "parameters", "method", "peak_extra_bytes", "bound_bytes", "state_bytes",
           "kept_bytes", "parameter_bytes"]


WORKSPACE = 16 << 20  # the option's default


def bound(shapes):
    """3 × the largest matrix + 4 × its Gram matrix, in float32, or the workspace if that is more."""
    m, n = max((sorted(as_matrix(shape)) for shape in shapes), key=lambda s: s[0] * s[1])
    return max(4 * (3 * m * n + 4 * m * m), WORKSPACE)


def measure(bench, problem, make):
    """Peak beyond what is held, in the second step, with no memory kept from the first; state; all that
    the optimizer has allocated and still holds after it, parameters apart."""
    bench.count_memory(True)
    before = bench.held_bytes()
    optimizer = make(problem)
    with optimizer.ready():
        optimizer.step()
        release_workspace(optimizer)
        held = bench.held_bytes()
        bench.reset_peak()
        optimizer.step()
    peak = bench.peak_bytes() - held
    parameters = sum(g.nbytes for g in problem.matrices + problem.others)
    kept = bench.held_bytes() - before - parameters
    bench.count_memory(False)
    return peak, optimizer.state_bytes(), kept


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", required=True, help="the library that benchmarks/module.cpp makes")
    parser.add_argument("--out", default="build/bench/memory.csv")
    parser.add_argument("--quick", action="store_true", help="one layer of GPT-2, fewer equal matrices")
    args = parser.parse_args()
    bench = load_module(args.module)

    sets = parameter_sets(gpt2_layers=1 if args.quick else 2)
    for shape, counts in (((128, 128), (1, 4, 16, 64, 256)), ((256, 1024), (1, 2, 4, 8, 16)),
                          ((768, 768), (1, 2, 4, 8))):
        for count in counts[:3] if args.quick else counts:
            sets[f"{count} x {shape[0]}x{shape[1]}"] = (count * [shape], [])
    methods = {
        "torch_muon_f32": lambda problem: TorchMuon(problem, "float32"),
        "torch_adamw": TorchAdamW,
        "muon": lambda problem: Ours(problem, "muon"),
        "root": lambda problem: Ours(problem, "root"),
    }

    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    with open(args.out, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        print(f"LibTorch {torch.__version__}, {torch.get_num_threads()} threads; MB\n")
        print(f"{'parameters':<17}{'method':<16}{'peak extra':>11}{'bound':>9}{'÷ bound':>9}"
              f"{'state':>9}{'kept':>9}{'parameters':>12}")
        for name, (matrices, others) in sets.items():
            problem = Problem(bench, matrices, others)
            count, limit = len(matrices) + len(others), bound(matrices)
            total = sum(g.nbytes for g in problem.matrices + problem.others)
            for method, make in methods.items():
                peak, state, kept = measure(bench, problem, make)
                writer.writerow([name, count, method, peak, limit, state, kept, total])
                print(f"{name:<17}{method:<16}{peak / 1e6:>11.2f}{limit / 1e6:>9.2f}"
                      f"{peak / limit:>9.2f}{state / 1e6:>9.2f}{kept / 1e6:>9.2f}{total / 1e6:>12.2f}",
                      flush=True)
    print(f"\n{args.out}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
