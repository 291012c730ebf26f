# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# What a compiled root_optim and the programs that link it must have in common. Used by root_optim's own
# build, which records it, and, installed, by its package configuration, which compares.

# In words, e.g. "LibTorch 2.13.0, _GLIBCXX_USE_CXX11_ABI=1, C++17": LibTorch's version as
# RootOptimFindTorch.cmake found it, the std::string that it is used with, and the C++ standard of targets
# that set none of their own.
function(root_optim_describe_binary out)
  set(flags "${CMAKE_CXX_FLAGS}")
  foreach(target torch torch_cpu c10)
    if(TARGET ${target})
      foreach(property INTERFACE_COMPILE_DEFINITIONS INTERFACE_COMPILE_OPTIONS)
        get_target_property(values ${target} ${property})
        string(APPEND flags " ${values}")
      endforeach()
    endif()
  endforeach()
  set(abi 1)
  if(flags MATCHES "_GLIBCXX_USE_CXX11_ABI=0")
    set(abi 0)
  endif()

  # Compile features ask for 17 at least, and for 20 from LibTorch 2.14 on.
  set(standard 17)
  if(ROOT_OPTIM_TORCH_VERSION VERSION_GREATER_EQUAL 2.14)
    set(standard 20)
  endif()
  set(chosen "${CMAKE_CXX_STANDARD}")
  if(chosen STREQUAL "")
    set(chosen "${CMAKE_CXX_STANDARD_COMPUTED_DEFAULT}")  # the compiler's own
  endif()
  if(chosen MATCHES "^[0-9]+$" AND NOT chosen EQUAL 98 AND chosen GREATER standard)
    set(standard ${chosen})
  endif()
  set(${out}
      "LibTorch ${ROOT_OPTIM_TORCH_VERSION}, _GLIBCXX_USE_CXX11_ABI=${abi}, C++${standard}" PARENT_SCOPE)
endfunction()
