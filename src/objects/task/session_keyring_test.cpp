#include "objects/task/session_keyring.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "objects/task/round_trip.h"

namespace stasis {
namespace {

TEST(SessionKeyring, CandidatesAreInProcKeys) {
  const auto found = parse_keyrings(
      "0c22d9f7 I--Q---     1 perm 0c030000     0 65534 keyring   .user_reg: 2\n"
      "1e057795 I--Q---     2 perm 1f3f0000     0 65534 keyring   _uid.0: empty\n"
      "363b6639 I--Q---     1 perm 1f3f0000     0 65534 keyring   _uid_ses.0: 1\n"
      "2b76a9b1 I--Q---     1 perm 3f030000     0     0 keyring   _ses: empty\n"
      "0de2b7bb I--Q---     5 perm 3f130000    12     0 keyring   stasis: x: 3\n"
      "0aaaaaaa I--Q---     5 perm 3f130000     0     0 user      something: 16\n"
      "broken\n");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].name, "_ses");
  EXPECT_EQ(found[0].serial, 0x2b76a9b1u);
  EXPECT_EQ(found[0].permissions, 0x3f030000u);
  EXPECT_EQ(found[1].uid, 12u);
  EXPECT_EQ(found[1].name, "stasis: x");
}

TEST(SessionKeyring, GoesThroughAnImage) {
  const auto back = extension_round_trip<SessionKeyring>({.name = "service", .serial = 4711});
  EXPECT_EQ(back.name, "service");
  EXPECT_EQ(back.serial, 4711u);
  EXPECT_FALSE(encoded_extension<SessionKeyring>({}).has_thread());
  EXPECT_REASON(Reason::IMAGE_CORRUPT,
                extension_round_trip<SessionKeyring>({.name = std::string("a\0b", 3), .serial = 1}));
}

TEST(SessionKeyring, OneThatCannotBeJoinedIsToldAndNotRefused) {
  const auto loss = SessionKeyring::loss({.name = "_ses", .serial = 0x7fffffff});
  ASSERT_TRUE(loss);
  EXPECT_FALSE(loss->refuses);
  EXPECT_FALSE(SessionKeyring::loss({}));
  EXPECT_TRUE(SessionKeyring::loss({.name = "one that is not there", .serial = 1}));
}

}  // namespace
}  // namespace stasis
