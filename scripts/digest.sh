#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
  cat << END
Usage: scripts/digest.sh [--jobs N] BASE

Tells whether this working tree computes the same bits as the commit BASE: builds the program
tests/digest/state_digest.cpp of both with one LibTorch and one set of options, runs both, and compares
what they print, a digest of all parameters and state for each configuration, at 1 and 2 threads.
Exits with 0 if every configuration that both have is equal; configurations of one side alone are listed.

LibTorch is found as by scripts/test.sh. Builds are in build/digest/.
END
}

base=
while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    --jobs) jobs=${2:?"--jobs needs a number"}; shift ;;
    -*) die "unknown option $1; see --help" ;;
    *) [ -z "$base" ] || die "one commit, please; see --help"; base=$1 ;;
  esac
  shift
done
[ -n "$base" ] || { usage >&2; exit 2; }
commit=$(git -C "$project" rev-parse --verify --quiet "$base^{commit}") || die "no commit named $base"

set_up_build CLI11 Catch2
folder=$project/build/digest/$torch_version
mkdir -p "$folder"

run_digests() {  # run_digests SOURCE NAME: prints the digests into $folder/NAME.txt
  say "Building and running $2"
  (cd "$1" && cmake --preset dev -B "$folder/$2" -DCMAKE_BUILD_TYPE=Release -DROOT_OPTIM_WERROR=OFF \
    -DROOT_OPTIM_BUILD_EXAMPLES=OFF "${configure_options[@]}" > "$folder/$2.log" 2>&1 &&
    cmake --build "$folder/$2" --parallel "$jobs" --target state_digest >> "$folder/$2.log" 2>&1) ||
    { tail -n 20 "$folder/$2.log" >&2; die "$2 was not built"; }
  "$folder/$2/tests/digest/state_digest" > "$folder/$2.txt"
}

source=$folder/base-source
git -C "$project" worktree prune
[ ! -e "$source" ] || git -C "$project" worktree remove --force "$source"
git -C "$project" worktree add --force --detach "$source" "$commit" > /dev/null 2>&1
trap 'git -C "$project" worktree remove --force "$source"' EXIT
if [ "$(cat "$folder/base.commit" 2> /dev/null)" != "$commit" ] || [ ! -s "$folder/base.txt" ]; then
  rm -f "$folder/base.commit"
  run_digests "$source" base
  printf '%s\n' "$commit" > "$folder/base.commit"
fi
run_digests "$project" head

# A line is DIGEST, two spaces, NAME; "# N threads" starts a part.
awk '
  /^#/ { part = $0; next }
  { name = substr($0, 19) " (" substr(part, 3) ")" }
  FNR == NR { base[name] = $1; next }
  { if (!(name in base)) { print "only here: " name; next }
    if (base[name] == $1) ++equal; else { ++different; print "differs: " name }
    delete base[name] }
  END { for (name in base) print "only in BASE: " name
        printf "\n%d equal, %d different\n", equal, different
        exit different > 0 || equal == 0 }' "$folder/base.txt" "$folder/head.txt"
