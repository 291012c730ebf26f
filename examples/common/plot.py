#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Draws losses.csv, as the example programs write it, into losses.png: over steps and over seconds.

Usage: plot.py [CSV [PNG]]     (default: build/demo/losses.csv; the PNG beside the CSV)

Lines are the training loss, smoothed; dots the validation loss. Where the CSV has an accuracy, it has
a row of its own. Needs matplotlib.
"""
import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt

STYLE = {"adamw": ("AdamW", "tab:gray"), "muon": ("Muon", "tab:blue"), "root": ("ROOT", "tab:red")}
AXES = {"step": "optimizer steps", "seconds": "seconds of training"}


def read_runs(path):
    """{optimizer: {column: [values]}} in the order of the file; an empty cell is None."""
    runs = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            run = runs.setdefault(row.pop("optimizer"), {column: [] for column in row})
            for column, value in row.items():
                run[column].append(float(value) if value else None)
    return runs


def smooth(values, decay):
    """Exponential moving average without the bias towards its start."""
    average, weight, result = 0.0, 0.0, []
    for value in values:
        average = decay * average + (1 - decay) * value
        weight = decay * weight + (1 - decay)
        result.append(average / weight)
    return result


def points_of(run, x, y):
    """The points (x, y) where y was evaluated."""
    return [(a, b) for a, b in zip(run[x], run[y]) if b is not None]


def draw_losses(runs, panels):
    for panel, column in zip(panels, AXES):
        for name, run in runs.items():
            label, color = STYLE.get(name, (name, None))
            decay = 1 - 1 / max(1, len(run["step"]) / 50)
            (line,) = panel.plot(run[column], smooth(run["train_loss"], decay), color=color,
                                 alpha=0.6, linewidth=1)
            points = points_of(run, column, "validation_loss")
            if points:
                final = f"{label}, validation {points[-1][1]:.3f}"
                panel.plot(*zip(*points), "o", color=line.get_color(), markersize=4, label=final)
    panels[0].set_ylabel("loss (nats)")
    # The first steps would squeeze the part that matters.
    late = [y for line in panels[0].lines if len(line.get_ydata()) > 1
            for y in list(line.get_ydata())[len(line.get_ydata()) // 10:]]
    panels[0].set_ylim(min(late) - 0.1, max(late) + 0.1)
    panels[0].legend()


def draw_accuracies(runs, panels):
    for panel, column in zip(panels, AXES):
        for name, run in runs.items():
            label, color = STYLE.get(name, (name, None))
            points = [(x, 100 * y) for x, y in points_of(run, column, "validation_accuracy")]
            if points:
                panel.plot(*zip(*points), "o-", color=color, markersize=4,
                           label=f"{label}, {points[-1][1]:.2f} %")
    panels[0].set_ylabel("accuracy on test images (%)")
    panels[0].legend()


def draw(runs, png):
    accuracy = all("validation_accuracy" in run for run in runs.values())
    rows = 2 if accuracy else 1
    figure, panels = plt.subplots(rows, 2, figsize=(11, 4.2 * rows), sharey="row", sharex="col",
                                  squeeze=False, layout="constrained")
    draw_losses(runs, panels[0])
    if accuracy:
        draw_accuracies(runs, panels[1])
    for panel, label in zip(panels[-1], AXES.values()):
        panel.set_xlabel(label)
    for panel in panels.flat:
        panel.grid(alpha=0.3)
    figure.savefig(png, dpi=150)


def main():
    if len(sys.argv) > 3 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    csv_path = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo/losses.csv")
    png = Path(sys.argv[2]) if len(sys.argv) > 2 else csv_path.with_suffix(".png")
    try:
        runs = read_runs(csv_path)
    except OSError as error:
        sys.exit(f"plot.py: cannot read {csv_path}: {error.strerror}")
    if not runs:
        sys.exit(f"plot.py: no rows in {csv_path}")
    draw(runs, png)
    print(png)


if __name__ == "__main__":
    main()
