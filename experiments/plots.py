# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""The plots of the experiments. A dot is a run, a bar the standard deviation over seeds unless the
plot says otherwise."""
from statistics import NormalDist, mean, stdev

import matplotlib

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt

from measures import precision_means, step_times
from paired import by_seed, confidence_interval

COLORS = {"AdamW": "tab:gray", "AdamW, clipped": "black", "Muon": "tab:blue",
          "ROOT as published": "tab:orange", "ROOT": "tab:red",
          "ROOT, 60 % of the steps": "tab:pink",
          "Muon, tuned momentum": "tab:cyan", "Muon, rising momentum": "tab:purple",
          "ROOT, tuned momentum": "tab:pink", "ROOT, tuned, balanced": "tab:green",
          "classic": "tab:gray", "muon": "tab:blue", "published": "tab:orange",
          "default": "tab:red"}
# The published triples are Muon's at most shapes: dashes on a thick line show both.
METHODS = {"classic": ("classic (1.5, −.5)", "-"), "published": ("ROOT as published", "-"),
           "muon": ("Muon", "--"), "default": ("ROOT's default", "-")}
NAMES = {"validation_loss": "validation loss (nats)", "validation_accuracy": "validation accuracy"}


def panels(count, width=5.5, height=4.2, per_row=3, **kwargs):
    columns = min(count, per_row)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows),
                                layout="constrained", squeeze=False, **kwargs)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def save(figure, path):
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def grouped(items, key):
    groups = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def curves(runs, pool, path, times=None):
    """Validation loss, mean over seeds, over steps or, with the times of a step, over seconds."""
    groups = grouped((run for run in runs if not run.alone and pool.result(run)),
                     lambda run: run.group)
    figure, axes = panels(len(groups))
    for axis, (group, members) in zip(axes, groups.items()):
        late = []
        for label, same in grouped(members, lambda run: run.label).items():
            series = [pool.evaluations(run) for run in same]
            steps = [row["step"] for row in series[0]]
            if any([row["step"] for row in s] != steps for s in series):
                continue  # one of them diverged; the tables say so
            step_time = (times or {}).get((group, "ROOT" if label.startswith("ROOT,") else label))
            if times is not None and step_time is None:
                continue
            x = [step * step_time for step in steps] if times is not None else steps
            loss = [[row["validation_loss"] for row in s] for s in series]
            center = [mean(values) for values in zip(*loss)]
            (line,) = axis.plot(x, center, color=COLORS.get(label), label=label, linewidth=1.5)
            late += center[len(center) // 4:]
            if len(series) > 1:
                spread = [stdev(values) for values in zip(*loss)]
                axis.fill_between(x, [c - s for c, s in zip(center, spread)],
                                  [c + s for c, s in zip(center, spread)],
                                  color=line.get_color(), alpha=0.15, linewidth=0)
        if late:
            axis.set_ylim(min(late) - 0.05, max(late) + 0.1)
        axis.set(title=group, ylabel=NAMES["validation_loss"],
                 xlabel="steps" if times is None else "seconds of training, all threads")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    return save(figure, path)


def dots(measurements, metric, path, baseline=None):
    """A row for each label, a panel for each group. With a baseline: paired differences to it, and
    bars are their 95 % intervals."""
    table = {(group, label): seeds for (m, group, label), seeds in by_seed(measurements).items()
             if m == metric}
    groups = grouped((key for key in table if key[1] != baseline), lambda key: key[0])
    longest = max(len(keys) for keys in groups.values())
    figure, axes = panels(len(groups), height=1.3 + 0.28 * longest, width=6.2)
    for axis, (group, keys) in zip(axes, groups.items()):
        reference = table.get((group, baseline), {})
        for y, (_, label) in enumerate(keys):
            seeds = table[group, label]
            usable = [s for s, v in seeds.items() if v is not None and
                      (baseline is None or reference.get(s) is not None)]
            values = [seeds[s] - (reference[s] if baseline else 0) for s in usable]
            color = COLORS.get(label, "tab:purple")
            axis.plot(values, [y] * len(values), "o", color=color, alpha=0.4, markersize=4)
            if values:
                interval = confidence_interval(values) or (mean(values), mean(values))
                half = interval[1] - mean(values) if baseline else (
                    stdev(values) if len(values) > 1 else 0)
                axis.errorbar(mean(values), y, xerr=half, color=color, marker="|", markersize=12,
                              capsize=3)
            if len(values) < len(seeds):
                axis.annotate(f"{len(seeds) - len(values)} without a value", (0.98, y), ha="right",
                              va="center", xycoords=("axes fraction", "data"), fontsize="small",
                              color="red")
        axis.set_yticks(range(len(keys)), [label for _, label in keys], fontsize="small")
        axis.set_ylim(len(keys) - 0.4, -0.6)
        name = NAMES.get(metric, metric.replace("_", " "))
        axis.set(title=group, xlabel=f"{name} less that of “{baseline}”" if baseline else name)
        if baseline:
            axis.axvline(0, color="black", linestyle="--", linewidth=0.8)
        axis.grid(alpha=0.3, axis="x")
    return save(figure, path)


def learning_rates(tried, path):
    """tried: rows with size, label, lr and value."""
    groups = grouped(tried, lambda row: row["size"])
    figure, axes = panels(len(groups), per_row=2)
    for axis, (size, rows) in zip(axes, groups.items()):
        for label, same in grouped(rows, lambda row: row["label"]).items():
            points = sorted((row["lr"], row["value"]) for row in same if row["value"] is not None)
            axis.plot([p[0] for p in points], [p[1] for p in points], "o-", label=label,
                      color=COLORS.get(label), markersize=4)
        axis.set(title=size, xlabel="learning rate", ylabel=NAMES["validation_loss"],
                 xscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    return save(figure, path)


def quantiles(measurements, metric, path, baseline):
    """Paired differences to the baseline with their 95 % intervals, over the quantile."""
    table = {(group, label): seeds for (m, group, label), seeds in by_seed(measurements).items()
             if m == metric}
    groups = grouped(table, lambda key: key[0])
    figure, axes = panels(len(groups))
    for axis, (group, keys) in zip(axes, groups.items()):
        reference = table[group, baseline]
        for _, label in keys:
            q = float(label.removeprefix("q = "))
            values = [value - reference[seed] for seed, value in table[group, label].items()
                      if value is not None and reference[seed] is not None]
            axis.plot([q] * len(values), values, "o", color="tab:red", alpha=0.4, markersize=4)
            if len(values) > 1:
                half = confidence_interval(values)[1] - mean(values)
                axis.errorbar(q, mean(values), half, color="tab:red", marker="_", markersize=12,
                              capsize=3)
        axis.axhline(0, color="black", linestyle="--", linewidth=0.8)
        axis.set(title=group, xlabel="quantile q of the split (1: no split)",
                 ylabel=f"{NAMES[metric]} less that of {baseline}")
        axis.grid(alpha=0.3)
    return save(figure, path)


def precision(rows, folder):
    """Relative error along training: a picture for each run, a column for each kind of layer."""
    paths = []
    for group, of_run in grouped(rows, lambda row: row["group"]).items():
        kinds = list(dict.fromkeys(row["kind"] for row in of_run))
        figure, axes = plt.subplots(2, len(kinds), figsize=(2.8 * len(kinds), 5.2), squeeze=False,
                                    layout="constrained", sharex=True, sharey=True)
        for line, x in zip(axes, ("U", "B")):
            for axis, kind in zip(line, kinds):
                for method, (label, style) in METHODS.items():
                    points = [row for row in of_run if row["method"] == method
                              and (row["kind"], row["input"]) == (kind, x)]
                    axis.plot([row["step"] for row in points],
                              [row["relative_error"] for row in points], style,
                              color=COLORS[method], label=label,
                              linewidth=3 if method == "published" else 1.2)
                axis.set_title(f"{kind}, {x}", fontsize="small")
                axis.set_ylim(0, 1)
                axis.grid(alpha=0.3)
            line[0].set_ylabel("relative error")
        figure.suptitle(group)
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center",
                      ncols=len(METHODS))
        paths.append(save(figure, folder / f"{group.replace(', ', '_').replace(' ', '_')}.png"))
    return paths


def tails(rows, path):
    """Histogram and Q-Q plot of each kind of layer, a line for each observation."""
    kinds = sorted({row["kind"] for row in rows})
    figure, axes = plt.subplots(2, len(kinds), figsize=(3.4 * len(kinds), 6.4), squeeze=False,
                                layout="constrained", sharey="row")
    steps = sorted({int(row["step"]) for row in rows})
    colors = plt.get_cmap("viridis")
    for column, kind in zip(axes.T, kinds):
        for index, step in enumerate(steps):
            color = colors(index / max(1, len(steps) - 1) * 0.9)
            for axis, statistic in zip(column, ("density", "quantile")):
                points = [(float(row["at"]), float(row["value"])) for row in rows
                          if row["kind"] == kind and int(row["step"]) == step
                          and row["statistic"] == statistic]
                if statistic == "density":
                    points = [(x, y) for x, y in points if y > 0]
                else:
                    points = [(NormalDist().inv_cdf(p), value) for p, value in points]
                axis.plot([p[0] for p in points], [p[1] for p in points], color=color,
                          label=f"step {step}", linewidth=1)
        normal = [-4 + i / 20 for i in range(161)]
        column[0].plot(normal, [NormalDist().pdf(x) for x in normal], "k--", linewidth=0.8,
                       label="normal")
        column[1].plot([-4, 4], [-4, 4], "k--", linewidth=0.8)
        column[0].set(yscale="log", ylim=(1e-6, 3), xlabel="entry ÷ RMS")
        column[0].set_title(kind, fontsize="small")
        column[1].set(xlabel="quantile of the normal distribution")
        for axis in column:
            axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("density")
    axes[1][0].set_ylabel("quantile of entries ÷ RMS")
    axes[0][0].legend(fontsize="x-small")
    return save(figure, path)


def draw(name, plan, pool, measured, folder):
    """All plots of an experiment; returns their paths."""
    runs = plan.runs
    if name == "lm":
        return [curves(runs, pool, folder / "curves.png"),
                dots([m for m in measured if m["group"] in ("small", "larger")],
                     "validation_loss", folder / "final.png", "Muon")]
    if name in ("competitors", "long"):
        return [curves(runs, pool, folder / "curves.png"),
                dots([m for m in measured if m["metric"] == "validation_loss"],
                     "validation_loss", folder / "final.png", "Muon")]
    if name == "cost":
        times = step_times([run for run in runs if run.alone], pool)
        return [curves(runs, pool, folder / "wall_clock.png", times),
                dots(measured, "optimizer_share", folder / "share.png")]
    if name in ("ablation", "parts", "others", "ranks"):
        return [dots(measured, plan.metric, folder / f"{name}.png", plan.baselines[0])]
    if name == "quantile":
        pictures = {"validation_loss": "loss.png", "validation_accuracy": "accuracy.png"}
        return [quantiles(measured, metric, folder / pictures[metric], plan.baselines[0])
                for metric in dict.fromkeys(m["metric"] for m in measured)]
    if name in ("tuning", "momentum", "finetune_rates"):
        return []
    if name == "transfer":
        tried = [dict(size=m["group"].split(", ")[0], label=m["group"].split(", ")[1],
                      lr=float(m["label"]), value=m["value"]) for m in measured]
        return [learning_rates(tried, folder / "transfer.png")]
    if name == "finetune":
        return [dots(measured, plan.metric, folder / "finetune.png", "AdamW")]
    if name in ("noise", "guards"):
        return [dots(measured, "loss_increase", folder / "increase.png"),
                dots(measured, "validation_loss", folder / "final.png", "Muon")]
    if name == "vision":
        return [dots(measured, plan.metric, folder / "accuracy.png", "Muon")]
    if name == "precision_along_training":
        return precision(precision_means(runs, pool), folder)
    return [tails([row for run in runs for row in pool.rows(run, "tails")],
                  folder / "tails.png")]
