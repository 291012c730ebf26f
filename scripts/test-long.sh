#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

all_parts=(property soak kills threads ranks sanitizers tidy fuzz versions)
cases=20000
steps=20000
minutes=15

usage() {
  cat << END
Usage: scripts/test-long.sh [options] [PART...]

What takes too long for scripts/test.sh. Without a part: all of them: hours.

  property     generated matrices, options and gradients against properties and the reference
  soak         one training run with many saves and loads: memory flat, state finite
  kills        1000 steps of 1 to 4 processes that are killed at random and resume from one file a rank: equal
               bits; needs libgloo-dev
  threads      two optimizers in two threads under ThreadSanitizer
  ranks        the tests of the label distributed, ranks as threads, under ThreadSanitizer; needs libgloo-dev
  sanitizers   the tests of scripts/test.sh (unit, property, golden, convergence) under
               AddressSanitizer and UndefinedBehaviorSanitizer
  tidy         clang-tidy over all headers (.clang-tidy)
  fuzz         libFuzzer on the table parser and on checkpoint loading
  versions     scripts/test-versions.sh: other versions of LibTorch

  --cases N    of each property (default $cases); the environment variable RC_PARAMS overrides it and
               brings a failure back, as the failure says
  --steps N    of the soak (default $steps)
  --minutes N  of fuzzing, both targets at once (default $minutes)
  --jobs N     compile and test with N processes (default: one per core, fewer with little memory)
  --help       this text

Needs what scripts/test.sh needs, and installs it; for tidy and fuzz also clang and clang-tidy.
Crashing inputs of the fuzzer are kept in build/fuzz/, and those that reach new code: -set_cover_merge=1
of the program build/fuzz/tests/fuzz/fuzz_TARGET brings them from build/fuzz/TARGET/corpus into
tests/fuzz/corpus/TARGET. The last line says which parts passed.
END
}

parts=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    --cases) cases=${2:?"--cases needs a number"}; shift ;;
    --steps) steps=${2:?"--steps needs a number"}; shift ;;
    --minutes) minutes=${2:?"--minutes needs a number"}; shift ;;
    --jobs) jobs=${2:?"--jobs needs a number"}; shift ;;
    *)
      [[ " ${all_parts[*]} " == *" $1 "* ]] || die "unknown part or option $1; see --help"
      parts+=("$1")
      ;;
  esac
  shift
done
((${#parts[@]})) || parts=("${all_parts[@]}")

build() {  # build PRESET TARGET...
  local preset=$1
  shift
  configure "$preset"
  cmake --build "$project/build/$preset" --parallel "$jobs" --target "$@"
}

need_tool() {  # need_tool NAME PACKAGE
  find_tool "$1" > /dev/null || install_packages "$2" >&2
  find_tool "$1"
}

# Clang, and what it takes to run its sanitizers beside LibTorch, which is not instrumented: neither
# leaks nor container overflows can be told.
with_clang() {
  local clang
  clang=$(need_tool clang++ clang)
  configure_options+=("-DCMAKE_CXX_COMPILER=$clang")
  export OMP_NUM_THREADS=1
  export ASAN_OPTIONS=detect_leaks=0:detect_container_overflow=0:allocator_may_return_null=1
  export UBSAN_OPTIONS=print_stacktrace=1
}

run_property() {
  build dev property_tests
  RC_PARAMS=${RC_PARAMS:-"max_success=$cases seed=1"} OMP_NUM_THREADS=1 \
    "$project/build/dev/tests/property_tests" "[generated]"
}

run_soak() {
  build dev soak
  (cd "$project/build/dev" && OMP_NUM_THREADS=1 tests/long/soak "$steps")
}

run_kills() {
  build dev distributed_tests
  (cd "$project/build/dev" && STEPS=1000 OMP_NUM_THREADS=1 tests/distributed_tests "kills at random moments")
}

run_threads() {
  build tsan two_threads
  local program=$project/build/tsan/tests/long/two_threads
  export OMP_NUM_THREADS=1 TSAN_OPTIONS=halt_on_error=1
  if "$program" --race > /dev/null 2>&1; then
    printf 'ThreadSanitizer does not find a data race made on purpose\n'
    return 1
  fi
  "$program"
}

# Without the tests that kill processes.
run_ranks() {
  build tsan distributed_tests
  local program=$project/build/tsan/tests/distributed_tests
  export OMP_NUM_THREADS=1
  export TSAN_OPTIONS="history_size=7 suppressions=$project/tests/distributed/thread_sanitizer.supp"
  cd "$project/build/tsan"
  if "$program" "a race on purpose" > /dev/null 2>&1; then
    printf 'ThreadSanitizer does not find a data race made on purpose\n'
    return 1
  fi
  "$program" "~[race]~*kill*"
}

# In the build of the fuzzers. As whole programs: under the sanitizers LibTorch takes seconds to load.
# Without the flipped bits: where a damaged length asks for too much, LibTorch's reader gets a
# std::bad_alloc, for which AddressSanitizer ends the process.
run_sanitizers() {
  local kind failed=
  with_clang
  build fuzz unit_tests property_tests golden_tests convergence_tests
  for kind in unit property golden convergence; do
    printf '%s\n' "$kind"
  done | xargs -P "$jobs" -I '{}' bash -c '"$1/{}_tests" "~one flipped bit*" > "$1/{}.log" 2>&1' _ \
    "$project/build/fuzz/tests" || failed=1
  for kind in unit property golden convergence; do
    printf '%s: ' "$kind"
    grep -aE '^(All tests passed|test cases:|assertions:|No tests ran)|ERROR: AddressSanitizer|runtime error:' \
      "$project/build/fuzz/tests/$kind.log" || { printf 'no result\n'; failed=1; }
  done
  [ -z "$failed" ]
}

run_tidy() {
  local tidy headers
  tidy=$(need_tool clang-tidy clang-tidy)
  configure dev
  "$tidy" --version | grep -i version
  "$tidy" -p "$project/build/dev" --quiet --warnings-as-errors='*' \
    "$project/tests/compile/tidy.cpp"
  headers=$(find "$project/include/root_optim" -name '*.hpp' | wc -l)
  printf '0 findings in %d headers\n' "$headers"
}

# fuzz_checkpoint hands raw bytes to LibTorch's archive reader, whose crashes are not ours: such inputs
# are kept, counted apart, and the fuzzer goes on.
is_torchs() {  # is_torchs REPORT: the innermost frame is LibTorch's, called by its archive reader
  local frames
  frames=$(grep -aE '^ *#[0-9]+ 0x' "$1" |
    grep -avE ' in (__asan|__interceptor|__sanitizer|fuzzer::)|/(libc|libstdc\+\+|libgcc_s)\.so|(nptl|sysdeps|stdlib)/')
  head -n 1 <<< "$frames" | grep -qE '/(libtorch[^/]*|libc10)\.so' &&
    grep -q 'InputArchive::load_from' <<< "$frames"
}

fuzz() {  # fuzz TARGET OPTION...
  local target=$1 seconds=$((minutes * 60)) start=$SECONDS torchs=0 ours=0 runs=0 found status
  shift
  local folder=$project/build/fuzz/$target
  mkdir -p "$folder/corpus" "$folder/crashes"
  while ((ours == 0 && SECONDS - start < seconds)); do
    # -rss_limit_mb: LibTorch's reader takes what a damaged archive asks for, and gives it back.
    status=0
    "$project/build/fuzz/tests/fuzz/fuzz_$target" -max_total_time=$((seconds - SECONDS + start)) \
      -print_final_stats=1 -timeout=60 -rss_limit_mb=8192 -malloc_limit_mb=1000000 \
      -artifact_prefix="$folder/crashes/" "$@" \
      "$folder/corpus" "$project/tests/fuzz/corpus/$target" > "$folder/log.txt" 2>&1 || status=$?
    found=$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/log.txt")
    runs=$((runs + ${found:-0}))
    if ((status != 0)) && is_torchs "$folder/log.txt"; then
      torchs=$((torchs + 1))
    elif ((status != 0)); then
      ours=1
      tail -n 60 "$folder/log.txt"
    fi
  done
  printf 'fuzz_%s: %d runs in %d s, %d crashes in our code, %d in LibTorch, corpus of %d inputs\n' \
    "$target" "$runs" $((SECONDS - start)) "$ours" "$torchs" "$(find "$folder/corpus" -type f | wc -l)"
  ((ours == 0))
}

run_fuzz() {
  with_clang
  build fuzz fuzz_table fuzz_checkpoint
  local table checkpoint
  fuzz table -dict="$project/tests/fuzz/table.dict" -max_len=4096 &
  table=$!
  fuzz checkpoint -max_len=32768 &
  checkpoint=$!
  wait $table || table=failed
  wait $checkpoint && [ "$table" != failed ]
}

run_versions() { "$project/scripts/test-versions.sh"; }

phase "Set-up"
set_up_build CLI11 Catch2 rapidcheck

passed=() failed=()
for part in "${parts[@]}"; do
  phase "$part"
  set +e
  (set -e; "run_$part")
  status=$?
  set -e
  if ((status == 0)); then passed+=("$part"); else failed+=("$part"); fi
done
end_phase

say "What took the time"
print_phases
printf '\npassed: %s; failed: %s\n' "${passed[*]:-none}" "${failed[*]:-none}"
((${#failed[@]} == 0))
