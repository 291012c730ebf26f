# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# cmake -D ROOT=<source folder> -D HEADERS=<the installed headers, comma-separated> -P files.cmake
cmake_minimum_required(VERSION 3.24)
string(REPLACE "," ";" HEADERS "${HEADERS}")
set(problems 0)

function(problem)
  message(NOTICE ${ARGV})
  math(EXPR problems "${problems} + 1")
  set(problems ${problems} PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE on_disk RELATIVE ${ROOT} ${ROOT}/include/*)

# Headers that the umbrella reaches, directly or through another.
set(reached include/root_optim/root_optim.hpp)
set(to_read ${reached})
while(to_read)
  list(POP_FRONT to_read header)
  file(STRINGS ${ROOT}/${header} includes REGEX "^#include <root_optim/")
  foreach(include IN LISTS includes)
    string(REGEX REPLACE "^#include <([^>]*)>.*" "include/\\1" include "${include}")
    if(NOT include IN_LIST reached)
      list(APPEND reached ${include})
      list(APPEND to_read ${include})
    endif()
  endforeach()
endwhile()

# The program that README shows is the example that is compiled and run.
file(READ ${ROOT}/examples/quickstart.cpp program)
string(REGEX REPLACE "^(//[^\n]*\n)+" "" program "${program}")
file(READ ${ROOT}/README.md readme)
string(FIND "${readme}" "```cpp\n${program}```" position)
if(position EQUAL -1)
  problem("README.md does not show examples/quickstart.cpp as it is")
endif()

# The version stands in version.hpp, and where nothing can read it from there.
file(STRINGS ${ROOT}/include/root_optim/version.hpp version REGEX "define ROOT_OPTIM_VERSION_[A-Z]+ [0-9]+")
string(REGEX REPLACE "[^0-9;]+" "" version "${version}")
list(JOIN version "." version)
file(READ ${ROOT}/packaging/vcpkg/root-optim/vcpkg.json port)
string(FIND "${port}" "\"version\": \"${version}\"" in_port)
string(FIND "${readme}" "root_optim/${version}`" in_readme)
if(in_port EQUAL -1 OR in_readme EQUAL -1)
  problem("vcpkg.json and README.md's requirement of Conan's package do not both have version ${version}")
endif()

foreach(header IN LISTS on_disk)
  if(NOT header IN_LIST HEADERS AND NOT "${ROOT}/${header}" IN_LIST HEADERS)
    problem("${header} is not in CMakeLists.txt, so it would not be installed")
  endif()
  file(READ ${ROOT}/${header} text)
  if(NOT text MATCHES "^// SPDX-License-Identifier: MIT\n// Copyright \\(c\\) root_optim contributors\n")
    problem("${header} does not start with the license lines")
  endif()
  if(NOT text MATCHES "\n#pragma once\n")
    problem("${header} has no #pragma once")
  endif()
  if(text MATCHES "#include *[<\"](torch/(torch|all)\\.h|ATen/ATen\\.h)")
    problem("${header} includes ${CMAKE_MATCH_1}: libraries include what they use")
  endif()
  if(text MATCHES "[^A-Z_]((D?CHECK(_[A-Z]+)?|D?LOG|VLOG)\\()")
    problem("${header} uses ${CMAKE_MATCH_1}...): TORCH_CHECK is never compiled out and never aborts")
  endif()
  if(NOT header IN_LIST reached)
    problem("root_optim.hpp does not reach ${header}")
  endif()
endforeach()
if(NOT on_disk)
  problem("no headers found below ${ROOT}/include")
endif()

# LibTorch and Catch2 work together in one order only, and one header knows it.
file(GLOB_RECURSE tests RELATIVE ${ROOT} ${ROOT}/tests/*.cpp ${ROOT}/tests/*.hpp)
foreach(test IN LISTS tests)
  file(READ ${ROOT}/${test} text)
  if(text MATCHES "#include *[<\"](catch2/[^>]*|torch/(torch|all)\\.h)"
     AND NOT test MATCHES "^tests/(support/catch_torch\\.hpp|catch_main\\.cpp|compile/odr_|consumers/|digest/)")
    problem("${test} includes ${CMAKE_MATCH_1}: include support/catch_torch.hpp instead")
  endif()
endforeach()

if(problems GREATER 0)
  message(FATAL_ERROR "${problems} problems")
endif()
