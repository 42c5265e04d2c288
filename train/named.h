// Named: a few values under names, in the order they were added.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <binade/core/error.h>

namespace binade::train {

template <class T>
class Named {
 public:
  using Item = std::pair<std::string, T>;

  Named() = default;
  // Throws Error when a name comes twice, as add() does.
  Named(std::initializer_list<Item> items) {
    for (const Item& item : items) add(item.first, item.second);
  }

  void add(std::string name, T value) {
    check(!contains(name), "there are two values named '", name, "'");
    items_.emplace_back(std::move(name), std::move(value));
  }

  bool contains(std::string_view name) const { return find(*this, name) != items_.end(); }
  // Throws Error that lists the names there are.
  const T& at(std::string_view name) const { return item_of(*this, name).second; }
  T& at(std::string_view name) { return item_of(*this, name).second; }

  size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }

  // Whether both have the same names, in any order.
  template <class U>
  bool has_names_of(const Named<U>& other) const {
    return size() == other.size() && std::all_of(begin(), end(), [&](const Item& item) {
             return other.contains(item.first);
           });
  }
  // "inputs, targets", or "none".
  std::string names() const {
    std::string text;
    for (const auto& [name, value] : items_) text += (text.empty() ? "" : ", ") + name;
    return text.empty() ? "none" : text;
  }

 private:
  template <class Self>
  static auto find(Self& self, std::string_view name) {
    return std::find_if(self.items_.begin(), self.items_.end(),
                        [&](const Item& item) { return item.first == name; });
  }
  template <class Self>
  static auto& item_of(Self& self, std::string_view name) {
    const auto found = find(self, name);
    check(found != self.items_.end(), "nothing is named '", name, "'; there are: ", self.names());
    return *found;
  }

  std::vector<Item> items_;
};

}  // namespace binade::train
