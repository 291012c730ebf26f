# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""What is measured in the runs of each experiment; statistics over seeds are in paired.py."""
from collections import defaultdict
from statistics import mean, median

from paired import by_seed


def measurement(run, metric, value):
    return dict(metric=metric, group=run.group, label=run.label, seed=run.seed, value=value)


def finals(runs, pool, metric):
    """The metric at the end of every run; None for those that diverged or failed."""
    result = []
    for run in runs:
        final = pool.result(run)
        usable = final is not None and not final["diverged"]
        result.append(measurement(run, metric, final[metric] if usable else None))
    return result


def of_plan(name, plan, pool):
    if name in ("lm", "cost"):
        training = [run for run in plan.runs if not run.alone]
        timing = [run for run in plan.runs if run.alone]
        times = step_times(timing, pool)
        share = [measurement(run, metric, value) for run in timing
                 for metric, value in timing_of(run, pool)]
        if name == "cost":
            return share
        return (finals(training, pool, plan.metric) + time_to_target(training, pool, times) + share)
    if name in ("competitors", "long"):
        return finals(plan.runs, pool, plan.metric) + time_to_target(plan.runs, pool, {})
    if name in ("noise", "guards"):
        return finals(plan.runs, pool, plan.metric) + loss_increases(plan.runs, pool)
    if name == "precision_along_training":
        return relative_errors(plan.runs, pool)
    if name == "tails":
        return tail_statistics(plan.runs, pool)
    measured = finals(plan.runs, pool, plan.metric)
    if name == "quantile":
        vision = [run for run in plan.runs if run.settings["task"] != "lm"]
        measured += finals(vision, pool, "validation_accuracy")
    if name == "vision":
        measured += finals(plan.runs, pool, "validation_loss")
    return measured


def timing_of(run, pool):
    final = pool.result(run)
    if final is None:
        return [("ms_per_step", None), ("optimizer_share", None)]
    return [("ms_per_step", 1e3 * final["seconds"] / final["steps_done"]),
            ("optimizer_ms_per_step", 1e3 * final["optimizer_seconds"] / final["steps_done"]),
            ("optimizer_share", final["optimizer_seconds"] / final["seconds"])]


def step_times(timing, pool):
    """{(size, label): seconds of a step with all threads, the median of the repetitions}."""
    times = defaultdict(list)
    for run in timing:
        final = pool.result(run)
        if final is not None:
            size = run.group.removesuffix(", timing")
            times[size, run.label].append(final["seconds"] / final["steps_done"])
    return {key: median(values) for key, values in times.items()}


def time_to_target(runs, pool, times):
    """When a run's validation loss first is at most AdamW's final one of the same seed, in shares of
    AdamW's steps and seconds; None if never. No interpolation between evaluations."""
    target = {(run.group, run.seed): pool.result(run) for run in runs if run.label == "AdamW"}
    result = []
    for run in runs:
        adamw, final = target.get((run.group, run.seed)), pool.result(run)
        if run.label == "AdamW" or not adamw or not final or adamw["diverged"]:
            continue
        step = next((row["step"] for row in pool.evaluations(run)
                     if row["validation_loss"] <= adamw["validation_loss"]), None)
        share = None if step is None else step / adamw["steps_done"]
        result.append(measurement(run, "steps_to_adamw", share))
        label = "ROOT" if run.label.startswith("ROOT,") else run.label
        times_known = (run.group, label) in times and (run.group, "AdamW") in times
        if times_known:
            ratio = times[run.group, label] / times[run.group, "AdamW"]
            result.append(measurement(run, "seconds_to_adamw", share and share * ratio))
    return result


def loss_increases(runs, pool):
    """Validation loss less that of the same optimizer and seed without noise."""
    value = {(run.group, run.label, run.seed): m["value"]
             for run, m in zip(runs, finals(runs, pool, "validation_loss"))}
    result = []
    for run in runs:
        noisy = value[run.group, run.label, run.seed]
        clean = value.get(("clean", run.label, run.seed))
        if run.group != "clean":
            known = noisy is not None and clean is not None
            result.append(measurement(run, "loss_increase", noisy - clean if known else None))
    return result


def noise_notes(runs, pool):
    """A line for each noise: whether Muon survives it, and what ROOT loses beside it."""
    finished = [run for run in runs if pool.result(run)]
    loss = by_seed(finals(finished, pool, "validation_loss"))
    increase = by_seed(loss_increases(finished, pool))
    trivial = mean([pool.result(run)["trivial_loss"] for run in finished])
    lines = []
    for group in dict.fromkeys(run.group for run in runs if run.group != "clean"):
        muon = list(loss.get(("validation_loss", group, "Muon"), {}).values())
        lost = {label: list(increase.get(("loss_increase", group, label), {}).values())
                for label in ("Muon", "ROOT")}
        if not muon or any(None in values or not values for values in (muon, *lost.values())):
            lines.append(f"{group}: Muon or ROOT has runs without a loss.")
            continue
        verdict = "survives" if mean(muon) < trivial else "does not survive"
        lines.append(f"{group}: Muon {verdict} (loss {mean(muon):.3f}; knowing only how frequent "
                     f"each byte is: {trivial:.3f}). It loses {mean(lost['Muon']):.3f}, ROOT "
                     f"{mean(lost['ROOT']):.3f}.")
    return lines


def precision_means(runs, pool):
    """Relative error by run, kind of layer, input, method and step, the mean over layers."""
    errors = defaultdict(list)
    for run in runs:
        for row in pool.rows(run, "precision") if pool.result(run) else ():
            key = (run.group, row["kind"], row["input"], row["method"], int(row["step"]))
            errors[key].append(float(row["relative_error"]))
    names = ("group", "kind", "input", "method", "step")
    return [dict(zip(names, key), relative_error=mean(values)) for key, values in errors.items()]


def relative_errors(runs, pool):
    """The mean over the observations and layers of a kind; there is one seed."""
    result = []
    for run in runs:
        errors = defaultdict(list)
        for row in pool.rows(run, "precision") if pool.result(run) else ():
            for kind in (row["kind"], "all"):
                errors[row["input"], kind, row["method"]].append(float(row["relative_error"]))
        for (x, kind, method), values in errors.items():
            result.append(dict(metric="relative_error", group=f"{run.group}: {x}, {kind}",
                               label=method, seed=run.seed, value=mean(values)))
    return result


def tail_statistics(runs, pool):
    """Of the last observation."""
    result = []
    for run in runs:
        rows = pool.rows(run, "tails") if pool.result(run) else []
        last = max((int(row["step"]) for row in rows), default=None)
        for row in rows:
            if int(row["step"]) == last and row["statistic"] not in ("quantile", "density"):
                metric = row["statistic"] + (f"_{row['at']}" if row["at"] else "")
                result.append(dict(metric=metric, group=f"{run.group}, step {last}",
                                   label=row["kind"], seed=run.seed, value=float(row["value"])))
    return result
