#include "memory/vma_extension.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

#include "base/error.h"
#include "memory/numa.h"
#include "proto/extension.pb.h"

namespace stasis {

namespace {

// Runs of adjoining areas that have an attribute are one record. `worth(area)`: a run needs at least one such area.
template <class Has, class Worth>
void add_runs(std::span<const Vma> areas, std::vector<pb::extension_vma>& out, void (*set)(pb::extension_vma&), Has has,
              Worth worth) {
  for (size_t i = 0; i < areas.size(); ++i) {
    if (!has(areas[i])) continue;
    size_t last = i;
    bool wanted = worth(areas[i]);
    for (; last + 1 < areas.size() && areas[last + 1].start == areas[last].end && has(areas[last + 1]); ++last)
      wanted |= worth(areas[last + 1]);
    if (wanted) {
      pb::extension_vma& record = out.emplace_back();
      record.set_start(areas[i].start);
      record.set_end(areas[last].end);
      set(record);
    }
    i = last;
  }
}

}  // namespace

void encode_extension(std::span<const Vma> areas, std::span<const AreaPolicy> policies, pb::extension_task& task) {
  std::vector<pb::extension_vma> records;
  const auto always = [](const Vma&) { return true; };
  // What is writable is accounted by itself.
  add_runs(
      areas, records, [](pb::extension_vma& r) { r.set_once_writable(true); },
      [](const Vma& v) { return v.is_private() && v.was_writable; },
      [](const Vma& v) { return (v.prot & PROT_WRITE) == 0; });
  add_runs(
      areas, records, [](pb::extension_vma& r) { r.set_lock_on_fault(true); },
      [](const Vma& v) { return v.is_locked() && v.lock_on_fault.value_or(false); }, always);
  add_runs(
      areas, records, [](pb::extension_vma& r) { r.set_sealed(true); }, [](const Vma& v) { return v.sealed; }, always);
  for (const AreaPolicy& p : policies) {
    pb::extension_vma& record = records.emplace_back();
    record.set_start(p.start);
    record.set_end(p.end);
    encode_numa(p.mode, p.nodes, *record.mutable_numa());
  }
  std::ranges::stable_sort(records, {}, [](const pb::extension_vma& r) { return r.start(); });
  for (pb::extension_vma& record : records) *task.mutable_mm()->add_vmas() = std::move(record);
}

namespace {

AreaPolicy decode_policy(const pb::extension_vma& record, const std::string& shown_name) {
  AreaPolicy out{record.start(), record.end(), 0, {}};
  if (!decode_numa(record.numa(), out.mode, out.nodes))
    throw Error(Reason::IMAGE_CORRUPT, fmt::format("the NUMA policy of {:x}-{:x} makes no sense", out.start, out.end))
        .object(shown_name);
  return out;
}

}  // namespace

void decode_extension(const pb::extension_mm& mm, std::vector<Vma>& areas, std::vector<AreaPolicy>& policies,
                      const std::string& shown_name) {
  for (Vma& v : areas) {
    v.told = true;
    v.lock_on_fault = false;
    v.was_writable = v.is_private() && (v.prot & PROT_WRITE) != 0;
  }
  for (const pb::extension_vma& record : mm.vmas()) {
    auto at = std::ranges::lower_bound(areas, record.start(), {}, &Vma::start);
    uint64_t covered = record.start();
    for (; at != areas.end() && at->start == covered && at->end <= record.end(); ++at) {
      covered = at->end;
      if (record.once_writable()) at->was_writable = true;
      if (record.lock_on_fault()) at->lock_on_fault = true;
      if (record.sealed()) at->sealed = true;
    }
    if (covered != record.end() || record.start() >= record.end())
      throw Error(Reason::IMAGE_CORRUPT,
                  fmt::format("{:x}-{:x} is not the range of mappings", record.start(), record.end()))
          .object(shown_name);
    if (record.has_numa()) policies.push_back(decode_policy(record, shown_name));
  }
  std::ranges::sort(policies, {}, &AreaPolicy::start);
}

}  // namespace stasis
