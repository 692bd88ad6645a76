// A whole image directory: the plan of a restore and its files, up to the point where something would be made.
//
// Bytes 0 and 1 are the number of pages in pages-1.img. Then a list of files: length of the name (1 byte), name, length
// of the content (2 bytes, low first), content. pack_images.py makes such an input from a dump.
#include "base/restore_options.h"
#include "fuzz.h"
#include "image/store.h"
#include "image_directory.h"
#include "objects/files/restored_files.h"
#include "restore/plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stasis;
  static fuzz::ImageDirectory directory;
  fuzz::Input input(data, size);
  directory.clear();
  directory.add_zeros("pages-1.img", uint64_t{input.word()} * 4096);
  for (int files = 0; !input.empty() && files < 64; ++files) {
    const std::string_view name = input.take(input.byte());
    const size_t bytes = input.word();
    directory.add(name, input.take(bytes));
  }
  RestoreOptions options;
  options.shell_job = true;
  fuzz::accepts([&] {
    ImageStore store = ImageStore::in_directory(directory.open_again(), "fuzz");
    const RestorePlan plan = read_plan(store, options);
    std::vector<uint32_t> tables;
    for (const auto& p : plan.processes)
      if (!p->zombie) tables.push_back(p->ids.files_id());
    const RestoredFiles files(store, options, tables);
    for (const uint32_t table : tables) files.async_slots(table);
  });
  return 0;
}
