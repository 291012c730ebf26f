# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# An overlay port: the sources are those of the project that this folder is part of. vcpkg does not see
# that they change: `vcpkg remove root-optim` and `--binarysource=clear` make it build anew.
get_filename_component(SOURCE_PATH "${CURRENT_PORT_DIR}/../../.." ABSOLUTE)

set(VCPKG_BUILD_TYPE release)  # header-only: one build, which shows whether there is a LibTorch
vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS
    -DROOT_OPTIM_BUILD_TESTING=OFF
    -DROOT_OPTIM_BUILD_EXAMPLES=OFF
    -DROOT_OPTIM_BUILD_BENCHMARKS=OFF)
vcpkg_cmake_install()
vcpkg_cmake_config_fixup(PACKAGE_NAME root_optim CONFIG_PATH share/cmake/root_optim)

file(INSTALL "${CURRENT_PORT_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE")
