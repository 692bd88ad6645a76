// For tests: the error that an action throws.
#pragma once

#include <gtest/gtest.h>

#include "base/error.h"

namespace stasis {

// The test fails when nothing is thrown.
template <class Action>
Error error_of(Action&& action) {
  try {
    action();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error was thrown";
  return Error(Reason::INTERNAL, "nothing");
}

}  // namespace stasis
