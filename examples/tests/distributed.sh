#!/bin/sh
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# distributed.sh DIR PROGRAM [OPTION...]: trains with two processes, once at a stretch and once in two parts.
# Fails unless both leave the same checkpoint, byte by byte. A third run goes on with three processes.
# TORCHRUN, if set, starts two more.
set -u
out=$1
shift
fail() { printf 'distributed.sh: %s\n' "$1" >&2; exit 1; }
export MASTER_ADDR=127.0.0.1 OMP_NUM_THREADS=1
MASTER_PORT=$((20000 + $$ % 10000))

ranks() {  # ranks COUNT PROGRAM OPTION...
  export WORLD_SIZE=$1 MASTER_PORT
  shift
  pids=
  rank=0
  while [ $rank -lt "$WORLD_SIZE" ]; do
    RANK=$rank "$@" & pids="$pids $!"
    rank=$((rank + 1))
  done
  code=0
  for pid in $pids; do wait "$pid" || code=1; done
  MASTER_PORT=$((MASTER_PORT + 1))
  unset WORLD_SIZE
  return $code
}
last_loss() { sed -n 's/^validation loss //p' "$out/$1.log"; }

rm -rf "$out"
mkdir -p "$out"
ranks 2 "$@" --out "$out/whole" > "$out/whole.log" || fail "the run with two ranks failed"
cat "$out/whole.log"
ranks 2 "$@" --out "$out/parts" --stop-after 8 || fail "the first part failed"
cp -r "$out/parts" "$out/three"
ranks 2 "$@" --out "$out/parts" --resume || fail "the second part failed"
cmp "$out/whole/checkpoint.pt" "$out/parts/checkpoint.pt" || fail "the checkpoints differ"
ranks 3 "$@" --out "$out/three" --resume > "$out/three.log" || fail "three ranks could not go on"
# Three ranks round the mean of the gradients in another order.
awk -v a="$(last_loss whole)" -v b="$(last_loss three)" 'BEGIN { exit !(a > 0 && (a - b)^2 < .01^2) }' ||
  fail "three ranks came to another loss"
"$@" --out "$out/three" --resume --stop-after 1 || fail "one process cannot read the checkpoint"
if [ -n "${TORCHRUN:-}" ]; then
  "$TORCHRUN" --standalone --no-python --nproc-per-node 2 "$@" --out "$out/torchrun" > "$out/torchrun.log" ||
    fail "torchrun failed"
  cmp "$out/whole/checkpoint.pt" "$out/torchrun/checkpoint.pt" || fail "torchrun's checkpoint differs"
  printf 'torchrun: the same checkpoint\n'
fi
printf 'a run in parts equals the whole one: validation loss %s\n' "$(last_loss whole)"
