# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""What CUDA's own interfaces say about a step: synchronization, memory, streams, graphs, and the time
against torch.optim on the same GPU in the same run. scripts/gpu.sh runs it; what needs no more than tensors
is in gpu_check.cpp. With --device cpu it runs small, to see that it runs."""

import argparse
import csv
import math
import os
import statistics
import sys
import time

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../benchmarks"))
from optimizers import conv, gpt2_small, load_module  # noqa: E402

failures = 0


def expect(holds, what):
    global failures
    failures += not holds
    print(f"  {'ok  ' if holds else 'FAIL'}  {what}", flush=True)


# ---- Parameters and optimizers ---------------------------------------------------------------------


def parameters_of(shapes, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    result = []
    for shape in shapes:
        p = torch.nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(device))
        p.grad = torch.randn(shape, generator=generator).to(device)
        result.append(p)
    return result


def small(device):
    matrices = parameters_of(2 * [(96, 192)] + [(192, 96), (64, 16, 3, 3)], device)
    return matrices, parameters_of([(192,), (96,), (7, 5)], device, seed=1)


def ours(matrices, others, method="root", capturable=False):
    optimizer = torch.classes.root_optim_benchmarks.Optimizer(matrices, others, method, "", 0.0, 0)
    if capturable:
        optimizer.set_capturable(True)
    return optimizer


def bits(parameters):
    return [p.detach().cpu().clone() for p in parameters]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b))


# ---- Parts -----------------------------------------------------------------------------------------


def sync(arguments):
    for method in ("root", "muon", "root_quantile"):
        for capturable in (False, True):
            matrices, others = small(arguments.device)
            optimizer = ours(matrices, others, method, capturable)
            for _ in range(2):
                optimizer.step()
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(3):
                    optimizer.step()
                found = "none"
            except RuntimeError as error:
                found = str(error).splitlines()[0]
            torch.cuda.set_sync_debug_mode("default")
            mode = ", capturable" if capturable else ""
            expect(found == "none", f"{method}{mode}: synchronization, by the debug mode: {found}")


def profile(arguments):
    from torch.profiler import ProfilerActivity, record_function
    waits = ("Synchronize", "Memcpy DtoH", "cudaMemcpy")
    for method in ("root", "muon"):
        matrices, others = small(arguments.device)
        optimizer = ours(matrices, others, method)
        for _ in range(2):
            optimizer.step()
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
            with record_function("whole step"):
                optimizer.step()
            torch.cuda.synchronize()
        events = list(trace.events())
        step = next(e for e in events if e.name == "whole step")
        inside = [e for e in events if e.time_range.start >= step.time_range.start
                  and e.time_range.end <= step.time_range.end]
        # cudaMemcpyAsync between device addresses is how tensors are copied.
        waiting = [e.name for e in inside
                   if any(w in e.name for w in waits) and e.name != "cudaMemcpyAsync"]
        launches = sum(e.name in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel",
                                  "cuLaunchKernelEx") for e in inside)
        expect(not waiting, f"{method}: in the profile of a step: {waiting or 'no synchronization'}, "
                            f"{launches} launches, {len(matrices) + len(others)} parameters")


def memory(arguments):
    shapes = gpt2_small(12)[0]
    for method in ("muon", "root"):
        torch.cuda.empty_cache()
        matrices = parameters_of(shapes, arguments.device)
        others = parameters_of(50 * [(768,)], arguments.device)
        before = torch.cuda.memory_allocated()
        optimizer = ours(matrices, others, method)
        figures = []
        for step in range(100):
            if step in (1, 2, 99):
                torch.cuda.reset_peak_memory_stats()
            optimizer.step()
            if step in (1, 2, 99):
                torch.cuda.synchronize()
                figures.append((torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated(),
                                torch.cuda.memory_reserved()))
        mib = [[round(x / 2**20, 1) for x in row] for row in figures]
        print(f"  {method}: parameters and gradients {before / 2**20:.1f} MiB; after steps 2, 3 and 100 "
              f"allocated, peak, reserved: {mib}")
        expect(figures[0] == figures[2], f"{method}: step 100 as step 2")
        del optimizer, matrices, others


def streams(arguments):
    def run(on_stream):
        matrices, others = small(arguments.device)
        optimizer = ours(matrices, others)
        stream = torch.cuda.Stream() if on_stream else torch.cuda.current_stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(10):
                optimizer.step()
        torch.cuda.current_stream().wait_stream(stream)
        return bits(matrices + others)

    reference = run(False)
    expect(equal(reference, run(True)), "a step on a side stream: equal bits")
    models = [small(arguments.device) for _ in range(2)]
    optimizers = [ours(*model) for model in models]
    sides = [torch.cuda.Stream() for _ in range(2)]
    for side in sides:
        side.wait_stream(torch.cuda.current_stream())
    for _ in range(10):
        for optimizer, side in zip(optimizers, sides):
            with torch.cuda.stream(side):
                optimizer.step()
    torch.cuda.synchronize()
    expect(all(equal(reference, bits(m + o)) for m, o in models), "two optimizers on two streams: equal bits")


def graph(arguments):
    """A captured step, replayed with another learning rate, against steps that are not captured."""
    steps, rates = 6, [0.02, 0.01, 0.005, 0.02, 0.001, 0.01]
    models = [small(arguments.device) for _ in range(2)]
    plain, captured = (ours(*model, capturable=True) for model in models)
    for optimizer in (plain, captured):
        optimizer.set_lr(rates[0])
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warm-up, as torch.cuda.graph asks for
        for _ in range(3):
            captured.step()
    torch.cuda.current_stream().wait_stream(side)
    for _ in range(3):
        plain.step()
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording):
        captured.step()
    for step in range(steps):
        for optimizer in (plain, captured):
            optimizer.set_lr(rates[step])
        for model in models:
            for p in model[0] + model[1]:
                p.grad.mul_(-1 if step % 2 else 1.1)
        plain.step()
        recording.replay()
    torch.cuda.synchronize()
    results = [bits(m + o) for m, o in models]
    worst = max(float((x - y).abs().max()) for x, y in zip(*results))
    expect(worst < 1e-4, f"a captured step, replayed with other rates: off by {worst:.1e} at most"
                         f"{', equal bits' if equal(*results) else ''}")
    expect(captured.steps() == plain.steps() == steps + 3,
           f"the device counts the replays: {captured.steps()} steps, expected {steps + 3}")


# ---- Speed -----------------------------------------------------------------------------------------


def product_rate(device, size):
    a = torch.randn(size, size, device=device).bfloat16()
    b = torch.randn(size, size, device=device).bfloat16()
    return 2 * size**3 / median_seconds({"product": lambda: a @ b}, device)["product"]


def median_seconds(works, device, rounds=7):
    """Of each work, taking turns."""
    cuda = device != "cpu"

    def seconds(work, times):
        if not cuda:
            start = time.perf_counter()
            for _ in range(times):
                work()
            return (time.perf_counter() - start) / times
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(times):
            work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3 / times

    repeats = {}
    for name, work in works.items():
        seconds(work, 3)
        repeats[name] = max(1, min(200, round(0.05 / seconds(work, 1))))
    times = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work, repeats[name]))
    return {name: statistics.median(t) for name, t in times.items()}


def speed(arguments):
    device = arguments.device
    if arguments.quick:
        sets = {"wide_64x128": ([(64, 128)], [(64,)])}
        rate = product_rate(device, 64)
    else:
        blocks = 12 * ([(2304,), (768,), (3072,), (768,)] + 4 * [(768,)]) + 2 * [(768,)]
        sets = {
            "gpt2_small": (gpt2_small(12)[0], blocks),
            "square_1024": ([(1024, 1024)], []),
            "square_4096": ([(4096, 4096)], []),
            "wide_4096x16384": ([(4096, 16384)], []),
            "conv": conv(),
        }
        rate = product_rate(device, 8192)
    print(f"  products in bfloat16: {rate / 1e12:.1f} TFLOP/s")
    rows = []
    for name, (matrices, others) in sets.items():
        def model(flat=False):
            shapes = [(s[0], math.prod(s[1:])) for s in matrices] if flat else matrices
            return parameters_of(shapes, device), parameters_of(others, device, seed=1)

        flops = sum(5 * (4 * m * m * n + 2 * m**3)
                    for m, n in (sorted((s[0], math.prod(s[1:]))) for s in matrices))
        flat, rest = model(flat=True)
        muon = torch.optim.Muon(flat)
        adamw_of_rest = torch.optim.AdamW(rest, fused=True) if rest else None
        whole = sum(model(), [])
        adamw = torch.optim.AdamW(whole, fused=True)

        def torch_muon():
            muon.step()
            if adamw_of_rest:
                adamw_of_rest.step()

        works = {"torch.optim.Muon": torch_muon, "torch.optim.AdamW fused": adamw.step}
        for method in ("muon", "root", "root_unsplit"):
            works[f"root_optim {method}"] = ours(*model(), method=method).step
        if device != "cpu":
            for method in ("muon", "root"):
                optimizer = ours(*model(), method=method, capturable=True)
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(3):
                        optimizer.step()
                torch.cuda.current_stream().wait_stream(side)
                recording = torch.cuda.CUDAGraph()
                with torch.cuda.graph(recording):
                    optimizer.step()
                recording.keep = optimizer  # its memory
                works[f"root_optim {method}, captured"] = recording.replay
        times = median_seconds(works, device, rounds=1 if arguments.quick else 7)
        reference = times["torch.optim.Muon"]
        for method, seconds in times.items():
            share = "" if "AdamW" in method else f"{flops / seconds / rate:.3f}"
            rows.append([name, method, f"{1e3 * seconds:.4f}", f"{reference / seconds:.3f}", share])
            print(f"  {name:16} {method:28} {1e3 * seconds:10.3f} ms  {reference / seconds:6.2f} times "
                  f"as fast as torch.optim.Muon  {share:>6} of the product rate", flush=True)
        works.clear()
        if device != "cpu":
            torch.cuda.empty_cache()
    if arguments.csv:
        with open(arguments.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["param_set", "method", "ms_per_step", "speed_vs_torch_muon",
                             "share_of_bf16_product_rate"])
            writer.writerows(rows)


PARTS = {"sync": sync, "profile": profile, "memory": memory, "streams": streams, "graph": graph,
         "speed": speed}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", required=True, help="the library that benchmark_module builds")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="small parameter sets")
    parser.add_argument("--csv", help="where the times go")
    parser.add_argument("parts", nargs="*", help=", ".join(PARTS))
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    load_module(arguments.module)
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"PyTorch {torch.__version__}, {where}")
    for name in arguments.parts or PARTS:
        print(name, flush=True)
        if arguments.device == "cpu" and name != "speed":
            print("  left out: no CUDA device")
            continue
        try:
            PARTS[name](arguments)
        except Exception as error:  # one part must not cost the others
            expect(False, f"{type(error).__name__}: {str(error)[:2000]}")
    print("all as expected" if failures == 0 else f"{failures} failures")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
