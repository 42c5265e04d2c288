#undef _FORTIFY_SOURCE  // its longjmp takes a jump between stacks for an error
#include "block.h"

#include <bit>
#include <csetjmp>
#include <csignal>
#include <cstring>
#include <iterator>
#include <random>
#include <stdexcept>
#include <vector>

#include <sys/mman.h>

#include "device.h"
#include "memory.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// Saves the caller's registers on its stack and the stack in *from, and goes on where `to` was
// saved (System V AMD64 ABI).
extern "C" void emulated_switch(void** from, void* to);
asm(R"(
.text
.globl emulated_switch
.type emulated_switch, @function
emulated_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulated_switch, .-emulated_switch
)");

namespace emulated {

void* dynamic_shared = nullptr;

namespace {

constexpr int kWarp = 32, kMostThreads = 1024;
constexpr size_t kStackBytes = 64 * 1024;
constexpr unsigned char kPoison = 0xff;  // NaN of each floating dtype
constexpr unsigned char kGuardByte = 0xa5;

// Stacks for the threads of a block, each above a page that cannot be touched.
class Stacks {
 public:
  Stacks() {
    constexpr size_t kPage = 4096;
    memory_ = static_cast<char*>(mmap(nullptr, kMostThreads * kStackBytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory_ == MAP_FAILED) throw std::runtime_error("no memory for the threads' stacks");
    for (int i = 0; i < kMostThreads; ++i) mprotect(memory_ + i * kStackBytes, kPage, PROT_NONE);
  }
  void all_free() {
    free_.clear();
    for (int i = kMostThreads; i-- > 0;) free_.push_back(i);
  }
  int take() {
    const int stack = free_.back();
    free_.pop_back();
    return stack;
  }
  void give(int stack) { free_.push_back(stack); }
  // Tops differ in their low bits, so that they do not all fall into the same lines of the cache.
  char* top(int stack) const {
    return memory_ + (stack + 1) * kStackBytes - 1024 - (stack % 16) * 192;
  }

 private:
  char* memory_;
  std::vector<int> free_;
};

// Lanes of a warp that meet.
struct Meeting {
  Place place;
  uint32_t mask = 0;
  Given given{};         // lanes: that have come
  uint32_t readers = 0;  // that have not taken the values yet
};

struct Warp {
  uint32_t present = 0, ended = 0;
  uint32_t open = 0;  // meetings that still wait for a lane
  uint32_t used = 0;  // meetings that a lane has not left
  Meeting meetings[kWarp];
};

struct Thread {
  uint3 index;
  void* saved = nullptr;
  int stack = -1;  // −1: has not begun, or has ended
  bool ended = false;
  bool waits = false;
  Place place{};
};

struct Launch {
  const std::function<void()>* work = nullptr;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<int> ready;
  int alive = 0, current = -1;
  // Of the block's barrier.
  int waiting = 0, votes = 0, result = 0;
  std::vector<SharedVariable*> variables;
  std::string problem;
  sigjmp_buf escape;
};

Launch* running = nullptr;
Stacks* stacks = nullptr;
void* scheduler = nullptr;  // its saved stack
uint64_t blocks_run = 0;
uint64_t launches = 0;

std::string describe(uint3 at) {
  return "(" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) +
         ")";
}

std::string describe(const Place& place) {
  return std::string(place.what) + " in " + place.where.file_name() + ":" +
         std::to_string(place.where.line());
}

bool same(const Place& a, const Place& b) {
  if (a.what == b.what && a.where.line() == b.where.line() &&
      a.where.column() == b.where.column() && a.where.file_name() == b.where.file_name())
    return true;
  return a.where.line() == b.where.line() && a.where.column() == b.where.column() &&
         std::strcmp(a.what, b.what) == 0 &&
         std::strcmp(a.where.file_name(), b.where.file_name()) == 0;
}

void wait_here(const Place& place) {
  Launch& launch = *running;
  Thread& self = launch.threads[static_cast<size_t>(launch.current)];
  self.waits = true;
  self.place = place;
  emulated_switch(&self.saved, scheduler);
}

void wake(int thread) {
  running->threads[static_cast<size_t>(thread)].waits = false;
  running->ready.push_back(thread);
}

// Lets the lanes go on whose meeting is complete.
void settle(int warp_index) {
  Warp& warp = running->warps[static_cast<size_t>(warp_index)];
  for (uint32_t left = warp.open; left != 0; left &= left - 1) {
    const Meeting& meeting = warp.meetings[std::countr_zero(left)];
    if ((meeting.mask & warp.present & ~warp.ended) != meeting.given.lanes) continue;
    warp.open &= ~(left & -left);
    for (uint32_t lanes = meeting.given.lanes; lanes != 0; lanes &= lanes - 1) {
      const int thread = warp_index * kWarp + std::countr_zero(lanes);
      if (thread != running->current) wake(thread);
    }
  }
}

void settle_block() {
  Launch& launch = *running;
  if (launch.waiting == 0 || launch.waiting != launch.alive) return;
  const Place* place = nullptr;
  launch.result = launch.votes;
  launch.waiting = launch.votes = 0;
  for (size_t i = 0; i < launch.threads.size(); ++i) {
    Thread& thread = launch.threads[i];
    if (thread.ended) continue;
    if (place != nullptr && !same(*place, thread.place))
      fail_launch("threads meet at different barriers: " + describe(*place) + " and " +
                  describe(thread.place));
    place = &thread.place;
    if (static_cast<int>(i) != launch.current) wake(static_cast<int>(i));
  }
}

void thread_main() {
  Launch& launch = *running;
  (*launch.work)();
  Thread& self = launch.threads[static_cast<size_t>(launch.current)];
  self.ended = true;
  --launch.alive;
  const int warp = launch.current / kWarp;
  launch.warps[static_cast<size_t>(warp)].ended |= 1u << (launch.current % kWarp);
  settle(warp);
  settle_block();
  stacks->give(self.stack);  // the next thread that begins does so from the scheduler
  self.stack = -1;
  void* nowhere = nullptr;
  emulated_switch(&nowhere, scheduler);
}

void begin(Thread& thread) {
  thread.stack = stacks->take();
  auto* top = reinterpret_cast<uintptr_t*>(stacks->top(thread.stack));
  // At the entry of a function the stack lies 8 bytes beside a multiple of 16.
  *--top = 0;
  *--top = reinterpret_cast<uintptr_t>(&thread_main);
  for (int i = 0; i < 6; ++i) *--top = 0;
  thread.saved = top;
}

// The place in `ready` of the thread that goes on: the one that came last, in every second launch
// one by chance.
size_t choose(std::minstd_rand& random) {
  const size_t count = running->ready.size();
  return launches % 2 == 0 ? count - 1 : random() % count;
}

void check_guards() {
  for (const SharedVariable* variable : running->variables)
    for (size_t i = 0; i < SharedVariable::kGuard; ++i)
      if (variable->memory[i] != kGuardByte ||
          variable->memory[SharedVariable::kGuard + variable->bytes + i] != kGuardByte)
        fail_launch("shared memory beside a variable of " + std::to_string(variable->bytes) +
                    " bytes was written");
}

void report_stuck() {
  std::string text = "threads wait for others that never come:";
  int shown = 0;
  for (const Thread& thread : running->threads)
    if (thread.waits && shown++ < 4)
      text += " thread " + describe(thread.index) + " at " + describe(thread.place) + ";";
  fail_launch(text);
}

void run_block(std::minstd_rand& random, SharedVariable& dynamic) {
  Launch& launch = *running;
  ++blocks_run;
  const int count = static_cast<int>(launch.threads.size());
  launch.variables.clear();
  enter_shared(dynamic);
  launch.ready.clear();
  stacks->all_free();
  for (Warp& warp : launch.warps) warp.present = warp.ended = warp.open = warp.used = 0;
  for (int i = 0; i < count; ++i) {
    Thread& thread = launch.threads[static_cast<size_t>(i)];
    thread.stack = -1;
    thread.ended = thread.waits = false;
    launch.warps[static_cast<size_t>(i / kWarp)].present |= 1u << (i % kWarp);
  }
  // Where the order is not by chance, threads begin in rising or in falling order.
  for (int i = 0; i < count; ++i) launch.ready.push_back(launches % 4 == 0 ? count - 1 - i : i);
  launch.alive = count;
  launch.waiting = launch.votes = 0;
  while (launch.alive > 0) {
    if (launch.ready.empty()) report_stuck();
    const size_t place = choose(random);
    launch.current = launch.ready[place];
    launch.ready[place] = launch.ready.back();
    launch.ready.pop_back();
    Thread& thread = launch.threads[static_cast<size_t>(launch.current)];
    threadIdx = thread.index;
    if (thread.stack < 0) begin(thread);
    emulated_switch(&scheduler, thread.saved);
  }
  launch.current = -1;
  check_guards();
}

void on_fault(int number, siginfo_t* info, void*) {
  if (running == nullptr || running->current < 0) {
    signal(number, SIG_DFL);
    return;  // the same instruction ends the program
  }
  running->problem =
      number == SIGSEGV || number == SIGBUS
          ? "memory was touched that does not belong to it: " + describe_address(info->si_addr)
      : number == SIGFPE ? "a division by zero"
                         : "an access that is not aligned, or beyond a thread's own array";
  siglongjmp(running->escape, 1);
}

// While it lives, faults end the running launch. Otherwise they are the test program's.
class FaultWatch {
 public:
  FaultWatch() {
    static char memory[64 * 1024];
    const stack_t alternate{.ss_sp = memory, .ss_flags = 0, .ss_size = sizeof(memory)};
    sigaltstack(&alternate, &stack_);
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &action, &before_[i]);
  }
  ~FaultWatch() {
    for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &before_[i], nullptr);
    sigaltstack(&stack_, nullptr);
  }
  FaultWatch(const FaultWatch&) = delete;
  FaultWatch& operator=(const FaultWatch&) = delete;

 private:
  static constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
  stack_t stack_{};
  struct sigaction before_[std::size(kSignals)];
};

}  // namespace

void fail_launch(const std::string& problem) {
  running->problem = problem;
  siglongjmp(running->escape, 1);
}

int lane_of_thread() {
  return running->current % kWarp;
}

int meet_block(const Place& place, bool vote) {
  Launch& launch = *running;
  ++launch.waiting;
  launch.votes += vote ? 1 : 0;
  launch.threads[static_cast<size_t>(launch.current)].place = place;
  settle_block();
  if (launch.waiting > 0) wait_here(place);
  return launch.result;
}

const Given& meet_warp(const Place& place, uint32_t mask, uint64_t value) {
  const int warp_index = running->current / kWarp, lane = running->current % kWarp;
  Warp& warp = running->warps[static_cast<size_t>(warp_index)];
  const uint32_t own = 1u << lane;
  if ((mask & own) == 0)
    fail_launch("lane " + std::to_string(lane) + " is not named in the mask of " + describe(place));
  int number = -1;
  for (uint32_t left = warp.open; left != 0 && number < 0; left &= left - 1) {
    const Meeting& other = warp.meetings[std::countr_zero(left)];
    if (other.mask == mask && same(other.place, place)) number = std::countr_zero(left);
  }
  if (number < 0) {  // each lane is in one at most
    number = std::countr_one(warp.used);
    warp.meetings[number] = {.place = place, .mask = mask};
    warp.open |= 1u << number;
    warp.used |= 1u << number;
  }
  Meeting& meeting = warp.meetings[number];
  meeting.given.lanes |= own;
  meeting.given.values[lane] = value;
  meeting.readers |= own;
  settle(warp_index);
  if ((warp.open >> number & 1u) != 0) wait_here(place);
  meeting.readers &= ~own;
  if (meeting.readers == 0) warp.used &= ~(1u << number);
  return meeting.given;
}

uint64_t block_number() {
  return blocks_run;
}

void enter_shared(SharedVariable& variable) {
  if (variable.block == blocks_run) return;
  variable.block = blocks_run;
  constexpr size_t kGuard = SharedVariable::kGuard;
  std::memset(variable.memory, kGuardByte, kGuard);
  std::memset(variable.memory + kGuard, kPoison, variable.bytes);
  std::memset(variable.memory + kGuard + variable.bytes, kGuardByte, kGuard);
  running->variables.push_back(&variable);
}

void run_grid(const char* name, dim3 grid, dim3 block, size_t shared_bytes,
              const std::function<void()>& thread) {
  if (running != nullptr) fail_launch(std::string(name) + " is launched by a kernel");
  if (stacks == nullptr) stacks = new Stacks;
  const uint64_t count = uint64_t{block.x} * block.y * block.z;
  if (count == 0 || count > kMostThreads)
    throw std::runtime_error(std::string(name) + ": a block of " + std::to_string(count) +
                             " threads");
  Launch launch;
  launch.work = &thread;
  for (unsigned z = 0; z < block.z; ++z)
    for (unsigned y = 0; y < block.y; ++y)
      for (unsigned x = 0; x < block.x; ++x) launch.threads.push_back({.index = {x, y, z}});
  launch.warps.resize((count + kWarp - 1) / kWarp);
  ++launches;
  std::minstd_rand random(static_cast<unsigned>(launches));
  std::vector<unsigned char> memory(shared_bytes + 2 * SharedVariable::kGuard + 16);
  auto* const start =
      reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(memory.data()) + 15) / 16 * 16);
  SharedVariable dynamic{start, shared_bytes};
  dynamic_shared = start + SharedVariable::kGuard;
  blockDim = block;
  gridDim = grid;
  running = &launch;
  const FaultWatch watch;
  if (sigsetjmp(launch.escape, 1) == 0) {
    for (unsigned z = 0; z < grid.z; ++z)
      for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
          blockIdx = {x, y, z};
          run_block(random, dynamic);
        }
  }
  running = nullptr;
  if (launch.problem.empty()) {
    const std::string damage = find_damage();
    if (!damage.empty()) throw std::runtime_error(std::string(name) + ": " + damage);
    return;
  }
  std::string where = " in block " + describe(blockIdx);
  if (launch.current >= 0)
    where += ", thread " + describe(launch.threads[static_cast<size_t>(launch.current)].index);
  throw std::runtime_error(std::string(name) + where + ": " + launch.problem);
}

}  // namespace emulated
