// SPDX-License-Identifier: Apache-2.0
#include "fattn/attention.hpp"

namespace fattn {

// The numbers are the project version of CMakeLists.txt.
Version version() { return {FATTN_VERSION_MAJOR, FATTN_VERSION_MINOR, FATTN_VERSION_PATCH}; }

}  // namespace fattn
