# SPDX-License-Identifier: Apache-2.0
# THE list of kernel rows, in the order in which plan() asks them. The registry, the instances, the tests and the
# tables in the docs all come from it.
#
#   fattn_row(<name> <kind>)                 a row whose code is hand-written in its room; kind: CPU, CUDA
#   fattn_kernel(<arch> <pass> <dtype> <d> <dv> <mask> <score> <kv> <sets>)
#                                            a CUDA row rendered from cmake/instance.cu.in; its name is
#                                            <arch>_<pass>_<dtype>_d<d>[_dv<dv>]_<mask>[_<score>][_<kv>]
# A row whose kind or set is not in this build stays in the table as "not compiled in".
set(FATTN_KERNEL_TABLE "")     # entries "name|compiled"
set(FATTN_CUDA_INSTANCES "")   # rendered .cu files, compiled by src/cuda

function(fattn_row name kind)
  set(compiled 1)
  if(kind STREQUAL "CUDA" AND NOT FATTN_WITH_CUDA)
    set(compiled 0)
  endif()
  list(APPEND FATTN_KERNEL_TABLE "${name}|${compiled}")
  set(FATTN_KERNEL_TABLE ${FATTN_KERNEL_TABLE} PARENT_SCOPE)
endfunction()

function(fattn_kernel arch pass dtype d dv mask score kv sets)
  set(name ${arch}_${pass}_${dtype}_d${d})
  if(NOT d EQUAL dv)
    string(APPEND name _dv${dv})
  endif()
  string(APPEND name _${mask})
  if(NOT score STREQUAL "identity")
    string(APPEND name _${score})
  endif()
  if(NOT kv STREQUAL "dense")
    string(APPEND name _${kv})
  endif()
  set(compiled 0)
  if(FATTN_WITH_CUDA AND FATTN_KERNEL_SET IN_LIST sets)
    set(compiled 1)
    set(ROW ${name})
    set(ARCH ${arch})
    set(PASS ${pass})
    set(DTYPE ${dtype})
    set(HEAD_DIM ${d})
    set(HEAD_DIM_V ${dv})
    set(MASK ${mask})
    set(SCORE ${score})
    set(KV ${kv})
    set(file ${PROJECT_BINARY_DIR}/generated/${name}.cu)
    configure_file(${PROJECT_SOURCE_DIR}/cmake/instance.cu.in ${file} @ONLY)
    list(APPEND FATTN_CUDA_INSTANCES ${file})
    set(FATTN_CUDA_INSTANCES ${FATTN_CUDA_INSTANCES} PARENT_SCOPE)
  endif()
  list(APPEND FATTN_KERNEL_TABLE "${name}|${compiled}")
  set(FATTN_KERNEL_TABLE ${FATTN_KERNEL_TABLE} PARENT_SCOPE)
endfunction()

#            arch  pass     dtype  d    dv   mask  score     kv     sets
fattn_kernel(sm90  forward  bf16   128  128  band  identity  dense  "dev;default")

fattn_row(cpu_avx512_forward        CPU)
fattn_row(cpu_avx512_backward       CPU)
fattn_row(cpu_avx2_forward          CPU)
fattn_row(cpu_avx2_backward         CPU)
fattn_row(cpu_scalar_forward        CPU)
fattn_row(cpu_scalar_backward       CPU)

# Oracles: chosen by name only.
fattn_row(cuda_reference_forward    CUDA)
fattn_row(cuda_reference_backward   CUDA)
fattn_row(reference_forward_fp64    CPU)
fattn_row(reference_backward_fp64   CPU)
fattn_row(reference_forward_fp32    CPU)
fattn_row(reference_backward_fp32   CPU)
fattn_row(reference_forward_naive   CPU)   # same-precision naive: the yardstick of every error test
fattn_row(reference_backward_naive  CPU)

# The table that src/core/registry.cpp walks: generated/kernel_table.inc with one FATTN_ROW or FATTN_ABSENT a line.
set(table "")
foreach(entry IN LISTS FATTN_KERNEL_TABLE)
  string(REPLACE "|" ";" entry "${entry}")
  list(GET entry 0 name)
  list(GET entry 1 compiled)
  if(compiled)
    string(APPEND table "FATTN_ROW(${name})\n")
  else()
    string(APPEND table "FATTN_ABSENT(${name})\n")
  endif()
endforeach()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/kernel_table.inc CONTENT "${table}" @ONLY)
