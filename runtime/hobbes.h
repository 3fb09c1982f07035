/* libhobbes: what a program on a Hobbes node may do, as a C API (usable from C, C++, Fortran and
 * from inside enclaves).
 *
 * Errors: functions that return int answer 0 (or a stated count) on success and a negative errno
 * value on failure; hobbes_error() then holds one line that says what was attempted, why it failed
 * and what to do (per thread). Threads: distinct handles are independent; one handle may be used by
 * one thread at a time unless stated.
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

/* ---- Node Information Service: reading
 * ------------------------------------------------------------------------------ */

/* An open mirror. Lookups on one handle may run in any number of threads at once, except beside
 * hobbes_nis_close. */
typedef struct hobbes_nis hobbes_nis;

/* Opens the node's mirror (path NULL: $HOBBES_RUN_DIR/nis, else /run/hobbes/nis) or a composition's
 * shard, read-only. Works with hobbesd dead. NULL on failure: ENOENT no mirror, EACCES not yours,
 * EBADMSG not a sound mirror. */
hobbes_nis* hobbes_nis_open(const char* path);
void hobbes_nis_close(hobbes_nis* nis); /* NULL is allowed */

/* Each copies one consistent record to *out. -ENOENT: there is none. No lock is taken; the writer
 * is never delayed. */
int hobbes_nis_by_id(hobbes_nis* nis, uint64_t id, struct hobbes_record* out);
int hobbes_nis_by_name(hobbes_nis* nis, enum hobbes_record_type type, uint64_t scope,
                       const char* name, struct hobbes_record* out);
/* Iterates: start with *cursor = 0; type HOBBES_FREE means any. -ENOENT at the end. */
int hobbes_nis_next(hobbes_nis* nis, enum hobbes_record_type type, uint64_t* cursor,
                    struct hobbes_record* out);

/* The newest change's sequence number. */
uint64_t hobbes_nis_sequence(hobbes_nis* nis);
/* Waits for the change after *sequence, copies it and advances *sequence to it. timeout_ms < 0: for
 * ever, 0: only look. -ETIMEDOUT; -EOVERFLOW: it was overwritten, read everything again and go on
 * from hobbes_nis_sequence; -ESTALE: the mirror was replaced (hobbesd repaired it), open it again.
 */
int hobbes_nis_wait(hobbes_nis* nis, uint64_t* sequence, struct hobbes_change* out, int timeout_ms);
/* Nanoseconds since hobbesd last showed life. */
uint64_t hobbes_nis_writer_silence(hobbes_nis* nis);

/* The scope of an enclave's name: a hash of its OCI state root (NULL: the default one) and the
 * caller's user. */
uint64_t hobbes_root_scope(const char* root);

/* ---- XEMEM: named shared segments, with the call set of XPMEM
 * -------------------------------------------------------- */

/* A segment id is good on the whole node; an access id in this process only. All calls may be made
 * from any thread. */
typedef int64_t hobbes_segid;
typedef int64_t hobbes_apid;

enum { HOBBES_RDONLY = 1, HOBBES_RDWR = 2 };
enum { HOBBES_HUGE_2M = 1, HOBBES_HUGE_1G = 2, HOBBES_PERSISTENT = 4 };

/* Makes a segment of `size` bytes (rounded up to pages) with `name` and permission bits `mode` (as
 * of chmod, for the caller's uid and gid). *address NULL: new zeroed memory, whose place is stored
 * there. Else: the existing private anonymous memory there becomes the segment, at the same
 * address; it must be whole pages and the caller must have one thread (-EBUSY, -EOPNOTSUPP
 * otherwise). The id, or -EEXIST, -EACCES, -ENOSPC (no huge pages), -ECONNREFUSED (no hobbesd).
 * Gone with this process unless HOBBES_PERSISTENT. */
hobbes_segid hobbes_segment_make(const char* name, size_t size, unsigned mode, unsigned flags,
                                 void** address);
/* The id of a name, or -ENOENT. Each user has names of his own: found is the caller's, else root's,
 * else any other's. */
hobbes_segid hobbes_segment_search(const char* name);
/* The same, of that user (as the node numbers users) and nobody else's. */
hobbes_segid hobbes_segment_search_of(const char* name, unsigned owner);
/* The right to attach, checked now and for good. -EACCES, -ENOENT. */
hobbes_apid hobbes_segment_get(hobbes_segid segment, int access);
/* The size in bytes of the segment behind an access id. */
int64_t hobbes_segment_size(hobbes_apid access);
/* Maps [offset, offset+size) of it (size 0: all from offset on), zero-copy, whole pages. NULL on
 * failure, with errno. */
void* hobbes_segment_attach(hobbes_apid access, size_t offset, size_t size);
/* Takes back an attach. */
int hobbes_segment_detach(void* address);
/* Gives a right back; what was attached with it stays mapped until detached. */
int hobbes_segment_release(hobbes_apid access);
/* ---- a segment's doorbell: "look at it now", for everybody who listens; no call says how often it
 * was rung ---- */

/* From now on this access hears the doorbell. The answer is a descriptor for poll(2) and
 * hobbes_segment_wait; it is the access's, so do not close it. -ENOENT: removed, -ENOSPC: 32 listen
 * already. The same again when called again. */
int hobbes_segment_listen(hobbes_apid access);
/* Takes what was rung since the last call, or waits for it. timeout_ms < 0: for ever, 0: only look.
 * -ETIMEDOUT; -EINVAL: not listening. One thread may wait while others ring; no thread may release
 * the access meanwhile. */
int hobbes_segment_wait(hobbes_apid access, int timeout_ms);
/* Rings for all listeners but those of this process, in whatever enclave. Never waits for a
 * listener, and asks hobbesd only when the listeners have changed. -ENOENT: removed; -ECONNREFUSED,
 * -ETIMEDOUT (2 s): they changed and hobbesd does not answer, those of before were told. */
int hobbes_segment_ring(hobbes_apid access);

/* Ends a segment of the caller: nobody can get it any more; existing attachments stay valid. */
int hobbes_segment_remove(hobbes_segid segment);

/* ---- Managing: enclaves and programs in them, from outside or (under the bundle's "manage" grant)
 * from inside an enclave ---- */

/* The caller's own enclave id, "" outside of any. */
const char* hobbes_self(void);
/* A sign of life of the caller's own enclave. Where the bundle has "heartbeat": N, one is due at
 * least every N seconds, or the enclave counts as crashed and is ended. -ENOENT outside of any
 * enclave, -ECONNREFUSED without hobbesd. */
int hobbes_beat(void);
/* Copies the ids of the node's enclaves, NUL-terminated one after the other, into `ids`; returns
 * how many there are, or -ENOSPC. */
int hobbes_enclave_list(char* ids, size_t size);
/* The record of an enclave of the default state root. -ENOENT. */
int hobbes_enclave_find(const char* id, struct hobbes_record* out);
/* Makes an enclave from a bundle, with the caller's own rights; `start` nonzero: and lets it run.
 * Returns when it is done. -EACCES without a grant, -EEXIST, -ENOSPC when cores or memory are not
 * free, -EINVAL for a bad bundle. */
int hobbes_enclave_create(const char* id, const char* bundle, int start);
/* Changes what a running enclave leases: `cores` 0 and `memory` 0 (bytes) mean as it is. */
int hobbes_enclave_resize(const char* id, unsigned cores, uint64_t memory);
/* Sends a signal to the enclave process. */
int hobbes_enclave_signal(const char* id, int number);
/* Ends it and takes it away. */
int hobbes_enclave_delete(const char* id);
/* Runs a program inside an enclave to its end and returns its exit status (0..255), or a negative
 * errno. argv ends in NULL. */
int hobbes_enclave_launch(const char* id, const char* const argv[]);

#ifdef __cplusplus
}
#endif
#endif
