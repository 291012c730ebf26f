#!/bin/sh
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# python_extension.sh TORCHRUN TRAIN.PY BUILD: two processes train from Python with the C++ optimizer.
set -u
torchrun=$1
train=$2
build=$3
# LibTorch alone needs neither the Python packages of torch nor Python's headers.
if ! said=$("$(dirname "$torchrun")/python" -c '
import pathlib, shutil, sysconfig
import torch
header = pathlib.Path(sysconfig.get_path("include")) / "Python.h"
assert header.exists(), f"{header} is missing"
assert shutil.which("ninja"), "ninja is missing"' 2>&1); then
  printf 'skipped: needs Python with torch, its headers and ninja; this one says "%s"\n' \
    "$(printf '%s' "$said" | tail -n 1)"
  exit 0
fi
exec env OMP_NUM_THREADS=1 "$torchrun" --standalone --nproc-per-node 2 "$train" --build "$build"
