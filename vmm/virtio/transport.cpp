#include "vmm/virtio/transport.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include <algorithm>
#include <cstdio>

namespace hobbes::vmm {
namespace {

constexpr std::uint64_t version_1 = 1ULL << VIRTIO_F_VERSION_1;
constexpr std::uint32_t vendor = 0x42424f48;  // "HOBB"

Gpa with_low(Gpa old, std::uint32_t value) { return (old & ~0xffffffffULL) | value; }
Gpa with_high(Gpa old, std::uint32_t value) {
  return (old & 0xffffffffULL) | static_cast<Gpa>(value) << 32U;
}

}  // namespace

VirtioTransport::VirtioTransport(const GuestMemory& memory, VirtioDevice& device,
                                 std::function<void()> interrupt,
                                 std::function<void(unsigned)> again)
    : memory_(memory),
      device_(device),
      interrupt_(std::move(interrupt)),
      again_(std::move(again)),
      queues_(device.queues()) {
  device.attach(*this);
}

bool VirtioTransport::running() const {
  constexpr std::uint32_t bad = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;
  return (status_ & VIRTIO_CONFIG_S_DRIVER_OK) != 0 && (status_ & bad) == 0;
}

// All ones say that there is no such region.
std::uint32_t VirtioTransport::read_memory_register(std::uint64_t offset) const {
  const VirtioDevice::SharedMemory memory = device_.shared_memory();
  if (selected_memory_ != 0 || memory.size == 0) return ~0U;
  switch (offset) {
    case VIRTIO_MMIO_SHM_LEN_LOW:
      return static_cast<std::uint32_t>(memory.size);
    case VIRTIO_MMIO_SHM_LEN_HIGH:
      return static_cast<std::uint32_t>(memory.size >> 32U);
    case VIRTIO_MMIO_SHM_BASE_LOW:
      return static_cast<std::uint32_t>(memory.address);
    default:
      return static_cast<std::uint32_t>(memory.address >> 32U);
  }
}

std::uint32_t VirtioTransport::read_register(std::uint64_t offset) const {
  bool exists = selected_queue_ < queues_.size();
  switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE:
      return 0x74726976;
    case VIRTIO_MMIO_VERSION:
      return 2;
    case VIRTIO_MMIO_DEVICE_ID:
      return device_.type();
    case VIRTIO_MMIO_VENDOR_ID:
      return vendor;
    case VIRTIO_MMIO_DEVICE_FEATURES: {
      std::uint64_t all = device_.features() | version_1;
      return selected_features_ == 0   ? static_cast<std::uint32_t>(all)
             : selected_features_ == 1 ? static_cast<std::uint32_t>(all >> 32U)
                                       : 0;
    }
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
      return exists ? queue_size_limit : 0;
    case VIRTIO_MMIO_QUEUE_READY:
      return exists && queues_[selected_queue_].ready ? 1 : 0;
    case VIRTIO_MMIO_INTERRUPT_STATUS:
      return interrupts_;
    case VIRTIO_MMIO_STATUS:
      return status_;
    case VIRTIO_MMIO_CONFIG_GENERATION:
      return generation_;
    case VIRTIO_MMIO_SHM_LEN_LOW:
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
      return read_memory_register(offset);
    default:
      return 0;
  }
}

void VirtioTransport::read(std::uint64_t offset, std::span<std::byte> data) {
  std::scoped_lock guard(lock_);
  std::fill(data.begin(), data.end(), std::byte{0});
  if (offset >= VIRTIO_MMIO_CONFIG) {
    auto configuration = device_.configuration();
    for (std::size_t i = 0; i < data.size(); ++i)
      if (offset - VIRTIO_MMIO_CONFIG + i < configuration.size())
        data[i] = configuration[offset - VIRTIO_MMIO_CONFIG + i];
    return;
  }
  if (data.size() != 4 || offset % 4 != 0) return;
  std::uint32_t value = read_register(offset);
  std::memcpy(data.data(), &value, 4);
}

void VirtioTransport::write(std::uint64_t offset, std::span<const std::byte> data) {
  if (data.size() != 4 || offset % 4 != 0 || offset >= VIRTIO_MMIO_CONFIG) return;
  std::uint32_t value = 0;
  std::memcpy(&value, data.data(), 4);
  std::scoped_lock guard(lock_);
  write_register(offset, value);
}

void VirtioTransport::write_register(std::uint64_t offset, std::uint32_t value) {
  bool configuring = (status_ & VIRTIO_CONFIG_S_DRIVER_OK) == 0;
  Queue* queue =
      selected_queue_ < queues_.size() && configuring ? &queues_[selected_queue_] : nullptr;
  switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
      selected_features_ = value;
      break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
      selected_driver_features_ = value;
      break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
      if (selected_driver_features_ == 0) driver_features_ = with_low(driver_features_, value);
      if (selected_driver_features_ == 1) driver_features_ = with_high(driver_features_, value);
      break;
    case VIRTIO_MMIO_QUEUE_SEL:
      selected_queue_ = value;
      break;
    case VIRTIO_MMIO_SHM_SEL:
      selected_memory_ = value;
      break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
      interrupts_ &= ~value;
      break;
    case VIRTIO_MMIO_STATUS:
      set_status(value);
      break;
    default:
      break;
  }
  if (queue == nullptr) return;
  Gpa* part = nullptr;  // of the three, low word first
  switch (offset & ~7ULL) {
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
      part = &queue->descriptors;
      break;
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
      part = &queue->available;
      break;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
      part = &queue->used;
      break;
    default:
      break;
  }
  if (part != nullptr)
    *part = (offset & 4U) == 0 ? with_low(*part, value) : with_high(*part, value);
  switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM:
      if (value != 0 && value <= queue_size_limit && (value & (value - 1)) == 0)
        queue->size = static_cast<std::uint16_t>(value);
      break;
    case VIRTIO_MMIO_QUEUE_READY:
      queue->ready = value == 1;
      break;
    default:
      break;
  }
}

void VirtioTransport::set_status(std::uint32_t value) {
  if (value == 0) {
    status_ = interrupts_ = 0;
    driver_features_ = 0;
    for (Queue& queue : queues_) queue.reset();
    device_.reset();
    return;
  }
  std::uint64_t offered = device_.features() | version_1;
  bool acceptable = (driver_features_ & ~offered) == 0 && (driver_features_ & version_1) != 0;
  if ((value & VIRTIO_CONFIG_S_FEATURES_OK) != 0 && !acceptable)
    value &= ~static_cast<std::uint32_t>(VIRTIO_CONFIG_S_FEATURES_OK);
  status_ = value | (status_ & VIRTIO_CONFIG_S_NEEDS_RESET);
}

void VirtioTransport::settle(const Result<void>& done) {
  if (done) return;
  status_ |= VIRTIO_CONFIG_S_NEEDS_RESET;
  interrupts_ |= VIRTIO_MMIO_INT_CONFIG;
  interrupt_();
}

void VirtioTransport::configuration_changed() {
  ++generation_;
  if (!running()) return;
  interrupts_ |= VIRTIO_MMIO_INT_CONFIG;
  interrupt_();
}

void VirtioTransport::notify(unsigned number) {
  std::scoped_lock guard(lock_);
  if (running() && number < queues_.size()) settle(device_.notified(number));
}

void VirtioTransport::locked(const std::function<Result<void>()>& act) {
  std::scoped_lock guard(lock_);
  settle(act());
}

Result<void> VirtioTransport::each(
    unsigned number, const std::function<Result<std::uint64_t>(const DescriptorChain&)>& serve) {
  for (unsigned served = 0; running(); ++served) {
    if (served == queue_size_limit) {
      again_(number);
      return {};
    }
    HOBBES_TRY(chain, queues_[number].pop(memory_));
    if (!chain) return {};
    HOBBES_TRY(written, serve(*chain));
    finish(number, chain->head, written);
  }
  return {};
}

void VirtioTransport::finish(unsigned number, std::uint16_t head, std::uint64_t written) {
  Queue& queue = queues_[number];
  if (!queue.push(memory_, head, written)) {
    settle(Error{Code::corrupt, "return a request", "the used ring is not in memory", ""});
    return;
  }
  if (!queue.wants_interrupt(memory_)) return;
  interrupts_ |= VIRTIO_MMIO_INT_VRING;
  interrupt_();
}

}  // namespace hobbes::vmm
