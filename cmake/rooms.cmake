# SPDX-License-Identifier: Apache-2.0
# A room is an object library of src/<name>; all rooms together become the library. Includes are written from src/ and
# scripts/check_includes.py holds them to the arrows.
set_property(GLOBAL PROPERTY FATTN_ROOMS "")

function(fattn_room name)
  add_library(fattn_${name} OBJECT ${ARGN})
  target_include_directories(fattn_${name} PUBLIC
    ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src ${PROJECT_BINARY_DIR}/generated)
  target_link_libraries(fattn_${name} PRIVATE fattn_flags)
  set_property(GLOBAL APPEND PROPERTY FATTN_ROOMS fattn_${name})
endfunction()
