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
enum { HOBBES_HUGE_2M = 1, HOBBES_HUGE_1G = 2, HOBBES_PERSISTENT = 4, HOBBES_SNAPSHOTS = 8 };

/* Makes a segment of `size` bytes (rounded up to pages) with `name` and permission bits `mode` (as
 * of chmod, for the caller's uid and gid). *address NULL: new zeroed memory, whose place is stored
 * there. Else: the existing private anonymous memory there becomes the segment, at the same
 * address; it must be whole pages and the caller must have one thread (-EBUSY, -EOPNOTSUPP
 * otherwise). The id, or -EEXIST, -EACCES, -ENOSPC (no huge pages), -ECONNREFUSED (no hobbesd).
 * Gone with this process unless HOBBES_PERSISTENT. HOBBES_SNAPSHOTS: who may read it may take
 * snapshots; a thread of the library serves them (-EOPNOTSUPP where the kernel cannot or the system
 * forbids it: docs/DATA.md). */
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
/* Takes back an attach. Of the place where a segment was made or a snapshot was taken: ends that
 * segment as well. */
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

/* ---- XASM: snapshots ---- */

enum { HOBBES_SNAPSHOT_COPY = 1 };
/* Takes a snapshot: a new segment that shows one instant of `segment`, whose maker goes on writing.
 * It is the caller's, read-only for everybody, and as large; *address: where it is mapped here.
 * `name` NULL: one made from the segment's. `mode`: its read bits say who else may read it. It ends
 * with this process, with hobbes_segment_detach(*address), or for new readers with
 * hobbes_segment_remove. HOBBES_SNAPSHOT_COPY copies without the maker's help: the caller knows
 * that nobody writes meanwhile. timeout_ms: for each step of it, at most 10000. The id, or
 * -EOPNOTSUPP (made without HOBBES_SNAPSHOTS), -EBUSY (somebody has attached it for writing, its
 * maker included, or another one is being taken until the time is over), -EACCES, -ENOENT,
 * -ETIMEDOUT, -ECONNREFUSED (no hobbesd, or its maker has ended), -ENOSPC. */
hobbes_segid hobbes_segment_snapshot(hobbes_segid segment, const char* name, unsigned mode,
                                     unsigned flags, int timeout_ms, const void** address);

/* Ends a segment of the caller: nobody can get it any more; existing attachments stay valid. */
int hobbes_segment_remove(hobbes_segid segment);

/* ---- Names: how programs find each other ---- */

/* Where a name is looked for. scope 0: in the caller's enclave, its composition and the node, in
 * that order. owner: a user, or -1: the caller's own, his enclave's, root's, else anybody's. The
 * record that is found says whose it is (uid, enclave, body.name.owner_pid). NULL stands for
 * {0, -1}. */
struct hobbes_where {
  uint32_t scope; /* enum hobbes_name_scope */
  int64_t owner;
};

/* Gives up to HOBBES_NAME_VALUE_SIZE bytes a name, or changes those of an own name. scope 0 is the
 * node. mode: the write bits say who may connect to a service; values can be read by everybody.
 * flags: HOBBES_PERSISTENT, the name stays when this process ends. -EEXIST: the caller's user has
 * it, of another kind; -ENOSPC: quota; -ECONNREFUSED: no hobbesd. */
int hobbes_name_publish(const char* name, uint32_t scope, const void* value, size_t size,
                        unsigned mode, unsigned flags);
/* The same of a segment; body.name.target of the record is its id. */
int hobbes_name_publish_segment(const char* name, uint32_t scope, hobbes_segid segment,
                                unsigned mode, unsigned flags);
/* Takes a name of the caller's user away. -ENOENT, -EACCES. */
int hobbes_name_withdraw(const char* name, const struct hobbes_where* where);
/* Copies the name's record to *out. A look at the mirror: nobody is asked. -ENOENT. */
int hobbes_name_find(const char* name, const struct hobbes_where* where, struct hobbes_record* out);
/* The same, and waits until there is one. timeout_ms < 0: for ever. -ETIMEDOUT. */
int hobbes_name_wait(const char* name, const struct hobbes_where* where, struct hobbes_record* out,
                     int timeout_ms);

/* ---- Channels: messages both ways between two processes ---- */

typedef struct hobbes_listener hobbes_listener;
typedef struct hobbes_channel hobbes_channel;

/* Who is at the other end, as hobbesd vouches for it. */
struct hobbes_peer {
  char enclave[HOBBES_NAME_SIZE]; /* "" outside of any */
  int32_t pid;                    /* as the node numbers processes */
  uint32_t uid, gid;
};

struct hobbes_listen_options {
  uint32_t scope; /* enum hobbes_name_scope; 0: the node */
  uint32_t mode;  /* who may connect: the write bits of user, group and others; 0: 0600 */
  uint64_t ring;  /* bytes of each ring, a power of two from 4 KiB to 64 MiB; 0: 64 KiB */
};

/* Listens under a name until it is closed or this process ends. options NULL: all 0. NULL on
 * failure, with errno: EEXIST, ENOSPC, EINVAL, ECONNREFUSED. A listener, a channel: one thread at a
 * time, but one thread may send while another one receives. */
hobbes_listener* hobbes_listen(const char* name, const struct hobbes_listen_options* options);
/* The next who connects, or NULL: ETIMEDOUT. timeout_ms < 0: for ever, 0: only look. */
hobbes_channel* hobbes_accept(hobbes_listener* listener, int timeout_ms);
/* For poll(2): readable when a caller waits to be accepted. */
int hobbes_listener_descriptor(hobbes_listener* listener);
void hobbes_listener_close(hobbes_listener* listener); /* NULL is allowed */

/* Connects to a listener, waiting up to timeout_ms for one. NULL on failure: ENOENT, EACCES, EBUSY
 * (its queue is full), ECONNREFUSED (no hobbesd). */
hobbes_channel* hobbes_connect(const char* name, const struct hobbes_where* where, int timeout_ms);
/* Sends one whole message. -EAGAIN: no room in time; -EPIPE: the peer has closed or ended;
 * -EMSGSIZE: larger than hobbes_channel_largest; -EBADMSG: the peer has written what cannot be.
 * What was sent may never be read: the peer can end. */
int hobbes_send(hobbes_channel* channel, const void* bytes, size_t size, int timeout_ms);
/* Receives one whole message and returns its size. -EAGAIN: none in time; -EPIPE: none will come;
 * -EMSGSIZE: larger than `room`, and still there; -EBADMSG. */
int64_t hobbes_receive(hobbes_channel* channel, void* bytes, size_t room, int timeout_ms);
/* For poll(2): readable or hung up when a hobbes_receive that answered -EAGAIN is worth repeating.
 * Do not read or close it. */
int hobbes_channel_descriptor(hobbes_channel* channel);
size_t hobbes_channel_largest(hobbes_channel* channel);
void hobbes_channel_peer(hobbes_channel* channel, struct hobbes_peer* out);
enum { HOBBES_WAIT_SLEEP = 0, HOBBES_WAIT_SPIN_THEN_SLEEP = 1, HOBBES_WAIT_SPIN = 2 };
/* How this end waits; HOBBES_WAIT_SPIN_THEN_SLEEP from the beginning. */
void hobbes_channel_set_waiting(hobbes_channel* channel, int waiting);
/* Tells the peer. NULL is allowed. */
void hobbes_channel_close(hobbes_channel* channel);

/* What stands in a message instead of data that is too large for it: a part of a segment. */
struct hobbes_buffer {
  hobbes_segid segment;
  uint64_t offset, size;
};

/* ---- Services: procedures by name, over channels ---- */

typedef struct hobbes_service hobbes_service;
typedef struct hobbes_call hobbes_call;
typedef struct hobbes_client hobbes_client;

/* Serves one call: in the thread that runs the service. The call is answered once by
 * hobbes_call_reply or hobbes_call_fail, here or later in the same thread. */
typedef void (*hobbes_handler)(hobbes_call* call, void* context);

/* As hobbes_listen. Each service has the procedure "describe", too. */
hobbes_service* hobbes_service_open(const char* name, const struct hobbes_listen_options* options);
int hobbes_service_add(hobbes_service* service, const char* procedure, const char* description,
                       hobbes_handler handler, void* context);
/* Serves until hobbes_service_stop, or for that long; timeout_ms < 0: for ever. */
int hobbes_service_run(hobbes_service* service, int timeout_ms);
/* From any thread or signal handler. */
void hobbes_service_stop(hobbes_service* service);
/* For poll(2): readable when hobbes_service_run(service, 0) has something to do. */
int hobbes_service_descriptor(hobbes_service* service);
void hobbes_service_close(hobbes_service* service); /* NULL is allowed */

/* The call's arguments; they are the call's own. */
const void* hobbes_call_payload(hobbes_call* call, size_t* size);
void hobbes_call_peer(hobbes_call* call, struct hobbes_peer* out);
/* Milliseconds until nobody waits any more; -1: no limit. */
int64_t hobbes_call_left(hobbes_call* call);
/* Not 0: nobody waits any more. It must be answered all the same. */
int hobbes_call_cancelled(hobbes_call* call);
/* A part of the answer. -EBUSY: the client does not read; -ECONNREFUSED: nobody waits. */
int hobbes_call_part(hobbes_call* call, const void* bytes, size_t size);
void hobbes_call_reply(hobbes_call* call, const void* bytes, size_t size);
/* error: a positive errno number; why: a sentence for the caller. */
void hobbes_call_fail(hobbes_call* call, int error, const char* why);

/* As hobbes_connect. A client is one thread's at a time. */
hobbes_client* hobbes_client_open(const char* name, const struct hobbes_where* where,
                                  int timeout_ms);
/* Calls and waits. The answer's size, of which up to `room` bytes were copied. -ETIMEDOUT;
 * -ECONNREFUSED: the server has gone; or the server's own error. Calls made while a handler serves
 * one end with it at the latest. */
int64_t hobbes_client_call(hobbes_client* client, const char* procedure, const void* arguments,
                           size_t size, void* answer, size_t room, int timeout_ms);
/* Told of every part (last 0) and of the end: error 0 or negative. */
typedef void (*hobbes_answered)(void* context, int error, const void* bytes, size_t size, int last);
/* Calls and returns at once: the call's id, or -EBUSY: HOBBES_COMMAND_DEPTH are under way. */
int64_t hobbes_client_issue(hobbes_client* client, const char* procedure, const void* arguments,
                            size_t size, int timeout_ms, hobbes_answered answered, void* context);
/* Takes answers, waiting up to timeout_ms for the first: how many calls are still under way. */
int hobbes_client_poll(hobbes_client* client, int timeout_ms);
/* Its answer is of no interest any more: it is not told of. */
void hobbes_client_cancel(hobbes_client* client, int64_t call);
/* For poll(2), as hobbes_channel_descriptor. */
int hobbes_client_descriptor(hobbes_client* client);
void hobbes_client_close(hobbes_client* client); /* NULL is allowed */

/* ---- Notifiers: changes of the mirror, for programs that wait with poll(2) or epoll(7) ---- */

typedef struct hobbes_notifier hobbes_notifier;

struct hobbes_filter {
  uint64_t enclave; /* of records that belong to it, and its own; 0: of all */
  const char* name; /* a pattern as of a shell, fnmatch(3); NULL: every name */
  uint32_t type;    /* enum hobbes_record_type; HOBBES_FREE: every type */
};

/* From now on. filter NULL: every change. NULL on failure, as hobbes_nis_open. */
hobbes_notifier* hobbes_notifier_open(const struct hobbes_filter* filter);
/* Readable while hobbes_notifier_next has something. Do not read or close it. */
int hobbes_notifier_descriptor(hobbes_notifier* notifier);
/* The next change, without waiting. -EAGAIN: none; -EOVERFLOW: changes were lost since the last
 * call, read the records anew. */
int hobbes_notifier_next(hobbes_notifier* notifier, struct hobbes_change* out);
void hobbes_notifier_close(hobbes_notifier* notifier); /* NULL is allowed */

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

/* ---- Processes, by global id: that of their records (type HOBBES_PROCESS) in the mirror ---- */

/* Sends a signal to a process that Hobbes has started, in whatever enclave; never to one that only
 * has its number. -ENOENT: it has ended; -EACCES. */
int hobbes_process_signal(uint64_t id, int number);

#ifdef __cplusplus
}
#endif
#endif
