#include "restore/tree_vdso.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "kernel/uapi.h"
#include "objects/task/registers.h"
#include "tracee/area.h"

namespace stasis {

namespace {

// MAP_STACK keeps the old areas from merging with neighbours: a later dump must find them as they are.
constexpr int kPlainFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_STACK;

// Old code that is left in the middle would read data that is not there any more.
void refuse_threads_inside(const PlannedProcess& p, const VdsoLayout& layout) {
  for (const PlannedThread& t : p.threads) {
    const uint64_t ip = arch::instruction_pointer(t.states.get<CpuRegisters>().general);
    if (ip >= layout.vdso_start && ip - layout.vdso_start < layout.vdso_size)
      throw Error(Reason::IMAGE_UNSUPPORTED,
                  fmt::format("its thread {} was in the middle of a function of the vdso, and that of this kernel is "
                              "another one",
                              t.tid))
          .object(p.describe())
          .remedy("restore on the kernel of the dump");
  }
}

Error other_compat_vdso(const PlannedProcess& p) {
  return Error(Reason::IMAGE_UNSUPPORTED, "its vdso for 32-bit code is not that of this kernel")
      .object(p.describe())
      .remedy("restore on the kernel of the dump");
}

bool same_distances(const VdsoLayout& a, const VdsoLayout& b) {
  return a.vdso_start - a.vvar_start == b.vdso_start - b.vvar_start && a.vvar_size == b.vvar_size;
}

}  // namespace

TreeVdso::TreeVdso(RestorePlan& plan, bool jumps_only) : own_(own_vdso()) {
  for (const auto& p : plan.processes)
    if (!p->zombie) choices_[p.get()] = choose(*p, jumps_only);
  if (std::ranges::any_of(choices_, [](const auto& c) { return c.second.way == Way::jumps; })) place_beside(plan);
}

TreeVdso::Choice TreeVdso::choose(PlannedProcess& p, bool jumps_only) {
  Choice choice{.way = Way::none, .layout = vdso_layout(p.vmas.areas), .image = 0};
  if (!choice.layout.present() || !p.pages) return choice;
  const auto read = [&](uint64_t start, uint64_t end) { return read_stored_bytes(*p.pages, start, end); };
  const auto image_at = [&](const VdsoLayout& at) { return read(at.vdso_start, at.vdso_start + at.vdso_size); };
  Vdso dumped{choice.layout, image_at(choice.layout)};
  const auto is_same = [&](const Image& image) {
    return same_distances(image.layout, choice.layout) && image.dumped == dumped.image;
  };
  const auto known = std::ranges::find_if(images_, is_same);
  if (known != images_.end() && known->is_own) {
    choice.way = Way::in_place;
    choice.image = static_cast<size_t>(known - images_.begin());
    return choice;
  }
  if (p.compat) {
    if (jumps_only) throw other_compat_vdso(p);
    choice.way = Way::in_place;
    choice.compat = true;
    choice.image = static_cast<size_t>(known - images_.begin());
    if (known == images_.end()) images_.push_back({dumped.image, choice.layout, false, {}});
    return choice;
  }
  std::string difference = jumps_only ? "so it was asked" : vdso_difference(dumped, own_);
  const bool same_code = same_vdso_code(dumped, own_);
  if (!same_code || jumps_only) refuse_threads_inside(p, choice.layout);
  if (!difference.empty())
    if (const auto marked = take_marked_vdso(p.vmas.areas, read)) {
      // The vdso that it jumped to is of no use here: nobody else knows its address.
      dumped = {*marked, image_at(*marked)};
      refuse_threads_inside(p, *marked);
      choice.layout = *marked;
      p.fill.emplace(*p.pages, p.vmas.areas, fmt::format("pagemap-{}.img", p.pid));
      if (!jumps_only) difference = vdso_difference(dumped, own_);
    }
  choice.way = difference.empty() ? Way::in_place : Way::jumps;
  choice.image = static_cast<size_t>(std::ranges::find_if(images_, is_same) - images_.begin());
  if (choice.image < images_.size()) return choice;
  images_.push_back({dumped.image, choice.layout, choice.way == Way::in_place && same_code, {}});
  if (choice.way == Way::jumps) log_info("{}: its vdso jumps to that of this kernel: {}", p.describe(), difference);
  return choice;
}

void TreeVdso::place_beside(const RestorePlan& plan) {
  if (own_.layout.present()) {
    beside_ = find_free_range(taken_ranges(plan), own_.layout.size_bytes());
    if (beside_ == 0)
      throw Error(Reason::NO_ROOM_FOR_BATCH, "no address range for the vdso of this kernel is free in all processes");
  }
  for (const auto& [p, choice] : choices_) {
    if (choice.way != Way::jumps) continue;
    Image& image = images_[choice.image];
    if (image.with_jumps.empty()) image.with_jumps = vdso_with_jumps({image.layout, image.dumped}, own_, beside_);
  }
}

bool TreeVdso::inherited(const PlannedProcess& p) const {
  return p.origin != nullptr && choices_.at(&p) == choices_.at(p.origin);
}

AddressRange TreeVdso::beside(const PlannedProcess& p) const {
  if (choices_.at(&p).way != Way::jumps || !own_.layout.present()) return {0, 0};
  return {beside_, beside_ + own_.layout.size_bytes()};
}

void TreeVdso::map(const PlannedProcess& p, SyscallBatch& batch) const {
  const Choice& choice = choices_.at(&p);
  const VdsoLayout& layout = choice.layout;
  if (choice.way == Way::in_place) {
    batch.must(SYS_arch_prctl,
               {choice.compat ? uapi::arch_map_vdso_32 : uapi::arch_map_vdso_64, layout.vdso_start - layout.vvar_size});
    return;
  }
  // Without its code nobody reads the data: the addresses are kept, no more.
  if (layout.vvar_size != 0) batch.must(SYS_mmap, {layout.vvar_start, layout.vvar_size, PROT_READ, kPlainFlags, -1, 0});
  if (choice.way != Way::jumps) return;
  if (own_.layout.present()) batch.must(SYS_arch_prctl, {uapi::arch_map_vdso_64, beside_});
  batch.must(SYS_mmap, {layout.vdso_start, layout.vdso_size, PROT_READ | PROT_EXEC, kPlainFlags, -1, 0});
}

void TreeVdso::write(const PlannedProcess& p, int memory_fd) const {
  const Choice& choice = choices_.at(&p);
  if (choice.compat) return check_compat(p, memory_fd);
  if (choice.way != Way::jumps) return;
  const std::vector<std::byte>& image = images_[choice.image].with_jumps;
  const ssize_t n = pwrite(memory_fd, image.data(), image.size(), static_cast<off_t>(choice.layout.vdso_start));
  if (n != static_cast<ssize_t>(image.size()))
    throw Error(Reason::SYSTEM, "its vdso cannot be written").object(p.describe()).error_number(n < 0 ? errno : 0);
}

void TreeVdso::check_compat(const PlannedProcess& p, int memory_fd) const {
  const Choice& choice = choices_.at(&p);
  const Vdso dumped{choice.layout, images_[choice.image].dumped};
  Vdso present{choice.layout, std::vector<std::byte>(choice.layout.vdso_size)};
  const ssize_t n =
      pread(memory_fd, present.image.data(), present.image.size(), static_cast<off_t>(choice.layout.vdso_start));
  // Nearly all that wait are in the middle of it.
  if (n != static_cast<ssize_t>(present.image.size()) || !same_vdso_code(dumped, present)) throw other_compat_vdso(p);
}

}  // namespace stasis
