# SPDX-License-Identifier: Apache-2.0
# Included by tests/CMakeLists.txt: this folder itself is needed before there are tests.
fattn_test(test_emulated_gpu LABELS emulated SOURCES emulated_gpu/emulated_gpu.cpp LIBS fattn_cudart)
target_include_directories(test_emulated_gpu BEFORE PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/emulated_gpu)
target_compile_options(test_emulated_gpu PRIVATE -w -include ${CMAKE_CURRENT_SOURCE_DIR}/emulated_gpu/language.hpp)
