#include "objects/task/credentials.h"

#include <gtest/gtest.h>
#include <linux/securebits.h>

#include "base/error.h"
#include "objects/task/round_trip.h"

namespace stasis {
namespace {

constexpr uint64_t kAll = (uint64_t{1} << 41) - 1;

Credentials::State root() {
  return {.permitted = kAll, .effective = kAll, .bounding = kAll};
}

TEST(Credentials, GoThroughAnImage) {
  const Credentials::State state{.uid = {1, 2, 3, 4},
                                 .gid = {5, 6, 7, 8},
                                 .groups = {100, 27, 4294967294},
                                 .inheritable = uint64_t{1} << 40 | 3,
                                 .permitted = kAll,
                                 .effective = 0xff00000001,
                                 .bounding = kAll,
                                 .ambient = 1,
                                 .securebits = SECBIT_KEEP_CAPS,
                                 .no_new_privs = true};
  const pb::core_entry core = encoded<Credentials>(state);
  EXPECT_EQ(core.thread_core().creds().cap_inh_size(), 2);
  EXPECT_EQ(core.thread_core().creds().euid(), 2u);
  EXPECT_EQ(core.thread_core().creds().fsgid(), 8u);
  EXPECT_EQ(decoded<Credentials>(core), state);
}

TEST(Credentials, RefuseNonsense) {
  pb::core_entry core = encoded<Credentials>(root());
  core.mutable_thread_core()->mutable_creds()->add_cap_prm(0);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<Credentials>(core));
  core = encoded<Credentials>({.effective = 1});
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<Credentials>(core));
  core = encoded<Credentials>({.permitted = 1, .ambient = 1});
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<Credentials>(core));
  core.mutable_thread_core()->clear_creds();
  EXPECT_REASON(Reason::IMAGE_CORRUPT, decoded<Credentials>(core));
}

TEST(Credentials, EqualOnesNeedNoCall) {
  SyscallBatch batch;
  change_credentials(root(), root(), "pid 1 (x)", batch);
  EXPECT_TRUE(batch.empty());
}

TEST(Credentials, CannotGiveWhatNobodyHas) {
  Credentials::State from = root(), to = root();
  from.bounding = from.permitted = from.effective = kAll & ~(uint64_t{1} << 24);
  SyscallBatch batch;
  try {
    change_credentials(from, to, "pid 1 (x)", batch);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.reason(), Reason::NO_PRIVILEGE);
    EXPECT_NE(e.cause().find("CAP_SYS_RESOURCE"), std::string::npos) << e.cause();
  }
  from = root();
  from.no_new_privs = true;
  EXPECT_REASON(Reason::NO_PRIVILEGE, change_credentials(from, to, "pid 1 (x)", batch));
}

}  // namespace
}  // namespace stasis
