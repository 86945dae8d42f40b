// SPDX-License-Identifier: Apache-2.0
#pragma once

// Problem -> Plan -> run. See docs/api.md.
#include "fattn/attention.hpp"
#include "fattn/choices.hpp"
#include "fattn/device.hpp"
#include "fattn/error.hpp"
#include "fattn/plan.hpp"
#include "fattn/problem.hpp"
#include "fattn/workspace.hpp"
