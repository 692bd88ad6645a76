#include <cpuid.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "base/error.h"
#include "objects/cpu_info.h"
#include "objects/task/xsave_x86_64.h"

namespace stasis {

namespace {

constexpr uint32_t kCapabilityVersion = 2;

enum Register { eax, ebx, ecx, edx };

// The words of the description are those of the kernel (arch/x86/include/asm/cpufeatures.h). Some of these the kernel
// makes up: they are 0 here, and never compared.
struct Word {
  uint32_t leaf = 0, subleaf = 0;
  Register from = eax;
  bool of_cpu = false;
};
constexpr std::array<Word, 19> kWords = {{
    {1, 0, edx, true},
    {0x80000001, 0, edx, true},
    {0x80860001, 0, edx, false},
    {},
    {1, 0, ecx, true},
    {0xc0000001, 0, edx, false},
    {0x80000001, 0, ecx, true},
    {},
    {},
    {7, 0, ebx, true},
    {0xd, 1, eax, true},
    {},
    {},
    {0x80000008, 0, ebx, true},
    {6, 0, eax, true},
    {0x8000000a, 0, edx, true},
    {7, 0, ecx, true},
    {0x80000007, 0, ebx, true},
    {7, 0, edx, true},
}};
constexpr int kWordsOfVersion1 = 12;

// What a program can execute, by word and bit, under the names of /proc/cpuinfo. Not here: what only the kernel uses,
// and what tells about the machine (hypervisor, topology, mitigations).
struct Instruction {
  uint8_t word, bit;
  std::string_view name;
};
constexpr Instruction kInstructions[] = {
    {0, 0, "fpu"},
    {0, 4, "tsc"},
    {0, 8, "cx8"},
    {0, 15, "cmov"},
    {0, 19, "clflush"},
    {0, 23, "mmx"},
    {0, 24, "fxsr"},
    {0, 25, "sse"},
    {0, 26, "sse2"},
    {1, 11, "syscall"},
    {1, 22, "mmxext"},
    {1, 27, "rdtscp"},
    {1, 29, "lm"},
    {1, 30, "3dnowext"},
    {1, 31, "3dnow"},
    {4, 0, "pni"},
    {4, 1, "pclmulqdq"},
    {4, 9, "ssse3"},
    {4, 12, "fma"},
    {4, 13, "cx16"},
    {4, 19, "sse4_1"},
    {4, 20, "sse4_2"},
    {4, 22, "movbe"},
    {4, 23, "popcnt"},
    {4, 25, "aes"},
    {4, 26, "xsave"},
    {4, 27, "osxsave"},
    {4, 28, "avx"},
    {4, 29, "f16c"},
    {4, 30, "rdrand"},
    {6, 0, "lahf_lm"},
    {6, 5, "abm"},
    {6, 6, "sse4a"},
    {6, 8, "3dnowprefetch"},
    {6, 11, "xop"},
    {6, 15, "lwp"},
    {6, 16, "fma4"},
    {6, 21, "tbm"},
    {6, 29, "mwaitx"},
    {9, 0, "fsgsbase"},
    {9, 3, "bmi1"},
    {9, 4, "hle"},
    {9, 5, "avx2"},
    {9, 8, "bmi2"},
    {9, 9, "erms"},
    {9, 11, "rtm"},
    {9, 14, "mpx"},
    {9, 16, "avx512f"},
    {9, 17, "avx512dq"},
    {9, 18, "rdseed"},
    {9, 19, "adx"},
    {9, 21, "avx512ifma"},
    {9, 23, "clflushopt"},
    {9, 24, "clwb"},
    {9, 26, "avx512pf"},
    {9, 27, "avx512er"},
    {9, 28, "avx512cd"},
    {9, 29, "sha_ni"},
    {9, 30, "avx512bw"},
    {9, 31, "avx512vl"},
    {10, 0, "xsaveopt"},
    {10, 1, "xsavec"},
    {10, 2, "xgetbv1"},
    {13, 0, "clzero"},
    {13, 4, "rdpru"},
    {16, 1, "avx512vbmi"},
    {16, 3, "pku"},
    {16, 4, "ospke"},
    {16, 5, "waitpkg"},
    {16, 6, "avx512_vbmi2"},
    {16, 8, "gfni"},
    {16, 9, "vaes"},
    {16, 10, "vpclmulqdq"},
    {16, 11, "avx512_vnni"},
    {16, 12, "avx512_bitalg"},
    {16, 14, "avx512_vpopcntdq"},
    {16, 22, "rdpid"},
    {16, 25, "cldemote"},
    {16, 27, "movdiri"},
    {16, 28, "movdir64b"},
    {18, 2, "avx512_4vnniw"},
    {18, 3, "avx512_4fmaps"},
    {18, 4, "fsrm"},
    {18, 8, "avx512_vp2intersect"},
    {18, 14, "serialize"},
    {18, 16, "tsxldtrk"},
    {18, 22, "amx_bf16"},
    {18, 23, "avx512_fp16"},
    {18, 24, "amx_tile"},
    {18, 25, "amx_int8"},
};

std::array<uint32_t, 4> cpuid(uint32_t leaf, uint32_t subleaf) {
  std::array<uint32_t, 4> r{};
  if (static_cast<uint32_t>(__get_cpuid_max(leaf & 0x80000000, nullptr)) < leaf) return r;
  __cpuid_count(leaf, subleaf, r[eax], r[ebx], r[ecx], r[edx]);
  return r;
}

pb::cpuinfo_x86_entry::vendor vendor() {
  const auto r = cpuid(0, 0);
  std::string name;
  for (Register part : {ebx, edx, ecx}) name.append(reinterpret_cast<const char*>(&r[part]), sizeof r[part]);
  return name == "GenuineIntel"   ? pb::cpuinfo_x86_entry::INTEL
         : name == "AuthenticAMD" ? pb::cpuinfo_x86_entry::AMD
                                  : pb::cpuinfo_x86_entry::UNKNOWN;
}

std::string model_name() {
  std::string name;
  for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; ++leaf) {
    const auto r = cpuid(leaf, 0);
    name.append(reinterpret_cast<const char*>(r.data()), sizeof r);
  }
  name.resize(std::strlen(name.c_str()));
  return name;
}

// Family, model and stepping as the kernel counts them (Intel SDM volume 2, CPUID).
void describe_model(pb::cpuinfo_x86_entry& out) {
  const uint32_t signature = cpuid(1, 0)[eax];
  const uint32_t base_family = signature >> 8 & 0xf, base_model = signature >> 4 & 0xf;
  const uint32_t family = base_family == 0xf ? base_family + (signature >> 20 & 0xff) : base_family;
  out.set_cpu_family(family);
  out.set_model(family >= 6 ? base_model | (signature >> 16 & 0xf) << 4 : base_model);
  out.set_stepping(signature & 0xf);
}

uint32_t word_of(const pb::cpuinfo_x86_entry& cpu, size_t word) {
  const auto& words = cpu.capability();
  return static_cast<int>(word) < words.size() ? words[static_cast<int>(word)] : 0;
}

class Missing {
 public:
  void add(std::string_view name) { text_ += fmt::format("{}{}", text_.empty() ? "" : ", ", name); }
  void throw_if_any() const {
    if (text_.empty()) return;
    throw Error(Reason::CPU_LACKS_FEATURE, fmt::format("this CPU lacks what that of the images has: {}", text_))
        .remedy("use a CPU that has it; if the programs do not need it, compare less with --cpu-cap");
  }

 private:
  std::string text_;
};

void compare_words(const pb::cpuinfo_x86_entry& saved, const pb::cpuinfo_x86_entry& own, const CpuChecks& checks,
                   Missing& missing) {
  for (size_t w = 0; w < kWords.size(); ++w) {
    if (!kWords[w].of_cpu) continue;
    for (uint32_t left = word_of(saved, w) & ~word_of(own, w); left != 0; left &= left - 1) {
      const auto bit = static_cast<uint8_t>(__builtin_ctz(left));
      const auto* known = std::find_if(std::begin(kInstructions), std::end(kInstructions),
                                       [&](const Instruction& i) { return i.word == w && i.bit == bit; });
      const bool is_instruction = known != std::end(kInstructions);
      if (is_instruction && (checks.ins || checks.cpu)) missing.add(known->name);
      if (!is_instruction && checks.cpu) missing.add(fmt::format("feature {}:{}", w, bit));
    }
  }
}

}  // namespace

pb::cpuinfo_entry describe_this_cpu() {
  pb::cpuinfo_entry entry;
  pb::cpuinfo_x86_entry& out = *entry.add_x86_entry();
  out.set_vendor_id(vendor());
  describe_model(out);
  out.set_capability_ver(kCapabilityVersion);
  for (const Word& w : kWords) out.add_capability(w.of_cpu ? cpuid(w.leaf, w.subleaf)[w.from] : 0);
  if (std::string name = model_name(); !name.empty()) out.set_model_id(std::move(name));
  const XsaveLayout& layout = XsaveLayout::of_this_cpu();
  out.set_xfeatures_mask(layout.features);
  out.set_xsave_size(static_cast<uint32_t>(layout.bytes));
  out.set_xsave_size_max(std::max(cpuid(0xd, 0)[ecx], static_cast<uint32_t>(layout.bytes)));
  return entry;
}

void require_features(const pb::cpuinfo_entry& saved, const pb::cpuinfo_entry& own, const CpuChecks& checks) {
  if (saved.x86_entry().empty())
    throw Error(Reason::IMAGE_ARCH, "the images describe a CPU of another architecture")
        .remedy("restore on a machine of the same architecture");
  const pb::cpuinfo_x86_entry& then = saved.x86_entry(0);
  const pb::cpuinfo_x86_entry& now = own.x86_entry(0);
  const uint32_t version = then.capability_ver();
  if (version < 1 || version > kCapabilityVersion ||
      then.capability_size() < (version == 1 ? kWordsOfVersion1 : static_cast<int>(kWords.size())))
    throw Error(Reason::IMAGE_CORRUPT, "the description of the CPU makes no sense");
  Missing missing;
  if (checks.cpu && then.vendor_id() != now.vendor_id()) missing.add("the same vendor");
  if (checks.fpu)
    for (uint64_t left = then.xfeatures_mask() & ~now.xfeatures_mask(); left != 0; left &= left - 1)
      missing.add(component_name(static_cast<uint32_t>(__builtin_ctzll(left))));
  compare_words(then, now, checks, missing);
  missing.throw_if_any();
}

}  // namespace stasis
