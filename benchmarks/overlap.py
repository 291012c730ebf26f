# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""What it saves that gradients travel while backward() runs: two processes train the demo's language model, over the
loopback and over one that is as slow as a link of 1 Gbit/s each way (for root alone; in a network of its own).
scripts/bench.sh overlap runs it; docs/distributed.md has the figures. Milliseconds are of the slower rank."""

import argparse
import csv
import json
import os
import socket
import subprocess

COLUMNS = ["model", "link", "bucket_kib", "mb", "backward_ms", "reduce_ms", "both_ms", "step_ms", "cpu_ms",
           "overlap_backward_ms", "overlap_reduce_ms", "overlap_both_ms", "overlap_step_ms", "overlap_cpu_ms",
           "both_ratio", "step_ratio", "cpu_ratio"]
MODELS = {"tiny": [], "small": ["--width", "384", "--layers", "6", "--batch", "8"]}
# Both ranks send through it.
SLOW = "ip link set lo up && tc qdisc add dev lo root tbf rate 2gbit burst 256kb latency 50ms && "
SLOW_NETWORK = ["unshare", "--net", "sh", "-c"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(program, options, slow):
    """What two ranks say."""
    ranks = " ".join(f"RANK={rank} {program} {' '.join(options)} &" for rank in range(2)) + " wait"
    command = SLOW_NETWORK + [SLOW + ranks] if slow else ["sh", "-c", ranks]
    environment = dict(os.environ, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), WORLD_SIZE="2",
                       OMP_NUM_THREADS="1")
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout
    said = [json.loads(line) for line in output.splitlines()]
    if len(said) != 2:
        raise SystemExit("a rank failed")
    return said


def can_be_slow():
    return subprocess.run(SLOW_NETWORK + [SLOW + "true"], capture_output=True, check=False).returncode == 0


def measure(program, model, slow, kib, steps):
    said = run(program, MODELS[model] + ["--bucket-bytes", str(1024 * kib), "--steps", str(steps)], slow)
    row = {"model": model, "link": "1 Gbit/s" if slow else "loopback", "bucket_kib": kib,
           "mb": 1e-6 * said[0]["bytes"]}
    for kind, prefix in (("behind", ""), ("during", "overlap_")):
        for key, column in (("backward", "backward"), ("reduce", "reduce"), ("both", "both"), ("whole", "step"),
                            ("cpu", "cpu")):
            row[f"{prefix}{column}_ms"] = max(rank[kind][key] for rank in said)
    for column in ("both", "step", "cpu"):
        row[f"{column}_ratio"] = row[f"overlap_{column}_ms"] / row[f"{column}_ms"]
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--quick", action="store_true", help="the tiny model alone")
    parser.add_argument("--steps", type=int, default=40, help="of the tiny model; a quarter of that of the other")
    args = parser.parse_args()

    links = [False, True] if can_be_slow() else [False]
    if len(links) == 1:
        print("No slow link: that needs root, unshare, ip and tc")
    print(f"2 ranks of one thread, {os.cpu_count()} cores")
    print(" ".join(f"{column:>{max(len(column), 8)}}" for column in COLUMNS))
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for slow in links:
            for model, kib in [("tiny", 1024), ("tiny", 256)] + ([] if args.quick else [("small", 1024)]):
                row = measure(args.program, model, slow, kib, args.steps if model == "tiny" else args.steps // 4)
                texts = [f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c]) for c in COLUMNS]
                writer.writerow(dict(zip(COLUMNS, texts)))
                file.flush()
                print(" ".join(f"{text:>{max(len(c), 8)}}" for c, text in zip(COLUMNS, texts)), flush=True)


if __name__ == "__main__":
    main()
