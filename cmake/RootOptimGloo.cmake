# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# Whether programs can make Gloo groups: LibTorch has the code, Debian's libgloo-dev the headers. libgloo is
# never linked. ROOT_OPTIM_GLOO_MISSING says what is missing; it is empty if nothing is.
find_path(ROOT_OPTIM_GLOO_INCLUDE gloo/config.h)
mark_as_advanced(ROOT_OPTIM_GLOO_INCLUDE)
set(ROOT_OPTIM_GLOO_MISSING "")
if(NOT ROOT_OPTIM_GLOO_INCLUDE)
  set(ROOT_OPTIM_GLOO_MISSING "Gloo's headers (Debian, Ubuntu: apt install libgloo-dev)")
elseif(NOT EXISTS ${ROOT_OPTIM_TORCH_PREFIX}/include/torch/csrc/distributed/c10d/ProcessGroupGloo.hpp)
  set(ROOT_OPTIM_GLOO_MISSING "a LibTorch with c10d and Gloo")
endif()
