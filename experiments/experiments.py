#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Runs the experiments and makes tables and plots of them; scripts/experiments.sh calls it.

For each experiment OUT/NAME has runs.csv (a row a run), curves.csv (their evaluations; not of
learning_rates), summary.csv (means, deviations, paired differences; of learning_rates the chosen
rates), report.md (the same as tables, with hardware, versions and time) and plots. Finished runs
stay in OUT/runs: an interrupted experiment goes on where it was, and experiments share runs. Needs
matplotlib.
"""
import argparse
import csv
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import measures
import paired
import plans
import plots
from pool import Pool

PROJECT = Path(__file__).resolve().parents[1]
TEXTS = ("brown.txt", "tinyshakespeare.txt")
IMAGE_FILES = ("data_batch_1.bin", "train-images-idx3-ubyte")
# What `experiment` is built from and its results are reported by.
SOURCES = ("CMakeLists.txt", "CMakePresets.json", "cmake", "include", "examples", "experiments")


def find_data(folder):
    """{task: [paths]}: the texts and the images that the folder holds; none: LibTorch's headers."""
    folders = [folder] if folder else []
    texts = [f / name for f in folders for name in TEXTS if (f / name).exists()]
    candidates = []
    for f in folders:
        candidates += [f, *sorted(path for path in f.iterdir() if path.is_dir())]
    candidates.append(PROJECT / "build/data/cifar10")
    images = [f for f in candidates if any((f / name).exists() for name in IMAGE_FILES)][:1]
    return {"lm": texts, "vit": images, "resnet": images}


def write_csv(path, rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def number(value):
    return "" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def markdown(rows):
    """A table for each metric: of a single seed a column for each label, else a row for each, with
    a column for each baseline."""
    lines = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        of_metric = [row for row in rows if row["metric"] == metric]
        lines.append(f"\n{metric}:\n")
        if all(row["seeds"] == 1 for row in of_metric):
            labels = list(dict.fromkeys(row["label"] for row in of_metric))
            lines += [f"| | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|"]
            for group in dict.fromkeys(row["group"] for row in of_metric):
                mean = {row["label"]: row["mean"] for row in of_metric if row["group"] == group}
                lines.append(f"| {group} | {' | '.join(number(mean.get(k)) for k in labels)} |")
            continue
        baselines = list(dict.fromkeys(row["baseline"] for row in of_metric if "baseline" in row))
        head = ["group", "label", "mean ± sd", "seeds"]
        head += [f"less {b} (95 % interval)" for b in baselines]
        lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for group, label in dict.fromkeys((row["group"], row["label"]) for row in of_metric):
            same = [r for r in of_metric if (r["group"], r["label"]) == (group, label)]
            differences = {row["baseline"]: interval(row) for row in same if "baseline" in row}
            first = same[0]
            value = number(first["mean"])
            if first["sd"] is not None:
                value += f" ± {number(first['sd'])}"
            seeds = str(first["seeds"])
            if first["without_value"]:
                seeds += f", **{first['without_value']} without a value**"
            cells = [group, label, value, seeds, *(differences.get(b, "") for b in baselines)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(row):
    if row["ci_low"] is None:
        return number(row["difference"])
    text = f"{number(row['difference'])} ({number(row['ci_low'])} to {number(row['ci_high'])})"
    return f"**{text}**" if row["ci_low"] > 0 or row["ci_high"] < 0 else text


def commit_name():
    """The commit, with "+" if the sources differ from it; empty outside of a repository."""
    def git(*arguments):
        return subprocess.run(["git", "-C", PROJECT, *arguments], text=True, capture_output=True,
                              check=False).stdout.strip()
    commit = git("rev-parse", "--short", "HEAD")
    return commit + ("+" if git("status", "--porcelain", "--", *SOURCES) else "")


def environment(results):
    """results: of runs, which know their LibTorch."""
    cpu = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines()
                  if line.startswith("model name")]
        cpu = models[0] if models else cpu
    torch = next((result["torch"] for result in results if "torch" in result), "unknown")
    return (f"{os.cpu_count()} cores of {cpu}, {platform.system()}, LibTorch {torch}, "
            f"report of commit {commit_name() or 'unknown'}")


def finish(name, plan, pool, folder, command):
    """Writes everything about an experiment; returns how many of its runs failed."""
    runs, curves = [], []
    for run in plan.runs:
        head = dict(group=run.group, label=run.label, seed=run.seed, alone=run.alone)
        final = pool.result(run)
        runs.append(head | run.settings | (final or {"diverged": "failed"}))
        if final and not run.alone:
            curves += [head | row for row in pool.evaluations(run)]
    failed = [run for run in plan.runs if pool.result(run) is None]
    diverged = [run for run in plan.runs if (pool.result(run) or {}).get("diverged")]
    write_csv(folder / "runs.csv", runs)
    write_csv(folder / "curves.csv", curves)
    notes = list(plan.notes)
    if name == "precision_along_training":
        write_csv(folder / "observations.csv", measures.precision_means(plan.runs, pool))
    if name == "tails":
        write_csv(folder / "observations.csv",
                  [row for run in plan.runs if pool.result(run)
                   for row in pool.rows(run, "tails")])
    if name == "noise":
        notes += measures.noise_notes(plan.runs, pool)
    measured = measures.of_plan(name, plan, pool)
    rows = paired.summarize(measured, plan.baselines)
    write_csv(folder / "summary.csv", rows)
    pictures = plots.draw(name, plan, pool, measured, folder) if len(failed) < len(runs) else []

    lines = [f"# {name}\n", f"`{command}`: {pool.duration(plan.runs)}; {environment(runs)}.",
             *(f"\n{note}" for note in notes)]
    for word, some in (("failed", failed), ("diverged", diverged)):
        if some:
            lines.append(f"\n**{len(some)} of {len(runs)} runs {word}**: " + "; ".join(
                f"{run.group}, {run.label}, seed {run.seed}" for run in some) + ".")
    if any("baseline" in row for row in rows):
        lines.append("\nBold: the interval excludes zero.")
    lines.append(markdown(rows))
    lines += [f"\n![{picture.stem}]({picture.name})" for picture in pictures]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(markdown(rows), f"\n{folder}", sep="\n")
    return len(failed)


def tune(planner, pool, folder, command):
    """Tries the same rates for every optimizer, and further ones while the best is at an edge."""
    rates = {(size, changes["optimizer"]): set(plans.FIRST_RATES[:2] if planner.quick
                                               else plans.FIRST_RATES)
             for size in ("small", "tiny") + planner.vision_sizes()
             for changes in plans.OPTIMIZERS.values()}
    while True:
        runs = {(key, rate): planner.tuning_run(*key, rate)
                for key, tried in rates.items() for rate in sorted(tried)}
        pool.complete(list(runs.values()))
        values = {k: m["value"] for k, m in zip(
            runs, measures.finals(runs.values(), pool, "validation_loss"))}
        best = {key: min((r for r in tried if values[key, r] is not None),
                         key=lambda r, key=key: values[key, r], default=None)
                for key, tried in rates.items()}
        further = {key: {rate for rate in ((best[key] or 0) / 2, (best[key] or 0) * 2)
                         if plans.RATE_LIMITS[0] <= rate <= plans.RATE_LIMITS[1]} - tried
                   for key, tried in rates.items()}
        if planner.quick or not any(further.values()):
            break
        for key in rates:
            rates[key] |= further[key]

    rows = [dict(size=size, label=run.label, optimizer=optimizer, lr=rate,
                 steps=run.settings["steps"], value=values[(size, optimizer), rate],
                 chosen=best[size, optimizer] == rate)
            for ((size, optimizer), rate), run in runs.items()]
    write_csv(folder / "runs.csv", rows)
    chosen = [row for row in rows if row["chosen"]]
    write_csv(folder / "summary.csv", chosen)
    picture = plots.learning_rates(rows, folder / "learning_rates.png")
    results = [pool.result(run) or {} for run in runs.values()]
    table = ["| size | optimizer | learning rate | validation loss |", "|---|---|---|---|"]
    table += [f"| {r['size']} | {r['label']} | {r['lr']:g} | {r['value']:.4f} |" for r in chosen]
    lines = ["# learning_rates\n", f"`{command}`: {pool.duration(list(runs.values()))}; "
             f"{environment(results)}.\n", *table, f"\n![{picture.stem}]({picture.name})"]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(table), folder, sep="\n")
    return sum(not result for result in results)


def chosen_rates(out):
    """{(size, optimizer): rate} of learning_rates: of OUT, else those in docs/results."""
    for folder in (out, PROJECT / "docs/results"):
        path = folder / "learning_rates/summary.csv"
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                return {(r["size"], r["optimizer"]): float(r["lr"]) for r in csv.DictReader(file)}
    print("no learning rates are tuned yet: with those of the demo (docs/learning-rates.md)")
    return {}


def chosen_candidates(out, name):
    """{label: row}, the best of each competitor in an experiment: of OUT, else in docs/results."""
    for folder in (out, PROJECT / "docs/results"):
        path = folder / name / "runs.csv"
        if path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row.get("validation_loss")]
            return {label: min((row for row in rows if row["label"] == label),
                               key=lambda row: float(row["validation_loss"]))
                    for label in dict.fromkeys(row["label"] for row in rows)}
    print(f"no {name} yet: with the first candidate of each competitor")
    return {}


def changes_of(label, row, candidates):
    """The candidate whose settings a row of runs.csv has."""
    for changes in candidates:
        if all(str(row.get(k, "")) == (f"{v:.6g}" if isinstance(v, float) else str(v))
               for k, v in changes.items()):
            return changes
    sys.exit(f"no candidate of {label} has the settings of the best run that was found: "
             "repeat the experiment that chooses (plans.py)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="+", choices=plans.NAMES + ("all",), metavar="NAME")
    parser.add_argument("--program", type=Path, required=True, help="the program `experiment`")
    parser.add_argument("--data", type=Path, default=os.environ.get("ROOT_OPTIM_DATA") or None)
    parser.add_argument("--out", type=Path, default=PROJECT / "build/experiments")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--publish", action="store_true", help="copy the results to docs/results")
    arguments = parser.parse_args()
    if arguments.data and not arguments.data.is_dir():
        parser.error(f"--data: no folder {arguments.data}")
    if arguments.publish and arguments.quick:
        parser.error("--publish: not with --quick")

    data = find_data(arguments.data)
    out = arguments.out / "quick" if arguments.quick else arguments.out
    pool = Pool(arguments.program, out / "runs", data, arguments.jobs)
    failed = 0
    for name in plans.NAMES if "all" in arguments.names else arguments.names:
        print(f"\n==> {name}", flush=True)
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        command = f"scripts/experiments.sh {name}" + (" --quick" if arguments.quick else "")
        if not data["vit"]:
            print("no images (CIFAR-10's binary version or Fashion-MNIST) in the folder given by "
                  "--data: without vision")
            if name == "vision":
                continue
        if name.startswith("finetune") and len(data["lm"]) < 2:
            print("needs two texts, brown.txt and tinyshakespeare.txt, in the folder given by --data")
            continue
        if name == "learning_rates":
            failed += tune(plans.Planner(arguments.quick, {}, bool(data["vit"])), pool, folder,
                           command)
        else:
            chosen = {label: changes_of(label, row, candidates[label])
                      for file, candidates in (("tuning", plans.CANDIDATES),
                                               ("finetune_rates", plans.FINETUNING_CANDIDATES))
                      for label, row in chosen_candidates(out, file).items()
                      if label in candidates}
            planner = plans.Planner(arguments.quick, chosen_rates(out), bool(data["vit"]), chosen)
            plan = planner.plan(name)
            pool.complete(plan.runs)
            failed += finish(name, plan, pool, folder, command)
        if arguments.publish:
            target = PROJECT / "docs/results" / name
            target.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                shutil.copy(path, target)
    sys.exit(f"{failed} runs failed: see the .log files in {pool.folder}" if failed else 0)


if __name__ == "__main__":
    main()
