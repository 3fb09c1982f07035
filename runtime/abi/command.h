/* Commands on a channel, version 1: what stands in a message (C11-clean, no libc). Document:
 * docs/FABRIC.md. A change of this file is a change of the format: raise the version and the
 * document with it.
 *
 * A message is this head, `name_size` bytes of a name, and the rest is the payload. A client sends
 * CALL and CANCEL; a server answers each call with any number of PARTs and then one REPLY or FAIL.
 * All integers are little-endian.
 */
#ifndef HOBBES_ABI_COMMAND_H
#define HOBBES_ABI_COMMAND_H

#include <stdint.h>

#ifdef __cplusplus
#define HOBBES_ASSERT_COMMAND(condition) static_assert(condition, #condition)
extern "C" {
#else
#define HOBBES_ASSERT_COMMAND(condition) _Static_assert(condition, #condition)
#endif

#define HOBBES_COMMAND_VERSION 1

enum hobbes_command_kind {
  HOBBES_COMMAND_CALL = 1,
  HOBBES_COMMAND_CANCEL = 2, /* the client does not want the answer any more; there is none */
  HOBBES_COMMAND_REPLY = 3,
  HOBBES_COMMAND_PART = 4, /* more follows */
  HOBBES_COMMAND_FAIL = 5  /* payload: an error, as JSON (docs/CONTROL.md, "Errors") */
};

enum { HOBBES_COMMAND_NAME_MOST = 128, HOBBES_COMMAND_DEPTH = 64 /* calls of a client at once */ };

struct hobbes_command {
  uint16_t version; /* HOBBES_COMMAND_VERSION */
  uint16_t kind;
  uint32_t id;         /* the client's, of one call; not in use by another one of his */
  uint64_t timeout_ns; /* of a call: what is left of its time; 0: no limit */
  uint32_t name_size;
  uint32_t pad;
};

HOBBES_ASSERT_COMMAND(sizeof(struct hobbes_command) == 24);

#ifdef __cplusplus
}
#endif
#endif
