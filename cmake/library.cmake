# SPDX-License-Identifier: Apache-2.0
# All rooms in one library, static and shared.
get_property(rooms GLOBAL PROPERTY FATTN_ROOMS)
set(objects "")
foreach(room IN LISTS rooms)
  list(APPEND objects $<TARGET_OBJECTS:${room}>)
endforeach()

find_package(Threads REQUIRED)
foreach(kind static shared)
  string(TOUPPER ${kind} upper)
  add_library(fattn_${kind} ${upper} ${objects})
  add_library(fattn::fattn_${kind} ALIAS fattn_${kind})
  target_include_directories(fattn_${kind} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
  target_compile_features(fattn_${kind} PUBLIC cxx_std_20)
  target_link_libraries(fattn_${kind} PRIVATE Threads::Threads $<$<BOOL:${FATTN_WITH_CUDA}>:CUDA::cudart_static>)
  set_target_properties(fattn_${kind} PROPERTIES OUTPUT_NAME fattn)
endforeach()
set_target_properties(fattn_shared PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
add_library(fattn::fattn ALIAS fattn_static)
