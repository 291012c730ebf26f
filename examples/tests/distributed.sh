#!/bin/sh
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# distributed.sh DIR PROGRAM [OPTION...]: trains with two processes, once at a stretch and once in two parts.
# Fails unless both leave the same checkpoint, byte by byte. A third run goes on with three processes.
set -u
out=$1
shift
log=
fail() {
  printf 'distributed.sh: %s\n' "$1" >&2
  tail -n 8 "$log" >&2
  exit 1
}
export MASTER_ADDR=127.0.0.1 OMP_NUM_THREADS=1
MASTER_PORT=$((20000 + $$ * 16 % 12000))

# The run before leaves its port behind for a minute, and other tests listen too.
next_free_port() {
  MASTER_PORT=$((MASTER_PORT + 1))
  while grep -qi ":$(printf %04x $MASTER_PORT) " /proc/net/tcp /proc/net/tcp6 2> /dev/null; do
    MASTER_PORT=$((MASTER_PORT + 1))
  done
}
ranks() {  # ranks COUNT LOG PROGRAM OPTION...
  next_free_port
  export WORLD_SIZE=$1 MASTER_PORT
  log=$out/$2.log
  shift 2
  pids=
  rank=0
  while [ $rank -lt "$WORLD_SIZE" ]; do
    RANK=$rank "$@" >> "$log" 2>&1 & pids="$pids $!"
    rank=$((rank + 1))
  done
  code=0
  for pid in $pids; do wait "$pid" || code=1; done
  unset WORLD_SIZE
  return $code
}
last_loss() { sed -n 's/^validation loss //p' "$out/$1.log"; }

rm -rf "$out"
mkdir -p "$out"
ranks 2 whole "$@" --out "$out/whole" || fail "the run with two ranks failed"
ranks 2 first "$@" --out "$out/parts" --stop-after 8 || fail "the first part failed"
cp -r "$out/parts" "$out/three"
# Gradients that travel during backward() have the bits of those that travel behind it.
ranks 2 second "$@" --out "$out/parts" --resume --overlap || fail "the second part failed"
cmp "$out/whole/checkpoint.pt" "$out/parts/checkpoint.pt" || fail "the checkpoints differ"
ranks 3 three "$@" --out "$out/three" --resume || fail "three ranks could not go on"
# Three ranks round the mean of the gradients in another order.
awk -v a="$(last_loss whole)" -v b="$(last_loss three)" 'BEGIN { exit !(a > 0 && (a - b)^2 < .01^2) }' ||
  fail "three ranks came to another loss"
ranks 1 one "$@" --out "$out/three" --resume --stop-after 1 ||
  fail "one process cannot read the checkpoint"
printf 'a run in parts equals the whole one: validation loss %s\n' "$(last_loss whole)"
