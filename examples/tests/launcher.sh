#!/bin/sh
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# launcher.sh DIR LAUNCHER PROGRAM [OPTION...]: torchrun or Open MPI's mpirun starts what distributed.sh DIR
# started before. Fails unless it leaves the same checkpoint, byte by byte.
set -u
out=$1
launcher=$2
shift 2
name=${launcher##*/}
log=$out/$name.log
export OMP_NUM_THREADS=1

run() {
  "$launcher" "$@" --out "$out/$name" > "$log" 2>&1 || {
    printf '%s: the run failed\n' "$name" >&2
    tail -n 20 "$log" >&2
    exit 1
  }
}

if [ "$name" = torchrun ]; then
  # LibTorch alone needs none of the Python packages that torchrun imports.
  if ! "$launcher" --help > "$log" 2>&1; then
    printf 'skipped: needs a torchrun that runs; this one says "%s"\n' "$(tail -n 1 "$log")"
    exit 0
  fi
  run --standalone --no-python --nproc-per-node 2 "$@"
else
  if ! "$launcher" --version 2>&1 | grep -q 'Open MPI'; then
    printf 'skipped: needs the mpirun of Open MPI; %s is of another MPI\n' "$launcher"
    exit 0
  fi
  # Containers run tests as root, and have fewer cores than ranks.
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  run --oversubscribe -n 2 -x MASTER_ADDR=127.0.0.1 -x MASTER_PORT=$((32000 + $$ % 700)) "$@"
fi
cmp "$out/whole/checkpoint.pt" "$out/$name/checkpoint.pt" || {
  printf '%s: its checkpoint differs\n' "$name" >&2
  exit 1
}
printf '%s: the same checkpoint\n' "$name"
