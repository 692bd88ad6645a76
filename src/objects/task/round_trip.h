// For tests: a state through the bytes of an image and back.
#pragma once

#include "base/error.h"
#include "proto/core.pb.h"
#include "proto/extension.pb.h"

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

// The same for what is kept in our own image.
template <class Kind>
pb::extension_task encoded_extension(const typename Kind::State& state) {
  pb::extension_task task;
  Kind::encode_extension(state, task);
  pb::extension_task back;
  back.ParsePartialFromString(task.SerializePartialAsString());
  return back;
}

template <class Kind>
typename Kind::State decoded_extension(const pb::extension_task& task) {
  typename Kind::State state{};
  Kind::decode_extension(task, state);
  return state;
}

template <class Kind>
typename Kind::State extension_round_trip(const typename Kind::State& state) {
  return decoded_extension<Kind>(encoded_extension<Kind>(state));
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
