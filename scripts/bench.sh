#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
  cat << END
Usage: scripts/bench.sh BENCHMARK [--quick] [OPTION of the benchmark...]

Sets up what is missing, builds the benchmark and runs it: a table, and build/bench/BENCHMARK.csv.

  precision   how near each orthogonalization comes to the exact polar factor, and at what cost, on
              matrices with Gaussian, captured and low-rank spectra; also build/bench/precision.png
  speed       a step of root_optim against torch.optim's Muon and AdamW, in one process
  scaling     the time of an orthogonalization from 256 to 4096 rows, and its share of the rate at
              which the machine multiplies matrices
  cost        the forms of the iteration against five quintic steps, beside what the library takes them to
              cost, on one thread
  memory      what a step allocates, and what optimizers keep
  compile     what the headers cost a compiler
  distributed what a step costs that 1, 2 and 4 processes share, and what they keep and send
  overlap     what it saves that gradients travel while backward() runs, over the loopback and a slow link
  column_sums what it costs to sum XXᵀ over ranks that have columns of a matrix, in the place of gathering it

  --quick     less of it: on two idle cores a minute or two; all of it takes up to some 25, by
              benchmark and machine
  --jobs N    compile with N processes (default: one per core, fewer with little memory)

Needs what scripts/demo.sh needs; speed, memory and distributed also a LibTorch >= 2.9 that Python can
import, as the wheel in .deps/ is; distributed, overlap and column_sums libgloo-dev.
END
}

benchmark=
arguments=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    --jobs) jobs=${2:?"--jobs needs a number"}; shift ;;
    precision | speed | scaling | cost | memory | compile | distributed | overlap | column_sums)
      if [ -z "$benchmark" ]; then benchmark=$1; else arguments+=("$1"); fi
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
[ -n "$benchmark" ] || die "expected a benchmark; see --help"
results=$project/build/bench
release=$project/build/release
sources=$project/benchmarks
arguments=(--out "$results/$benchmark.csv" ${arguments[@]+"${arguments[@]}"})

phase "Set-up"
set_up_build CLI11
case $benchmark in
  precision)
    set_up_plotting
    targets=(benchmark_precision)
    command=("$release/benchmarks/precision")
    ;;
  scaling)
    targets=(benchmark_scaling)
    command=("$release/benchmarks/scaling")
    ;;
  cost)
    targets=(benchmark_cost)
    command=("$release/benchmarks/cost")
    ;;
  column_sums)
    set_up_gloo
    targets=(benchmark_column_sums)
    command=("$release/benchmarks/column_sums")
    ;;
  speed)
    set_up_python_torch
    targets=(benchmark_module example_language_model)
    command=("$torch_python" "$sources/speed.py" --module "$release/benchmarks/module.so"
             --language-model "$release/examples/language_model" --text-dir "$project/include")
    ;;
  memory)
    set_up_python_torch
    targets=(benchmark_module)
    command=("$torch_python" "$sources/memory.py" --module "$release/benchmarks/module.so")
    ;;
  distributed)
    set_up_python_torch
    set_up_gloo
    targets=(benchmark_distributed)
    command=(env OMP_NUM_THREADS=1 "$torch_python" "$sources/distributed.py"
             --program "$release/benchmarks/distributed")
    ;;
  overlap)
    set_up_gloo
    targets=(benchmark_overlap)
    command=(python3 "$sources/overlap.py" --program "$release/benchmarks/overlap")
    ;;
  compile)
    targets=()
    command=(python3 "$sources/compile_time.py" --commands "$release/compile_commands.json")
    ;;
esac

phase "Building"
configure release
((${#targets[@]} == 0)) ||
  cmake --build "$release" --parallel "$jobs" --target "${targets[@]}" || die "the build failed"
phase "Running"
mkdir -p "$results"
"${command[@]}" "${arguments[@]}"
if [ "$benchmark" = precision ]; then
  phase "Plotting"
  "$plot_python" "$sources/plot_precision.py" "$results/precision.csv" "$results/precision.png"
fi
end_phase

say "What took the time"
print_phases
printf '\n%s\n' "$results/$benchmark".*
