#include "checkpoint/statistics.h"

#include "base/error.h"
#include "base/log.h"
#include "image/store.h"
#include "proto/stats.pb.h"

namespace stasis {

void write_statistics(const DumpOptions& options, const PageDumpStats& s, DumpStatistics& statistics) {
  statistics.pages_scanned = s.scanned_pages;
  statistics.pages_written = s.written_pages;
  statistics.shpages_scanned = s.shared_scanned_pages;
  statistics.shpages_written = s.shared_written_pages;
  pb::stats_entry entry;
  pb::dump_stats_entry& d = *entry.mutable_dump();
  d.set_freezing_time(statistics.freezing_time_us);
  d.set_frozen_time(statistics.frozen_time_us);
  d.set_memdump_time(statistics.memdump_time_us);
  d.set_memwrite_time(statistics.memwrite_time_us);
  d.set_pages_scanned(statistics.pages_scanned);
  d.set_pages_skipped_parent(0);
  d.set_pages_written(statistics.pages_written);
  d.set_pages_lazy(0);
  d.set_shpages_scanned(s.shared_scanned_pages);
  d.set_shpages_skipped_parent(0);
  d.set_shpages_written(s.shared_written_pages);
  // The dump is complete, and the tasks may be gone: nothing can fail it any more.
  try {
    write_work_file(options.work_dir.get(), ".", ImageKind::STATS_DUMP, entry);
  } catch (const Error& e) {
    log_warning("{}", e.what());
  }
}

}  // namespace stasis
