// INTERNAL. How ranks that share optimizer states read a checkpoint: each of them its own elements.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include <binade/core/safetensors.h>
#include <binade/dist/communicator.h>
#include <binade/optim/flat_group.h>

namespace binade::train {

// The checksums of tensors of which no rank reads all: each computes those of its pieces, and they
// are put together.
class CheckpointPieces {
 public:
  // `tensors`: by <section>.<name>, in groups that ranks share; the same on every rank. `ranks`: of
  // memory on the CPU.
  CheckpointPieces(dist::Communicator& ranks, std::map<std::string, optim::MemberState> tensors)
      : ranks_(ranks), tensors_(std::move(tensors)) {}

  // What checksum_of() (checkpoint.h) is of those of them that the file has in the right shape. For
  // all ranks, with the same file.
  std::map<std::string, uint32_t> checksums(const SafetensorsFile& file);
  int64_t bytes_read() const { return bytes_read_; }  // by this rank, in all calls

 private:
  dist::Communicator& ranks_;
  std::map<std::string, optim::MemberState> tensors_;
  int64_t bytes_read_ = 0;
};

}  // namespace binade::train
