#include "base/error.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace stasis {

std::string_view reason_code(Reason reason) {
  switch (reason) {
#define REASON(code, text, remedy) \
  case Reason::code:               \
    return #code;
#include "base/reasons.def"
#undef REASON
  }
  return "INTERNAL";
}

std::string_view reason_text(Reason reason) {
  switch (reason) {
#define REASON(code, text, remedy) \
  case Reason::code:               \
    return text;
#include "base/reasons.def"
#undef REASON
  }
  return "";
}

std::string_view reason_remedy(Reason reason) {
  switch (reason) {
#define REASON(code, text, remedy) \
  case Reason::code:               \
    return remedy;
#include "base/reasons.def"
#undef REASON
  }
  return "";
}

const std::vector<Reason>& all_reasons() {
  static const std::vector<Reason> all = {
#define REASON(code, text, remedy) Reason::code,
#include "base/reasons.def"
#undef REASON
  };
  return all;
}

std::string errno_text(int error_number) {
  const char* name = strerrorname_np(error_number);
  const char* text = strerrordesc_np(error_number);
  if (name == nullptr || text == nullptr) return fmt::format("error {}", error_number);
  return fmt::format("{} ({})", text, name);
}

Error::Error(Reason reason, std::string what_failed, SourcePlace place)
    : reason_(reason), place_(place), what_failed_(std::move(what_failed)) {
  refresh();
}

Error&& Error::error_number(int value) && {
  errno_ = value;
  refresh();
  return std::move(*this);
}

Error&& Error::object(std::string text) && {
  object_ = std::move(text);
  refresh();
  return std::move(*this);
}

Error&& Error::remedy(std::string text) && {
  remedy_ = std::move(text);
  return std::move(*this);
}

void Error::while_doing(std::string text) {
  contexts_.push_back(std::move(text));
  refresh();
}

void Error::default_object(std::string text) {
  if (!object_.empty()) return;
  object_ = std::move(text);
  refresh();
}

void Error::default_remedy(std::string text) {
  if (remedy_.empty()) remedy_ = std::move(text);
}

std::string Error::cause() const {
  std::string out;
  for (auto it = contexts_.rbegin(); it != contexts_.rend(); ++it) out += *it + ": ";
  if (!object_.empty()) out += object_ + ": ";
  out += what_failed_;
  if (errno_ != 0) out += ": " + errno_text(errno_);
  return out;
}

std::string Error::report() const {
  std::string out = fmt::format("{} [{}]\nWhat to do: {}", cause(), reason_code(reason_),
                                remedy_.empty() ? reason_remedy(reason_) : std::string_view(remedy_));
  if (!left_.empty()) out += "\nWhat is left: " + left_;
  return out;
}

const char* Error::what() const noexcept {
  return what_.c_str();
}

void Error::refresh() {
  what_ = cause();
}

void throw_errno(std::string_view what_failed, Reason reason, SourcePlace place) {
  throw Error(reason, std::string(what_failed), place).error_number(errno);
}

}  // namespace stasis
