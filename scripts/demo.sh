#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

program=$project/build/release/examples/language_model

usage() {
  cat << END
Usage: scripts/demo.sh [--jobs N] [OPTION of language_model...]

Sets up what is missing, builds examples/language_model and trains the same small language model three
times, from the same weights and on the same batches: with AdamW, with Muon and with ROOT. Writes
losses.csv and losses.png into build/demo (or the folder given by --out).

  --jobs N      compile with N processes (default: one per core, fewer with little memory)
  --text FILE   the text to learn (default: the LibTorch headers, which are on the machine anyway)
  --steps N     training steps of each run
  --out DIR     where losses.csv and losses.png go
  --help        this text, and all options of language_model once it is built

Needs, and on Debian and Ubuntu installs: g++, cmake, ninja-build, libfmt-dev, libcli11-dev; for the
plot matplotlib, into .deps/ if no Python has it.
LibTorch: the one named by CMAKE_PREFIX_PATH, Torch_DIR or ROOT_OPTIM_TORCH_ROOT (a CUDA wheel on a
machine without the CUDA toolkit), else the system's, else the one in .deps/, else the CPU wheel
$torch_wheel_version is installed there.
END
  if [ -x "$program" ]; then
    printf '\n'
    "$program" --help
  fi
}

out=$project/build/demo
arguments=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    --jobs) jobs=${2:?"--jobs needs a number"}; shift ;;
    --out) out=${2:?"--out needs a folder"}; shift ;;
    --out=*) out=${1#--out=} ;;
    *) arguments+=("$1") ;;
  esac
  shift
done

phase "Set-up"
set_up_build CLI11
set_up_plotting

phase "Building"
configure release
cmake --build "$project/build/release" --parallel "$jobs" --target example_language_model ||
  die "the build failed"

phase "Training with AdamW, Muon and ROOT"
"$program" --demo --out "$out" ${arguments[@]+"${arguments[@]}"}

phase "Plotting"
"$plot_python" "$project/examples/common/plot.py" "$out/losses.csv" "$out/losses.png"
end_phase

say "What took the time"
print_phases
printf '\n%s\n%s\n' "$out/losses.csv" "$out/losses.png"
