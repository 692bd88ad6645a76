#include "cli/statistics.h"

#include <fmt/format.h>

namespace stasis::cli {

namespace {

class Table {
 public:
  explicit Table(std::string_view title) : text_(fmt::format("{}:\n", title)) {}
  Table& time_us(std::string_view name, uint32_t value) { return line(name, fmt::format("{} us", value)); }
  Table& count(std::string_view name, uint64_t value) { return line(name, fmt::format("{}", value)); }
  // A field that was not counted is not printed, as it is not in the image.
  Table& count(std::string_view name, const std::optional<uint64_t>& value) {
    return value ? count(name, *value) : *this;
  }
  std::string take() { return std::move(text_); }

 private:
  Table& line(std::string_view name, const std::string& value) {
    text_ += fmt::format("  {:<24}{}\n", name, value);
    return *this;
  }
  std::string text_;
};

}  // namespace

std::string statistics_text(const DumpStatistics& s) {
  Table table("Dump statistics");
  table.time_us("freezing_time", s.freezing_time_us)
      .time_us("frozen_time", s.frozen_time_us)
      .time_us("memdump_time", s.memdump_time_us)
      .time_us("memwrite_time", s.memwrite_time_us);
  if (s.irmap_resolve_us) table.time_us("irmap_resolve", *s.irmap_resolve_us);
  return table.count("pages_scanned", s.pages_scanned)
      .count("pages_skipped_parent", s.pages_skipped_parent)
      .count("pages_written", s.pages_written)
      .count("pages_lazy", s.pages_lazy)
      .count("page_pipes", s.page_pipes)
      .count("page_pipe_bufs", s.page_pipe_bufs)
      .count("shpages_scanned", s.shpages_scanned)
      .count("shpages_skipped_parent", s.shpages_skipped_parent)
      .count("shpages_written", s.shpages_written)
      .take();
}

std::string statistics_text(const RestoreStatistics& s) {
  return Table("Restore statistics")
      .count("pages_compared", s.pages_compared)
      .count("pages_skipped_cow", s.pages_skipped_cow)
      .time_us("forking_time", s.forking_time_us)
      .time_us("restore_time", s.restore_time_us)
      .count("pages_restored", s.pages_restored)
      .take();
}

}  // namespace stasis::cli
