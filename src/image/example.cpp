// Prints what is in an image directory: image_example DIRECTORY
#include <fcntl.h>
#include <fmt/format.h>

#include <cstdio>

#include "base/error.h"
#include "image/pagemap.h"
#include "image/store.h"
#include "proto/core.pb.h"
#include "proto/inventory.pb.h"
#include "proto/pipe-data.pb.h"
#include "proto/pstree.pb.h"
#include "proto/sk-packet.pb.h"

using namespace stasis;

namespace {

// Most files are records and nothing else; some carry raw bytes after each record.
size_t count_records(ImageReader& file, ImageKind kind) {
  size_t records = 0;
  std::string_view packed;
  pb::pipe_data_entry pipe;
  pb::sk_packet_entry packet;
  for (;; ++records) {
    if (kind == ImageKind::PIPES_DATA || kind == ImageKind::FIFO_DATA) {
      if (!file.next(pipe)) return records;
      file.raw(pipe.bytes());
    } else if (kind == ImageKind::SK_QUEUES) {
      if (!file.next(packet)) return records;
      file.raw(packet.length());
    } else if (!file.next_packed(packed)) {
      return records;
    }
  }
}

void print_process(const ImageStore& store, const pb::pstree_entry& process) {
  pb::core_entry core;
  store.require_single(ImageKind::CORE, process.pid(), core);
  std::optional<PagemapReader> memory = PagemapReader::open(store, ImageKind::PAGEMAP, process.pid());
  fmt::print("pid {} ({}): {} threads, {} pages in {} ranges\n", process.pid(), core.tc().comm(),
             process.threads_size(), memory ? memory->present_pages() : 0, memory ? memory->ranges().size() : 0);
}

void print_directory(const char* path) {
  Fd directory(::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) throw_errno("cannot open the image directory", Reason::IMAGE_DIR);
  ImageStore store = ImageStore::in_directory(std::move(directory), path);
  pb::inventory_entry inventory = read_inventory(store);
  bool verified = verify_manifest(store);
  fmt::print("images of version {}, {}\n", inventory.img_version(), verified ? "manifest verified" : "no manifest");

  for (const ImageKindInfo& info : all_image_kinds()) {
    // BPF maps carry two payloads; they are left out here.
    if (info.scope != ImageScope::WHOLE_DUMP || info.kind == ImageKind::BPFMAP_DATA) continue;
    if (std::optional<ImageReader> file = store.reader(info.kind)) {
      fmt::print("{}: {} records\n", info.file_pattern, count_records(*file, info.kind));
    }
  }
  ImageReader tree = store.require(ImageKind::PSTREE);
  pb::pstree_entry process;
  while (tree.next(process)) print_process(store, process);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: image_example DIRECTORY\n");
    return 2;
  }
  try {
    print_directory(argv[1]);
  } catch (const Error& e) {
    fmt::print(stderr, "{}\n", e.report());
    return 1;
  }
}
