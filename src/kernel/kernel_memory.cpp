#include "kernel/kernel_memory.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

#include "base/log.h"

namespace stasis {

namespace {

constexpr int kBlockBytes = 256;  // what the stack of a program has room for
constexpr int kBlocks = 8;
constexpr int kWords = kBlockBytes / 8;

// What goes in and out of both programs.
struct Exchange {
  uint64_t task = 0;
  uint64_t address = 0;
  uint64_t blocks = 0;  // reader
  uint64_t failed = 0;
  std::array<std::byte, size_t{kBlockBytes} * kBlocks> bytes{};
};

class Program {
 public:
  enum Reg : uint8_t { r0, r1, r2, r3, r6 = 6, r7, r8, r10 = 10 };

  void load(Reg to, Reg from, size_t offset) { add(BPF_LDX | BPF_MEM | BPF_DW, to, from, static_cast<int>(offset)); }
  void store(Reg base, size_t offset, Reg value) {
    add(BPF_STX | BPF_MEM | BPF_DW, base, value, static_cast<int>(offset));
  }
  void move(Reg to, Reg from) { add(BPF_ALU64 | BPF_MOV | BPF_X, to, from); }
  void set(Reg to, int32_t value) { add(BPF_ALU64 | BPF_MOV | BPF_K, to, r0, 0, value); }
  void plus(Reg to, int32_t value) { add(BPF_ALU64 | BPF_ADD | BPF_K, to, r0, 0, value); }
  void call(int32_t helper) { add(BPF_JMP | BPF_CALL, r0, r0, 0, helper); }
  // probe_read_kernel() to the stack, `below` its top; r8 keeps whether any has failed.
  void probe(int below, int bytes, Reg address) {
    move(r1, r10);
    plus(r1, -below);
    set(r2, bytes);
    move(r3, address);
    call(BPF_FUNC_probe_read_kernel);
    add(BPF_ALU64 | BPF_OR | BPF_X, r8, r0);
  }
  void begin() {
    move(r6, r1);
    call(BPF_FUNC_get_current_task);
    store(r6, offsetof(Exchange, task), r0);
    load(r7, r6, offsetof(Exchange, address));
    set(r8, 0);
  }
  void copy_out(int below, size_t at, int words) {
    for (int i = 0; i < words; ++i) {
      add(BPF_LDX | BPF_MEM | BPF_DW, r1, r10, 8 * i - below);
      store(r6, offsetof(Exchange, bytes) + at + static_cast<size_t>(i) * 8, r1);
    }
  }
  // Jumps to the end if `reg` equals or is not above `value`; the end is not known yet.
  void leave_if(uint8_t condition, Reg reg, int32_t value) {
    exits_.push_back(code_.size());
    add(static_cast<uint8_t>(BPF_JMP | condition | BPF_K), reg, r0, 0, value);
  }
  Fd end(const char* name) {
    for (const size_t e : exits_) code_[e].off = static_cast<int16_t>(code_.size() - e - 1);
    store(r6, offsetof(Exchange, failed), r8);
    set(r0, 0);
    add(BPF_JMP | BPF_EXIT, r0);
    union bpf_attr a;
    std::memset(&a, 0, sizeof a);
    a.prog_type = BPF_PROG_TYPE_SYSCALL;
    a.prog_flags = BPF_F_SLEEPABLE;
    a.insns = reinterpret_cast<uint64_t>(code_.data());
    a.insn_cnt = static_cast<uint32_t>(code_.size());
    // The kernel lets only programs that say so read its memory. This concerns the table above, which is dual licensed.
    a.license = reinterpret_cast<uint64_t>("Dual MIT/GPL");
    std::strncpy(a.prog_name, name, sizeof a.prog_name - 1);
    return Fd(static_cast<int>(syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof a)));
  }

 private:
  void add(int operation, Reg to, Reg from = r0, int offset = 0, int32_t value = 0) {
    bpf_insn insn;
    std::memset(&insn, 0, sizeof insn);
    insn.code = static_cast<uint8_t>(operation);
    insn.dst_reg = static_cast<uint8_t>(to) & 15;
    insn.src_reg = static_cast<uint8_t>(from) & 15;
    insn.off = static_cast<int16_t>(offset);
    insn.imm = value;
    code_.push_back(insn);
  }

  std::vector<bpf_insn> code_;
  std::vector<size_t> exits_;
};

Fd load_reader() {
  Program p;
  p.begin();
  for (int i = 0; i < kBlocks; ++i) {
    p.load(Program::r1, Program::r6, offsetof(Exchange, blocks));
    p.leave_if(BPF_JLE, Program::r1, i);
    p.probe(kBlockBytes, kBlockBytes, Program::r7);
    p.copy_out(kBlockBytes, static_cast<size_t>(i) * kBlockBytes, kWords);
    p.plus(Program::r7, kBlockBytes);
  }
  return p.end("stasis_read");
}

// Writes the links of a list until one is null.
Fd load_walker() {
  Program p;
  p.begin();
  for (size_t i = 0; i < kWords; ++i) {
    p.probe(8, 8, Program::r7);
    p.load(Program::r7, Program::r10, static_cast<size_t>(-8));
    p.store(Program::r6, offsetof(Exchange, bytes) + i * 8, Program::r7);
    p.leave_if(BPF_JEQ, Program::r7, 0);
    p.leave_if(BPF_JNE, Program::r8, 0);
  }
  return p.end("stasis_walk");
}

bool run_program(const Fd& program, Exchange& exchange) {
  union bpf_attr a;
  std::memset(&a, 0, sizeof a);
  a.test.prog_fd = static_cast<uint32_t>(program.get());
  a.test.ctx_in = reinterpret_cast<uint64_t>(&exchange);
  a.test.ctx_size_in = sizeof exchange;
  return syscall(SYS_bpf, BPF_PROG_TEST_RUN, &a, sizeof a) == 0 && exchange.failed == 0;
}

}  // namespace

std::unique_ptr<KernelMemory> KernelMemory::open(std::initializer_list<std::string_view> structures) {
  auto memory = std::unique_ptr<KernelMemory>(new KernelMemory(structures));
  memory->reader_ = load_reader();
  if (memory->reader_) memory->walker_ = load_walker();
  if (memory->walker_) return memory;
  log_debug("Memory of the kernel cannot be read: {}", std::strerror(errno));
  return nullptr;
}

uint64_t KernelMemory::own_task() const {
  Exchange exchange;
  run_program(reader_, exchange);
  return exchange.task;
}

bool KernelMemory::read(uint64_t address, void* out, size_t bytes) const {
  for (size_t done = 0; done < bytes;) {
    const size_t part = std::min(bytes - done, size_t{kBlockBytes} * kBlocks);
    Exchange exchange;
    exchange.address = address + done;
    exchange.blocks = (part + kBlockBytes - 1) / kBlockBytes;
    if (!run_program(reader_, exchange)) return false;
    std::memcpy(static_cast<char*>(out) + done, exchange.bytes.data(), part);
    done += part;
  }
  return true;
}

int64_t KernelMemory::list_length(uint64_t first, uint64_t most) const {
  uint64_t length = 0;
  for (uint64_t at = first; at != 0;) {
    Exchange exchange;
    exchange.address = at;
    if (!run_program(walker_, exchange)) return -1;
    for (size_t i = 0; i < kWords && at != 0; ++i) {
      ++length;
      std::memcpy(&at, exchange.bytes.data() + i * 8, 8);
    }
    if (length > most) return -1;
  }
  return static_cast<int64_t>(length);
}

}  // namespace stasis
