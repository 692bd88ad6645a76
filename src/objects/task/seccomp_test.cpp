#include "objects/task/seccomp.h"

#include <gtest/gtest.h>
#include <linux/seccomp.h>

#include <functional>

#include "base/error.h"
#include "objects/task/round_trip.h"

namespace stasis {
namespace {

SeccompFilter answering(uint32_t answer, uint32_t flags = 0) {
  return {{{BPF_RET | BPF_K, 0, 0, answer}}, flags};
}
const SeccompFilter kA = answering(SECCOMP_RET_ERRNO | 1), kB = answering(SECCOMP_RET_ERRNO | 2),
                    kC = answering(SECCOMP_RET_ERRNO | 3);

SeccompFilters through_an_image(const SeccompFilters& filters) {
  pb::seccomp_entry entry, back;
  filters.encode(entry);
  back.ParseFromString(entry.SerializeAsString());
  SeccompFilters out;
  out.decode(back);
  return out;
}

uint32_t add(SeccompFilters& filters, std::vector<SeccompFilter> chain) {
  return filters.add(chain, false).value();
}

TEST(SeccompFilters, EqualOnesBehindEqualOnesAreOne) {
  SeccompFilters filters;
  const uint32_t a = add(filters, {kA});
  const uint32_t ab = add(filters, {kA, kB});
  const uint32_t ac = add(filters, {kA, kC});
  EXPECT_EQ(add(filters, {kA, kB}), ab);
  EXPECT_EQ(filters.size(), 3u);
  // The same program behind others, or with other flags, is another filter.
  const uint32_t b = add(filters, {kB});
  EXPECT_NE(b, ab);
  EXPECT_NE(add(filters, {answering(SECCOMP_RET_ERRNO | 1, SECCOMP_FILTER_FLAG_LOG)}), a);
  EXPECT_EQ(filters.add({}, false), std::nullopt);

  const SeccompFilters read = through_an_image(filters);
  EXPECT_EQ(read.chain(a), (std::vector<uint32_t>{a}));
  EXPECT_EQ(read.chain(ab), (std::vector<uint32_t>{a, ab}));
  EXPECT_EQ(read.chain(ac), (std::vector<uint32_t>{a, ac}));
  EXPECT_EQ(read.chain(b), (std::vector<uint32_t>{b}));
  ASSERT_EQ(read[ac].program.size(), 1u);
  EXPECT_EQ(read[ac].program[0].k, uint32_t{SECCOMP_RET_ERRNO | 3});
  EXPECT_EQ(read[4].flags, uint32_t{SECCOMP_FILTER_FLAG_LOG});
}

TEST(SeccompFilters, AreInTheFormOfTheImage) {
  SeccompFilters filters;
  add(filters, {kA, kB});
  pb::seccomp_entry entry;
  filters.encode(entry);
  ASSERT_EQ(entry.seccomp_filters_size(), 2);
  EXPECT_EQ(entry.seccomp_filters(0).filter(), std::string("\x06\0\0\0\x01\0\x05\0", 8));
  EXPECT_FALSE(entry.seccomp_filters(0).has_prev());
  EXPECT_EQ(entry.seccomp_filters(1).prev(), 0u);
}

TEST(SeccompFilters, AThreadThatIsNotRestrictedTellsOfSpecAllow) {
  const std::string_view by_filters = "Mitigation: Speculative Store Bypass disabled via prctl and seccomp\n";
  const std::string_view by_prctl = "Mitigation: Speculative Store Bypass disabled via prctl\n";
  ProcStatus open, restricted;
  open.store_bypass_open = true;
  EXPECT_TRUE(has_spec_allow(open, by_filters));
  EXPECT_FALSE(has_spec_allow(open, by_prctl));
  EXPECT_FALSE(has_spec_allow(restricted, by_filters));

  // What one thread that is not restricted has, the others have, too.
  SeccompFilters filters;
  const std::vector<SeccompFilter> a{kA}, ab{kA, kB};
  const uint32_t second = filters.add(ab, false).value();
  const uint32_t first = filters.add(a, true).value();
  EXPECT_EQ(filters[first].flags, uint32_t{SECCOMP_FILTER_FLAG_SPEC_ALLOW});
  EXPECT_EQ(filters[second].flags, 0u);
  EXPECT_EQ(filters[second].before, first);
}

TEST(SeccompFilters, ThatAnotherProcessDecidesAboutAreRefused) {
  SeccompFilters filters;
  EXPECT_REASON(Reason::UNSUPPORTED_STATE, add(filters, {kA, answering(SECCOMP_RET_USER_NOTIF)}));
}

TEST(SeccompFilters, NonsenseIsRefused) {
  const auto read = [](const std::function<void(pb::seccomp_filter&)>& change) {
    pb::seccomp_entry entry;
    pb::seccomp_filter& f = *entry.add_seccomp_filters();
    f.set_filter(std::string(8, '\6'));
    change(f);
    SeccompFilters filters;
    filters.decode(entry);
    filters.chain(0);
    return filters;
  };
  EXPECT_NO_THROW(read([](auto&) {}));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, read([](auto& f) { f.set_filter(""); }));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, read([](auto& f) { f.set_filter("1234567"); }));
  EXPECT_REASON(Reason::IMAGE_CORRUPT,
                read([](auto& f) { f.set_filter(std::string(size_t{8} * (BPF_MAXINSNS + 1), '\6')); }));
  EXPECT_REASON(Reason::IMAGE_CORRUPT, read([](auto& f) { f.set_prev(0); }));  // a circle
  EXPECT_REASON(Reason::IMAGE_CORRUPT, read([](auto& f) { f.set_prev(1); }));
  EXPECT_REASON(Reason::IMAGE_UNSUPPORTED, read([](auto& f) { f.set_flags(SECCOMP_FILTER_FLAG_NEW_LISTENER); }));
  EXPECT_EQ(read([](auto& f) { f.set_flags(SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG); })[0].flags,
            uint32_t{SECCOMP_FILTER_FLAG_LOG});
  EXPECT_REASON(Reason::IMAGE_CORRUPT, SeccompFilters().chain(0));
}

TEST(SeccompMode, GoesThroughAnImage) {
  EXPECT_FALSE(encoded<Seccomp>({}).thread_core().has_seccomp_mode());
  EXPECT_EQ(round_trip<Seccomp>({.mode = SECCOMP_MODE_STRICT}).mode, SECCOMP_MODE_STRICT);
  const Seccomp::State state = round_trip<Seccomp>({.mode = SECCOMP_MODE_FILTER, .filter = 7});
  EXPECT_EQ(state.mode, SECCOMP_MODE_FILTER);
  EXPECT_EQ(state.filter, 7u);
  EXPECT_REASON(Reason::IMAGE_CORRUPT, round_trip<Seccomp>({.mode = SECCOMP_MODE_FILTER}));
}

TEST(SeccompMode, IsTakenFromThePartOfTheProcessInOlderImages) {
  pb::core_entry core = core_for_tests();
  core.mutable_tc()->set_old_seccomp_mode(pb::filter);
  core.mutable_tc()->set_old_seccomp_filter(3);
  EXPECT_EQ(decoded<Seccomp>(core).filter, 3u);
}

}  // namespace
}  // namespace stasis
