# Makes the table of system call names from the kernel's own header: cmake -DHEADER=... -DOUT=... -P gen_call_names.cmake
file(STRINGS ${HEADER} lines REGEX "^#define __NR_[a-z0-9_]+ +[0-9]+")
set(text "// Made from the kernel's unistd header.\n#include \"tracee/call_names.h\"\n#include <fmt/format.h>\nnamespace stasis {\nstd::string call_name(long number) {\n  switch (number) {\n")
foreach(line ${lines})
  string(REGEX REPLACE "^#define __NR_([a-z0-9_]+) +([0-9]+).*" "    case \\2: return \"\\1\";\n" row "${line}")
  string(APPEND text "${row}")
endforeach()
string(APPEND text "    default: return fmt::format(\"system call {}\", number);\n  }\n}\n}  // namespace stasis\n")
file(WRITE ${OUT} "${text}")
