# SPDX-License-Identifier: MIT
# Copyright (c) root_optim contributors
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load

required_conan_version = ">=2.4"


class RootOptim(ConanFile):
    name = "root_optim"
    description = "ROOT, a matrix-aware optimizer for LibTorch"
    license = "MIT"
    topics = ("optimizer", "libtorch", "header-only")
    settings = "os", "arch", "compiler", "build_type"
    # No requirements: LibTorch is the system's, or a wheel, and CMake finds it.
    # root_optim::compiled as well: a binary, which fits the LibTorch that CMake found for it alone.
    options = {"compiled": [True, False]}
    default_options = {"compiled": False}

    @property
    def _project(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def set_version(self):
        header = load(self, os.path.join(self._project, "include", "root_optim", "version.hpp"))
        self.version = ".".join(re.findall(r"define ROOT_OPTIM_VERSION_\w+ ([0-9]+)", header))

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*", "src/*"):
            copy(self, pattern, self._project, self.export_sources_folder)

    def configure(self):
        self.package_type = "static-library" if self.options.compiled else "header-library"

    def package_id(self):
        if not self.info.options.compiled:
            self.info.clear()

    def validate(self):
        check_min_cppstd(self, 17)

    def layout(self):
        cmake_layout(self)

    def generate(self):
        toolchain = CMakeToolchain(self)
        for programs in ("TESTING", "EXAMPLES", "BENCHMARKS"):
            toolchain.cache_variables["ROOT_OPTIM_BUILD_" + programs] = False
        toolchain.cache_variables["ROOT_OPTIM_BUILD_COMPILED"] = bool(self.options.compiled)
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()  # whether there is a LibTorch shows here
        if self.options.compiled:
            cmake.build()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))

    def package_info(self):
        # The project's own CMake package, which finds LibTorch, in place of one made by Conan.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "root_optim")]
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
