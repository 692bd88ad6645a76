// For tests: a state through the bytes of an image and back.
#pragma once

#include "proto/core.pb.h"

namespace stasis {

// What other kinds fill; the messages have required fields.
inline pb::core_entry core_for_tests() {
  pb::core_entry core;
  core.set_mtype(pb::core_entry::X86_64);
  return core;
}

template <class Kind>
pb::core_entry encoded(const typename Kind::State& state) {
  pb::core_entry core = core_for_tests();
  Kind::encode(state, core);
  pb::core_entry back;
  back.ParsePartialFromString(core.SerializePartialAsString());
  return back;
}

template <class Kind>
typename Kind::State decoded(const pb::core_entry& core) {
  typename Kind::State state{};
  Kind::decode(core, state);
  return state;
}

template <class Kind>
typename Kind::State round_trip(const typename Kind::State& state) {
  return decoded<Kind>(encoded<Kind>(state));
}

}  // namespace stasis

// Expects a statement to throw an Error with this reason.
#define EXPECT_REASON(expected, ...)               \
  try {                                            \
    __VA_ARGS__;                                   \
    ADD_FAILURE() << "nothing was thrown";         \
  } catch (const ::stasis::Error& e) {             \
    EXPECT_EQ(e.reason(), expected) << e.report(); \
  }
