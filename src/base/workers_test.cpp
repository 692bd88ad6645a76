#include "base/workers.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace stasis {
namespace {

TEST(Workers, EveryJobRunsOnceInEveryRound) {
  Workers workers(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::atomic<int>> ran(57);
    std::vector<std::function<void()>> jobs;
    jobs.reserve(ran.size());
    for (auto& r : ran) jobs.emplace_back([&r] { ++r; });
    workers.start(std::move(jobs));
    workers.finish();
    for (auto& r : ran) ASSERT_EQ(r, 1);
  }
}

TEST(Workers, TheFirstFailureIsThrownAndTheRestIsDone) {
  Workers workers(2);
  std::atomic<int> ran = 0;
  std::vector<std::function<void()>> jobs;
  jobs.reserve(20);
  for (int i = 0; i < 20; ++i)
    jobs.emplace_back([&ran, i] {
      ++ran;
      if (i == 7) throw Error(Reason::SYSTEM, "seven");
    });
  workers.start(std::move(jobs));
  EXPECT_THROW(workers.finish(), Error);
  EXPECT_EQ(ran, 20);
  workers.start({});
  EXPECT_NO_THROW(workers.finish());
}

TEST(Workers, OneJobCanBeWaitedForWhileOthersFollow) {
  Workers workers(1);
  std::atomic<bool> begun = false, go = false, first = false;
  std::atomic<int> ran = 0;
  workers.post([&] {
    begun = true;
    while (!go) std::this_thread::yield();
    ++ran;
  });
  while (!begun) std::this_thread::yield();
  workers.post([&] {
    ++ran;
    first = true;
  });
  workers.help_until(first);
  EXPECT_EQ(ran, 1);
  go = true;
  workers.post([&] { ++ran; });
  workers.finish();
  EXPECT_EQ(ran, 3);
}

TEST(Workers, AFailureEndsTheWait) {
  Workers workers(1);
  std::atomic<bool> never = false;
  workers.post([] { throw Error(Reason::SYSTEM, "first"); });
  EXPECT_THROW(workers.help_until(never), Error);
}

TEST(Workers, WhatHasNotBegunIsDroppedAtTheEnd) {
  std::atomic<int> ran = 0;
  std::atomic<bool> begun = false, go = false;
  {
    Workers workers(1);
    workers.post([&] {
      begun = true;
      while (!go) std::this_thread::yield();
      ++ran;
    });
    while (!begun) std::this_thread::yield();
    workers.post([&] { ++ran; });
    std::thread release([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      go = true;
    });
    release.detach();
  }
  EXPECT_EQ(ran, 1);
}

TEST(Workers, WithoutThreadsTheCallerDoesTheJobs) {
  Workers workers(0);
  EXPECT_FALSE(workers.has_threads());
  const auto self = std::this_thread::get_id();
  int done = 0;
  const auto job = [&] { done += std::this_thread::get_id() == self ? 1 : 100; };
  workers.start({job, job});
  EXPECT_EQ(done, 0);
  workers.run_waiting();
  EXPECT_EQ(done, 2);
  workers.post(job);
  workers.finish();
  EXPECT_EQ(done, 3);
  workers.employ(1);
  EXPECT_TRUE(workers.has_threads());
}

}  // namespace
}  // namespace stasis
