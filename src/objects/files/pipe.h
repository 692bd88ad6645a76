// Pipes, with the data in them. Named ones are not among them.
//
// Dump: the data is copied with tee(2), so the tasks find it untouched. That of a pipe with
// writers only, too: who opens it anew (/proc/self/fd) can read it. A pipe with an end outside of the tree would come
// back with nobody there, so it is refused unless the user says that it is external ("pipe:[INODE]"). At the restore a
// descriptor that the caller gives under that name takes the place of the pipe and of its data.
//
// A pipe in packet mode (O_DIRECT on a writing end, pipe2(2)) keeps that bit in its flags, and its data is stored as
// one record for each packet. Otherwise a pipe has one data record.
#pragma once

#include <map>
#include <string>

#include "objects/files/file_kind.h"
#include "objects/files/pipe_content.h"

namespace stasis {

struct Pipe {
  static constexpr std::string_view name = "pipe";
  static constexpr pb::fd_types type = pb::PIPE;

  struct State {
    uint32_t id = 0;
    uint32_t pipe_id = 0;  // the inode, the same for all ends
    uint32_t flags = 0;
    FileOwner owner;
    bool external = false;  // the user said so: another one must be given at the restore

    bool operator==(const State&) const = default;
  };

  struct Ends {
    bool reader = false, writer = false;              // held by the tree
    bool other_reader = false, other_writer = false;  // somebody holds one, as seen from the opposite end
    std::string who;
  };
  // A pipe that is being made. The two descriptors of pipe2() become ends that were not opened by name.
  struct Made {
    Fd reader, writer;
    int any = -1;        // to open more ends through; not owned
    bool given = false;  // by the caller
  };
  struct Shared {
    PipeContents contents;
    std::map<uint32_t, Ends> ends;  // dump
    PipeCopier copier;              // dump
    std::map<uint32_t, Made> made;  // restore
  };

  static bool match(const FileView& view);
  static void dump(const FileView& view, DumpFiles& files, Shared& shared, State& state);
  static void conclude(DumpFiles& files, Shared& shared);
  static void encode(const State& state, pb::file_entry& out);
  static void write_images(Shared& shared, ImageStore& store);
  static void decode(const pb::file_entry& in, State& state);
  static void read_images(const ImageStore& store, Shared& shared);
  static void encode_extension(const State& state, pb::extension_file& out);
  static void decode_extension(const pb::extension_file& in, State& state);
  static void plan(const State& state, RestoreFiles& files, Shared& shared);
  static Fd create(const State& state, RestoreFiles& files, Shared& shared);
  static void finish(const State& state, int fd, RestoreFiles& files, Shared& shared);
};

}  // namespace stasis
