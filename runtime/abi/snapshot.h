/* Taking a snapshot of a segment, version 1: what its maker and its taker say to each other over a
 * service (abi/command.h). Document: docs/DATA.md.
 *
 * The service's name is HOBBES_SNAPSHOT_SERVICE and the segment's handle as 16 hexadecimal digits.
 * HOBBES_SNAPSHOT_BEGIN (no payload) is answered first by an empty part: from that instant on no
 * page changes before its taker has copied it. Each part after it is a struct hobbes_snapshot_range
 * that a writer waits for: the taker copies it next. HOBBES_SNAPSHOT_COPIED (such a range), over
 * the same connection, says that a range is copied and may change; the taker says it of every
 * wanted range within HOBBES_SNAPSHOT_PATIENCE_MS (and 1 ms for each MiB of a page), and of others
 * as it likes. HOBBES_SNAPSHOT_END (no payload), over the same connection, ends it: the reply to
 * BEGIN and the reply to END come in this order. A BEGIN that fails after its first part has given
 * no instant.
 */
#ifndef HOBBES_ABI_SNAPSHOT_H
#define HOBBES_ABI_SNAPSHOT_H

#include <stdint.h>

#define HOBBES_SNAPSHOT_SERVICE "snapshots-"
#define HOBBES_SNAPSHOT_BEGIN "begin"
#define HOBBES_SNAPSHOT_COPIED "copied"
#define HOBBES_SNAPSHOT_END "end"

enum {
  HOBBES_SNAPSHOT_BLOCK = 65536, /* ranges begin at multiples of it, and of the page size */
  HOBBES_SNAPSHOT_PATIENCE_MS = 100
};

/* Bytes of the segment, whole pages; little-endian. */
struct hobbes_snapshot_range {
  uint64_t offset, size;
};

#endif
