// The local interrupt controller of this core, xAPIC or x2APIC as the boot parameters say (Intel
// SDM vol. 3, chapter 11).
#pragma once
#include <cstdint>

namespace kitten::apic {

/// Which way, and the mapping of the registers. Core 0, once.
void choose(bool x2apic);
/// Switches this core's on.
void enable();
std::uint32_t id();
void end_of_interrupt();
/// Whether the core serves `vector` now: an interrupt that the controller delivered, and not a
/// software one.
bool in_service(unsigned vector);
/// One interrupt after so long, at least; a later call replaces an earlier one.
void arm_timer(std::uint64_t ns, unsigned vector);
/// To another core of the enclave.
void send(std::uint32_t destination, unsigned vector);
void send_nmi(std::uint32_t destination);
/// A ready command: what Linux has put in the status page.
void send_raw(std::uint64_t command);

}  // namespace kitten::apic
