#include <catch2/catch.hpp>

#include <binade/core/array.h>
#include <binade/core/write_log.h>

using namespace binade;

TEST_CASE("a write log tells again what was written while it noted", "[core]") {
  const Array before = Array::zeros({4}, DType::f32), untouched = Array::zeros({4}, DType::f32);
  Array made;
  WriteLog log;
  {
    const WriteLog::Scope noting(log);
    before.slice(0, 1, 2).fill(1);
    before.fill(2);
    made = Array::empty({2}, DType::f32);
    Array::zeros({8}, DType::f32);  // is gone by the end
  }
  CHECK(log.size() == 2);
  untouched.fill(3);
  const uint64_t first = before.storage()->version(), second = made.storage()->version(),
                 third = untouched.storage()->version();
  log.bump_versions();
  CHECK(before.storage()->version() == first + 1);
  CHECK(made.storage()->version() == second + 1);
  CHECK(untouched.storage()->version() == third);
}

TEST_CASE("a write log keeps no storage alive", "[core]") {
  WriteLog log;
  std::weak_ptr<Storage> written;
  {
    const Array array = Array::zeros({4}, DType::f32);
    written = array.storage();
    const WriteLog::Scope noting(log);
    array.fill(1);
  }
  CHECK(written.expired());
  log.bump_versions();  // has nothing to say
}

TEST_CASE("scopes of write logs are told apart", "[core]") {
  CHECK(WriteLog::current_scope() == 0);
  WriteLog log, inner_log;
  uint64_t first = 0;
  {
    const WriteLog::Scope scope(log);
    first = WriteLog::current_scope();
    CHECK(first != 0);
    {
      const WriteLog::Scope inner(inner_log);
      CHECK(WriteLog::current_scope() != first);
    }
    CHECK(WriteLog::current_scope() == first);
  }
  CHECK(WriteLog::current_scope() == 0);
  const WriteLog::Scope scope(log);
  CHECK(WriteLog::current_scope() != first);
}
