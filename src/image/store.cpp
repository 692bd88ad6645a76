#include "image/store.h"

#include <fcntl.h>
#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "proto/inventory.pb.h"

namespace stasis {

namespace {

using google::protobuf::MessageLite;

constexpr const char* kIncompleteRemedy =
    "the images are not complete: check that the dump succeeded, and copy all of its files";

// The inventory grows under this name, which no reader opens.
const std::string kInventoryDraftName = "inventory.img.tmp";

const std::string& inventory_name() {
  static const std::string name = image_file_name(ImageKind::INVENTORY);
  return name;
}

void expect_framing(ImageKind kind, bool raw) {
  const ImageKindInfo& info = image_kind_info(kind);
  bool is_raw = info.framing == ImageFraming::RAW;
  if (is_raw != raw)
    throw Error(Reason::INTERNAL, fmt::format("image kind {} is used with the wrong framing", info.name));
}

void expect_dump_kind(ImageKind kind) {
  const ImageKindInfo& info = image_kind_info(kind);
  bool in_dump = info.scope == ImageScope::WHOLE_DUMP || info.scope == ImageScope::KEYED;
  if (!in_dump || kind == ImageKind::INVENTORY) {
    throw Error(Reason::INTERNAL, fmt::format("image kind {} is not written by itself into a dump", info.name));
  }
}

// `size_bytes` of the file as it is now; nothing: there is none.
void compare_size(const ManifestEntry& expected, std::optional<uint64_t> size_bytes, const std::string& shown_name) {
  if (size_bytes == expected.size_bytes) return;
  const Reason reason = !size_bytes                         ? Reason::IMAGE_MISSING
                        : *size_bytes < expected.size_bytes ? Reason::IMAGE_TRUNCATED
                                                            : Reason::IMAGE_CORRUPT;
  throw Error(reason, size_bytes
                          ? fmt::format("the file has {} bytes and was made with {}", *size_bytes, expected.size_bytes)
                          : "an image file is missing")
      .object(shown_name)
      .remedy(fmt::format("{}; if the file was changed on purpose, remove {}", kIncompleteRemedy, kManifestFileName));
}

void compare_checksum(const ManifestEntry& expected, std::string_view content, const std::string& shown_name) {
  if (!expected.checksum || *expected.checksum == image_checksum(content)) return;
  throw Error(Reason::IMAGE_CORRUPT, "the file has another checksum than when it was made")
      .object(shown_name)
      .remedy(
          fmt::format("copy the images again from where they were made; if the file was changed on purpose, remove {}",
                      kManifestFileName));
}

}  // namespace

// ImageWriter ---------------------------------------------------------------------------------------------

ImageWriter::ImageWriter(ImageStore& store, ImageKind kind, std::string file_name)
    : store_(store), kind_(kind), file_name_(std::move(file_name)) {}

void ImageWriter::open_buffer() {
  if (closed_) throw Error(Reason::INTERNAL, "an image file is written after it was closed").object(file_name_);
  if (bytes_.empty()) append_image_header(bytes_, kind_);
}

void ImageWriter::write(const MessageLite& message) {
  open_buffer();
  append_record(bytes_, message);
}

void ImageWriter::write_packed(std::string_view packed_message) {
  open_buffer();
  append_packed_record(bytes_, packed_message);
}

void ImageWriter::write_raw(std::string_view bytes) {
  if (bytes_.empty()) throw Error(Reason::INTERNAL, "raw bytes come before the first record").object(file_name_);
  bytes_ += bytes;
}

void ImageWriter::close() {
  if (closed_) return;
  if (bytes_.empty()) {
    store_.begin_writing();
    store_.medium_->remove(file_name_);
  } else {
    store_.finish_file(file_name_, bytes_);
  }
  closed_ = true;
  std::string().swap(bytes_);
}

// ImageReader ---------------------------------------------------------------------------------------------

ImageReader::ImageReader(std::string content, ImageKind kind, std::string shown_name, MagicRule rule)
    : content_(std::make_unique<const std::string>(std::move(content))),
      decoder_(*content_, kind, std::move(shown_name), rule) {}

// ImageStore, writing -------------------------------------------------------------------------------------

ImageStore::ImageStore(std::unique_ptr<ImageMedium> medium) : medium_(std::move(medium)) {}

void ImageStore::begin_writing() {
  if (writing_) return;
  writing_ = true;
  replaces_older_ = medium_->remove(inventory_name());
  medium_->remove(std::string(kManifestFileName));
}

ImageStore ImageStore::in_directory(Fd directory, std::string shown_path) {
  return ImageStore(directory_medium(std::move(directory), std::move(shown_path)));
}

ImageStore ImageStore::in_memory() {
  return ImageStore(memory_medium());
}

ImageStore::~ImageStore() {
  abort();
}

ImageWriter& ImageStore::writer(ImageKind kind, uint64_t id) {
  expect_framing(kind, false);
  expect_dump_kind(kind);
  std::string name = image_file_name(kind, id);
  std::unique_ptr<ImageWriter>& slot = writers_[name];
  if (!slot) slot = std::make_unique<ImageWriter>(*this, kind, std::move(name));
  return *slot;
}

void ImageStore::write_single(ImageKind kind, uint64_t id, const MessageLite& message) {
  ImageWriter& file = writer(kind, id);
  file.write(message);
  file.close();
}

Fd ImageStore::create_raw(ImageKind kind, uint64_t id) {
  expect_framing(kind, true);
  return create_file(kind, id);
}

Fd ImageStore::create_streamed(ImageKind kind, uint64_t id) {
  expect_framing(kind, false);
  return create_file(kind, id);
}

Fd ImageStore::create_file(ImageKind kind, uint64_t id) {
  expect_dump_kind(kind);
  std::string name = image_file_name(kind, id);
  begin_writing();
  Fd fd = medium_->create_file(name);
  written_[name] = ManifestEntry{};
  return fd;
}

void ImageStore::finish_file(const std::string& name, std::string_view bytes) {
  begin_writing();
  // Noted first: a file that was written in part is removed with the others.
  written_[name] = ManifestEntry{bytes.size(), image_checksum(bytes)};
  medium_->write_file(name, bytes);
}

void ImageStore::remove_stale_files() {
  for (const ImageKindInfo& info : all_image_kinds()) {
    if (info.scope != ImageScope::WHOLE_DUMP || info.kind == ImageKind::INVENTORY) continue;
    std::string name(info.file_pattern);
    if (!written_.contains(name)) medium_->remove(name);
  }
}

void ImageStore::measure_raw_files() {
  for (auto& [name, entry] : written_) {
    if (entry.checksum) continue;
    std::optional<uint64_t> size_bytes = medium_->size_bytes(name);
    if (!size_bytes) {
      throw Error(Reason::IMAGE_WRITE, "an image file of this dump is gone")
          .object(medium_->shown_name(name))
          .remedy("let nothing else change the image directory during a dump");
    }
    entry.size_bytes = *size_bytes;
  }
}

void ImageStore::commit(const pb::inventory_entry& inventory, Durability durability) {
  if (committed_) throw Error(Reason::INTERNAL, "a dump is committed twice");
  std::string bytes;
  append_image_header(bytes, ImageKind::INVENTORY);
  append_record(bytes, inventory);

  begin_writing();
  for (auto& [name, file] : writers_) file->close();
  remove_stale_files();
  measure_raw_files();
  written_[inventory_name()] = ManifestEntry{bytes.size(), image_checksum(bytes)};
  medium_->write_file(std::string(kManifestFileName), encode_manifest(written_));
  medium_->write_file(kInventoryDraftName, bytes);
  // The disk may reorder: the rename must not get there before the files, hence two calls.
  if (durability == Durability::DISK) medium_->sync();
  medium_->rename(kInventoryDraftName, inventory_name());
  if (durability == Durability::DISK) medium_->sync();
  committed_ = true;
}

void ImageStore::abort() noexcept {
  if (committed_ || !writing_) return;
  auto remove = [this](const std::string& name) {
    try {
      medium_->remove(name);
    } catch (const std::exception& e) {
      // The run fails for its own reason; what stays behind is no dump without an inventory.
      log_debug("cannot clean up: {}", e.what());
    }
  };
  // The inventory first: nothing must look complete while files disappear.
  remove(inventory_name());
  remove(kInventoryDraftName);
  remove(std::string(kManifestFileName));
  for (const auto& [name, entry] : written_) remove(name);
  written_.clear();
  writers_.clear();
}

std::string ImageStore::left_by_failure() const {
  if (committed_) return "";
  const std::string& where = medium_->shown_path();
  if (writing_)
    return fmt::format("{} holds no dump, what was written is removed{}", where,
                       replaces_older_ ? "; the older dump that was there is incomplete now" : "");
  try {
    return medium_->size_bytes(inventory_name()) ? where + " holds an older dump, as before" : "";
  } catch (const Error&) {
    return "";  // the run fails for its own reason
  }
}

// ImageStore, reading -------------------------------------------------------------------------------------

std::string ImageStore::shown_name(ImageKind kind, uint64_t id) const {
  return medium_->shown_name(image_file_name(kind, id));
}

std::optional<ImageReader> ImageStore::reader(ImageKind kind, uint64_t id) const {
  expect_framing(kind, false);
  std::string name = image_file_name(kind, id);
  std::optional<std::string> content = read_checked(name);
  if (!content) return std::nullopt;
  return ImageReader(std::move(*content), kind, medium_->shown_name(name), magic_rule_);
}

std::optional<std::string> ImageStore::read_checked(const std::string& name) const {
  std::optional<std::string> content = medium_->read_file(name);
  const auto entry = expected_.find(name);
  if (entry == expected_.end()) return content;
  const std::string shown = medium_->shown_name(name);
  compare_size(entry->second, content ? std::optional<uint64_t>(content->size()) : std::nullopt, shown);
  compare_checksum(entry->second, *content, shown);
  const std::lock_guard lock(*mutex_);
  compared_.insert(name);
  return content;
}

ImageReader ImageStore::require(ImageKind kind, uint64_t id) const {
  std::optional<ImageReader> found = reader(kind, id);
  if (!found) {
    throw Error(Reason::IMAGE_MISSING, "an image file is missing")
        .object(shown_name(kind, id))
        .remedy(kIncompleteRemedy);
  }
  return std::move(*found);
}

bool ImageStore::read_single(ImageKind kind, uint64_t id, MessageLite& message) const {
  std::optional<ImageReader> file = reader(kind, id);
  if (!file) return false;
  file->require(message);
  file->expect_end();
  return true;
}

void ImageStore::require_single(ImageKind kind, uint64_t id, MessageLite& message) const {
  ImageReader file = require(kind, id);
  file.require(message);
  file.expect_end();
}

std::optional<ImageStore::RawFile> ImageStore::open_raw(ImageKind kind, uint64_t id) const {
  expect_framing(kind, true);
  return open_file(kind, id);
}

std::optional<ImageStore::RawFile> ImageStore::open_streamed(ImageKind kind, uint64_t id) const {
  expect_framing(kind, false);
  return open_file(kind, id);
}

std::optional<ImageStore::RawFile> ImageStore::open_file(ImageKind kind, uint64_t id) const {
  std::string name = image_file_name(kind, id);
  Fd fd = medium_->open_file(name);
  if (!fd) return std::nullopt;
  uint64_t size_bytes = image_file_size(fd.get(), medium_->shown_name(name));
  return RawFile{std::move(fd), size_bytes};
}

pb::inventory_entry read_inventory(ImageStore& store) {
  pb::inventory_entry inventory;
  store.require_single(ImageKind::INVENTORY, 0, inventory);
  const auto refuse = [&](std::string what_failed, const char* remedy) {
    throw Error(Reason::IMAGE_VERSION, std::move(what_failed))
        .object(store.shown_name(ImageKind::INVENTORY))
        .remedy(remedy);
  };
  const std::string version = fmt::format("the images have version {}", inventory.img_version());
  if (inventory.img_version() == 0) refuse(version, "this is a pre-dump: restore from the dump that was made after it");
  if (inventory.img_version() > kImageVersion) refuse(version, "restore with a newer version of the program");
  if (!inventory.fdinfo_per_id())
    refuse("the images store descriptors per task and not per table",
           "restore with the program that made the dump, and dump again with this one");
  store.magic_rule_ = inventory.img_version() == 1 ? MagicRule::TODAY_OR_VERSION_1 : MagicRule::TODAY;
  return inventory;
}

bool verify_manifest(ImageStore& store) {
  std::string manifest_name(kManifestFileName);
  std::optional<std::string> text = store.medium_->read_file(manifest_name);
  if (!text) return false;
  Manifest manifest = decode_manifest(*text, store.medium_->shown_name(manifest_name));
  // The others are compared when they are read, or by verify_unread_images().
  for (const auto& [name, entry] : manifest)
    if (!entry.checksum) compare_size(entry, store.medium_->size_bytes(name), store.medium_->shown_name(name));
  store.expected_ = std::move(manifest);
  // It had to be read first: it tells the version.
  store.read_checked(inventory_name());
  return true;
}

void verify_unread_images(const ImageStore& store) {
  for (const auto& [name, entry] : store.expected_)
    if (entry.checksum && !store.compared_.contains(name)) store.read_checked(name);
}

void write_lone_image(int directory_fd, const std::string& shown_path, ImageKind kind, const MessageLite& message) {
  std::string bytes;
  append_image_header(bytes, kind);
  append_record(bytes, message);
  // The medium wants a descriptor of its own.
  Fd directory(check(::fcntl(directory_fd, F_DUPFD_CLOEXEC, 0), "cannot duplicate a descriptor"));
  directory_medium(std::move(directory), shown_path)->write_file(image_file_name(kind), bytes);
}

void write_work_file(int directory_fd, const std::string& shown_path, ImageKind kind, const MessageLite& message) {
  if (image_kind_info(kind).scope != ImageScope::WORK_DIRECTORY) {
    throw Error(Reason::INTERNAL, "an image of the dump is written to the work directory");
  }
  write_lone_image(directory_fd, shown_path, kind, message);
}

}  // namespace stasis
