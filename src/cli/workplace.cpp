#include "cli/workplace.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "kernel/proc.h"

namespace stasis::cli {

namespace {

Fd open_directory(const std::string& path, const std::string& what, std::string_view option) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd) return fd;
  const int error_number = errno;
  std::string remedy = error_number == ENOENT    ? "create it, or name another one with "
                       : error_number == ENOTDIR ? "name a directory with "
                                                 : "name a directory that can be used with ";
  throw Error(Reason::IMAGE_DIR, "cannot open the " + what + " directory")
      .object(path)
      .error_number(error_number)
      .remedy(remedy + std::string(option) + " DIR");
}

Fd open_images(const CommandLine& line, const std::string& shown) {
  Fd fd = open_directory(shown, "image", "-D");
  const bool writes = line.verb == Verb::dump || (line.verb == Verb::cpuinfo && line.words.front() == "dump");
  if (writes && ::faccessat(fd.get(), ".", W_OK | X_OK, AT_EACCESS) != 0) {
    throw Error(Reason::IMAGE_DIR, "cannot write to the image directory")
        .object(shown)
        .error_number(errno)
        .remedy("make it writable, or name another one with -D DIR");
  }
  return fd;
}

void enter(const Fd& directory, const std::string& shown) {
  if (::fchdir(directory.get()) != 0) {
    throw Error(Reason::IMAGE_DIR, "cannot enter the work directory")
        .object(shown)
        .error_number(errno)
        .remedy("name another one with -W DIR");
  }
}

// Relative to the current directory, which is the work directory.
void open_log(const CommandLine& line, LogPlace& log) {
  if (line.log_file.empty()) {
    log::set_target_stderr();
  } else if (line.log_file == "-") {
    log::set_target(
        Fd(check(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3), "cannot log to standard output", Reason::LOG_FILE)));
    log.name = "standard output";
  } else {
    if (line.log_file.find('/') != std::string::npos) {
      throw Error(Reason::LOG_FILE, "the name of the log file has a directory part")
          .object(line.log_file)
          .remedy("give a plain name with -o, and the directory for it with -W DIR");
    }
    Fd file(::open(line.log_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
    if (!file) {
      throw Error(Reason::LOG_FILE, "cannot create the log file")
          .object(line.log_file)
          .error_number(errno)
          .remedy("name another file with -o, or another work directory with -W DIR");
    }
    log::set_target(std::move(file));
    std::error_code ignored;
    const std::filesystem::path here = std::filesystem::current_path(ignored);
    log.name = (here / line.log_file).string();
  }
  log.open = true;
}

}  // namespace

Workplace open_workplace(const CommandLine& line, LogPlace& log) {
  Workplace place;
  place.images_dir_shown = line.images_dir.empty() ? "." : line.images_dir;
  std::optional<Error> no_images;
  try {
    place.images_dir = open_images(line, place.images_dir_shown);
  } catch (Error& e) {
    if (line.work_dir.empty()) throw;
    no_images = std::move(e);
  }
  if (line.work_dir.empty()) {
    place.work_dir = Fd(check(::fcntl(place.images_dir.get(), F_DUPFD_CLOEXEC, 3), "cannot duplicate a descriptor"));
    enter(place.work_dir, place.images_dir_shown);
  } else {
    place.work_dir = open_directory(line.work_dir, "work", "-W");
    enter(place.work_dir, line.work_dir);
  }
  open_log(line, log);
  if (no_images) throw std::move(*no_images);
  return place;
}

void check_privilege(const CommandLine& line) {
  if (::geteuid() == 0) return;
  if (!line.unprivileged) {
    throw Error(Reason::NO_PRIVILEGE, "this user is not root").remedy("run it as root, or try --unprivileged");
  }
  ProcDir self(::getpid());
  const uint64_t effective = parse_status(self.read("status")).cap_effective;
  const uint64_t enough = (uint64_t{1} << CAP_SYS_ADMIN) | (uint64_t{1} << CAP_CHECKPOINT_RESTORE);
  if ((effective & enough) == 0) {
    throw Error(Reason::NO_PRIVILEGE, "this user has neither CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN")
        .remedy("give the program the capability CAP_CHECKPOINT_RESTORE, or run it as root");
  }
}

}  // namespace stasis::cli
