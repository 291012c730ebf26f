# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# Writes the CTest script that runs each test case of a Catch2 program as a test of its own:
#   cmake -D PROGRAM=... -D KIND=... -D LABELS=... -D CATCH_VERSION=... -D OUTPUT=... -P discover.cmake
# Catch2's own catch_discover_tests() loses tests after a name with a lone bracket, such as "(0, 1]",
# and cannot set two labels.
cmake_minimum_required(VERSION 3.24)

if(CATCH_VERSION VERSION_LESS 3)
  set(list_names --list-test-names-only)  # returns their number
  set(must_match " --warn NoTests")  # a name that matches no test is a failure, as in Catch2 3
else()
  set(list_names --list-tests --verbosity quiet)
  set(must_match "")
endif()
execute_process(COMMAND ${PROGRAM} ${list_names}
  OUTPUT_VARIABLE names ERROR_VARIABLE errors RESULT_VARIABLE result)
if(NOT result MATCHES "^[0-9]+$" OR names STREQUAL "")
  message(FATAL_ERROR "${PROGRAM} does not list its tests: ${result}\n${names}${errors}")
endif()

string(REPLACE "," ";" labels "${LABELS}")
set(script "")
while(NOT names STREQUAL "")  # not foreach: names may hold what is special in a CMake list
  string(FIND "${names}" "\n" end)
  string(SUBSTRING "${names}" 0 ${end} name)
  if(end EQUAL -1)
    set(names "")
  else()
    math(EXPR next "${end} + 1")
    string(SUBSTRING "${names}" ${next} -1 names)
  endif()
  string(STRIP "${name}" name)
  if(name STREQUAL "")
    continue()
  endif()
  string(REGEX REPLACE "([],[\\\\])" "\\\\\\1" pattern "${name}")  # special in a Catch2 test spec
  string(APPEND script
    "add_test([==[${KIND}/${name}]==] [==[${PROGRAM}]==] [==[${pattern}]==]${must_match})\n"
    "set_tests_properties([==[${KIND}/${name}]==] PROPERTIES LABELS [==[${labels}]==]"
    " TIMEOUT ${TIMEOUT} ENVIRONMENT OMP_NUM_THREADS=1)\n")
endwhile()
file(WRITE ${OUTPUT} "${script}")
