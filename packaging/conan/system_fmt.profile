# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
#
# For `conan create -pr default -pr system_fmt.profile`: fmt is the system's (Debian and Ubuntu:
# libfmt-dev), not Conan's. Any version that the recipe accepts may stand here; CMake takes the one
# that it finds.
[platform_requires]
fmt/9.1.0
