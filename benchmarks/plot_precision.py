#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Draws precision.csv, as benchmarks/precision.cpp writes it: error against cost, a panel a spectrum.

Usage: plot_precision.py [CSV [PNG]]     (default: build/bench/precision.csv; the PNG beside it)

A dot is a shape in float32. Needs matplotlib.
"""
import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt

SPECTRA = {
    "gaussian": "Gaussian",
    "heavy_tail": "momentum, held out",
    "heavy_tail_split": "momentum behind the split, held out",
    "low_rank_noise": "low rank and noise",
}
METHODS = {
    "muon": ("Muon", "tab:blue"),
    "root_paper": ("ROOT as published", "tab:orange"),
    "you": ("You", "tab:green"),
    "polar_express": ("Polar Express", "tab:purple"),
    "ada_newton_5": ("AdaNewton, 5 steps, by family and shape", "tab:pink"),
    "root": ("Root's default", "tab:red"),
}


def draw(rows, png):
    figure, panels = plt.subplots(1, len(SPECTRA), figsize=(15, 4.4), sharey=True,
                                  layout="constrained")
    for panel, (spectrum, title) in zip(panels, SPECTRA.items()):
        for method, (label, color) in METHODS.items():
            points = sorted(
                (float(row["cost"]), max(float(row["relative_error"]), 1e-5)) for row in rows
                if row["spectrum"] == spectrum and row["method"] == method
                and row["dtype"] == "float32")
            panel.plot([p[0] for p in points], [p[1] for p in points], "o", color=color,
                       label=label, markersize=4, alpha=0.8)
        panel.set(title=title, xlabel="FLOP ÷ plain five steps", yscale="log", xlim=(0.4, 1.05))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("relative error to the exact polar factor")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center",
                  ncols=len(METHODS), fontsize="small")
    figure.savefig(png, dpi=110)


def main():
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "build/bench/precision.csv")
    png = Path(sys.argv[2]) if len(sys.argv) > 2 else path.with_suffix(".png")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    draw(rows, png)


if __name__ == "__main__":
    main()
