// An image directory: typed records and raw files, committed by one final rename of the inventory.
//
// Owns the directory descriptor, the buffers of files being written, and, until commit(), the files it made:
// a store that is destroyed without a commit removes them again. Used by one thread at a time; the descriptors
// of raw files may be written from any thread before commit().
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "base/fd.h"
#include "image/kinds.h"
#include "image/manifest.h"
#include "image/medium.h"
#include "image/record.h"

namespace stasis::pb {
class inventory_entry;
}

namespace stasis {

class ImageStore;

// One file of records, kept in memory until it is closed. A writer that gets nothing makes no file, and
// removes one of that name left by an earlier dump.
class ImageWriter {
 public:
  ImageWriter(ImageStore& store, ImageKind kind, std::string file_name);
  ImageWriter(const ImageWriter&) = delete;
  ImageWriter& operator=(const ImageWriter&) = delete;

  void write(const google::protobuf::MessageLite& message);
  void write_packed(std::string_view packed_message);
  // Raw bytes that belong to the record written last.
  void write_raw(std::string_view bytes);
  // Writes the file and frees the buffer; commit() closes what is open. Nothing can be added later.
  void close();

  // Bytes of the file so far.
  uint64_t size_bytes() const { return bytes_.size(); }

 private:
  void open_buffer();

  ImageStore& store_;
  ImageKind kind_;
  std::string file_name_;
  std::string bytes_;
  bool closed_ = false;
};

// One file of records, read as a whole when it is opened.
class ImageReader {
 public:
  ImageReader(std::string content, ImageKind kind, std::string shown_name, MagicRule rule);
  ImageReader(ImageReader&&) noexcept = default;
  ImageReader& operator=(ImageReader&&) noexcept = default;

  // See RecordDecoder. Views stay valid as long as the reader, moved or not.
  bool next(google::protobuf::MessageLite& message) { return decoder_.next(message); }
  bool next_packed(std::string_view& packed_message) { return decoder_.next_packed(packed_message); }
  void require(google::protobuf::MessageLite& message) { decoder_.require(message); }
  std::string_view raw(uint64_t size_bytes) { return decoder_.raw(size_bytes); }
  std::string_view rest() { return decoder_.rest(); }
  void expect_end() const { decoder_.expect_end(); }
  [[noreturn]] void corrupt(std::string what_failed, SourcePlace place = SourcePlace::here()) const {
    decoder_.corrupt(std::move(what_failed), place);
  }
  uint64_t offset() const { return decoder_.offset(); }
  // "images/core-42.img"
  const std::string& shown_name() const { return decoder_.shown_name(); }

 private:
  std::unique_ptr<const std::string> content_;
  RecordDecoder decoder_;
};

// The img_version of inventories that are written, and the newest that is understood.
inline constexpr uint32_t kImageVersion = 2;

// What commit() waits for. PAGE_CACHE: the images survive the death of every process. DISK: they also survive
// a power failure, and the caller waits for the disk.
enum class Durability { PAGE_CACHE, DISK };

class ImageStore {
 public:
  // `directory` is open for reading (not O_PATH); `shown_path` names it in errors. An inventory and a manifest of an
  // earlier dump are removed before the first file is made: from there to commit() the directory holds no complete
  // dump. A store that makes no file changes nothing.
  static ImageStore in_directory(Fd directory, std::string shown_path);
  // A store without files, to write and then to read.
  static ImageStore in_memory();

  ImageStore(const ImageStore&) = delete;
  ImageStore& operator=(const ImageStore&) = delete;
  ~ImageStore();

  // Writing ---------------------------------------------------------------------------------------------

  // The writer of that file, made at the first call; the reference is good for the life of the store.
  ImageWriter& writer(ImageKind kind, uint64_t id = 0);
  // A file with this one record.
  void write_single(ImageKind kind, uint64_t id, const google::protobuf::MessageLite& message);
  // An empty raw file, open for reading and writing. It belongs to the dump from here on.
  Fd create_raw(ImageKind kind, uint64_t id);
  // The same for a file of records that is written piece by piece (streamed.h).
  Fd create_streamed(ImageKind kind, uint64_t id);
  // The number of the next pages file: 1, 2, ...
  uint32_t take_pages_id() { return next_pages_id_++; }
  // Closes all writers, removes stale whole-dump files, writes the manifest, and last the inventory.
  void commit(const pb::inventory_entry& inventory, Durability durability = Durability::PAGE_CACHE);
  // Removes what this store made; the destructor does the same.
  void abort() noexcept;
  // What a directory without commit() holds, for the error of a run that fails; empty when nobody need be told.
  std::string left_by_failure() const;

  // Reading: any thread, several at once ----------------------------------------------------------------

  // The file, if there is one.
  std::optional<ImageReader> reader(ImageKind kind, uint64_t id = 0) const;
  // The file; IMAGE_MISSING when there is none.
  ImageReader require(ImageKind kind, uint64_t id = 0) const;
  // Reads a file that holds exactly this one record, without or with an error when it is missing.
  bool read_single(ImageKind kind, uint64_t id, google::protobuf::MessageLite& message) const;
  void require_single(ImageKind kind, uint64_t id, google::protobuf::MessageLite& message) const;
  // A raw file, read-only, with its size; nothing when there is none.
  struct RawFile {
    Fd fd;
    uint64_t size_bytes;
  };
  std::optional<RawFile> open_raw(ImageKind kind, uint64_t id) const;
  std::optional<RawFile> open_streamed(ImageKind kind, uint64_t id) const;

  // Both ------------------------------------------------------------------------------------------------

  // "images/core-42.img"
  std::string shown_name(ImageKind kind, uint64_t id = 0) const;
  const std::string& shown_path() const { return medium_->shown_path(); }
  // The directory; -1 for a store in memory.
  int directory_fd() const { return medium_->directory_fd(); }

 private:
  friend class ImageWriter;
  friend pb::inventory_entry read_inventory(ImageStore& store);
  friend bool verify_manifest(ImageStore& store);
  friend void verify_unread_images(const ImageStore& store);

  explicit ImageStore(std::unique_ptr<ImageMedium> medium);
  void begin_writing();
  Fd create_file(ImageKind kind, uint64_t id);
  std::optional<RawFile> open_file(ImageKind kind, uint64_t id) const;
  void finish_file(const std::string& name, std::string_view bytes);
  std::optional<std::string> read_checked(const std::string& name) const;
  void remove_stale_files();
  void measure_raw_files();

  std::unique_ptr<ImageMedium> medium_;
  std::unordered_map<std::string, std::unique_ptr<ImageWriter>> writers_;
  Manifest written_;   // what this store made, and the manifest of the dump to be
  Manifest expected_;  // from the manifest of the dump that is read; empty: nothing is known
  mutable std::unordered_set<std::string> compared_;                    // files whose checksum was found right
  std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();  // for compared_
  uint32_t next_pages_id_ = 1;
  bool writing_ = false;
  bool replaces_older_ = false;  // an older inventory was removed
  bool committed_ = false;
  MagicRule magic_rule_ = MagicRule::TODAY;
};

// Reads inventory.img and checks what the format asks of it: a known img_version (IMAGE_VERSION), and
// descriptor tables keyed by id. Do this first: it also tells the store how old files are framed.
pb::inventory_entry read_inventory(ImageStore& store);

// Compares the directory with its manifest: every raw file is there with its size; sizes and checksums of the others
// are remembered, and compared as files are read. False when there is no manifest (images of other tools have none).
bool verify_manifest(ImageStore& store);

// Compares the files that nobody has read: damage to a dump is told even where it does no harm today.
void verify_unread_images(const ImageStore& store);

// Writes an image that is no part of a dump: this one record (cpuinfo.img).
void write_lone_image(int directory_fd, const std::string& shown_path, ImageKind kind,
                      const google::protobuf::MessageLite& message);
// Writes a file of the work directory (stats-dump ...): this one record.
void write_work_file(int directory_fd, const std::string& shown_path, ImageKind kind,
                     const google::protobuf::MessageLite& message);

}  // namespace stasis
