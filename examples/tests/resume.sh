#!/bin/sh
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# resume.sh DIR PROGRAM [OPTION...]: trains with two optimizers, once at a stretch and once interrupted
# by Ctrl-C (SIGINT) while the second one trains and gone on with --resume. Fails unless both give the
# same losses, digit by digit.
set -u
out=$1
shift
fail() { printf 'resume.sh: %s\n' "$1" >&2; exit 1; }
losses() { cut -d, -f1-4 "$out/$1/losses.csv"; }  # the rest of a row is time

rm -rf "$out"
mkdir -p "$out/interrupted"
"$@" --optimizer adamw --optimizer root --out "$out/whole" || fail "the whole run failed"

"$@" --optimizer adamw --optimizer root --out "$out/interrupted" > "$out/log" 2>&1 &
pid=$!
until grep -q '^root,5,' "$out/interrupted/losses.csv" 2> /dev/null; do
  kill -0 "$pid" 2> /dev/null || break
done
kill -INT "$pid"
wait "$pid"
code=$?
cat "$out/log"
[ "$code" = 130 ] || fail "expected the interrupted program to exit with 130, got $code"
grep -q 'interrupted after step [0-9]* of root' "$out/log" || fail "it does not say where it stopped"
[ "$(losses interrupted | wc -l)" -lt "$(losses whole | wc -l)" ] || fail "it went on to the end"

"$@" --optimizer adamw --optimizer root --out "$out/interrupted" --seed 7 --resume 2>&1 |
  grep 'expected --seed = 1 as in the run that wrote the checkpoint, got --seed = 7' ||
  fail "another seed was not refused"
# What a program that was killed may have written behind its last checkpoint.
tail -n 1 "$out/interrupted/losses.csv" > "$out/row"
{ cat "$out/row"; printf 'root,100000,1'; } >> "$out/interrupted/losses.csv"
"$@" --optimizer adamw --optimizer root --out "$out/interrupted" --resume ||
  fail "the run could not be resumed"
losses whole > "$out/whole.csv"
losses interrupted > "$out/interrupted.csv"
cmp "$out/whole.csv" "$out/interrupted.csv" || fail "the losses differ"
printf 'resumed run equals the uninterrupted one: %d rows\n' "$(losses whole | wc -l)"
