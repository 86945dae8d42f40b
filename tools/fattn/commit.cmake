# SPDX-License-Identifier: Apache-2.0
# Run at build time: writes the commit of SOURCE as a C string into OUTPUT, touching it only when it changed.
set(text unknown)
find_program(GIT git)
if(GIT)
  execute_process(COMMAND ${GIT} --no-optional-locks -C ${SOURCE} describe --always --dirty --abbrev=12 --match=never
    OUTPUT_VARIABLE answer RESULT_VARIABLE failed OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT failed)
    set(text "${answer}")
  endif()
endif()
set(before "")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} before)
endif()
if(NOT before STREQUAL "\"${text}\"\n")
  file(WRITE ${OUTPUT} "\"${text}\"\n")
endif()
