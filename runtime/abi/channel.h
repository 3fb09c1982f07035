/* A channel's memory, version 1: two rings of messages between two processes, one for each way
 * (C11-clean, no libc). Document: docs/FABRIC.md. A change of this file is a change of the format:
 * raise the version and the document with it.
 *
 * The memory is  header page | data of ring 0 | data of ring 1.  The side that connected writes
 * ring 0, the side that accepted writes ring 1. Each word has one writer, but for the two `sleeps`
 * words, which one side sets and the other clears.
 *
 * A message is a frame: a head of 8 bytes, then its bytes, padded to whole lines. Frames follow one
 * another from the start of the data and go round its end. A frame is there when its head is not 0.
 * The writer clears the head behind a frame before it stores the frame's own head, so what an
 * earlier round has left is never taken for a head. The reader tells how far it has read; the
 * writer looks there only when it knows of no more room. (The frame's head as the flag of its
 * readiness is that of FastForward: J. Giacomoni et al., PPoPP 2008.)
 */
#ifndef HOBBES_ABI_CHANNEL_H
#define HOBBES_ABI_CHANNEL_H

#include <stdint.h>

#ifdef __cplusplus
#define HOBBES_ASSERT_CHANNEL(condition) static_assert(condition, #condition)
extern "C" {
#else
#define HOBBES_ASSERT_CHANNEL(condition) _Static_assert(condition, #condition)
#endif

#define HOBBES_CHANNEL_MAGIC 0x31484373626f6248ULL /* "HobsCH1" and a stop */
#define HOBBES_CHANNEL_VERSION 1

enum {
  HOBBES_CHANNEL_LINE = 64,     /* frames begin at multiples of it */
  HOBBES_CHANNEL_HEAD = 8,      /* bytes of a frame's head */
  HOBBES_CHANNEL_HEADER = 4096, /* bytes before the data */
  HOBBES_CHANNEL_LEAST = 4096,  /* bytes of one ring's data, a power of two */
  HOBBES_CHANNEL_USUAL = 65536,
  HOBBES_CHANNEL_MOST = 64 << 20
};

/* A frame's head: the size of its message in the low half, its number in the high one. Numbers
 * count from 1 and go from 0xffffffff to 1 again. */

struct hobbes_channel_ring {
  /* The reader's line. */
  uint64_t read;          /* bytes of frames it is done with, since the beginning */
  uint32_t reader_sleeps; /* set by the reader before it sleeps; cleared by the writer, who rings */
  uint32_t pad0[13];
  /* The writer's line. */
  uint32_t closed; /* nothing follows what is there */
  uint32_t
      writer_sleeps; /* set by a writer that waits for room; cleared by the reader, who rings */
  uint32_t pad1[14];
};

struct hobbes_channel_header {
  uint64_t magic;
  uint32_t version;
  uint32_t size; /* bytes of one ring's data */
  uint32_t pad[12];
  struct hobbes_channel_ring ring[2];
};

HOBBES_ASSERT_CHANNEL(sizeof(struct hobbes_channel_ring) == 128);
HOBBES_ASSERT_CHANNEL(sizeof(struct hobbes_channel_header) == 320);

#ifdef __cplusplus
}
#endif
#endif
