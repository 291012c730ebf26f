# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# Reads the output of a compiler's `-E -dD`, which keeps #define and #undef and says which file each
# line is from. Reports macros that files below `ours` leave defined, unless they start with
# ROOT_OPTIM_, and macros of others that ours undefine.

/^# [0-9]+ "/ { split($0, parts, "\""); in_ours = index(parts[2], ours) > 0; file = parts[2] }

/^#define / && in_ours {
  seen++
  name = $2
  sub(/\(.*/, "", name)
  if (name !~ /^ROOT_OPTIM_/) defined_in[name] = file
}

/^#undef / {
  if (in_ours && !($2 in defined_in) && $2 !~ /^ROOT_OPTIM_/) {
    print file ": undefines " $2
    problems++
  }
  delete defined_in[$2]
}

END {
  for (name in defined_in) {
    print defined_in[name] ": leaks " name
    problems++
  }
  print seen + 0 " macros, " problems + 0 " problems"
  # None at all would mean that nothing was preprocessed: version.hpp has three.
  exit problems > 0 || seen == 0
}
