// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "fattn/error.hpp"

namespace fattn {

// body throws Error of that status and its message has each of the parts.
template <class Body>
void expect_error(Status status, const std::vector<std::string>& parts, Body body) {
  try {
    body();
    ADD_FAILURE() << "no error; expected one with: " << (parts.empty() ? "" : parts.front());
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), status) << error.what();
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "no \"" << part << "\" in: " << error.what();
    }
  }
}

}  // namespace fattn
