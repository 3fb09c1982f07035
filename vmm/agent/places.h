// The places of the window that no program of the guest uses any more.
#pragma once

namespace hobbes::agent {

/// A process's whole life. Once `attached` (an eventfd) is written it looks every few seconds who
/// maps segments or could still do so, and has the monitor hide those that nobody does; when none
/// is left it waits again. Found by looking, since programs end without saying so.
[[noreturn]] void give_back_places(int attached);

}  // namespace hobbes::agent
