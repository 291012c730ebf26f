#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
  cat << END
Usage: scripts/docs.sh

Writes the API reference into build/docs, from the comments of the public headers. Fails if a public
name has no comment, or a comment refers to what is not there.

  --help   this text

Needs, and on Debian and Ubuntu installs: doxygen (1.9.4 or newer). Neither a compiler nor LibTorch.
END
}

while (($#)); do
  case $1 in
    --help | -h) usage; exit ;;
    *) die "unknown option $1; see --help" ;;
  esac
done

command -v doxygen > /dev/null || install_packages doxygen
doxygen_version=$(doxygen --version | cut -d ' ' -f 1)
version_at_least "$doxygen_version" 1.9.4 ||
  die "Doxygen 1.9.4 or newer is needed, found $doxygen_version"

ROOT_OPTIM_VERSION=$(sed -n 's/.*define ROOT_OPTIM_VERSION_[A-Z]* //p' \
  "$project/include/root_optim/version.hpp" | paste -sd .)
export ROOT_OPTIM_VERSION

rm -rf "$project/build/docs"
mkdir -p "$project/build"
(cd "$project" && doxygen docs/Doxyfile) || die "Doxygen ends with warnings; they are above"
printf '%s\n' "$project/build/docs/index.html"
