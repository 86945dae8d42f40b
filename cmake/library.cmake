# SPDX-License-Identifier: Apache-2.0
# All rooms in one library, static and shared, and its installation: find_package(fattn), pkg-config.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
find_package(Threads REQUIRED)

get_property(rooms GLOBAL PROPERTY FATTN_ROOMS)
set(objects "")
foreach(room IN LISTS rooms)
  list(APPEND objects $<TARGET_OBJECTS:${room}>)
endforeach()

set(static_objects ${objects})
if(FATTN_WITH_CUDA AND NOT FATTN_CUDA STREQUAL "EMULATED")
  # The CUDA runtime goes into the archive with local names: nobody who links it needs a toolkit, and a program that has
  # another version of the runtime keeps its own.
  set(merged ${PROJECT_BINARY_DIR}/fattn_merged.o)
  get_target_property(cudart CUDA::cudart_static IMPORTED_LOCATION)
  add_custom_command(OUTPUT ${merged}
    COMMAND ${PROJECT_SOURCE_DIR}/cmake/merge_runtime.sh "${CMAKE_CXX_COMPILER}" "${CMAKE_NM}" "${CMAKE_OBJCOPY}"
      ${merged} ${cudart} "${objects}"
    DEPENDS ${objects} ${cudart} ${PROJECT_SOURCE_DIR}/cmake/merge_runtime.sh
    COMMAND_EXPAND_LISTS VERBATIM COMMENT "Merging the CUDA runtime into the static library")
  set_source_files_properties(${merged} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  # With one source of C++, programs in C are linked with its runtime too.
  set(language ${PROJECT_BINARY_DIR}/generated/language.cpp)
  file(CONFIGURE OUTPUT ${language} CONTENT "// The rest of this archive is C++ too.\n")
  set(static_objects ${merged} ${language})
endif()

add_library(fattn_static STATIC ${static_objects})
add_library(fattn_shared SHARED ${objects})
target_link_libraries(fattn_shared PRIVATE $<BUILD_INTERFACE:fattn_cudart>)
if(FATTN_CUDA STREQUAL "EMULATED")
  target_link_libraries(fattn_static PUBLIC $<BUILD_INTERFACE:fattn_cudart>)
endif()
foreach(kind static shared)
  add_library(fattn::fattn_${kind} ALIAS fattn_${kind})
  target_include_directories(fattn_${kind} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(fattn_${kind} PUBLIC cxx_std_20)
  target_link_libraries(fattn_${kind} PRIVATE Threads::Threads ${CMAKE_DL_LIBS} rt)
  set_target_properties(fattn_${kind} PROPERTIES OUTPUT_NAME fattn EXPORT_NAME fattn_${kind} LINKER_LANGUAGE CXX)
endforeach()

# The runtime library exports the public names and nothing else, not even inlined templates of the standard library.
target_link_options(fattn_shared PRIVATE LINKER:--version-script=${PROJECT_SOURCE_DIR}/cmake/exports.map)
if(NOT FATTN_SANITIZE)
  target_link_options(fattn_shared PRIVATE LINKER:--no-undefined)
endif()
set_target_properties(fattn_shared PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/exports.map)

# Inside this build fattn::fattn is the static library; where it is installed, cmake/fattn-config.cmake.in decides.
add_library(fattn::fattn ALIAS fattn_static)

if(NOT FATTN_INSTALL)
  return()
endif()
set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/fattn)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/fattn-config.cmake.in
  ${PROJECT_BINARY_DIR}/fattn-config.cmake INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/fattn-config-version.cmake COMPATIBILITY SameMinorVersion)
file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
foreach(pc fattn fattn-static)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/${pc}.pc.in ${PROJECT_BINARY_DIR}/${pc}.pc @ONLY)
endforeach()

install(TARGETS fattn_static fattn_shared EXPORT fattn-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT fattn-targets NAMESPACE fattn:: DESTINATION ${config_dir})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/fattn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_BINARY_DIR}/fattn-config.cmake ${PROJECT_BINARY_DIR}/fattn-config-version.cmake
  DESTINATION ${config_dir})
install(FILES ${PROJECT_BINARY_DIR}/fattn.pc ${PROJECT_BINARY_DIR}/fattn-static.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
