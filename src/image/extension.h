// extension.img: what images of other programs have no place for. A record of each task that differs from the defaults
// (proto/extension.proto); no file at all in dumps of other programs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>

#include "image/store.h"
#include "proto/extension.pb.h"

namespace stasis {

class ExtensionWriter {
 public:
  // Writes the head: the file of a dump is there even if no task has anything to say.
  ExtensionWriter(ImageStore& store, pb::extension_head head);
  // Writes the record, unless it says nothing. Call it once for a task.
  void write(const pb::extension_task& task);

 private:
  ImageWriter& writer_;
};

class Extension {
 public:
  // Nothing when the dump has no such file. Throws IMAGE_VERSION for a format of the future, IMAGE_UNSUPPORTED for
  // fields of the future, IMAGE_CORRUPT for nonsense.
  static std::optional<Extension> read(const ImageStore& store);

  const pb::extension_head& head() const { return head_; }
  // The record of a task; an empty one stands for all defaults. Throws IMAGE_CORRUPT for parts that only a leader has.
  const pb::extension_task& task(uint32_t tid, bool leader) const;
  // Throws IMAGE_CORRUPT when a record is of none of the tasks that were asked for.
  void expect_all_asked() const;

 private:
  struct Record {
    pb::extension_task task;
    mutable bool asked = false;
  };
  pb::extension_head head_;
  std::unordered_map<uint32_t, Record> tasks_;
  std::string shown_name_;
};

}  // namespace stasis
