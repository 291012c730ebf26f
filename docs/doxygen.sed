# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# What Doxygen reads in place of a header. Lines are neither added nor removed, so that warnings name
# the right ones.

# The comment below the license lines describes the file.
1,/^#pragma once/ {
  3 s,^//$,/// @file,
  4,$ s,^//([^/]|$),///\1,
}

# Names as users write them: without the inline namespace, whose braces remain.
s,^inline namespace [A-Za-z0-9_]+ \{,extern "C++" {,

# Marks of functions, for the compiler alone.
s,^#define ROOT_OPTIM_(INLINE|COLD)( .*)?$,& ///< a mark of functions: see version.hpp,

# A line of a comment that begins with "Shapes: " or another label begins a paragraph.
s,^( *///) ([A-Z][A-Za-z]{1\,13}): +,\1 \\label{\2} ,

# A getter named as its member that has no comment of its own: lines before it are kept to tell. The words
# stand on its own line.
/^ *[^ /].* ([a-z_]+)\(\) (const )?(noexcept )?\{ return ([a-z_]+\.)?\1_?; \}$/ {
  x
  /^ *\/\/\//! {
    x
    s,^,/** The setting of this name. */,
    x
  }
  x
}
h
