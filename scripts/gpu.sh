#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
  cat << END
Usage: scripts/gpu.sh [--out DIR] [--jobs N] [--minutes N] [--device cpu] [--quick]
       scripts/gpu.sh --pack DIR

Builds and runs, on a Linux machine with an NVIDIA GPU, what says whether the library works there: the
checks of tests/cuda/, the speed against torch.optim, compute-sanitizer, and the tests with their CUDA
devices. Uses no network. Every part has a limit of time, and its result is written at once:

  summary.md       a line a part: passed, failed, out of time
  results.txt      what the parts print        speed.csv      times of steps
  tests.txt        what the tests print        sanitizer.txt  compute-sanitizer's report
  environment.txt  card, driver, versions      build.txt      what configuring and building print

  --pack DIR    instead: copies the sources and the headers that they need (fmt, CLI11, Catch2 2) to
                DIR, which can be carried to a machine without network; run DIR/scripts/gpu.sh there
  --out DIR     where the report goes (default: build/gpu/report)
  --jobs N      compile with N processes (default: one per core)
  --minutes N   for all of it (default: 10); what has not begun by then is left out
  --device cpu  on the CPU, to try this script
  --quick       small sizes; without the tests

Needs CMake 3.24, a C++ compiler (C++20 for LibTorch 2.14), and a CUDA build of PyTorch or LibTorch:
ROOT_OPTIM_TORCH_ROOT names its folder (default: that of the torch which python3 imports). The CUDA
toolkit is not needed. Without a Python that imports that torch, the parts in Python are left out.
END
}

pack=
report=$project/build/gpu/report
minutes=10
device=cuda
quick=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    --pack) pack=${2:?"--pack needs a folder"}; shift ;;
    --out) report=${2:?"--out needs a folder"}; shift ;;
    --jobs) jobs=${2:?"--jobs needs a number"}; shift ;;
    --minutes) minutes=${2:?"--minutes needs a number"}; shift ;;
    --device) device=${2:?"--device needs cpu or cuda"}; shift ;;
    --quick) quick=(--quick) ;;
    *) die "unknown option $1; see --help" ;;
  esac
  shift
done
packed=$project/gpu-deps

# ---- Packing ---------------------------------------------------------------------------------------

# pack_headers PACKAGE FOLDER TARGET: the headers below FOLDER and a configuration that finds them.
pack_headers() {
  local include
  include=$(found "$1_include" | tr ';' '\n' | while read -r directory; do
    [ ! -d "$directory/$2" ] || printf '%s\n' "$directory"
  done | sed -n 1p)
  [ -n "$include" ] || die "the headers of $1 were not found"
  mkdir -p "$pack/gpu-deps/include" "$pack/gpu-deps/lib/cmake/$1"
  cp -RL "$include/$2" "$pack/gpu-deps/include/"
  cat > "$pack/gpu-deps/lib/cmake/$1/$1Config.cmake" << END
# Headers alone, as scripts/gpu.sh --pack found them.
add_library($3 INTERFACE IMPORTED)
get_filename_component(_include "\${CMAKE_CURRENT_LIST_DIR}/../../../include" ABSOLUTE)
set_target_properties($3 PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "\${_include}"
  INTERFACE_COMPILE_DEFINITIONS "$4")
set($1_VERSION "$5")
END
}

if [ -n "$pack" ]; then
  mkdir -p "$pack"
  pack=$(cd "$pack" && pwd)
  [ -z "$(ls -A "$pack")" ] || die "$pack is not empty"
  mkdir -p "$deps"
  probe
  for library in fmt CLI11 Catch2; do
    [ "$(found $library)" = 1 ] || die "$library was not found; scripts/test.sh installs what is missing"
  done
  case $(found Catch2_version) in
    2.*) ;;
    *) die "packing needs Catch2 2, which is headers alone, found $(found Catch2_version)" ;;
  esac
  (cd "$project" && git ls-files -z | tar --null --files-from=- --create) |
    tar --extract --directory "$pack"
  pack_headers fmt fmt fmt::fmt-header-only FMT_HEADER_ONLY=1 ""
  pack_headers CLI11 CLI CLI11::CLI11 "" ""
  pack_headers Catch2 catch2 Catch2::Catch2 "" "$(found Catch2_version)"
  git -C "$project" describe --always --dirty=+ --abbrev=12 > "$pack/gpu-deps/commit" 2> /dev/null || true
  du -sm "$pack" | awk '{ print $1 " MB in " $2 }'
  exit
fi

# ---- The report ------------------------------------------------------------------------------------

mkdir -p "$report"
report=$(cd "$report" && pwd)
summary=$report/summary.md
rm -f "$report"/{summary.md,results.txt,tests.txt,build.txt,environment.txt,sanitizer.txt,speed.csv}
deadline=$((SECONDS + minutes * 60 - 20))
failed=0

{
  printf '# A run on a GPU\n\n'
  commit=$(cat "$packed/commit" 2> /dev/null ||
           git -C "$project" describe --always --dirty=+ --abbrev=12 2> /dev/null || true)
  printf '%s, commit %s\n' "$(date -u '+%Y-%m-%d %H:%M UTC')" "${commit:-unknown}"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null ||
    printf 'no NVIDIA GPU\n'
  printf '\n| part | result | s |\n|---|---|---|\n'
} > "$summary"

line() { printf '| %s | %s | %s |\n' "$1" "$2" "$3" | tee -a "$summary"; }

# part NAME SECONDS FILE COMMAND...: runs it for at most so long; its output goes to FILE as it comes.
part() {
  local name=$1 limit=$2 file=$report/$3 start=$SECONDS left=$((deadline - SECONDS)) status=0
  shift 3
  if ((left < 10)); then
    line "$name" "not run: out of time" 0
    failed=1
    return 1
  fi
  ((limit <= left)) || limit=$left
  printf '\n---- %s\n' "$name" >> "$file"
  timeout --kill-after=10 "$limit" "$@" >> "$file" 2>&1 || status=$?
  case $status in
    0) line "$name" passed $((SECONDS - start)) ;;
    124 | 137) line "$name" "out of time after $limit s" $((SECONDS - start)) ;;
    *) line "$name" "**failed** ($status)" $((SECONDS - start)) ;;
  esac
  ((status == 0)) || failed=1
  return $status
}

# ---- Set-up ----------------------------------------------------------------------------------------

for tool in cmake timeout; do
  command -v $tool > /dev/null || die "$tool is needed"
done
compiler_found || die "a C++ compiler is needed"
jobs=${jobs:-$(nproc)}
python=$(command -v python3 || true)
folder_of_torch='import os, torch; print(os.path.dirname(torch.__file__))'
imported=
[ -z "$python" ] || imported=$("$python" -c "$folder_of_torch" 2> /dev/null || true)
root=${ROOT_OPTIM_TORCH_ROOT:-$imported}
[ -n "$root" ] || die "no LibTorch: set ROOT_OPTIM_TORCH_ROOT to the folder of one, or have python3 import torch"
if [ "$device" = cuda ]; then
  ls "$root"/lib*/libtorch_cuda.so > /dev/null 2>&1 || die "the LibTorch in $root is not a CUDA build"
fi
build=$project/build/gpu/build
generator=()
! command -v ninja > /dev/null || generator=(-G Ninja)

{
  uname -a
  printf '\n'; lscpu 2> /dev/null | sed -n 1,20p || true
  printf '\n'; nvidia-smi 2>&1 || true
  printf '\nLibTorch in %s\n' "$root"
  cat "$root/version.py" "$root/build-version" 2> /dev/null || true
  "${CXX:-c++}" --version 2>&1 || true
  cmake --version
  env | grep -E '^(CUDA|CUBLAS|NVIDIA|TORCH|PYTORCH|OMP)[A-Z0-9_]*=' || true
} > "$report/environment.txt" 2>&1

# ---- Checks and speed ------------------------------------------------------------------------------

say "Building the checks"
part configure 90 build.txt cmake -S "$project" -B "$build" "${generator[@]}" \
  -DCMAKE_BUILD_TYPE=Release "-DROOT_OPTIM_TORCH_ROOT=$root" "-DCMAKE_PREFIX_PATH=$packed" \
  -DROOT_OPTIM_BUILD_EXAMPLES=OFF -DROOT_OPTIM_INSTALL=OFF -DCMAKE_CXX_FLAGS_RELEASE=-O2 \
  -DROOT_OPTIM_TEST_TIMEOUT=100 ||
  die "configuring failed; see $report/build.txt"
part "build the checks" 240 build.txt cmake --build "$build" --parallel "$jobs" --target gpu_check ||
  die "the build failed; see $report/build.txt"
module=
if [ "$imported" != "$root" ]; then
  missing="python3 does not import this torch"
elif part "build the module" 240 build.txt cmake --build "$build" --parallel "$jobs" --target benchmark_module; then
  module=$build/benchmarks/module.so
else
  missing="its module was not built"
fi

say "Checks"
check=$build/tests/cuda/gpu_check
for name in orthogonalize trajectory repeat checkpoint mixed non_finite moved devices; do
  part "$name" 120 results.txt "$check" --device "$device" ${quick[@]+"${quick[@]}"} $name || true
done
if [ -n "$module" ]; then
  for name in sync profile memory streams graph speed; do
    part "$name" 120 results.txt "$python" "$project/tests/cuda/gpu_check.py" --device "$device" \
      --module "$module" ${quick[@]+"${quick[@]}"} --csv "$report/speed.csv" $name || true
  done
else
  line "sync, profile, memory, streams, graph, speed" "not run: $missing" 0
  failed=1
fi
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null || true)
if [ "$device" = cuda ] && [ -n "$sanitizer" ]; then
  part compute-sanitizer 120 sanitizer.txt "$sanitizer" --tool memcheck --error-exitcode 3 \
    "$check" --device cuda sanitizer || true
else
  line compute-sanitizer "not run: not there" 0
  [ "$device" != cuda ] || failed=1
fi

# ---- Tests -----------------------------------------------------------------------------------------

if ((${#quick[@]} == 0)); then
  say "Tests"
  keep_going=(-k 0)  # a program that does not compile is a failure of its own
  ((${#generator[@]})) || keep_going=(-k)
  part "build the tests" 300 build.txt cmake --build "$build" --parallel "$jobs" --target \
    unit_tests golden_tests convergence_tests property_tests -- "${keep_going[@]}" || true
  # Every process takes some 0.5 GB of the card.
  ((jobs <= 8)) || jobs=8
  part tests 200 tests.txt ctest --test-dir "$build" --parallel "$jobs" \
    --output-on-failure --no-tests=error --label-regex '^(unit|property|golden|convergence)$' || true
fi

say "Report"
cat "$summary"
ls -l "$report"
exit $failed
