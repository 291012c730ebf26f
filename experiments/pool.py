# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Runs the program `experiment`, each run once: a finished run is found again by its settings."""
import csv
import hashlib
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# What a setting replaces of an optimizer's default options.
GIVEN_BY = {"filter": ("filter=", "filter."), "place": ("filter_place=",),
            "orthogonalization": ("orthogonalizer=", "orthogonalizer."), "lr": ("lr=",),
            "momentum": ("momentum=",), "momentum_warmup": ("momentum_start=", "momentum_warmup="),
            "update_beta": ("update_beta=",), "adamw_lr_ratio": ("adamw_lr_ratio=",),
            "beta2": ("beta2=", "betas="), "gate": ("gate=", "gate_run=")}


class Pool:
    def __init__(self, program, folder, data, jobs):
        """data: {task: [paths]}; their names, not where they are, belong to a run's identity."""
        self.program, self.folder, self.data, self.jobs = program, folder, data, jobs
        folder.mkdir(parents=True, exist_ok=True)
        text = subprocess.run([program, "--defaults"], check=True, text=True,
                              stdout=subprocess.PIPE).stdout
        self.defaults = [line.split(" ", 1) for line in text.splitlines()]

    def defaults_behind(self, settings):
        """The optimizer's defaults that the settings leave: with others a run is another run."""
        given = tuple(start for key, starts in GIVEN_BY.items() if key in settings
                      for start in starts)
        return [field for optimizer, field in self.defaults
                if optimizer == settings["optimizer"] and not field.startswith(given)]

    def texts_or_images(self, run):
        return self.data[run.settings["task"]][slice(*run.texts)]

    def file(self, run, suffix):
        identity = dict(run.settings, seed=run.seed, alone=run.alone, files=run.files,
                        data=[Path(p).name for p in self.texts_or_images(run)])
        if run.start:
            identity["start"] = self.file(run.start, "").name
        identity["defaults"] = self.defaults_behind(run.settings)
        text = json.dumps(identity, sort_keys=True)
        return self.folder / (hashlib.sha256(text.encode()).hexdigest()[:16] + suffix)

    def file_of(self, run, kind):
        return self.file(run, f".{kind}" + (".pt" if kind == "weights" else ".csv"))

    def result(self, run):
        """The final values, or None if the run is not finished."""
        path = self.file(run, ".json")
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def evaluations(self, run):
        with open(self.file(run, ".csv"), newline="", encoding="utf-8") as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]

    def rows(self, run, kind):
        with open(self.file_of(run, kind), newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def command(self, run):
        command = [str(self.program)]
        for key, value in run.settings.items():
            option = "--" + key.replace("_", "-")
            command += [option] if value is True else [option, str(value)]
        command += ["--seed", str(run.seed), "--threads", "0" if run.alone else "1"]
        command += ["--csv", str(self.file(run, ".csv")), "--result", str(self.file(run, ".json"))]
        for kind in run.files:
            command += [f"--{kind}", str(self.file_of(run, kind))]
        if run.start:
            command += ["--start", str(self.file_of(run.start, "weights"))]
        for path in self.texts_or_images(run):
            command += ["--data", str(path)]
        return command

    def execute(self, run):
        environment = dict(os.environ)
        if not run.alone:
            environment["OMP_NUM_THREADS"] = "1"
        start = time.monotonic()
        with open(self.file(run, ".log"), "w", encoding="utf-8") as log:
            subprocess.run(self.command(run), stdout=log, stderr=subprocess.STDOUT,
                           env=environment, check=False)
        return time.monotonic() - start

    def complete(self, runs):
        """Does what is missing. What fails has no result."""
        starts = [run.start for run in runs if run.start]
        if starts:
            self.complete(starts)
        unique = {self.file(run, ".json"): run for run in runs}
        missing = [run for path, run in unique.items() if not path.exists()]
        print(f"{len(unique)} runs, {len(unique) - len(missing)} of them done before", flush=True)
        begin, done = time.monotonic(), 0

        def report(run, seconds):
            nonlocal done
            done += 1
            result, passed = self.result(run), time.monotonic() - begin
            said = self.file(run, ".log").read_text(encoding="utf-8").strip().split("\n")[-1]
            print(f"[{done}/{len(missing)}, {passed / 60:.1f} min, "
                  f"{passed * (len(missing) / done - 1) / 60:.0f} left] "
                  f"{run.group}: {run.label}, seed {run.seed}, {seconds:.0f} s: "
                  f"{'' if result else 'FAILED: '}{said}", flush=True)

        with ThreadPoolExecutor(self.jobs) as executor:
            futures = {executor.submit(self.execute, run): run for run in missing if not run.alone}
            try:
                for future in as_completed(futures):
                    report(futures[future], future.result())
            except KeyboardInterrupt:
                executor.shutdown(cancel_futures=True)
                raise
        for run in missing:
            if run.alone:
                report(run, self.execute(run))

    def duration(self, runs):
        """How long the runs took, in words, whenever they ran."""
        unique = {self.file(run, ".json"): run for run in runs if self.result(run)}
        seconds = sum(self.result(run)["process_seconds"] / (1 if run.alone else self.jobs)
                      for run in unique.values())
        return f"{len(unique)} runs, {seconds / 60:.0f} minutes with {self.jobs} at a time"
