#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

all_labels=(unit property golden convergence compile consumers examples distributed slow)

usage() {
  cat << END
Usage: scripts/test.sh [--jobs N] [LABEL...]

Sets up what is missing, builds the tests and runs them. Without a label: all of them.
Labels: ${all_labels[*]}

  --jobs N   compile and test with N processes (default: one per core, fewer with little memory)
  --help     this text

Needs, and on Debian and Ubuntu installs: g++, cmake, ninja-build, libfmt-dev, libcli11-dev, catch2,
librapidcheck-dev, and for the label distributed libgloo-dev. ccache is used if it is there.
LibTorch: the one named by CMAKE_PREFIX_PATH, Torch_DIR or ROOT_OPTIM_TORCH_ROOT (a CUDA wheel on a
machine without the CUDA toolkit), else the system's, else the one in .deps/, else the CPU wheel
$torch_wheel_version is installed there.

The build is in build/dev: preset "dev", -O1 and no debug information, the fastest way from nothing
to test results. The last line is "N passed, N failed".
END
}

labels=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    --jobs) jobs=${2:?"--jobs needs a number"}; shift ;;
    *)
      [[ " ${all_labels[*]} " == *" $1 "* ]] || die "unknown label or option $1; see --help"
      labels+=("$1")
      ;;
  esac
  shift
done

targets=()  # none: everything
for label in ${labels[@]+"${labels[@]}"}; do
  case $label in
    unit | property | golden | convergence | distributed) targets+=("${label}_tests") ;;
    slow) targets+=(convergence_tests) ;;
    compile) targets+=(compile_tests) ;;
    consumers) targets+=(root_optim_package) ;;
    examples) targets+=(example_programs) ;;
  esac
done

phase "Set-up"
set_up_build CLI11 Catch2 rapidcheck
set_up_gloo

phase "Configuring"
configure dev

phase "Building"
build_directory=$project/build/dev
cmake --build "$build_directory" --parallel "$jobs" \
  ${targets[@]+--target "${targets[@]}"} || die "the build failed"
if ((${#labels[@]} == 0)) || [[ " ${labels[*]} " == *" compile "* ]]; then
  phase "Compiling every header alone"
  # A failure here is reported by the test that looks at it again.
  cmake --build "$build_directory" --parallel "$jobs" --target all_verify_interface_header_sets \
    -- -k 0 || true
fi

phase "Testing"
report=$build_directory/test-report.xml
selection=()
if ((${#labels[@]})); then
  selection=(--label-regex "^($(IFS='|'; printf '%s' "${labels[*]}"))\$")
fi
rm -f "$report"
(cd "$project" &&
  ctest --preset dev --parallel "$jobs" --no-tests=error --output-junit "$report" \
    ${selection[@]+"${selection[@]}"}) || true
end_phase
[ -f "$report" ] || die "ctest left no report"

say "What took the time"
print_phases
# sed reads to the end: after head has closed the pipe, sort would die of it and this script with it.
printf '\nSlowest to compile:\n'
awk '!/^#/ { seconds[$4] = ($2 - $1) / 1000 }
     END { for (file in seconds) printf "%6.0f s  %s\n", seconds[file], file }' \
  "$build_directory/.ninja_log" | sort -rn | sed -n 1,5p
printf '\nSlowest tests:\n'
sed -n 's/.*<testcase name="\([^"]*\)".* time="\([0-9.]*\)".*/\2 \1/p' "$report" |
  sort -rn | sed -n 1,5p | awk '{ t = $1; $1 = ""; printf "%6.1f s %s\n", t, $0 }'

total=$(report_count "$report" tests)
failed=$(report_count "$report" failures)
skipped=$(($(report_count "$report" skipped) + $(report_count "$report" disabled)))
printf '\n%d passed, %d failed' $((total - failed - skipped)) "$failed"
((skipped == 0)) || printf ', %d skipped' "$skipped"
printf '\n'
((failed == 0 && total > skipped))
