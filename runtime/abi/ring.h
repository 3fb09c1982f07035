/* A ring of bytes for one producer and one consumer in memory that two worlds share, version 1.
 * C11-clean; no libc.
 *
 * `head` counts bytes ever written, `tail` bytes ever read; both only grow, the place in `data` is
 * the count modulo the capacity. The producer owns head, the consumer owns tail, and neither trusts
 * the other: a reader copies what it will look at, and takes a counter that cannot be (head - tail
 * > capacity) as "corrupt".
 *
 * The console ring is a plain stream whose producer overwrites the oldest bytes: there head may run
 * ahead of tail by any amount. Command rings carry frames: uint32_t length of the payload, the
 * payload, padding to a multiple of 8.
 */
#ifndef HOBBES_ABI_RING_H
#define HOBBES_ABI_RING_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdint.h>
#endif

struct hobbes_ring {
  uint64_t head;
  uint64_t pad1[7]; /* a cache line of its own for each side */
  uint64_t tail;
  uint64_t pad2[7];
  /* uint8_t data[capacity]: the rest of the ring's memory, capacity = bytes - sizeof(struct
   * hobbes_ring) */
};

#define HOBBES_RING_HEADER 128

#ifdef __cplusplus
static_assert(sizeof(struct hobbes_ring) == HOBBES_RING_HEADER, "layout");
#else
_Static_assert(sizeof(struct hobbes_ring) == HOBBES_RING_HEADER, "layout");
#endif

#endif
