/* Between the monitor's side and the agent, process 1 of a Linux guest: frames over a vsock stream,
 * version 7. Document: docs/PALACIOS.md. One stream is one conversation: it begins with a
 * HOBBES_FRAME_JSON request. {"op":"run"} and {"op":"forward"} (version 7) make the stream a
 * program's or a connection's (vmm/agent/program.h, port_forward.h).
 */
#ifndef HOBBES_ABI_AGENT_H
#define HOBBES_ABI_AGENT_H

#ifdef __cplusplus
#include <cstdint>
#else
#include <stdint.h>
#endif

/* {"op":"hello","mounts":[M]} -> {"op":"hello","version":V}, or with "error": what could not be
 * mounted. M: source (a tag for "virtiofs"), destination ("/": the root that programs see), type,
 * flags (MS_*), data; version 3 and later. Type "file", version 4: the regular file `source` of the
 * folder with the tag HOBBES_FILES_TAG. */
#define HOBBES_FILES_TAG "files"
#define HOBBES_AGENT_VERSION 7
#define HOBBES_AGENT_PORT 1024 /* in the guest */
/* On the host, for streams from ports below 1024: {"op":"attach","name","handle","access"} ->
 * {"address","size"}; {"op":"shown"} -> {"places":[P]};
 * {"op":"hide","place":P} -> {}, when nobody has attached it since P was told;
 * {"op":"bell","name","handle","access","pid","listens"} -> {}, after which a byte from the guest
 * rings the segment's doorbell for everybody but process "pid" of the guest, and a byte to it (when
 * it listens) says that it was rung. Version 5: {"op":"self"} as hobbesd's (docs/CONTROL.md);
 * {"op":"channel.connect","name","scope","owner"} -> {"address","size"} and who the peer is, after
 * which each byte of the stream is a ring of the channel's, either way, and its end the end of the
 * guest's side; {"op":"name.publish","name","kind":"service","scope","mode","ring"} -> {"handle"},
 * after which {"id":I} comes for each who connects, until the guest ends the stream;
 * {"op":"channel.take","id":I} -> as channel.connect. Version 6:
 * {"op":"segment.make","size","pageSize"} -> {"address","size"}: memory of the node, of which the
 * same stream then asks once {"op":"segment.publish","name","mode"} -> {"handle"}; the stream's end
 * removes the segment. {"op":"segment.remove","handle"} -> {} takes the name of one away. */
#define HOBBES_MONITOR_PORT 1025
#define HOBBES_FRAME_LIMIT (256 << 10) /* bytes of one frame's content */

enum hobbes_frame_type {
  HOBBES_FRAME_JSON = 1,  /* requests, answers, and the end of a program: {"exited": code} or
                             {"signalled": number} */
  HOBBES_FRAME_STDIN = 2, /* empty: its end */
  HOBBES_FRAME_STDOUT = 3,
  HOBBES_FRAME_STDERR = 4
};

/* Little-endian, followed by `length` bytes. */
struct hobbes_frame {
  uint32_t length;
  uint32_t type;
};

#ifdef __cplusplus
static_assert(sizeof(hobbes_frame) == 8);
#endif

#endif
