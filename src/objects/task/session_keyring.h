// The session keyring of a thread (keyctl(2)).
//
// To ask for it gives one to a thread that has none. But a search for a keyring by its name looks at the session
// keyring itself first, and changes nothing: so each thread is asked for those names that session keyrings of this
// machine have, as far as this program may see them (/proc/keys). No keyring of others: nothing is asked.
//
// Keyrings are not saved, only joined again: one with a name of its own, if it still exists and whoever restores may
// search it. Those that login programs make are all called "_ses", and nobody can join them: the dump tells, and a
// restored thread has the keyring of whoever restores it, as a new program does.
#pragma once

#include "objects/task_object.h"

namespace stasis {

struct SessionKeyring {
  static constexpr std::string_view name = "session keyring";
  static constexpr Scope scope = Scope::thread;
  struct State {
    std::string name;  // empty: none that is known of
    uint32_t serial = 0;
  };
  struct Ask {
    std::vector<SyscallBatch::Call> calls;  // by name
  };

  static void prepare(const ProcStatus&);
  static void ask(const LookView&, SyscallBatch&, Ask&, State&);
  static void answer(const SyscallBatch&, const Ask&, State&);
  static std::optional<Loss> loss(const State&);
  static void encode_extension(const State&, pb::extension_task&);
  static void decode_extension(const pb::extension_task&, State&);
  static void settle(const State&, const SettleView&, SyscallBatch&);
};

// A line of /proc/keys that can be a session keyring.
struct VisibleKeyring {
  std::string name;
  uint32_t serial = 0, permissions = 0, uid = 0;
};
std::vector<VisibleKeyring> parse_keyrings(std::string_view proc_keys);

}  // namespace stasis
