# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# Set-up that the other scripts share; sourced, not run. Installs what is missing: compilers and
# libraries with the distribution's package manager (Debian, Ubuntu), LibTorch and Python packages
# into .deps/ of this project. What is there already is used as it is.
# shellcheck shell=bash

set -euo pipefail
export LC_ALL=C.UTF-8

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$project/.deps
python_environment=$deps/python
torch_wheel_version=2.13.0
torch_public_index=https://download.pytorch.org/whl/cpu

say() { printf '\n==> %s\n' "$*"; }
die() { printf '\n%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# ---- Time ------------------------------------------------------------------------------------------

phase_names=()
phase_seconds=()
phase_start=$SECONDS

phase() {  # phase NAME: the previous phase ends, NAME begins
  end_phase
  phase_names+=("$1")
  say "$1"
}

end_phase() {
  if ((${#phase_names[@]} > ${#phase_seconds[@]})); then
    phase_seconds+=($((SECONDS - phase_start)))
  fi
  phase_start=$SECONDS
}

print_phases() {
  local i
  for i in "${!phase_names[@]}"; do
    printf '%6d s  %s\n' "${phase_seconds[$i]}" "${phase_names[$i]}"
  done
}

# ---- Packages of the distribution ------------------------------------------------------------------

version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | sed -n 1p)" = "$2" ]; }

install_packages() {  # install_packages PACKAGE...
  local become_root=()
  if ! command -v apt-get > /dev/null; then
    die "missing. On Debian or Ubuntu these packages have it: $*
Install your system's equivalents and run this again."
  fi
  if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo > /dev/null || { [ ! -t 0 ] && ! sudo -n true 2> /dev/null; }; then
      die "missing packages, and no right to install them. As root, run
  apt-get install $*
and then this again."
    fi
    become_root=(sudo)
  fi
  say "Installing $*"
  "${become_root[@]}" apt-get update -q || true
  "${become_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qy --no-install-recommends "$@" ||
    die "these packages could not be installed. With a working network and package source, run
  apt-get install $*
and then this again."
}

find_tool() {  # find_tool NAME: its path; that of the newest NAME-<version> if only such are there
  local tool
  tool=$(command -v "$1" || compgen -c "$1-" | grep -E "^${1//+/\\+}-[0-9]+$" | sort -V | tail -n 1)
  [ -n "$tool" ] || return 1
  command -v "$tool"
}

compiler_found() { command -v "${CXX:-c++}" > /dev/null || command -v g++ > /dev/null; }

# ---- What CMake finds ------------------------------------------------------------------------------

probe() {
  cmake --fresh -S "$project/scripts/probe" -B "$deps/probe" > "$deps/probe.log" 2>&1 || {
    cat "$deps/probe.log" >&2
    die "CMake could not look for the libraries; its output is above"
  }
}
found() { sed -n "s/^$1=//p" "$deps/probe/found.txt"; }

# set_up_tools PACKAGE...: compiler, CMake, Ninja, fmt, and of CLI11, Catch2 and rapidcheck what is named.
# Afterwards: cmake_version, jobs.
set_up_tools() {
  local -A package_of=([fmt]=libfmt-dev [CLI11]=libcli11-dev [Catch2]=catch2
                       [rapidcheck]=librapidcheck-dev)
  local libraries=(fmt "$@") packages=() library
  mkdir -p "$deps"

  compiler_found || packages+=(g++)
  command -v cmake > /dev/null || packages+=(cmake)
  command -v ninja > /dev/null || packages+=(ninja-build)
  if ((${#packages[@]})); then  # a bare machine: everything in one go
    for library in "${libraries[@]}"; do packages+=("${package_of[$library]}"); done
    packages+=(python3-venv)
    install_packages "${packages[@]}"
  fi
  cmake_version=$(cmake --version | sed -n '1s/.* \([0-9.]*\).*/\1/p')
  version_at_least "$cmake_version" 3.25 ||
    die "CMake 3.25 or newer is needed, found $cmake_version. Install a newer one, for example with
  pip install cmake"
  export CMAKE_GENERATOR=Ninja

  probe
  packages=()
  for library in "${libraries[@]}"; do
    [ "$(found "$library")" = 1 ] || packages+=("${package_of[$library]}")
  done
  if ((${#packages[@]})); then
    install_packages "${packages[@]}"
    probe
  fi

  if command -v ccache > /dev/null; then
    export CMAKE_CXX_COMPILER_LAUNCHER=ccache
    export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros}
  fi
  # A translation unit with LibTorch takes up to 2 GB.
  local memory_gb
  memory_gb=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo 2> /dev/null || echo 4)
  jobs=${jobs:-$(nproc)}
  ((jobs * 2 <= memory_gb + 1)) || jobs=$(((memory_gb + 1) / 2))
  ((jobs > 0)) || jobs=1
}

# set_up_build PACKAGE...: what set_up_tools does, and LibTorch.
# Afterwards: torch_version, torch_prefix, configure_options.
set_up_build() {
  set_up_tools "$@"

  # LibTorch: one that is there, else the one that an earlier run installed, else the wheel.
  if [ -n "$(found torch_problem)" ]; then
    case "$(found torch_problem)" in
      "LibTorch was not found"*) ;;
      *) die "$(printf '%b' "$(found torch_problem)")" ;;  # a broken one: say so, do not hide it
    esac
    [ -n "$(own_torch)" ] || install_torch
    CMAKE_PREFIX_PATH=$(own_torch)${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
    export CMAKE_PREFIX_PATH
    probe
    [ -z "$(found torch_problem)" ] || die "$(printf '%b' "$(found torch_problem)")"
  fi
  torch_version=$(found torch_version)
  torch_prefix=$(found torch_prefix)
  configure_options=("-DTorch_DIR=$(found torch_dir)"
                     "-DROOT_OPTIM_TORCH_ROOT=${ROOT_OPTIM_TORCH_ROOT:-}")
  printf 'LibTorch %s in %s\n%s, CMake %s, %d jobs%s\n' "$torch_version" "$torch_prefix" \
    "$("${CXX:-c++}" --version | sed -n 1p)" "$cmake_version" "$jobs" \
    "${CMAKE_CXX_COMPILER_LAUNCHER:+, ccache}"
}

# set_up_gloo: the headers that programs need to make Gloo groups. The distributed tests are skipped without.
set_up_gloo() {
  [ "$(found gloo)" = 1 ] || (install_packages libgloo-dev) || say "Going on without libgloo-dev"
}

configure() {  # configure PRESET
  local cache=$project/build/$1/CMakeCache.txt fresh=()
  # Libraries found once stay in the cache: with another LibTorch, start anew.
  if [ -f "$cache" ] && ! grep -qxF "Torch_DIR:PATH=$(found torch_dir)" "$cache"; then
    fresh=(--fresh)
  fi
  (cd "$project" && cmake --preset "$1" "${fresh[@]}" "${configure_options[@]}")
}

# report_count REPORT tests|failures|skipped|disabled: a number of CTest's JUnit file.
report_count() {
  sed -n "s/^.*<testsuite .*[ \t]*//; /$2=\"/ { s/.*$2=\"\([0-9]*\)\".*/\1/p; q; }" "$1"
}

# ---- Python: LibTorch's wheel, packages for the plot -------------------------------------------------

own_torch() {  # the folder of the wheel in .deps/, or nothing
  local folder
  for folder in "$python_environment"/lib/python3*/site-packages/torch; do
    # The version file is the last thing to look for: a download cut short has none.
    if [ -f "$folder/share/cmake/Torch/TorchConfig.cmake" ] && [ -f "$folder/version.py" ]; then
      printf '%s\n' "$folder"
    fi
  done
}

make_python_environment() {
  [ ! -x "$python_environment/bin/pip" ] || return 0
  python3 -m venv --help > /dev/null 2>&1 && python3 -c 'import ensurepip' 2> /dev/null ||
    install_packages python3-venv
  python3 -m venv "$python_environment" || die "python3 -m venv failed; its output is above"
}

install_torch() {
  local wanted="torch==$torch_wheel_version+cpu"
  say "Installing LibTorch: the wheel $wanted, into .deps/"
  make_python_environment
  # "+cpu": the plain wheel is the CUDA build, several times as large. --no-deps: only the C++ part
  # is used, and it needs none of torch's Python packages.
  local pip=("$python_environment/bin/pip" install --no-deps --disable-pip-version-check)
  "${pip[@]}" "$wanted" || {
    say "The configured package index has no $wanted; trying PyTorch's own"
    "${pip[@]}" --index-url "$torch_public_index" "$wanted"
  } || die "LibTorch could not be installed. Do one of these and run this again:
  - give pip an index or a folder (PIP_INDEX_URL, PIP_FIND_LINKS) that has $wanted
  - unpack a LibTorch archive and set CMAKE_PREFIX_PATH to its folder
  - set ROOT_OPTIM_TORCH_ROOT to an installed torch package (a CUDA wheel, for example)
  - Debian: apt-get install libtorch-dev"
}

# set_up_python_torch: sets `torch_python` to a Python whose torch is the LibTorch that set_up_build
# found: two in one process would not get along.
set_up_python_torch() {
  local environment=${torch_prefix%/lib/python3*} candidate
  [ -f "$torch_prefix/__init__.py" ] ||
    die "the LibTorch in $torch_prefix is without Python. This needs one that Python can import too:
name an installed torch package in CMAKE_PREFIX_PATH (its folder is printed by
  python3 -c 'import torch; print(torch.utils.cmake_prefix_path)')"
  local same='import os, sys, torch; sys.exit(not os.path.samefile(os.path.dirname(torch.__file__), sys.argv[1]))'
  for candidate in "$environment/bin/python" "$python_environment/bin/python" python3; do
    torch_python=$(command -v "$candidate") || continue
    ! "$torch_python" -c "$same" "$torch_prefix" 2> /dev/null || return 0
  done
  [ "$environment" = "$python_environment" ] ||
    die "no Python found that imports the torch in $torch_prefix; put the one it was installed for
first on the PATH and run this again."
  say "Installing what torch's Python side needs into .deps/"
  torch_python=$python_environment/bin/python
  "$python_environment/bin/pip" install --disable-pip-version-check \
    filelock fsspec jinja2 networkx numpy sympy typing_extensions ||
    die "they could not be installed; pip's output is above"
  "$torch_python" -c "$same" "$torch_prefix" || die "torch cannot be imported all the same; see above"
}

set_up_plotting() {  # sets `plot_python`
  for plot_python in "$python_environment/bin/python" python3; do
    if command -v "$plot_python" > /dev/null &&
       "$plot_python" -c 'import matplotlib' 2> /dev/null; then
      return
    fi
  done
  say "Installing numpy and matplotlib into .deps/"
  make_python_environment
  plot_python=$python_environment/bin/python
  "$python_environment/bin/pip" install --disable-pip-version-check numpy matplotlib ||
    die "matplotlib could not be installed. Run
  apt-get install python3-matplotlib
and then this again."
}
