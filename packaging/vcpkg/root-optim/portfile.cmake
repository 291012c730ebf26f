# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# An overlay port: the sources are those of the project that this folder is part of. vcpkg does not see
# that they change: `vcpkg remove root-optim` and `--binarysource=clear` make it build anew.
get_filename_component(SOURCE_PATH "${CURRENT_PORT_DIR}/../../.." ABSOLUTE)

vcpkg_check_features(OUT_FEATURE_OPTIONS options FEATURES compiled ROOT_OPTIM_BUILD_COMPILED)
# One build: of headers, and it shows whether there is a LibTorch; of root_optim::compiled, because LibTorch's
# packages come in one kind as well.
set(VCPKG_BUILD_TYPE release)
if("compiled" IN_LIST FEATURES)
  set(VCPKG_POLICY_MISMATCHED_NUMBER_OF_BINARIES enabled)
endif()
vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS
    ${options}
    -DROOT_OPTIM_BUILD_TESTING=OFF
    -DROOT_OPTIM_BUILD_EXAMPLES=OFF
    -DROOT_OPTIM_BUILD_BENCHMARKS=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(PACKAGE_NAME root_optim CONFIG_PATH share/cmake/root_optim)

file(INSTALL "${CURRENT_PORT_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
