#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
  cat << END
Usage: scripts/bench.sh precision [--quick]

Sets up what is missing, builds the benchmark and runs it.

  precision   how near each orthogonalization comes to the exact polar factor, and at what cost, on
              matrices with Gaussian, captured and low-rank spectra: a table,
              build/bench/precision.csv and build/bench/precision.png

  --quick     only shapes up to 1024: under a minute
  --jobs N    compile with N processes (default: one per core, fewer with little memory)

Needs what scripts/demo.sh needs.
END
}

benchmark=
arguments=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    --jobs) jobs=${2:?"--jobs needs a number"}; shift ;;
    --quick) arguments+=(--quick) ;;
    precision) benchmark=$1 ;;
    *) die "unknown benchmark or option $1; see --help" ;;
  esac
  shift
done
[ -n "$benchmark" ] || die "expected a benchmark; see --help"
results=$project/build/bench

phase "Set-up"
set_up_build CLI11
set_up_plotting
phase "Building"
configure release
cmake --build "$project/build/release" --parallel "$jobs" --target "benchmark_$benchmark" ||
  die "the build failed"
phase "Running"
"$project/build/release/benchmarks/$benchmark" --out "$results/$benchmark.csv" \
  ${arguments[@]+"${arguments[@]}"}
phase "Plotting"
"$plot_python" "$project/benchmarks/plot_$benchmark.py" "$results/$benchmark.csv" \
  "$results/$benchmark.png"
end_phase

say "What took the time"
print_phases
printf '\n%s\n%s\n' "$results/$benchmark.csv" "$results/$benchmark.png"
