# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
"""What speed.py and memory.py share: the parameter sets, and the optimizers on them, those of
torch.optim and those of this library (through module.cpp), behind one interface."""

import inspect
import math
from contextlib import contextmanager

import torch

try:
    import torch.optim._muon as torch_muon
except ImportError:
    torch_muon = None


def load_module(path):
    torch.classes.load_library(path)
    return torch.ops.root_optim_benchmarks


# ---- Parameter sets --------------------------------------------------------------------------------


def gpt2_small(layers):
    """Matrices of GPT-2 small's layers, query, key and value apart."""
    return layers * (4 * [(768, 768)] + [(3072, 768), (768, 3072)]), []


def tiny():
    """The demo's language model at its default size; embeddings, norms and output head to AdamW."""
    width, layers, context, vocabulary = 128, 4, 64, 256
    block = [(3 * width, width), (width, width), (4 * width, width), (width, 4 * width)]
    others = [(vocabulary, width), (context, width), (vocabulary, width)]
    return layers * block, others + (4 * layers + 2) * [(width,)]


def conv():
    """A ResNet-18; normalizations and classifier to AdamW."""
    matrices, others = [(64, 3, 7, 7)], [(64,), (64,)]
    inputs = 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            convolutions = [(width, inputs, 3, 3), (width, width, 3, 3)]
            if inputs != width:
                convolutions.append((width, inputs, 1, 1))
            matrices += convolutions
            others += 2 * len(convolutions) * [(width,)]
            inputs = width
    return matrices, others + [(1000, 512), (1000,)]


def parameter_sets(gpt2_layers=2):
    return {
        "gpt2_small": gpt2_small(gpt2_layers),
        "square_1024": ([(1024, 1024)], []),
        "wide_1024x4096": ([(1024, 4096)], []),
        "tiny": tiny(),
        "conv": conv(),
    }


def as_matrix(shape):
    return shape[0], math.prod(shape[1:])


class Problem:
    """Shapes with a gradient each, and for matrices the exact polar factor of the gradient. The
    gradients never change, so neither does the direction of the momentum: every step orthogonalizes
    these very matrices."""

    def __init__(self, bench, matrices, others):
        generator = torch.Generator().manual_seed(1)
        self.matrices, self.others = [], [torch.randn(s, generator=generator) for s in others]
        self.polar = []
        seen = {}
        for shape in matrices:
            index = seen[shape] = seen.get(shape, -1) + 1
            matrix, polar = bench.momentum_matrix(*as_matrix(shape), index)
            self.matrices.append(matrix.view(shape))
            self.polar.append(polar)

    def parameters(self, flat=False):
        """Fresh parameters with these gradients: matrices, others."""

        def parameter(gradient):
            p = torch.nn.Parameter(torch.zeros_like(gradient))
            p.grad = gradient
            return p

        matrices = [g.flatten(1) if flat else g for g in self.matrices]
        return [parameter(g) for g in matrices], [parameter(g) for g in self.others]

    def flops(self, steps=5):
        """Of the plain iteration."""
        total = 0
        for gradient in self.matrices:
            m, n = sorted(as_matrix(gradient.shape))
            total += steps * (4 * m * m * n + 2 * m**3)
        return total


# ---- Optimizers ------------------------------------------------------------------------------------


def float32_newton_schulz():
    """torch.optim.Muon's own iteration, as its source has it, without the cast to bfloat16."""
    source = inspect.getsource(torch_muon._zeropower_via_newtonschulz)
    if source.count(".bfloat16()") != 1:
        raise SystemExit("torch.optim.Muon has changed: expected one cast to bfloat16 in its iteration")
    names = dict(vars(torch_muon))
    exec(source.replace(".bfloat16()", ".float()"), names)
    return names["_zeropower_via_newtonschulz"]


class TorchMuon:
    """torch.optim.Muon for matrices (rank-4 weights flattened), fused AdamW for the others."""

    def __init__(self, problem, dtype):
        if torch_muon is None:
            raise SystemExit("torch.optim.Muon is needed, which LibTorch has from 2.9 on; "
                             f"this is {torch.__version__}")
        matrices, others = problem.parameters(flat=True)
        self.iteration = (torch_muon._zeropower_via_newtonschulz if dtype == "bfloat16"
                          else float32_newton_schulz())
        self.muon = torch.optim.Muon(matrices)
        # State as after a step, so that the first is like all others.
        for p in matrices:
            self.muon.state[p]["momentum_buffer"] = torch.zeros_like(p)
        self.adamw = torch.optim.AdamW(others, fused=True) if others else None
        if self.adamw:
            self.adamw.step()

    @contextmanager
    def ready(self):
        """Within, the Muon class runs this one's iteration."""
        shipped = torch_muon._zeropower_via_newtonschulz
        torch_muon._zeropower_via_newtonschulz = self.iteration
        try:
            yield
        finally:
            torch_muon._zeropower_via_newtonschulz = shipped

    def step(self):
        self.muon.step()
        if self.adamw:
            self.adamw.step()

    def orthogonalize(self, matrix):
        # A clone: without the cast, the iteration would write its input.
        group = self.muon.param_groups[0]
        return self.iteration(matrix.clone(), group["ns_coefficients"], group["ns_steps"], group["eps"])

    def first_direction(self):
        """What the first step orthogonalized to: parameters start at zero, so they show it."""
        group = self.muon.param_groups[0]
        return [p / -torch_muon._adjust_lr(group["lr"], group["adjust_lr_fn"], p.shape)
                for p in group["params"]]

    def state_bytes(self):
        return tensor_bytes(self.muon) + (tensor_bytes(self.adamw) if self.adamw else 0)


class TorchAdamW:
    def __init__(self, problem):
        matrices, others = problem.parameters()
        self.adamw = torch.optim.AdamW(matrices + others, fused=True)

    @contextmanager
    def ready(self):
        yield

    def step(self):
        self.adamw.step()

    def state_bytes(self):
        return tensor_bytes(self.adamw)


class Ours:
    """method: muon, root or root_unsplit; dtype = "", budget = 0 and steps = 0: as constructed."""

    def __init__(self, problem, method, dtype="", budget=0.0, steps=0):
        matrices, others = problem.parameters()
        self.optimizer = torch.classes.root_optim_benchmarks.Optimizer(
            matrices, others, method, dtype, budget, steps)
        self.step = self.optimizer.step
        self.release_workspace = self.optimizer.release_workspace
        self.orthogonalize = self.optimizer.orthogonalize
        self.state_bytes = self.optimizer.state_bytes

    @contextmanager
    def ready(self):
        yield


def release_workspace(optimizer):
    """Has the memory that our optimizers keep for the next step counted with that step."""
    getattr(optimizer, "release_workspace", lambda: None)()


def tensor_bytes(optimizer):
    return sum(value.nbytes for state in optimizer.state.values() for value in state.values()
               if isinstance(value, torch.Tensor))


def relative_error(x, polar):
    return float((x.double() - polar).norm() / polar.norm())
