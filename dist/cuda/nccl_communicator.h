// INTERNAL
// A communicator of ranks that have a GPU each, through NCCL, which is loaded when it is needed: a
// program that runs on one GPU, or on the CPU, does without it.
#pragma once

#include <memory>

#include <binade/dist/communicator.h>
#include <binade/dist/store.h>

namespace binade::dist {

// Called by every rank; `control` is theirs on the CPU. Throws Error where NCCL cannot be loaded,
// or two ranks have the same GPU (a test that wants that sets BINADE_SHARED_GPU, and gives every
// rank another NCCL_HOSTID, as NCCL refuses it on one host). When the store hears of a failure,
// what is queued is given up and the coming verb throws.
std::unique_ptr<Communicator> make_nccl_communicator(Store& store, Communicator& control,
                                                     Device device);

}  // namespace binade::dist
