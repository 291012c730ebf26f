# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Races steps of this library's optimizers against torch.optim's: one process, the same LibTorch,
threads, parameters and gradients, taking turns. scripts/bench.sh speed runs it; docs/performance.md
says what the columns mean."""

import argparse
import csv
import gc
import os
import statistics
import subprocess
import tempfile
import time

import torch

from optimizers import (Ours, Problem, TorchAdamW, TorchMuon, as_matrix, load_module, parameter_sets,
                        relative_error, release_workspace)

COLUMNS = ["param_set", "method", "dtype", "threads", "ms_per_step", "ratio_vs_best_torch_muon",
           "mean_relative_error", "peak_extra_bytes", "operators"]
# As module.cpp's turn_on has them.
STAGES = ("momentum_warmup", "gate", "filter_place", "all", "update_beta(0)")


def seconds(work, times=1):
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


class Entry:
    """An optimizer in the race and what is known of it."""

    def __init__(self, name, dtype, optimizer, slow=False):
        self.name, self.dtype, self.optimizer, self.slow = name, dtype, optimizer, slow
        self.times, self.error, self.split_error = [], None, None
        self.repeats = 1

    def measure_once(self, bench):
        """Memory and operators of one step; its time too if there will be no other."""
        with self.optimizer.ready():
            if not self.slow:
                self.optimizer.step()  # brings state into being
            release_workspace(self.optimizer)
            bench.reset_peak()
            held = bench.held_bytes()
            bench.record_operators(True)
            self.repeats = seconds(self.optimizer.step)
            bench.record_operators(False)
        self.peak = bench.peak_bytes() - held
        self.operators = len(bench.recorded_operators())
        if self.slow:
            self.times = [self.repeats]
        # Together at least 50 ms, so that neither the clock nor the scheduler decides.
        self.repeats = max(1, round(0.05 / self.repeats))

    def race(self):
        with self.optimizer.ready():
            self.times.append(seconds(self.optimizer.step, self.repeats))

    def ms(self):
        return 1e3 * statistics.median(self.times)


def gemm_rate(size, dtype):
    """FLOP/s of x·y, best of three: what Newton–Schulz steps mostly are."""
    x = torch.randn(size, size).to(dtype)
    return 2 * size**3 / min(seconds(lambda: x @ x) for _ in range(3))


def cpu_features():
    """The processor's name and those of its features that products depend on."""
    try:
        with open("/proc/cpuinfo") as file:
            info = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return "unknown"
    info = {key.strip(): value.strip() for key, value in info.items()}
    flags = info.get("flags", "").split()
    wanted = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{info.get('model name', 'unknown')}, {' '.join(wanted) or 'none of avx2, avx512, bf16'}"


def mean_error(optimizer, matrices, polar):
    return statistics.mean(relative_error(optimizer.orthogonalize(m.flatten(1)), p)
                           for m, p in zip(matrices, polar))


def smallest(problem, dtype, limit, option, values):
    """{option: the smallest of the ascending values with at most the error `limit`}, or None: by
    bisection, since more steps on any shape make no error larger."""
    low, high = -1, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        error = mean_error(Ours(problem, "root", dtype, **{option: values[middle]}),
                           problem.matrices, problem.polar)
        print(f"  root with {option} {values[middle]:g}, {dtype}: error {error:.4f}, limit {limit:.4f}")
        low, high = (low, middle) if error <= limit else (middle, high)
    return {option: values[high]} if high < len(values) else None


def find_fast(problem, dtypes, limit):
    """(dtype, options) of the fastest root with at most the error `limit`: the smallest budget, which buys
    inverses in float32, and the smallest number of steps, in each dtype; in three rounds. (None, None): none."""
    found = [(dtype, options) for dtype in dtypes for options in (
        smallest(problem, dtype, limit, "budget", [0.02 * i for i in range(4, 101)]),
        smallest(problem, dtype, limit, "steps", list(range(3, 13)))) if options is not None]
    entries = [Entry(f"{options} in {dtype}", dtype, Ours(problem, "root", dtype, **options))
               for dtype, options in found]
    for _ in range(4):
        for entry in entries:
            entry.race()
    for entry in entries:
        entry.times = entry.times[1:]  # without the first, which warms up
        print(f"  root with {entry.name}: {entry.ms():.1f} ms")
    return min(zip(map(Entry.ms, entries), found), default=(0, (None, None)),
               key=lambda pair: pair[0])[1]


def split_samples(bench, problem):
    """Behind Root's outlier split: the first matrix of each shape, and its exact polar factor."""
    first = {tuple(sorted(as_matrix(m.shape))): m for m in reversed(problem.matrices)}.values()
    split = [bench.without_outliers(m.flatten(1)) for m in first]
    return split, [bench.exact_polar(b) for b in split]


def measure(bench, name, shapes, rates, args):
    torch.manual_seed(0)
    problem = Problem(bench, *shapes)
    entries = []

    def enter(*arguments, **options):
        bench.count_memory(True)  # from its parameters on, all that the optimizer allocates
        entry = Entry(*arguments[:2], arguments[2](), **options)
        entry.measure_once(bench)
        bench.count_memory(False)
        entries.append(entry)
        return entry

    # Muon in float32, then in bfloat16 as shipped: in software that takes a minute a step.
    f32 = enter("torch_muon_f32", "float32", lambda: TorchMuon(problem, "float32"))
    f32.error = mean_error(f32.optimizer, problem.matrices, problem.polar)
    f32.race()
    ratio = rates[torch.float32] / rates[torch.bfloat16]
    expected = f32.times.pop() * ratio
    slow = ratio > 10 and expected > 2  # then it is no baseline, and one step is enough
    if expected > args.longest_step:
        print(f"  torch_muon_bf16: left out, a step would take some {expected:.0f} s")
        best = f32
    else:
        bf16 = enter("torch_muon_bf16", "bfloat16", lambda: TorchMuon(problem, "bfloat16"), slow=slow)
        if slow:
            bf16.error = statistics.mean(
                map(relative_error, bf16.optimizer.first_direction(), problem.polar))
            best = f32
        else:
            bf16.error = mean_error(bf16.optimizer, problem.matrices, problem.polar)
            for _ in range(3):
                f32.race()
                bf16.race()
            best = min(f32, bf16, key=Entry.ms)
            f32.times, bf16.times = [], []

    enter("torch_adamw", "float32", lambda: TorchAdamW(problem))
    enter("muon", "float32", lambda: Ours(problem, "muon"))
    in_hardware = rates[torch.bfloat16] > rates[torch.float32]
    dtype, fast = find_fast(problem, ["float32"] + ["bfloat16"] * in_hardware, best.error)
    if fast is None:
        print(f"  root_fast: nothing reaches the error of {best.name}")
    else:
        print(f"  root_fast: {fast} in {dtype}")
        enter("root_fast", dtype, lambda: Ours(problem, "root", dtype, **fast))
        enter("root_fast, unsplit", dtype, lambda: Ours(problem, "root_unsplit", dtype, **fast))
        enter("root_fast, q = .90", dtype, lambda: Ours(problem, "root_quantile", dtype, **fast))
    enter("root", "float32", lambda: Ours(problem, "root"))
    for stage in STAGES if args.stages else ():
        enter(f"root, {stage}", "float32", lambda: Ours(problem, f"root with {stage}"))

    split, split_polar = split_samples(bench, problem)
    for entry in entries:
        if hasattr(entry.optimizer, "orthogonalize") and not entry.slow:
            if entry.error is None:
                entry.error = mean_error(entry.optimizer, problem.matrices, problem.polar)
            entry.split_error = mean_error(entry.optimizer, split, split_polar)

    racing = [entry for entry in entries if not entry.slow]
    gc.collect()
    gc.disable()
    for round_ in range(args.rounds):
        first = round_ % len(racing)  # everyone is after everyone else once
        for entry in racing[first:] + racing[:first]:
            entry.race()
    gc.enable()
    by_name = {entry.name: entry for entry in entries}
    contenders = [by_name[n] for n in ("torch_muon_f32", "torch_muon_bf16") if n in by_name]
    best = min(contenders, key=Entry.ms)
    report(name, entries, by_name, best, args)
    return [[name, e.name, e.dtype, torch.get_num_threads(), f"{e.ms():.6g}",
             f"{best.ms() / e.ms():.4g}", "" if e.error is None else f"{e.error:.5g}",
             e.peak, e.operators]
            for e in entries if "," not in e.name]


def report(name, entries, by_name, best, args):
    def text(value, form):
        return "-" if value is None else format(value, form)

    print(f"{name}\n  {'method':<22}{'dtype':<9}{'ms/step':>10}{'ratio':>8}{'error':>9}"
          f"{'on split':>10}{'extra MB':>10}{'operators':>11}{'rounds':>8}{'spread':>8}")
    for e in entries:
        # half the interquartile range over the median
        q = statistics.quantiles(e.times, n=4) if len(e.times) > 1 else None
        spread = "-" if q is None else f"{50 * (q[2] - q[0]) / statistics.median(e.times):.0f} %"
        print(f"  {e.name:<22}{e.dtype:<9}{e.ms():>10.3f}{best.ms() / e.ms():>8.2f}"
              f"{text(e.error, '.4f'):>9}{text(e.split_error, '.4f'):>10}{e.peak / 1e6:>10.2f}"
              f"{e.operators:>11}{len(e.times):>8}{spread:>8}")
    against_f32 = by_name["torch_muon_f32"].ms() / by_name["root"].ms()
    print(f"  baseline: {best.name}; root against torch_muon_f32: {against_f32:.2f}")
    if "root_fast" in by_name:
        fast = by_name["root_fast"].ms()
        for split in ("root_fast", "root_fast, q = .90"):
            # Round by round, which other load on the machine disturbs less than a difference of medians.
            shares = [1 - without / with_ for with_, without
                      in zip(by_name[split].times, by_name["root_fast, unsplit"].times)]
            print(f"  outlier split: {100 * statistics.median(shares):.1f} % of the step of {split}")
        if "torch_muon_bf16" in by_name:
            shipped = by_name["torch_muon_bf16"].ms()
            print(f"  root_fast against torch.optim.Muon as shipped: {shipped / fast:.2f}")
    for stage in STAGES if args.stages else ():
        added = [with_ / without - 1 for with_, without
                 in zip(by_name[f"root, {stage}"].times, by_name["root"].times)]
        print(f"  root with {stage}: {100 * statistics.median(added):+.1f} % of a step")
    print(flush=True)


def share_in_training(args):
    """Runs the demo and divides the time in step() by all other time of training: forward, backward,
    zero_grad and the making of the batch."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([args.language_model, "--optimizer", "root", "--optimizer", "adamw", "--steps",
                        str(args.training_steps), "--evaluations", "1", "--sample", "0", "--text-dir",
                        args.text_dir, "--out", out, "--threads", str(torch.get_num_threads())],
                       check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(out, "losses.csv")) as file:
            rows = list(csv.DictReader(file))
    for name in ("root", "adamw"):
        mine = [r for r in rows if r["optimizer"] == name]
        whole, inside = (1e3 * float(mine[-1][c]) / len(mine) for c in ("seconds", "optimizer_seconds"))
        print(f"language model of the demo, {len(mine)} steps: {name}'s step {inside:.2f} ms, "
              f"forward and backward {whole - inside:.2f} ms, ratio {inside / (whole - inside):.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", required=True, help="the library that benchmarks/module.cpp makes")
    parser.add_argument("--out", default="build/bench/speed.csv")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, one layer of GPT-2")
    parser.add_argument("--sets", nargs="+", help="only these parameter sets")
    parser.add_argument("--stages", action="store_true",
                        help="also what the stages add to a step that are off by default")
    parser.add_argument("--threads", type=int, help="default: as many as LibTorch chooses")
    parser.add_argument("--longest-step", type=float, metavar="S",
                        help="leave Muon in bfloat16 out where a step seems to take more seconds; "
                             "default: 400, with --quick 5")
    parser.add_argument("--language-model", help="the demo's program: how a step compares in training")
    parser.add_argument("--text-dir", help="what it learns")
    args = parser.parse_args()
    args.rounds = 3 if args.quick else 9
    if args.longest_step is None:
        args.longest_step = 5 if args.quick else 400
    args.training_steps = 40 if args.quick else 200
    if args.threads:
        torch.set_num_threads(args.threads)
    bench = load_module(args.module)
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)

    start = time.perf_counter()
    rates = {dtype: gemm_rate(512, dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(f"CPU: {cpu_features()}")
    print(f"LibTorch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"{torch.backends.cpu.get_cpu_capability()}, load {os.getloadavg()[0]:.1f}; 512³ products: "
          f"float32 {rates[torch.float32] / 1e9:.1f}, bfloat16 {rates[torch.bfloat16] / 1e9:.2f} GFLOP/s\n",
          flush=True)
    with open(args.out, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, shapes in parameter_sets(gpt2_layers=1 if args.quick else 2).items():
            if not args.sets or name in args.sets:
                writer.writerows(measure(bench, name, shapes, rates, args))
                file.flush()
    if args.language_model:
        share_in_training(args)
    print(f"{time.perf_counter() - start:.0f} s, load at the end {os.getloadavg()[0]:.1f}\n{args.out}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
