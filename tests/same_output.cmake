# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# cmake -D PROGRAM=<program> -D FILE=<file> -P same_output.cmake: fails unless the program prints the
# file.
cmake_minimum_required(VERSION 3.24)
execute_process(COMMAND ${PROGRAM} OUTPUT_VARIABLE printed COMMAND_ERROR_IS_FATAL ANY)
file(READ ${FILE} expected)
if(NOT printed STREQUAL expected)
  file(WRITE printed.txt "${printed}")
  message(FATAL_ERROR "${PROGRAM} no longer prints ${FILE}; what it prints is in printed.txt")
endif()
