# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# Finds LibTorch; include() it. Used by root_optim's own build and, installed, by its package
# configuration, so that both accept and refuse the same installations. On return
#
#   target torch                 exists (unless there was a problem); whoever needs LibTorch links it
#   ROOT_OPTIM_TORCH_VERSION     e.g. 2.13.0, read from the headers that the compiler will see
#   ROOT_OPTIM_TORCH_PREFIX      the installation: the folder that holds include/ and lib/, or empty
#   ROOT_OPTIM_TORCH_PROBLEM     empty, or what is wrong and what to do about it
#
# In this order:
#   1. A target `torch` that the user has made: used as it is.
#   2. ROOT_OPTIM_TORCH_ROOT, the folder that holds LibTorch's include/ and lib/ (for a wheel
#      .../site-packages/torch): linked by hand, without LibTorch's own CMake configuration. This is
#      for CUDA builds of LibTorch on machines without the CUDA toolkit, which find_package(Torch)
#      refuses. ROOT_OPTIM_TORCH_CUDA=OFF links the CPU libraries only, for a CUDA wheel that was
#      installed without NVIDIA's libraries. The environment variable ROOT_OPTIM_TORCH_ROOT works too.
#   3. find_package(Torch): CMAKE_PREFIX_PATH, Torch_DIR, the system.
#
# Two installations mixed with each other (the headers of one, the library of another) are refused:
# such programs build without a warning and crash.

set(ROOT_OPTIM_TORCH_VERSION "")
set(ROOT_OPTIM_TORCH_PREFIX "")
set(ROOT_OPTIM_TORCH_PROBLEM "")

# The folder below `prefix` that holds LibTorch's libraries, or "".
function(_root_optim_library_directory prefix out)
  set(${out} "" PARENT_SCOPE)
  foreach(directory lib lib64 "lib/${CMAKE_LIBRARY_ARCHITECTURE}" ".")
    if(EXISTS "${prefix}/${directory}/${CMAKE_SHARED_LIBRARY_PREFIX}c10${CMAKE_SHARED_LIBRARY_SUFFIX}")
      get_filename_component(found "${prefix}/${directory}" ABSOLUTE)
      set(${out} "${found}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

# LibTorch's version as its headers state it, or "".
function(_root_optim_version_of_headers directories out)
  set(version "")
  foreach(directory IN LISTS directories)
    foreach(header torch/headeronly/version.h torch/csrc/api/include/torch/version.h torch/version.h)
      if(version STREQUAL "" AND EXISTS "${directory}/${header}")
        file(STRINGS "${directory}/${header}" lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
        if(lines MATCHES "MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+)")
          set(version "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${CMAKE_MATCH_3}")
        endif()
      endif()
    endforeach()
  endforeach()
  set(${out} "${version}" PARENT_SCOPE)
endfunction()

# 2. Links the installation at `prefix` by hand. Sets `out` to the problem, if any.
function(_root_optim_link_by_hand prefix out)
  set(${out} "" PARENT_SCOPE)
  get_filename_component(prefix "${prefix}" ABSOLUTE)
  _root_optim_library_directory("${prefix}" directory)
  _root_optim_version_of_headers("${prefix}/include" version)
  if(directory STREQUAL "" OR version STREQUAL "")
    set(${out}
        "ROOT_OPTIM_TORCH_ROOT is ${prefix}, which is not a LibTorch installation: expected include/torch and lib/ with the libraries in it. For a Python wheel it is the folder printed by\n  python3 -c \"import os, torch; print(os.path.dirname(torch.__file__))\""
        PARENT_SCOPE)
    return()
  endif()

  # torch_cuda registers its kernels when it is loaded, and nobody calls it by name: without
  # --no-as-needed the linker would drop it. libtorch.so itself needs torch_cuda.
  set(names torch_cpu c10)
  if(ROOT_OPTIM_TORCH_CUDA OR NOT DEFINED ROOT_OPTIM_TORCH_CUDA)
    if(EXISTS "${directory}/libtorch_cuda.so")
      list(PREPEND names torch_cuda c10_cuda)
    endif()
    list(PREPEND names torch)
  endif()
  set(files "")
  foreach(name IN LISTS names)
    list(APPEND files
         "${directory}/${CMAKE_SHARED_LIBRARY_PREFIX}${name}${CMAKE_SHARED_LIBRARY_SUFFIX}")
  endforeach()
  list(GET files 0 location)

  add_library(torch SHARED IMPORTED GLOBAL)
  set_target_properties(torch PROPERTIES
    IMPORTED_LOCATION "${location}"
    INTERFACE_INCLUDE_DIRECTORIES "${prefix}/include;${prefix}/include/torch/csrc/api/include")
  if(UNIX AND NOT APPLE)
    list(JOIN files "\",\"" joined)
    # allow-shlib-undefined: what the wheel's libraries need of NVIDIA's is found at run time.
    set_target_properties(torch PROPERTIES INTERFACE_LINK_LIBRARIES
      "-Wl,--no-as-needed,--allow-shlib-undefined,\"${joined}\",--as-needed;${files}")
    # Most wheels up to 2.6 were built with the old std::string; the symbols of c10::Error tell.
    file(STRINGS "${directory}/libc10.so" symbols LIMIT_COUNT 1 REGEX "_ZN3c105Error.*__cxx11")
    if(NOT symbols)
      set_target_properties(torch PROPERTIES
        INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=0")
    endif()
  else()
    set_target_properties(torch PROPERTIES INTERFACE_LINK_LIBRARIES "${files}")
  endif()
endfunction()

# 3a. Looks at the configuration that find_package(Torch) would load, without loading it: asking for
# a version that does not exist lists the candidates. Pins the first, so that nothing else is loaded.
function(_root_optim_choose_config out_libraries out_problem)
  set(${out_libraries} "" PARENT_SCOPE)
  set(${out_problem} "" PARENT_SCOPE)
  if(CMAKE_DISABLE_FIND_PACKAGE_Torch)
    return()
  endif()
  find_package(Torch 999999 QUIET CONFIG)
  if(NOT Torch_CONSIDERED_CONFIGS)
    return()
  endif()
  list(GET Torch_CONSIDERED_CONFIGS 0 config)
  get_filename_component(config_directory "${config}" DIRECTORY)
  set(Torch_DIR "${config_directory}" CACHE PATH "The directory of TorchConfig.cmake." FORCE)

  foreach(up ../../.. ../..)  # <prefix>/share/cmake/Torch; Debian: <libraries>/cmake/Torch
    _root_optim_library_directory("${config_directory}/${up}" directory)
    if(NOT directory STREQUAL "")
      get_filename_component(prefix "${config_directory}/${up}" ABSOLUTE)
      break()
    endif()
  endforeach()
  if(directory STREQUAL "")
    return()
  endif()
  set(${out_libraries} "${directory}" PARENT_SCOPE)

  if(EXISTS "${directory}/libtorch_cuda.so")
    find_package(CUDAToolkit QUIET)
    if(CUDAToolkit_FOUND)  # what LibTorch's configuration misses in it, if anything, ends the run
      message(STATUS "LibTorch is a CUDA build. Should its configuration fail for want of a complete "
                     "CUDA toolkit, pass -DROOT_OPTIM_TORCH_ROOT=${prefix}")
    else()
      set(${out_problem}
          "The LibTorch at ${prefix} is a CUDA build, and there is no CUDA toolkit on this machine: LibTorch's own CMake configuration refuses that. Do one of these:\n  - pass -DROOT_OPTIM_TORCH_ROOT=${prefix}\n    which links it without that configuration and needs no toolkit;\n  - use a CPU build of LibTorch;\n  - install the CUDA toolkit."
          PARENT_SCOPE)
    endif()
  endif()
endfunction()

# Sets `out` to the problem if the target `torch` and what its package recorded disagree.
function(_root_optim_check_unmixed out_prefix out_version out_problem)
  # The include directories may hang on torch_cpu or c10 only.
  set(include_directories "")
  set(files "")
  foreach(target torch torch_cpu c10)
    if(TARGET ${target})
      get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
      if(directories)
        list(APPEND include_directories ${directories})
      endif()
      get_target_property(configurations ${target} IMPORTED_CONFIGURATIONS)
      list(TRANSFORM configurations PREPEND IMPORTED_LOCATION_)
      foreach(property IN LISTS configurations ITEMS IMPORTED_LOCATION)
        get_target_property(file ${target} ${property})
        if(file)
          list(APPEND files "${file}")
          break()
        endif()
      endforeach()
    endif()
  endforeach()
  _root_optim_version_of_headers("${include_directories}" version)
  if(version STREQUAL "" AND Torch_VERSION)
    set(version "${Torch_VERSION}")
  endif()
  set(${out_version} "${version}" PARENT_SCOPE)
  set(${out_prefix} "" PARENT_SCOPE)
  set(${out_problem} "" PARENT_SCOPE)
  if(include_directories)
    foreach(directory IN LISTS include_directories)
      if(EXISTS "${directory}/ATen/core/Tensor.h")
        get_filename_component(prefix "${directory}/.." ABSOLUTE)
        set(${out_prefix} "${prefix}" PARENT_SCOPE)
      endif()
    endforeach()
  endif()
  if(NOT files)
    return()  # a user's own target, without locations that could be compared
  endif()
  list(GET files 0 first)
  get_filename_component(expected "${first}" DIRECTORY)
  get_filename_component(expected "${expected}" REALPATH)

  # What find_library() of LibTorch's configuration met first, which may be the system's.
  foreach(variable TORCH_LIBRARY c10_LIBRARY)
    if(${variable} AND EXISTS "${${variable}}")
      list(APPEND files "${${variable}}")
    endif()
  endforeach()
  foreach(file IN LISTS files)
    get_filename_component(directory "${file}" DIRECTORY)
    get_filename_component(directory "${directory}" REALPATH)
    if(NOT directory STREQUAL expected)
      set(${out_problem}
          "Two installations of LibTorch are mixed:\n  ${first}\n  ${file}\nRemove one, or name the one to use and start from an empty build folder:\n  -DCMAKE_PREFIX_PATH=<the folder that holds its include/ and lib/>"
          PARENT_SCOPE)
      return()
    endif()
  endforeach()
  if(version AND Torch_VERSION)
    string(REGEX MATCH "^[0-9]+\\.[0-9]+" of_headers "${version}")
    string(REGEX MATCH "^[0-9]+\\.[0-9]+" of_package "${Torch_VERSION}")  # Debian's patch level differs
    if(NOT of_headers STREQUAL of_package)
      set(${out_problem}
          "Two installations of LibTorch are mixed: the headers are of version ${version}, the CMake configuration in ${Torch_DIR} of version ${Torch_VERSION}. Name the one to use and start from an empty build folder:\n  -DCMAKE_PREFIX_PATH=<the folder that holds its include/ and lib/>"
          PARENT_SCOPE)
    endif()
  endif()
endfunction()

set(_root_optim_torch_root "${ROOT_OPTIM_TORCH_ROOT}")
if(_root_optim_torch_root STREQUAL "" AND DEFINED ENV{ROOT_OPTIM_TORCH_ROOT})
  set(_root_optim_torch_root "$ENV{ROOT_OPTIM_TORCH_ROOT}")
endif()

if(TARGET torch)
  # 1. nothing to find
elseif(NOT _root_optim_torch_root STREQUAL "")
  _root_optim_link_by_hand("${_root_optim_torch_root}" ROOT_OPTIM_TORCH_PROBLEM)
else()
  _root_optim_choose_config(_root_optim_libraries ROOT_OPTIM_TORCH_PROBLEM)
  if(ROOT_OPTIM_TORCH_PROBLEM STREQUAL "")
    # LibTorch's configuration looks for its libraries in the system's folders before its own.
    set(_root_optim_library_path "${CMAKE_LIBRARY_PATH}")
    if(NOT _root_optim_libraries STREQUAL "")
      list(PREPEND CMAKE_LIBRARY_PATH "${_root_optim_libraries}")
    endif()
    # GLOBAL: the target must be visible where a parent project generates its build, too.
    find_package(Torch QUIET CONFIG GLOBAL)
    set(CMAKE_LIBRARY_PATH "${_root_optim_library_path}")
    unset(_root_optim_library_path)
    if(NOT TARGET torch)
      set(ROOT_OPTIM_TORCH_PROBLEM
          "LibTorch was not found. Do one of these:\n  - pip install torch, then pass\n    -DCMAKE_PREFIX_PATH=$(python3 -c \"import os, torch; print(os.path.dirname(torch.__file__))\")\n    (a CUDA wheel on a machine without the CUDA toolkit: -DROOT_OPTIM_TORCH_ROOT=... instead)\n  - Debian, Ubuntu: apt install libtorch-dev, where there is such a package\n  - unpack a LibTorch archive from pytorch.org and pass -DCMAKE_PREFIX_PATH=<its folder>\n  - define a target named torch before root_optim is found or added")
    endif()
  endif()
  unset(_root_optim_libraries)
endif()
unset(_root_optim_torch_root)

if(ROOT_OPTIM_TORCH_PROBLEM STREQUAL "")
  _root_optim_check_unmixed(
    ROOT_OPTIM_TORCH_PREFIX ROOT_OPTIM_TORCH_VERSION ROOT_OPTIM_TORCH_PROBLEM)
endif()
