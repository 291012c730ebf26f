#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""Writes tests/golden/*.txt: fixed inputs and the trajectories that other programs make of them.

muon.txt         torch.optim.Muon of the installed PyTorch, as shipped (bfloat16 iteration) and with
                 the same iteration run in float32.
muon_inputs.txt  the same for the settings and the shape of PyTorch's own test of it.
root.txt         the published ROOT step (arXiv 2511.20626), transcribed below in float64 NumPy.
adamw.txt        torch.optim.AdamW on the problem of PyTorch's C++ optimizer tests.

Gradients are part of the input and do not depend on the parameters, so an error made in one step is
not fed back. Inputs are integers over a power of two: exact in float32 and float64, short as text.

Run:  python tests/golden/generate.py        (needs torch >= 2.9 and numpy; overwrites the files)

Format: tokens separated by white space, read by tests/support/golden.hpp.
  generator "<versions>"
  inputs NAME rows R cols C steps T denominator D   then (T + 1) * R * C integers: parameter, gradients
  trajectory NAME inputs NAME { KEY VALUE } samples K  then K times: step S parameter <R * C numbers>
  momentum <R * C numbers>      the momentum buffer after the last step; closes a trajectory
adamw.txt: generator as above, then weight_decay W, then for each sample: step S <13 numbers>
"""

import math
import pathlib
import sys

import numpy as np
import torch
from torch.optim import _muon

HERE = pathlib.Path(__file__).resolve().parent
STEPS = 20
SAMPLES = (1, 5, 20)
DENOMINATOR = 1024
SHAPES = {"wide": (10, 16), "tall": (16, 10), "square": (10, 10)}
LR = 0.02


def make_inputs(rows, cols, seed):
    """Integers: a parameter, then STEPS gradients = noise + a fixed low-rank part + a few spikes."""
    rng = np.random.default_rng(seed)
    parameter = rng.standard_normal((rows, cols))
    drift = rng.standard_normal((rows, 2)) @ rng.standard_normal((2, cols))
    gradients = []
    for _ in range(STEPS):
        gradient = rng.standard_normal((rows, cols)) + drift
        gradient[rng.random((rows, cols)) < 0.02] *= 30.0
        gradients.append(gradient)
    return np.rint(np.stack([parameter] + gradients) * DENOMINATOR).astype(np.int64)


def iterate_in_float32(grad, ns_coefficients, ns_steps, eps):
    """_muon._zeropower_via_newtonschulz of PyTorch without its cast to bfloat16."""
    a, b, c = ns_coefficients
    x = grad.float().clone()
    if grad.size(0) > grad.size(1):
        x = x.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if grad.size(0) > grad.size(1) else x


def run_muon(inputs, iterate, lr=LR, **options):
    shipped = _muon._zeropower_via_newtonschulz
    _muon._zeropower_via_newtonschulz = iterate or shipped
    try:
        values = torch.from_numpy(inputs.astype(np.float32) / DENOMINATOR)
        parameter = torch.nn.Parameter(values[0].clone())
        optimizer = torch.optim.Muon([parameter], lr=lr, **options)
        samples = {}
        for step in range(1, STEPS + 1):
            parameter.grad = values[step].clone()
            optimizer.step()
            if step in SAMPLES:
                samples[step] = parameter.detach().double().numpy().copy()
        return samples, optimizer.state[parameter]["momentum_buffer"].double().numpy()
    finally:
        _muon._zeropower_via_newtonschulz = shipped


JORDAN = (3.4445, -4.7750, 2.0315)
PUBLISHED_2048 = (3.4916, -4.8224, 2.1095)  # the paper's 2048 x 2048 triple


def run_root(inputs, triple=JORDAN, nesterov=True, weight_decay=0.1, momentum=0.95, quantile=0.90):
    """The step as the paper and its reference program write it, in float64."""
    values = inputs.astype(np.float64) / DENOMINATOR
    p, M = values[0].copy(), np.zeros_like(values[0])
    a, b, c = triple
    samples = {}
    for step in range(1, STEPS + 1):
        G = values[step]
        M = momentum * M + G
        U = G + momentum * M if nesterov else M
        eps = np.quantile(np.abs(U), quantile) + 1e-9
        O = np.sign(U) * np.maximum(np.abs(U) - eps, 0.0)
        B = U - O
        X = B / (np.linalg.norm(B) + 1e-7)
        transposed = X.shape[0] > X.shape[1]
        if transposed:
            X = X.T
        for _ in range(5):
            A = X @ X.T
            X = a * X + (b * A + c * A @ A) @ X
        if transposed:
            X = X.T
        p = (1 - LR * weight_decay) * p - LR * 0.2 * math.sqrt(max(p.shape)) * X
        if step in SAMPLES:
            samples[step] = p.copy()
    return samples, M


def run_adamw(weight_decay):
    """The problem of test/cpp/api/optim.cpp: a 2-3-1 network of sigmoids, its summed output on three
    points minimized by 1001 steps of lr 1, the four parameters (13 numbers) every 100 steps."""

    def tensor(values, *shape):
        return torch.tensor(values, dtype=torch.float64).reshape(shape).requires_grad_()

    parameters = [
        tensor([-0.2109, -0.4976, -0.1413, -0.3420, -0.2524, 0.6976], 3, 2),
        tensor([-0.1085, -0.2979, 0.6892], 3),
        tensor([-0.0508, -0.3941, -0.2843], 1, 3),
        tensor([-0.0711], 1),
    ]
    points = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], dtype=torch.float64)
    optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=weight_decay)
    samples = {}
    for i in range(1001):
        optimizer.zero_grad()
        hidden = torch.sigmoid(torch.nn.functional.linear(points, *parameters[:2]))
        torch.sigmoid(torch.nn.functional.linear(hidden, *parameters[2:])).sum().backward()
        optimizer.step()
        if i % 100 == 0:
            samples[i + 1] = torch.cat([p.detach().flatten() for p in parameters]).numpy()
    return samples


def numbers(array, digits):
    lines = []
    for row in np.atleast_2d(array):
        lines.append(" ".join(f"{value:.{digits}g}" for value in row))
    return "\n".join(lines) + "\n"


def generator():
    versions = f"torch {torch.__version__}, numpy {np.__version__}, python {sys.version.split()[0]}"
    return f'generator "{versions}"\n'


def write(name, inputs, trajectories, digits):
    with open(HERE / name, "w", encoding="ascii") as out:
        out.write(generator())
        for key, array in inputs.items():
            _, rows, cols = array.shape
            out.write(f"inputs {key} rows {rows} cols {cols} steps {STEPS} denominator {DENOMINATOR}\n")
            for matrix in array:
                out.write("\n".join(" ".join(str(v) for v in row) for row in matrix) + "\n")
        for key, shape, options, (samples, buffer) in trajectories:
            pairs = " ".join(f"{k} {v}" for k, v in options.items())
            out.write(f"trajectory {key} inputs {shape} {{ {pairs} }} samples {len(samples)}\n")
            for step, parameter in samples.items():
                out.write(f"step {step} parameter\n" + numbers(parameter, digits))
            out.write("momentum\n" + numbers(buffer, digits))


def main():
    inputs = {key: make_inputs(*shape, seed=7 + i) for i, (key, shape) in enumerate(SHAPES.items())}

    muon = []
    variants = {
        "defaults": {},
        "plain_momentum": {"nesterov": False},
        "no_decay": {"weight_decay": 0.0},
        "match_rms_adamw": {"adjust_lr_fn": "match_rms_adamw"},
    }
    for shape in SHAPES:
        for variant, options in variants.items():
            for compute, iterate in (("bfloat16", None), ("float32", iterate_in_float32)):
                recorded = {
                    "compute": compute,
                    "lr": LR,
                    "nesterov": int(options.get("nesterov", True)),
                    "weight_decay": options.get("weight_decay", 0.1),
                    "scale": options.get("adjust_lr_fn", "original"),
                }
                trajectory = run_muon(inputs[shape], iterate, **options)
                muon.append((f"{shape}_{variant}_{compute}", shape, recorded, trajectory))
    write("muon.txt", inputs, muon, digits=9)

    # What torch/testing/_internal/common_optimizers.py runs Muon with, on the weight of test_optim.py.
    weight = make_inputs(10, 5, seed=11)
    settings = {
        "default": {},
        "lr": {"lr": 0.01},
        "weight_decay": {"weight_decay": 0.2},
        "momentum": {"momentum": 0.8},
        "ns_steps": {"ns_steps": 6},
        "ns_coefficients": {"ns_coefficients": (3.4, -4.7, 2.0)},
    }
    muon_inputs = []
    for setting, options in settings.items():
        for compute, iterate in (("bfloat16", None), ("float32", iterate_in_float32)):
            a, b, c = options.get("ns_coefficients", JORDAN)
            recorded = {
                "compute": compute,
                "lr": options.get("lr", LR),
                "weight_decay": options.get("weight_decay", 0.1),
                "momentum": options.get("momentum", 0.95),
                "steps": options.get("ns_steps", 5),
                "a": a,
                "b": b,
                "c": c,
            }
            trajectory = run_muon(weight, iterate, **options)
            muon_inputs.append((f"{setting}_{compute}", "weight", recorded, trajectory))
    write("muon_inputs.txt", {"weight": weight}, muon_inputs, digits=9)

    with open(HERE / "adamw.txt", "w", encoding="ascii") as out:
        out.write(generator())
        for weight_decay in (0.01, 0.0):
            out.write(f"weight_decay {weight_decay}\n")
            for step, values in run_adamw(weight_decay).items():
                out.write(f"step {step} " + numbers(values, 17))

    root = []
    variants = {
        "published": {},
        "plain_momentum": {"nesterov": False},
        "no_decay": {"weight_decay": 0.0},
        "quantile_85": {"quantile": 0.85},
        "triple_2048": {"triple": PUBLISHED_2048},
    }
    for shape in SHAPES:
        for variant, options in variants.items():
            recorded = {
                "lr": LR,
                "nesterov": int(options.get("nesterov", True)),
                "weight_decay": options.get("weight_decay", 0.1),
                "quantile": options.get("quantile", 0.90),
                "coefficients": "2048" if "triple" in options else "table",
            }
            root.append((f"{shape}_{variant}", shape, recorded, run_root(inputs[shape], **options)))
    write("root.txt", inputs, root, digits=17)


if __name__ == "__main__":
    main()
