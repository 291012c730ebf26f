# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# cmake -D RECIPE=<packaging/conan> -D WORK=<a folder of its own> -D GENERATOR=… -D TOOLCHAIN=<a file
# that sets the build's own variables> -D COMPILED=<True or False> -P conan.cmake: creates and tests the
# package as README shows it, in a home of its own.
cmake_minimum_required(VERSION 3.24)

find_program(conan NAMES conan NO_CACHE)
if(NOT conan)
  message("skipped: no conan on the PATH")
  return()
endif()

file(REMOVE_RECURSE ${WORK})
set(ENV{CONAN_HOME} ${WORK}/home)
execute_process(COMMAND ${conan} profile detect COMMAND_ERROR_IS_FATAL ANY)
execute_process(
  COMMAND ${conan} create ${RECIPE} --no-remote -o "root_optim/*:compiled=${COMPILED}"
    -c "tools.cmake.cmaketoolchain:generator=${GENERATOR}"
    -c "tools.cmake.cmaketoolchain:user_toolchain=['${TOOLCHAIN}']"
    -c "tools.cmake.cmake_layout:test_folder=${WORK}/test"
  COMMAND_ERROR_IS_FATAL ANY)
