#include <binade/autograd/observer.h>

#include <utility>

namespace binade {

namespace {
thread_local OpObserver* observer = nullptr;
}

OpObserver* exchange_op_observer(OpObserver* next) {
  return std::exchange(observer, next);
}

OpObserver* current_op_observer() {
  return observer;
}

}  // namespace binade
