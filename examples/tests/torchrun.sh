#!/bin/sh
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# torchrun.sh DIR TORCHRUN PROGRAM [OPTION...]: torchrun starts what distributed.sh DIR started before.
# Fails unless it leaves the same checkpoint, byte by byte.
set -u
out=$1
torchrun=$2
shift 2
# LibTorch alone needs none of the Python packages that torchrun imports.
if ! "$torchrun" --help > "$out/torchrun.log" 2>&1; then
  printf 'skipped: needs a torchrun that runs; this one says "%s"\n' "$(tail -n 1 "$out/torchrun.log")"
  exit 0
fi
OMP_NUM_THREADS=1 "$torchrun" --standalone --no-python --nproc-per-node 2 \
  "$@" --out "$out/torchrun" > "$out/torchrun.log" 2>&1 || {
  printf 'torchrun.sh: the run failed\n' >&2
  tail -n 20 "$out/torchrun.log" >&2
  exit 1
}
cmp "$out/whole/checkpoint.pt" "$out/torchrun/checkpoint.pt" || {
  printf "torchrun.sh: torchrun's checkpoint differs\n" >&2
  exit 1
}
printf 'torchrun: the same checkpoint\n'
