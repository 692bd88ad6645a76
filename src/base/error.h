// How failure is told: one exception type with a stable reason, a cause, an object and a remedy.
//
//   throw Error(Reason::IMAGE_DIR, "cannot open the image directory").object(path).error_number(errno)
//       .remedy("create it, or name another one with -D");
//
// On the way up a caller adds what it was doing:  catch (Error& e) { e.while_doing("saving pipe 4711"); throw; }
// Catch only where something is added or at an entry point (verb, RPC request, C API, thread).
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "base/source_place.h"

namespace stasis {

enum class Reason {
#define REASON(code, text, remedy) code,
#include "base/reasons.def"
#undef REASON
};

// The code as users see it: "IMAGE_DIR".
std::string_view reason_code(Reason reason);
// One sentence that says what the code means.
std::string_view reason_text(Reason reason);
// What helps in general. Every report has a remedy: this one unless the error carries its own.
std::string_view reason_remedy(Reason reason);
// All codes, in the order of reasons.def.
const std::vector<Reason>& all_reasons();

// "No such file or directory (ENOENT)"; thread safe.
std::string errno_text(int error_number);

class Error : public std::exception {
 public:
  // `what_failed` is a clause without a final stop: "cannot open the image directory". A helper that makes errors for
  // others passes the place of its own caller on.
  Error(Reason reason, std::string what_failed, SourcePlace place = SourcePlace::here());

  // The setters return *this as an rvalue so that a throw expression can chain them.
  Error&& error_number(int value) &&;
  // What it happened to: "fd 7 socket:[4711] of pid 42 (redis-server)".
  Error&& object(std::string text) &&;
  // What the user can do: "add --tcp-established".
  Error&& remedy(std::string text) &&;

  // Adds context on the way up. The first call is the innermost.
  void while_doing(std::string text);
  // Sets the object if none was named closer to the cause.
  void default_object(std::string text);
  void default_remedy(std::string text);
  // What the failed run has left behind, a sentence: "images holds no dump". Nothing for an empty text.
  void leaves(std::string text) { left_ = std::move(text); }

  Reason reason() const noexcept { return reason_; }
  int error_number() const noexcept { return errno_; }
  const std::string& what_failed() const noexcept { return what_failed_; }
  const std::string& object() const noexcept { return object_; }
  const std::string& remedy() const noexcept { return remedy_; }
  const std::vector<std::string>& contexts() const noexcept { return contexts_; }
  // Where in the source it was made.
  const SourcePlace& place() const noexcept { return place_; }

  // Cause in one line, without code and remedy:
  // "saving files of pid 42 (x): fd 7 socket:[4711]: cannot ...: Permission denied (EACCES)".
  std::string cause() const;
  // The whole report: cause, code, remedy, what is left.
  std::string report() const;
  const char* what() const noexcept override;

 private:
  void refresh();

  Reason reason_;
  SourcePlace place_;
  int errno_ = 0;
  std::string what_failed_;
  std::string object_;
  std::string remedy_;
  std::string left_;
  std::vector<std::string> contexts_;
  std::string what_;
};

// Throws Reason::SYSTEM (or another) with the current errno when `result` is negative; else returns it.
template <class T>
T check(T result, std::string_view what_failed, Reason reason = Reason::SYSTEM,
        SourcePlace place = SourcePlace::here());

[[noreturn]] void throw_errno(std::string_view what_failed, Reason reason = Reason::SYSTEM,
                              SourcePlace place = SourcePlace::here());

template <class T>
T check(T result, std::string_view what_failed, Reason reason, SourcePlace place) {
  if (result < 0) throw_errno(what_failed, reason, place);
  return result;
}

}  // namespace stasis
