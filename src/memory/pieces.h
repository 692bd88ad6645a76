// Lists of pieces of a pages file: cutting them into blocks and shares. Internal to memory/.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/interrupt.h"
#include "base/page_size.h"
#include "base/workers.h"
#include "memory/block_io.h"

namespace stasis {

// Bytes of a pages file and where they belong. Lists of pieces ascend in `file_offset`.
struct PagePiece {
  uint64_t address;
  uint64_t bytes;
  uint64_t file_offset;

  // Takes `count` bytes off the front.
  void advance(uint64_t count) noexcept {
    address += count;
    file_offset += count;
    bytes -= count;
  }
};

// Iovecs per call: one for each page of a block at the most.
inline constexpr size_t max_block_pieces = 128;

template <class Piece>
uint64_t total_bytes(std::span<const Piece> pieces) {
  uint64_t sum = 0;
  for (const Piece& piece : pieces) sum += piece.bytes;
  return sum;
}

// Calls sink(pieces, bytes) for blocks of at most copy_block_bytes that are consecutive in the file. Throws when the
// run is interrupted: gigabytes take seconds.
template <class Piece, class Sink>
void for_each_block(std::span<const Piece> pieces, Sink&& sink) {
  std::vector<Piece> block;
  uint64_t block_bytes = 0;
  const auto flush = [&] {
    if (!block.empty()) {
      check_interrupted();
      sink(std::span<const Piece>(block), block_bytes);
    }
    block.clear();
    block_bytes = 0;
  };
  for (Piece rest : pieces) {
    if (!block.empty() && block.back().file_offset + block.back().bytes != rest.file_offset) flush();
    while (rest.bytes > 0) {
      if (block_bytes == copy_block_bytes || block.size() == max_block_pieces) flush();
      Piece part = rest;
      part.bytes = std::min<uint64_t>(rest.bytes, copy_block_bytes - block_bytes);
      rest.advance(part.bytes);
      block_bytes += part.bytes;
      block.push_back(part);
    }
  }
  flush();
}

// Consecutive shares of about the same size.
template <class Piece>
std::vector<std::vector<Piece>> split_pieces(std::span<const Piece> pieces, unsigned parts) {
  const uint64_t page = page_size_bytes();
  const uint64_t share = (total_bytes(pieces) / parts / page + 1) * page;
  std::vector<std::vector<Piece>> shares(1);
  uint64_t room = share;
  for (Piece rest : pieces) {
    while (rest.bytes > 0) {
      if (room == 0) {
        shares.emplace_back();
        room = share;
      }
      Piece part = rest;
      part.bytes = std::min(rest.bytes, room);
      rest.advance(part.bytes);
      room -= part.bytes;
      shares.back().push_back(part);
    }
  }
  return shares;
}

// Calls work(pieces) once, or on several threads for shares of them when it is much.
template <class Piece, class Work>
void share_out(std::span<const Piece> pieces, unsigned threads, Work&& work) {
  const uint64_t worth = total_bytes(pieces) / bytes_worth_a_thread;
  const auto parts = static_cast<unsigned>(std::clamp<uint64_t>(worth, 1, std::max(threads, 1u)));
  if (parts == 1) {
    work(pieces);
    return;
  }
  const auto shares = split_pieces(pieces, parts);
  std::vector<std::function<void()>> jobs;
  for (const auto& share : shares) jobs.emplace_back([&work, &share] { work(std::span<const Piece>(share)); });
  Workers workers(parts - 1);
  workers.start(std::move(jobs));
  workers.finish();
}

}  // namespace stasis
