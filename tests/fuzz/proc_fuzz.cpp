// The texts of /proc: byte 0 picks the parser.
#include "fuzz.h"
#include "kernel/proc.h"

namespace stasis {
namespace {

using Parser = void (*)(std::string_view);

constexpr Parser kParsers[] = {
    [](std::string_view t) { parse_stat(t); },     [](std::string_view t) { parse_status(t); },
    [](std::string_view t) { parse_maps(t); },     [](std::string_view t) { parse_smaps(t); },
    [](std::string_view t) { parse_fdinfo(t); },   [](std::string_view t) { parse_lock_line(t); },
    [](std::string_view t) { parse_locks(t); },    [](std::string_view t) { parse_mountinfo(t); },
    [](std::string_view t) { parse_cgroup(t); },   [](std::string_view t) { parse_timers(t); },
    [](std::string_view t) { parse_children(t); }, [](std::string_view t) { parse_timens_offsets(t); },
    [](std::string_view t) { parse_id_map(t); },   [](std::string_view t) { parse_auxv(std::as_bytes(std::span(t))); },
    [](std::string_view t) { parse_loginuid(t); },
};

}  // namespace
}  // namespace stasis

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stasis;
  fuzz::Input input(data, size);
  const Parser parser = kParsers[input.byte() % std::size(kParsers)];
  fuzz::accepts([&] { parser(input.rest()); });
  return 0;
}
