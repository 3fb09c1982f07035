// The kernel's side of the view table (abi/forward.h): what Linux is shown of programs.
#pragma once
#include <cstdint>

#include "abi/forward.h"
#include "shared.h"

namespace kitten {

inline hobbes_view_table& view_table() {
  return *static_cast<hobbes_view_table*>(shared_at(HOBBES_VIEWS_OFFSET));
}

/// Linux may show this from now on.
void publish_view(unsigned view, std::uint64_t root, std::uint64_t calls);
/// The number is free again. Its proxy has ended.
void withdraw_view(unsigned view);
/// Returns once the proxy can reach nothing in the range any more. At once when it never has.
void forget_in_view(unsigned view, std::uint64_t begin, std::uint64_t end);
/// A view has something to do in Linux.
void ring_view(unsigned view);
/// Core 0: serves what Linux has asked of views.
void serve_views();
/// Whether there is anything to serve.
bool views_wait();

}  // namespace kitten
