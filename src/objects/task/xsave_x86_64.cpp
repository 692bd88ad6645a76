#include "objects/task/xsave_x86_64.h"

#include <cpuid.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "arch/arch.h"
#include "base/error.h"

namespace stasis {

namespace {

using Area = std::span<const std::byte>;
using Parts = pb::user_x86_xsave_entry;
template <class T>
using Repeated = google::protobuf::RepeatedField<T>;

// The legacy area as FXSAVE writes it (Intel SDM volume 1, 10.5.1) with what the kernel puts into its free end.
struct LegacyArea {
  uint16_t cwd, swd, twd, fop;
  uint64_t rip, rdp;
  uint32_t mxcsr, mxcsr_mask;
  uint32_t st_space[32];
  uint32_t xmm_space[64];
  uint32_t padding[12];
  uint64_t features;  // XCR0
  uint32_t reserved[10];
};
static_assert(sizeof(LegacyArea) == 512 && offsetof(LegacyArea, features) == 464);

constexpr size_t kHeaderOffset = 512;  // the first 8 bytes: mask of components that are not in their initial state
constexpr size_t kHeaderBytes = 64;
constexpr uint64_t kX87AndSse = 3;
constexpr int kSse = 1, kPkru = 9, kTileConfiguration = 17, kTileData = 18, kApxRegisters = 19;
constexpr uint32_t kDefaultMxcsr = 0x1f80;
// Readers of the format expect the whole free end of the legacy area.
constexpr int kPaddingWords = 24;

constexpr uint64_t component_bit(int component) {
  return uint64_t{1} << component;
}

// One component of the area and its member in an image.
template <class T>
struct Part {
  int component;
  std::string_view name;
  int count;
  const Repeated<T>& (Parts::*get)() const;
  Repeated<T>* (Parts::*edit)();
};
const Part<uint32_t> kParts32[] = {
    {2, "AVX", 64, &Parts::ymmh_space, &Parts::mutable_ymmh_space},
    {kPkru, "memory protection keys (PKU)", 2, &Parts::pkru, &Parts::mutable_pkru},
};
const Part<uint64_t> kParts64[] = {
    {3, "MPX bounds registers", 8, &Parts::bndreg_state, &Parts::mutable_bndreg_state},
    {4, "MPX bounds configuration", 2, &Parts::bndcsr_state, &Parts::mutable_bndcsr_state},
    {5, "AVX-512 mask registers", 8, &Parts::opmask_reg, &Parts::mutable_opmask_reg},
    {6, "AVX-512 upper halves", 64, &Parts::zmm_upper, &Parts::mutable_zmm_upper},
    {7, "AVX-512 registers 16 to 31", 128, &Parts::hi16_zmm, &Parts::mutable_hi16_zmm},
};

template <class Visit>
void for_each_part(Visit visit) {
  for (const auto& part : kParts32) visit(part);
  for (const auto& part : kParts64) visit(part);
}

uint64_t saved_components() {
  uint64_t mask = kX87AndSse;
  for_each_part([&](const auto& part) { mask |= component_bit(part.component); });
  return mask;
}

bool all_zero(Area bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

uint64_t header_mask(Area area) {
  uint64_t mask = kX87AndSse;
  if (area.size() >= kHeaderOffset + kHeaderBytes) std::memcpy(&mask, area.data() + kHeaderOffset, sizeof mask);
  return mask;
}

Area component_bytes(Area area, const XsaveLayout& layout, int component) {
  const auto& c = layout.components[static_cast<size_t>(component)];
  if ((layout.features & component_bit(component)) == 0 || area.size() < size_t{c.offset} + c.bytes) return {};
  return area.subspan(c.offset, c.bytes);
}

template <class T>
void put(Area from, int count, Repeated<T>* out) {
  out->Resize(count, 0);
  std::memcpy(out->mutable_data(), from.data(), std::min(from.size(), static_cast<size_t>(count) * sizeof(T)));
}

Error corrupt_xsave(std::string_view what) {
  return Error(Reason::IMAGE_CORRUPT, fmt::format("the floating point registers have {}", what));
}

template <class T>
void take(const Repeated<T>& from, T* to, int count, std::string_view name) {
  if (from.size() < count) throw corrupt_xsave(fmt::format("too few values for {}", name));
  std::memcpy(to, from.data(), static_cast<size_t>(count) * sizeof(T));
}

uint16_t take16(uint32_t value, std::string_view name) {
  if (value > 0xffff) throw corrupt_xsave(fmt::format("an impossible {}", name));
  return static_cast<uint16_t>(value);
}

XsaveLayout ask_cpu() {
  XsaveLayout layout;
  layout.bytes = arch::extended_state_size();
  layout.features = kX87AndSse;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & bit_OSXSAVE) == 0) return layout;
  asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  layout.features = uint64_t{edx} << 32 | eax;
  // CPUID leaf 13, sub-leaf i: size and offset of component i in the standard format (Intel SDM volume 1, 13.2).
  for (int i = 2; i < 63; ++i) {
    if ((layout.features & component_bit(i)) == 0) continue;
    __cpuid_count(13, i, eax, ebx, ecx, edx);
    layout.components[static_cast<size_t>(i)] = {.offset = ebx, .bytes = eax};
    constexpr unsigned kExtendedFeatureDisable = 4;
    if ((ecx & kExtendedFeatureDisable) != 0) layout.on_demand |= component_bit(i);
  }
  return layout;
}

}  // namespace

const XsaveLayout& XsaveLayout::of_this_cpu() {
  static const XsaveLayout layout = ask_cpu();
  return layout;
}

std::string component_name(uint32_t number) {
  std::string_view name;
  for_each_part([&](const auto& part) {
    if (part.component == static_cast<int>(number)) name = part.name;
  });
  if (number == uint32_t{kTileConfiguration}) name = "AMX tile configuration";
  if (number == uint32_t{kTileData}) name = "AMX tiles";
  if (number == uint32_t{kApxRegisters}) name = "APX registers";
  return name.empty() ? fmt::format("processor state component {}", number) : std::string(name);
}

uint64_t components_in_use(Area area) {
  return header_mask(area);
}

std::vector<ExtraComponent> extra_components(Area area, const XsaveLayout& layout) {
  std::vector<ExtraComponent> extras;
  for (uint64_t others = header_mask(area) & ~saved_components(); others != 0; others &= others - 1) {
    const int number = __builtin_ctzll(others);
    const Area bytes = component_bytes(area, layout, number);
    if (bytes.empty())
      throw Error(Reason::UNSUPPORTED_STATE,
                  fmt::format("it uses the processor state component {}, whose place is not known", number))
          .remedy("dump it while it does not use these registers");
    // A component can be marked as in use and still hold its initial state, which is zero for all of these.
    if (!all_zero(bytes)) extras.push_back({static_cast<uint32_t>(number), {bytes.begin(), bytes.end()}});
  }
  return extras;
}

void place_extra(const ExtraComponent& extra, const XsaveLayout& layout, std::span<std::byte> area) {
  if (extra.number >= 63 || (saved_components() & component_bit(static_cast<int>(extra.number))) != 0)
    throw corrupt_xsave(fmt::format("values for the component {} in a place that is not theirs", extra.number));
  if ((layout.features & component_bit(static_cast<int>(extra.number))) == 0)
    throw Error(Reason::CPU_LACKS_FEATURE,
                fmt::format("this CPU has no {}, which the saved thread used", component_name(extra.number)))
        .remedy("restore on a CPU that has it");
  const auto& where = layout.components[extra.number];
  if (extra.bytes.size() != where.bytes)
    throw corrupt_xsave(fmt::format("{} bytes of {}, of which this CPU has {}", extra.bytes.size(),
                                    component_name(extra.number), where.bytes));
  if (area.size() < size_t{where.offset} + where.bytes || area.size() < kHeaderOffset + kHeaderBytes) return;
  std::memcpy(area.data() + where.offset, extra.bytes.data(), where.bytes);
  const uint64_t mask = header_mask(area) | component_bit(static_cast<int>(extra.number));
  std::memcpy(area.data() + kHeaderOffset, &mask, sizeof mask);
}

void encode_xsave(Area area, const XsaveLayout& layout, pb::user_x86_fpregs_entry& out) {
  if (area.size() < sizeof(LegacyArea))
    throw Error(Reason::INTERNAL, fmt::format("extended state of only {} bytes", area.size()));
  LegacyArea legacy;
  std::memcpy(&legacy, area.data(), sizeof legacy);
  out.set_cwd(legacy.cwd);
  out.set_swd(legacy.swd);
  out.set_twd(legacy.twd);
  out.set_fop(legacy.fop);
  out.set_rip(legacy.rip);
  out.set_rdp(legacy.rdp);
  out.set_mxcsr(legacy.mxcsr);
  out.set_mxcsr_mask(legacy.mxcsr_mask);
  out.mutable_st_space()->Assign(std::begin(legacy.st_space), std::end(legacy.st_space));
  out.mutable_xmm_space()->Assign(std::begin(legacy.xmm_space), std::end(legacy.xmm_space));
  out.mutable_padding()->Assign(std::begin(legacy.padding), std::end(legacy.padding));
  out.mutable_padding()->Resize(kPaddingWords, 0);
  if (area.size() < kHeaderOffset + kHeaderBytes) return;

  Parts& parts = *out.mutable_xsave();
  // A reader takes a marked component from this message: only what is in it.
  parts.set_xstate_bv(header_mask(area) & saved_components());
  for_each_part([&](const auto& part) {
    const Area bytes = component_bytes(area, layout, part.component);
    if (!bytes.empty()) put(bytes, part.count, (parts.*part.edit)());
  });
}

namespace {

LegacyArea decode_legacy(const pb::user_x86_fpregs_entry& in) {
  LegacyArea legacy{};
  legacy.cwd = take16(in.cwd(), "control word");
  legacy.swd = take16(in.swd(), "status word");
  legacy.twd = take16(in.twd(), "tag word");
  legacy.fop = take16(in.fop(), "opcode");
  legacy.rip = in.rip();
  legacy.rdp = in.rdp();
  legacy.mxcsr = in.mxcsr();
  legacy.mxcsr_mask = in.mxcsr_mask();
  take(in.st_space(), legacy.st_space, 32, "the x87 stack");
  take(in.xmm_space(), legacy.xmm_space, 64, "the SSE registers");
  if (in.padding_size() >= 12) take(in.padding(), legacy.padding, 12, "padding");
  return legacy;
}

// Places one part into the area; returns the bits of the header mask that it stands for.
template <class T>
uint64_t place(const Parts& in, const Part<T>& part, const XsaveLayout& layout, std::span<std::byte> area) {
  const Repeated<T>& values = (in.*part.get)();
  const uint64_t marked = in.xstate_bv() & component_bit(part.component);
  if (values.empty()) {
    if (marked != 0) throw corrupt_xsave(fmt::format("no values for {}, which is in use", part.name));
    return 0;
  }
  if (values.size() > part.count) throw corrupt_xsave(fmt::format("too many values for {}", part.name));
  const Area bytes = std::as_bytes(std::span(values.data(), static_cast<size_t>(values.size())));
  const bool zero = all_zero(bytes);
  if ((layout.features & component_bit(part.component)) == 0) {
    if (marked == 0 || zero) return 0;
    throw Error(Reason::CPU_LACKS_FEATURE, fmt::format("this CPU has no {}, which the saved thread used", part.name))
        .remedy("restore on a CPU that has it");
  }
  const auto& where = layout.components[static_cast<size_t>(part.component)];
  std::memcpy(area.data() + where.offset, bytes.data(), std::min<size_t>(bytes.size(), where.bytes));
  // The kernel reports the protection keys from the thread, whatever the mask says, and takes them only if marked.
  return part.component == kPkru && !zero ? component_bit(kPkru) : marked;
}

}  // namespace

std::vector<std::byte> decode_xsave(const pb::user_x86_fpregs_entry& in, const XsaveLayout& layout) {
  std::vector<std::byte> area(layout.bytes);
  LegacyArea legacy = decode_legacy(in);
  const bool has_header = layout.bytes >= kHeaderOffset + kHeaderBytes;
  if (has_header) legacy.features = layout.features;
  std::memcpy(area.data(), &legacy, sizeof legacy);

  uint64_t mask = kX87AndSse;
  if (in.has_xsave()) {
    const Parts& parts = in.xsave();
    if (parts.has_cet() && parts.cet().cet() != 0)
      throw Error(Reason::IMAGE_UNSUPPORTED, "the saved thread uses a shadow stack");
    if (const uint64_t others = parts.xstate_bv() & ~saved_components(); others != 0)
      throw Error(
          Reason::IMAGE_UNSUPPORTED,
          fmt::format("the saved thread used the processor state components {:#x}, which images do not hold", others));
    mask = parts.xstate_bv() & kX87AndSse;
    // XSAVE leaves the SSE component unmarked while its registers are zero, whatever MXCSR is; ptrace takes MXCSR only
    // with a marked component.
    if ((mask & component_bit(kSse)) == 0 && in.mxcsr() != kDefaultMxcsr) {
      mask |= component_bit(kSse);
      std::memset(area.data() + offsetof(LegacyArea, xmm_space), 0, sizeof legacy.xmm_space);
    }
    for_each_part([&](const auto& part) { mask |= place(parts, part, layout, area); });
  }
  if (has_header) std::memcpy(area.data() + kHeaderOffset, &mask, sizeof mask);
  return area;
}

}  // namespace stasis
