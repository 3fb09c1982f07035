/* libhobbes: what a program on a Hobbes node may do, as a C API (usable from C, C++, Fortran and from inside enclaves).
 *
 * Errors: functions that return int answer 0 (or a stated count) on success and a negative errno value on failure;
 * hobbes_error() then holds one line that says what was attempted, why it failed and what to do (per thread).
 * Threads: distinct handles are independent; one handle may be used by one thread at a time unless stated.
 */
#ifndef HOBBES_H
#define HOBBES_H

#include <stddef.h>
#include <stdint.h>

#include "abi/nis.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The reason of the calling thread's last failure; valid until its next call. Never NULL. */
const char* hobbes_error(void);

/* ---- Node Information Service: reading ------------------------------------------------------------------------------ */

/* An open mirror. Lookups on one handle may run in any number of threads at once, except beside hobbes_nis_close. */
typedef struct hobbes_nis hobbes_nis;

/* Opens the node's mirror (path NULL: $HOBBES_RUN_DIR/nis, else /run/hobbes/nis) or a composition's shard, read-only.
 * Works with hobbesd dead. NULL on failure: ENOENT no mirror, EACCES not yours, EBADMSG not a sound mirror. */
hobbes_nis* hobbes_nis_open(const char* path);
void hobbes_nis_close(hobbes_nis* nis); /* NULL is allowed */

/* Each copies one consistent record to *out. -ENOENT: there is none. No lock is taken; the writer is never delayed. */
int hobbes_nis_by_id(hobbes_nis* nis, uint64_t id, struct hobbes_record* out);
int hobbes_nis_by_name(hobbes_nis* nis, enum hobbes_record_type type, uint64_t scope, const char* name,
                       struct hobbes_record* out);
/* Iterates: start with *cursor = 0; type HOBBES_FREE means any. -ENOENT at the end. */
int hobbes_nis_next(hobbes_nis* nis, enum hobbes_record_type type, uint64_t* cursor, struct hobbes_record* out);

/* The newest change's sequence number. */
uint64_t hobbes_nis_sequence(hobbes_nis* nis);
/* Waits for the change after *sequence, copies it and advances *sequence to it. timeout_ms < 0: for ever, 0: only look.
 * -ETIMEDOUT; -EOVERFLOW: it was overwritten, read everything again and go on from hobbes_nis_sequence;
 * -ESTALE: the mirror was replaced (hobbesd repaired it), open it again. */
int hobbes_nis_wait(hobbes_nis* nis, uint64_t* sequence, struct hobbes_change* out, int timeout_ms);
/* Nanoseconds since hobbesd last showed life. */
uint64_t hobbes_nis_writer_silence(hobbes_nis* nis);

/* The scope of an enclave's name: the hash of its OCI state root (NULL: the default one). */
uint64_t hobbes_root_scope(const char* root);

#ifdef __cplusplus
}
#endif
#endif
