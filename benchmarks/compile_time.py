# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""What the library costs a compiler: CPU time, peak memory, preprocessed lines and the size of the code, with
the options of this build. scripts/bench.sh compile runs it."""

import argparse
import csv
import json
import os
import shlex
import subprocess
import tempfile

USE_ROOT = """
void train(torch::nn::Module& model) {
  root_optim::Root optimizer(root_optim::param_groups(model, root_optim::RootOptions(1e-3)));
  optimizer.step();
}
"""
USE_ADAMW = """
void train(torch::nn::Module& model) {
  torch::optim::AdamW optimizer(model.parameters(), torch::optim::AdamWOptions(1e-3));
  optimizer.step();
}
"""


def include(*headers):
    return "".join(f"#include <{header}>\n" for header in headers)


SOURCES = {
    "torch/torch.h": include("torch/torch.h"),
    "torch/torch.h, AdamW used": include("torch/torch.h") + USE_ADAMW,
    "torch/torch.h, root_optim.hpp": include("torch/torch.h", "root_optim/root_optim.hpp"),
    "torch/torch.h, root_optim.hpp, Root used":
        include("torch/torch.h", "root_optim/root_optim.hpp") + USE_ROOT,
    "compiled: root_optim.hpp": include("torch/torch.h", "root_optim/root_optim.hpp"),
    "compiled: root_optim.hpp, Root used":
        include("torch/torch.h", "root_optim/root_optim.hpp") + USE_ROOT,
    "root_optim.hpp": include("root_optim/root_optim.hpp"),
    "optimizer.hpp": include("root_optim/optimizer/optimizer.hpp"),
    "ada_newton.hpp": include("root_optim/orthogonalizers/ada_newton.hpp"),
    "newton_schulz.hpp": include("root_optim/orthogonalizers/newton_schulz.hpp"),
    "soft_threshold.hpp": include("root_optim/filters/soft_threshold.hpp"),
    "coefficients/published.hpp": include("root_optim/coefficients/published.hpp"),
}
REFERENCE = "torch/torch.h"
# The most that each may cost: times that of the reference, and bytes of code.
TARGETS = {
    "torch/torch.h, root_optim.hpp": (1.08, None),
    "torch/torch.h, root_optim.hpp, Root used": (2.10, 350e3),
    "compiled: root_optim.hpp, Root used": (1.35, 150e3),
}


def options_for(name):
    return ["-DROOT_OPTIM_COMPILED"] if name.startswith("compiled: ") else []


def compiler_command(database):
    """The compiler and its options for this build, without launcher, source and output."""
    with open(database) as file:
        entry = next(e for e in json.load(file) if e["file"].endswith("scaling.cpp"))
    words = shlex.split(entry["command"])
    if os.path.basename(words[0]) in ("ccache", "sccache"):
        words = words[1:]
    command, skip = [], False
    for word in words:
        if skip or word in ("-c", "-o", "-MF", "-MT", "-MD"):
            skip = not skip and word in ("-o", "-MF", "-MT")
        elif not word.endswith("scaling.cpp"):
            command.append(word)
    return command


def run(command):
    """CPU seconds and peak memory in bytes of a process and its children."""
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise SystemExit(f"failed: {shlex.join(command)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def code_bytes(object_file):
    """The text section, as `size` counts it: code, constants and the tables of exceptions."""
    listing = subprocess.run(["size", object_file], check=True, capture_output=True, text=True).stdout
    return int(listing.splitlines()[1].split()[0])


def preprocessed_lines(command, source):
    run = subprocess.run([*command, "-E", "-P", source], check=True, capture_output=True, text=True)
    return sum(1 for line in run.stdout.splitlines() if line.strip())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", required=True, help="compile_commands.json of the build")
    parser.add_argument("--out", default="build/bench/compile.csv")
    parser.add_argument("--quick", action="store_true", help="one round in place of five")
    args = parser.parse_args()
    command = compiler_command(args.commands)
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)

    with tempfile.TemporaryDirectory() as directory:
        files = {}
        for name, text in SOURCES.items():
            files[name] = os.path.join(directory, f"{len(files)}.cpp")
            with open(files[name], "w") as file:
                file.write(text)
        lines = {name: preprocessed_lines([*command, *options_for(name)], path)
                 for name, path in files.items()}
        # The least of several: other load on the machine can only add. In turns, so that it adds
        # to all.
        seconds = {name: float("inf") for name in files}
        memory = dict(seconds)
        code = {}
        object_file = os.path.join(directory, "object.o")
        rounds = 1 if args.quick else 5
        for round_ in range(rounds):
            for name, path in files.items():
                time, peak = run([*command, *options_for(name), "-c", path, "-o", object_file])
                code[name] = code_bytes(object_file)
                seconds[name], memory[name] = min(seconds[name], time), min(memory[name], peak)
            print(f"round {round_ + 1} of {rounds}", flush=True)

    print(f"\n{shlex.join(command)}\n")
    print(f"{'source':<42}{'CPU s':>8}{'':>9}{'peak MB':>9}{'':>9}{'lines':>9}{'code kB':>9}  targets")
    with open(args.out, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "cpu_seconds", "ratio_to_torch", "peak_bytes", "preprocessed_lines",
                         "code_bytes"])
        for name in SOURCES:
            ratio = seconds[name] / seconds[REFERENCE]
            more_memory = 100 * (memory[name] / memory[REFERENCE] - 1)
            writer.writerow([name, f"{seconds[name]:.4g}", f"{ratio:.4g}", memory[name], lines[name],
                             code[name]])
            most_time, most_code = TARGETS.get(name, (None, None))
            target = ""
            if most_time:
                target = f"{100 * (most_time - 1):+.0f}% {'met' if ratio <= most_time else 'MISSED'}"
            if most_code:
                target += f", {most_code / 1e3:.0f} kB {'met' if code[name] <= most_code else 'MISSED'}"
            print(f"{name:<42}{seconds[name]:>8.2f}{100 * (ratio - 1):>+8.1f}%"
                  f"{memory[name] / 1e6:>9.0f}{more_memory:>+8.1f}%{lines[name]:>9}"
                  f"{code[name] / 1e3:>9.1f}  {target}")
    print(f"\n{rounds} rounds, the least of each\n{args.out}")


if __name__ == "__main__":
    main()
