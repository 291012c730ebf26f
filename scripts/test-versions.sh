#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# The lanes, one a line: LibTorch, where it comes from, compiler, C++ standard, and the NVIDIA packages
# without which the CPU library of a CUDA wheel does not load.
lanes='
1.13.1 debian g++     17
2.2.2  wheel  g++     17 nvidia-cuda-cupti-cu12==12.1.105 nvidia-cuda-runtime-cu12==12.1.105
2.6.0  wheel  clang++ 17 nvidia-cuda-cupti-cu12==12.4.127 nvidia-cuda-runtime-cu12==12.4.127
2.10.0 wheel  g++     20 nvidia-cuda-cupti-cu12==12.8.90 nvidia-cuda-runtime-cu12==12.8.90
2.13.0 wheel  g++     17 nvidia-cuda-cupti==13.0.85 nvidia-cuda-runtime==13.0.96
2.14.1 wheel  g++     20 nvidia-cuda-cupti==13.0.85 nvidia-cuda-runtime==13.0.96
'
default_labels="unit property golden convergence distributed installed"
versions=$project/build/versions
documents=("$project/docs/support.md" "$project/README.md")  # the first one is also read

usage() {
  cat << END
Usage: scripts/test-versions.sh [OPTION...] [VERSION...]

Builds and runs the tests against several versions of LibTorch, each in an environment of its own,
and prints the support matrix. Without a version: all of them.

  --list             the versions, with compiler and C++ standard
  --table            only prints and writes the matrix, from the results that are there
  --labels "L ..."   what to run; with others than the default the matrix is not written
                     (default: $default_labels)
  --force            runs a version again that has run on this tree
  --jobs N           compile and test with N processes (default: one per core, fewer with little memory)
  --help             this text

The matrix is written into docs/support.md and README.md, between their markers; a version without a
result here keeps the line that it has there.

Everything of a version is in build/versions/VERSION: libtorch/ (about 0.5 GB, downloaded once), build/,
log.txt, report.xml and result.txt. A version that has run on this tree with this compiler is not run
again; delete the folder to start from nothing.

LibTorch is a CPU wheel where pip's index offers one, else the CPU part of the CUDA wheel; 1.13.1 is
that of Debian 12, unpacked without being installed. A version that cannot be had here is reported as
not run. Labels: unit, property, golden, convergence, distributed, compile and consumers, as in
scripts/test.sh; "installed", a project that uses the installed package; "fixtures", which tests nothing
and writes checkpoints to keep into tests/fixtures/checkpoints. --labels " " only obtains LibTorch and
configures.
END
}

lane_of() { awk -v version="$1" '$1 == version' <<< "$lanes"; }
known_versions() { awk 'NF { print $1 }' <<< "$lanes"; }

# ---- The command line --------------------------------------------------------------------------------

labels=$default_labels
selected=()
force=
table_only=
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    --list) awk 'NF { printf "%-7s %-8s C++%s\n", $1, $3, $4 }' <<< "$lanes"; exit ;;
    --table) table_only=1 ;;
    --labels) labels=${2:?"--labels needs a list"}; shift ;;
    --force) force=1 ;;
    --jobs) jobs=${2:?"--jobs needs a number"}; shift ;;
    *)
      [ -n "$(lane_of "$1")" ] || die "unknown version or option $1; see --list and --help"
      selected+=("$1")
      ;;
  esac
  shift
done
((${#selected[@]})) || mapfile -t selected < <(known_versions)

suffix=  # of the names of results: those of other labels are kept apart
[ "$labels" = "$default_labels" ] || suffix=-${labels// /-}
targets=()
label_pattern=
for label in $labels; do
  case $label in
    unit | property | golden | convergence | distributed)
      targets+=("${label}_tests")
      label_pattern+=${label_pattern:+|}$label
      ;;
    compile)
      targets+=(compile_tests)
      label_pattern+=${label_pattern:+|}$label
      ;;
    consumers)
      targets+=(root_optim_package)
      label_pattern+=${label_pattern:+|}$label
      ;;
    installed) targets+=(root_optim_package) ;;
    fixtures) targets+=(write_checkpoint_fixtures) ;;
    *) die "unknown label $label; see --help" ;;
  esac
done

# ---- Results -----------------------------------------------------------------------------------------

# What the tests are built from: equal digests, equal results.
built_files=(CMakeLists.txt CMakePresets.json include src cmake tests tools benchmarks/matrices.hpp
             examples/distributed/process_group.hpp)
tree_digest() {
  (cd "$project" &&
    find "${built_files[@]}" -type f | LC_ALL=C sort | tr '\n' '\0' | xargs -0 sha256sum) |
    sha256sum | cut -c 1-16
}
commit_name() {  # the commit, with "+" if what is built differs from it
  local commit
  commit=$(git -C "$project" rev-parse --short HEAD 2> /dev/null) || { echo "no commit"; return; }
  [ -z "$(git -C "$project" status --porcelain -- "${built_files[@]}")" ] || commit+=+
  printf '%s\n' "$commit"
}
result() {  # result VERSION KEY [SUFFIX]
  sed -n "s/^$2=//p" "$versions/$1/result${3-}.txt" 2> /dev/null || true
}

matrix_row() {  # matrix_row VERSION: from its result, else from the document, else "not run"
  local row
  if [ -f "$versions/$1/result.txt" ]; then
    printf '| %s | %s | %s | %s | %s | %s | %s, %s |\n' "$1" "$(result "$1" source)" \
      "$(result "$1" compiler)" "$(result "$1" standard)" "$(result "$1" outcome)" \
      "$(result "$1" left_out)" "$(result "$1" date)" "$(result "$1" commit)"
    return
  fi
  row=$(sed -n '/support matrix: begin/,/support matrix: end/p' "${documents[0]}" |
    grep -m 1 "^| $1 |" || true)
  printf '%s\n' "${row:-| $1 | | | | not run | | |}"
}

matrix() {
  local version
  printf '| LibTorch | from | compiler | C++ | tests | left out | run on |\n|---|---|---|---|---|---|---|\n'
  for version in $(known_versions); do matrix_row "$version"; done
}

write_matrix() {  # write_matrix TABLE: puts it between the markers of the documents
  local document new
  new=$(mktemp)
  for document in "${documents[@]}"; do
    grep -q 'support matrix: begin' "$document" && grep -q 'support matrix: end' "$document" ||
      die "$document has no markers for the support matrix"
    awk -v table="$1" '
      /<!-- support matrix: end/ { inside = 0 }
      !inside { print }
      /<!-- support matrix: begin/ { print table; inside = 1 }' "$document" > "$new"
    cat "$new" > "$document"  # keeps its permissions
  done
  rm -f "$new"
}

# ---- Obtaining LibTorch ------------------------------------------------------------------------------

# Of a wheel, whatever Python it is for, all that programs in C++ need, without the CUDA libraries.
unpack_wheels() {  # unpack_wheels FOLDER WHEEL...
  "$python_environment/bin/python" - "$@" << 'END'
import re, sys, zipfile
folder, *wheels = sys.argv[1:]
wanted = re.compile(r"(torch/(lib|include|share)|torch\.libs|nvidia)/")
unwanted = re.compile(r"/lib(torch_cuda|torch_python|torch_nvshmem)")
for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist()
                                    if wanted.match(name) and not unwanted.search(name)])
END
}

fetch_wheel() {  # fetch_wheel VERSION FOLDER [NVIDIA PACKAGE...]: sets `obtained`
  local version=$1 folder=$2 downloads=$2.download
  shift 2
  make_python_environment
  rm -rf "$folder" "$downloads"
  mkdir -p "$folder" "$downloads"
  # Any one Python's wheel will do: only its C++ part is used.
  local machine platform
  machine=$(uname -m)
  local pip=("$python_environment/bin/pip" download --disable-pip-version-check --no-deps
             --only-binary :all: --python-version 3.11 --implementation cp --abi cp311
             --progress-bar off --dest "$downloads")
  for platform in manylinux_2_28 manylinux_2_25 manylinux_2_17 manylinux2014 manylinux1; do
    pip+=(--platform "${platform}_$machine")
  done
  if "${pip[@]}" "torch==$version+cpu" ||
     "${pip[@]}" --retries 1 --timeout 20 --index-url "$torch_public_index" "torch==$version+cpu"; then
    obtained="CPU wheel"
  elif (($#)) && "${pip[@]}" "torch==$version" "$@"; then
    obtained="CUDA wheel, its CPU part"
  else
    return 1
  fi
  unpack_wheels "$folder" "$downloads"/*.whl && rm -rf "$downloads"
}

debian_release() {  # debian_release VERSION: the exact version of the package, or nothing
  apt-cache madison libtorch-dev |
    awk -F ' *[|] *' -v version="$1" 'index($2, version) == 1 { print $2; exit }'
}

fetch_debian() {  # fetch_debian VERSION FOLDER: sets `obtained`
  local version=$1 folder=$2 downloads=$2.download exact packages package
  command -v apt-get > /dev/null || return 1
  exact=$(debian_release "$version")
  if [ -z "$exact" ] && [ "$(id -u)" = 0 ]; then
    apt-get update -q || true
    exact=$(debian_release "$version")
  fi
  [ -n "$exact" ] || return 1
  # What its installation would bring; of headers only those that LibTorch's own include.
  packages=$({ printf '%s\n' libtorch-dev "libtorch${version%.*}" libgoogle-glog-dev libgflags-dev
               apt-get install --simulate --no-install-recommends "libtorch-dev=$exact" |
                 awk '/^Inst / && $2 !~ /-dev$/ { print $2 }'; } | sort -u) || return 1
  rm -rf "$folder" "$downloads"
  mkdir -p "$folder" "$downloads"
  # shellcheck disable=SC2086
  (cd "$downloads" && apt-get download -q $packages) || return 1
  for package in "$downloads"/*.deb; do
    dpkg-deb --extract "$package" "$folder" || return 1
  done
  rm -rf "$downloads"
  obtained="Debian's $exact"
}

# ---- A lane ------------------------------------------------------------------------------------------

# Sets `outcome`, and what else stands in a row. Everything that the tools print goes to the log.
run_lane() {  # run_lane VERSION SOURCE COMPILER STANDARD [NVIDIA PACKAGE...]
  local version=$1 from=$2 compiler_name=$3
  shift 4
  local folder=$versions/$version
  local torch=$folder/libtorch build=$folder/build report=$folder/report$suffix.xml options=() cxx
  left_out=''
  source=''
  cxx=$(find_tool "$compiler_name") || { outcome="not run: no $compiler_name here"; return; }

  if [ ! -f "$torch/obtained" ]; then  # written last: a download cut short has none
    say "$version: obtaining LibTorch"
    "fetch_$from" "$version" "$torch" "$@" ||
      { outcome="not run: LibTorch $version could not be obtained"; return; }
    printf '%s\n' "$obtained" > "$torch/obtained"
  fi
  source=$(cat "$torch/obtained")

  local libraries prefix=$torch/torch
  case $source in
    Debian*)
      prefix=$torch/usr
      libraries=$(dirname "$(find "$prefix/lib" -name libtorch_cpu.so)")
      # The last two: links to BLAS and LAPACK are only made when packages are installed.
      export LD_LIBRARY_PATH=$libraries:$prefix/lib:$torch/lib/${libraries##*/}
      LD_LIBRARY_PATH+=:$libraries/blas:$libraries/lapack
      options=("-DROOT_OPTIM_TORCH_ROOT=$prefix")
      ;;
    CUDA*) options=("-DROOT_OPTIM_TORCH_ROOT=$prefix" -DROOT_OPTIM_TORCH_CUDA=OFF) ;;
    *) options=(-DROOT_OPTIM_TORCH_ROOT= "-DTorch_DIR=$prefix/share/cmake/Torch") ;;
  esac
  if [ "$from" = wheel ] && version_at_least "$(found Catch2_version)" 3 &&
     ! grep -qaE '_ZN3c105Error[A-Za-z0-9_]*__cxx11' "$prefix/lib/libc10.so"; then
    outcome="not run: this wheel has the old std::string, which the compiled Catch2 3 here does not fit"
    return
  fi

  say "$version: configuring"
  (cd "$project" && cmake --preset dev --fresh -B "$build" -DCMAKE_CXX_COMPILER="$cxx" \
    -DCMAKE_CXX_STANDARD="$standard" -DROOT_OPTIM_BUILD_EXAMPLES=OFF "${options[@]}") ||
    { outcome="does not configure"; return; }
  say "$version: building"
  if ((${#targets[@]})); then
    cmake --build "$build" --parallel "$jobs" --target "${targets[@]}" ||
      { outcome="does not build"; return; }
  fi

  if [[ " $labels " == *" fixtures "* ]]; then
    "$build/tests/write_checkpoint_fixtures" "$project/tests/fixtures/checkpoints" "$version" ||
      { outcome="fixtures were not written"; return; }
  fi
  say "$version: testing"
  local total=0 failed=0 skipped=0 reports=()
  rm -f "$report" "${report%.xml}-installed.xml"
  if [ -n "$label_pattern" ]; then
    ctest --test-dir "$build" --label-regex "^($label_pattern)\$" --parallel "$jobs" \
      --no-tests=error --output-on-failure --test-output-size-passed 100000 --output-junit "$report" || true
    reports+=("$report")
  fi
  if [[ " $labels " == *" installed "* ]]; then
    ctest --test-dir "$build" --tests-regex '^consumers: installed ' --no-tests=error \
      --output-on-failure --output-junit "${report%.xml}-installed.xml" || true
    reports+=("${report%.xml}-installed.xml")
  fi
  if ((${#reports[@]} == 0)); then
    outcome="nothing run"
    [[ " $labels " != *" fixtures "* ]] || outcome="0 passed, 0 failed, fixtures written"
    return
  fi
  for report in "${reports[@]}"; do
    [ -f "$report" ] || { outcome="does not run"; return; }
    total=$((total + $(report_count "$report" tests)))
    failed=$((failed + $(report_count "$report" failures)))
    skipped=$((skipped + $(report_count "$report" skipped) + $(report_count "$report" disabled)))
  done
  ((total > 0)) || { outcome="nothing run"; return; }
  outcome="$((total - failed - skipped)) passed, $failed failed, $skipped skipped"
  # Tests say "WHAT: skipped, because ..." for what they leave out.
  left_out=$(grep -hoE '[A-Za-z0-9]+: skipped,' "${reports[@]}" | sed 's/: skipped,//' | sort -u |
    paste -sd ' ' | sed 's/ /, /g' || true)
}

# ---- All lanes ---------------------------------------------------------------------------------------

mkdir -p "$versions"
if [ -z "$table_only" ]; then
  phase "Set-up"
  unset ROOT_OPTIM_TORCH_ROOT Torch_DIR
  set_up_tools Catch2
  tree=$(tree_digest)
  for version in "${selected[@]}"; do
    compiler=$(lane_of "$version" | awk '{ print $3 }')
    find_tool "$compiler" > /dev/null || install_packages "${compiler/clang++/clang}"
  done
fi

all_passed=1
for version in "${selected[@]}"; do
  [ -z "$table_only" ] || break
  read -r -a lane <<< "$(lane_of "$version")"
  standard=${lane[3]}
  compiler=$("$(find_tool "${lane[2]}")" --version | sed -n 1p)
  definition="${lane[*]} | $compiler"
  folder=$versions/$version
  if [ -z "$force" ] && [[ "$(result "$version" outcome "$suffix")" == *passed* ]] &&
     [ "$(result "$version" definition "$suffix")" = "$definition" ] &&
     [ "$(result "$version" tree "$suffix")" = "$tree" ]; then
    say "$version: has run on this tree: $(result "$version" outcome "$suffix")"
  else
    phase "$version, log in ${folder#"$project"/}/log$suffix.txt"
    mkdir -p "$folder"
    rm -f "$folder/result$suffix.txt"
    commit=$(commit_name)
    # What is interrupted has no result, and must not be reported as failing.
    trap 'rm -f "$folder/result$suffix.txt"; die "interrupted"' INT TERM HUP
    # A lane sets its own environment: a subshell keeps it. What it found out comes back in a file.
    (
      run_lane "${lane[@]}"
      printf '%s\n' "definition=$definition" "tree=$tree" "commit=$commit" \
        "date=$(date +%F)" "source=$source" "compiler=$compiler" "standard=$standard" \
        "outcome=$outcome" "left_out=$left_out" > "$folder/result$suffix.txt"
    ) > "$folder/log$suffix.txt" 2>&1 || true
    trap - INT TERM HUP
    [ -f "$folder/result$suffix.txt" ] || die "the lane ended without a result; see $folder/log$suffix.txt"
    printf '%s\n' "$(result "$version" outcome "$suffix")"
  fi
  [[ "$(result "$version" outcome "$suffix")" == *" passed, 0 failed"* ]] || all_passed=
done
end_phase

if [ -z "$suffix" ]; then
  table=$(matrix)
  write_matrix "$table"
  say "Support matrix"
  printf '%s\n' "$table"
fi
[ -n "$all_passed" ]
