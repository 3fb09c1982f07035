/* Taking a snapshot of a segment, version 1: what its maker and its taker say to each other over a
 * service (abi/command.h). Document: docs/DATA.md.
 *
 * The service's name is HOBBES_SNAPSHOT_SERVICE and the segment's handle as 16 hexadecimal digits.
 * HOBBES_SNAPSHOT_BEGIN (no payload) is answered first by an empty part: from that instant on no
 * page changes before its content has been sent. Each part after it is a struct
 * hobbes_snapshot_part and bytes: what stood at `offset` at that instant. HOBBES_SNAPSHOT_END (no
 * payload), from the same process, ends it: the rest of the parts, the reply to BEGIN and the reply
 * to END come in this order. A BEGIN that fails after its first part has given no instant.
 */
#ifndef HOBBES_ABI_SNAPSHOT_H
#define HOBBES_ABI_SNAPSHOT_H

#include <stdint.h>

#define HOBBES_SNAPSHOT_SERVICE "snapshots-"
#define HOBBES_SNAPSHOT_BEGIN "begin"
#define HOBBES_SNAPSHOT_END "end"

enum { HOBBES_SNAPSHOT_PART_MOST = 16384 /* bytes of memory in a part */ };

struct hobbes_snapshot_part {
  uint64_t offset; /* in the segment; little-endian */
};

#endif
