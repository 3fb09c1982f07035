/* The Node Information Service mirror, version 1: layout shared by every world (C11-clean, no
 * libc). Document: docs/NIS.md. A change of this file is a change of the format: raise the version
 * and the document with it.
 *
 * The file is  header | change log | name index | slots.  One writer (hobbesd); any number of
 * readers that map it read-only. All integers little-endian, all multi-byte fields naturally
 * aligned.
 *
 * A slot holds two copies of one record and a version. Copy (version & 1) is the published one; the
 * writer fills the other and then raises the version by one. So a writer that dies at any
 * instruction leaves a readable record, and a reader needs no lock: it copies the published one and
 * starts over if the version moved meanwhile (the seqlock of H. Boehm, "Can seqlocks get along with
 * programming language memory models?", MSPC 2012, with a second buffer).
 */
#ifndef HOBBES_ABI_NIS_H
#define HOBBES_ABI_NIS_H

#include <stdint.h>

#ifdef __cplusplus
#define HOBBES_ASSERT_LAYOUT(condition) static_assert(condition, #condition)
extern "C" {
#else
#define HOBBES_ASSERT_LAYOUT(condition) _Static_assert(condition, #condition)
#endif

#define HOBBES_NIS_MAGIC 0x31534e2d7362626fULL /* "obbs-NS1" */
#define HOBBES_NIS_MAJOR 1                     /* readers refuse another one */
#define HOBBES_NIS_MINOR 4 /* only adds fields at the ends of structs; readers accept any */

enum {
  HOBBES_NAME_SIZE = 128,
  HOBBES_CHANGE_NAME_SIZE = 80,
  HOBBES_CPU_WORDS = 16,
  HOBBES_NUMA_NODES = 16
};

enum hobbes_record_type {
  HOBBES_FREE = 0,
  HOBBES_ENCLAVE = 1,
  HOBBES_APP = 2,
  HOBBES_PROCESS = 3,
  HOBBES_CORE = 4,
  HOBBES_NUMA = 5,
  HOBBES_SEGMENT = 6,
  HOBBES_ATTACHMENT = 7,
  HOBBES_COMPOSITION = 8,
  HOBBES_KEY = 9, /* only in a composition's private shard */
  HOBBES_NODE = 10,
  HOBBES_NAME = 11, /* since minor 3 */
  HOBBES_RECORD_TYPES = 12
};

enum hobbes_name_kind {
  HOBBES_NAME_SERVICE = 1, /* somebody listens there */
  HOBBES_NAME_VALUE = 2,
  HOBBES_NAME_SEGMENT = 3
};
enum hobbes_name_scope {
  HOBBES_SCOPE_NODE = 1,
  HOBBES_SCOPE_COMPOSITION = 2,
  HOBBES_SCOPE_ENCLAVE = 3
};
enum { HOBBES_NAME_VALUE_SIZE = 256, HOBBES_NAME_PERSISTENT = 1 };

enum hobbes_enclave_state {
  HOBBES_CREATING = 1, /* resources are leased, the enclave process is not ready */
  HOBBES_CREATED = 2,  /* ready, the program is not started */
  HOBBES_RUNNING = 3,
  HOBBES_PAUSED = 4,
  HOBBES_STOPPED = 5, /* ended as asked or by itself with a status */
  HOBBES_CRASHED = 6  /* ended by a fault, or missed its heartbeat */
};

enum hobbes_core_state {
  HOBBES_CORE_FREE = 1,
  HOBBES_CORE_LEASED = 2,
  HOBBES_CORE_RESERVED = 3,
  HOBBES_CORE_OFFLINE = 4,
  HOBBES_CORE_DETACHED = 5 /* an enclave's own kernel has it; offline for Linux */
};

enum hobbes_phase { /* of a rank, and of an app or composition as the least of its ranks */
                    HOBBES_PHASE_PLANNED = 1,
                    HOBBES_PHASE_STARTED = 2,   /* process exists */
                    HOBBES_PHASE_CONNECTED = 3, /* inside MPI_Init or beyond */
                    HOBBES_PHASE_FINALIZED = 4, /* left MPI_Finalize */
                    HOBBES_PHASE_ENDED = 5
};

struct hobbes_enclave {
  uint32_t kind; /* 1 linux, 2 kitten, 3 palacios */
  int32_t pid;
  uint64_t start_ticks;               /* with pid: the enclave process's identity */
  uint64_t cpus[HOBBES_CPU_WORDS];    /* bit n of word n/64: logical CPU n */
  uint64_t memory[HOBBES_NUMA_NODES]; /* leased bytes per NUMA node */
  uint64_t heartbeat_ns;              /* CLOCK_BOOTTIME of the last sign of life */
  uint64_t created_ns;                /* CLOCK_REALTIME */
  int32_t exit_status;                /* as shells report it; -1 unknown */
  uint32_t flags;                     /* bit 0: shares its cores; bits 8-9: manage grant */
};

struct hobbes_app {
  uint64_t composition;
  uint32_t number; /* MPI app number */
  uint32_t ranks;
  uint32_t first_rank; /* in the universe */
  int32_t exit_status;
};

enum hobbes_process_role {                          /* since minor 3 */
                           HOBBES_PROCESS_RANK = 1, /* of a composition; its name is its rank */
                           HOBBES_PROCESS_INIT = 2, /* the enclave's own; names are process ids */
                           HOBBES_PROCESS_EXEC = 3  /* executed in the enclave */
};
enum { HOBBES_PROGRAM_SIZE = 64 };

/* Its record's id is its global process id: of one process and never of another one. */
struct hobbes_process {
  uint64_t composition, app; /* 0 but for ranks */
  uint64_t start_ticks;
  int32_t pid;
  uint32_t app_number;
  uint32_t app_rank;
  uint32_t global_rank;
  int32_t exit_status;
  uint32_t cpu; /* first CPU it is bound to */
  /* Since minor 3. */
  uint64_t started_ns; /* CLOCK_REALTIME */
  uint32_t role;       /* enum hobbes_process_role */
  uint32_t pad;
  char program[HOBBES_PROGRAM_SIZE]; /* cut where it is longer; always ends in zero */
};

struct hobbes_core {
  uint64_t cpus[HOBBES_CPU_WORDS];
  uint32_t number, package, numa, l3;
};

struct hobbes_numa {
  uint64_t total, leased, reserved; /* bytes */
  uint64_t cpus[HOBBES_CPU_WORDS];
  uint32_t number, package;
};

struct hobbes_segment {
  uint64_t size, page_size; /* bytes */
  uint64_t inode;           /* of the memory object: equal inodes are the same pages */
  uint64_t owner_start_ticks;
  int32_t owner_pid;
  int32_t owner_fd; /* in the owner, for re-adoption */
  uint32_t mode;    /* permission bits as of chmod, for uid, gid, others */
  uint32_t attachments;
  uint32_t flags; /* bit 0: persistent, held by the keeper; bit 1: declared by a bundle, gone with
                     its enclave */
  uint32_t listeners;         /* attachments that hear its doorbell; 0 before minor 1 */
  uint64_t listeners_version; /* another number whenever who hears it changes; since minor 1 */
  uint64_t snapshot_of; /* the segment of which it shows one instant, read-only; 0: none; since
                           minor 4 */
};

struct hobbes_attachment {
  uint64_t segment;
  uint64_t start_ticks;
  int32_t pid;
  uint32_t writable;
  uint64_t bell; /* inode of the pipe through which it hears the segment's doorbell, 0: it does not
                    listen; since minor 1 */
};

struct hobbes_composition {
  uint64_t launcher_start_ticks;
  int32_t launcher_pid;
  uint32_t ranks, apps;
  int32_t exit_status;
};

struct hobbes_key {
  uint32_t size; /* bytes of value used */
  uint32_t pad;
  uint8_t value[312];
};

struct hobbes_node {
  uint64_t reserved_cpus[HOBBES_CPU_WORDS];
  uint64_t daemon_start_ticks;
  int32_t daemon_pid;
  uint32_t cores, packages, numa_nodes;
};

/* A record's scope, for a name: 64-bit FNV-1a of three words of 8 bytes, little-endian: `scope`,
 * `scope_id`, and the owner's uid. So each user has names of his own in each scope. */
struct hobbes_name {
  uint32_t kind, scope; /* enum hobbes_name_kind, hobbes_name_scope */
  uint64_t scope_id;    /* the composition or enclave; 0 for the node */
  uint32_t mode;        /* the write bits: who may connect */
  uint32_t flags;       /* HOBBES_NAME_PERSISTENT: stays when its process ends */
  int32_t owner_pid;
  uint32_t ring; /* of a service: bytes of each ring of its channels */
  uint64_t owner_start_ticks;
  uint64_t inbox;  /* of a service: inode of the socket by which hobbesd tells who connects */
  uint64_t target; /* of a segment: its id */
  uint32_t value_size, pad;
  uint8_t value[HOBBES_NAME_VALUE_SIZE];
};

struct hobbes_record {
  uint64_t id;    /* generation << 32 | slot; never reused */
  uint16_t type;  /* enum hobbes_record_type */
  uint16_t size;  /* bytes of this struct its writer knew */
  uint32_t state; /* by type: enum hobbes_enclave_state, hobbes_core_state, hobbes_phase; 0 where
                     there is none */
  uint32_t uid, gid;
  uint64_t scope;      /* names are unique per (type, scope); enclaves: hash of state root and user,
                          segments: user */
  uint64_t changed_ns; /* CLOCK_REALTIME of the last change */
  uint64_t enclave;    /* the enclave it belongs to, 0: none */
  char name[HOBBES_NAME_SIZE]; /* NUL-terminated */
  union {
    struct hobbes_enclave enclave;
    struct hobbes_app app;
    struct hobbes_process process;
    struct hobbes_core core;
    struct hobbes_numa numa;
    struct hobbes_segment segment;
    struct hobbes_attachment attachment;
    struct hobbes_composition composition;
    struct hobbes_key key;
    struct hobbes_node node;
    struct hobbes_name name;
    uint8_t bytes[336];
  } body;
};

enum hobbes_change_kind { HOBBES_APPEARED = 1, HOBBES_CHANGED = 2, HOBBES_GONE = 3 };

struct hobbes_change {
  uint64_t sequence; /* 1, 2, 3, ...; 0 while the entry is being written */
  uint64_t id;
  uint16_t type, kind;
  uint32_t state;
  uint64_t time_ns; /* CLOCK_REALTIME */
  /* Since minor 2, as the record was after the change; zero before. */
  uint64_t enclave;
  uint32_t uid;
  int32_t exit_status;                /* of an enclave, an app or a process; -1 unknown */
  char name[HOBBES_CHANGE_NAME_SIZE]; /* cut where it is longer; always ends in zero */
};
#define HOBBES_CHANGE_SIZE_MINOR_1 32

struct hobbes_nis_header {
  uint64_t magic;
  uint16_t major, minor;
  uint32_t header_size;
  uint32_t slot_size;   /* bytes from one slot to the next */
  uint32_t record_size; /* bytes of one copy inside a slot */
  uint32_t change_size;
  uint32_t signal;                       /* futex word: low half of log_head */
  uint64_t log_offset, log_capacity;     /* entries; a power of two */
  uint64_t index_offset, index_capacity; /* 8-byte entries; a power of two */
  uint64_t slots_offset;
  uint64_t slots;               /* how many the file holds now; grows */
  uint64_t log_head;            /* sequence of the newest change */
  uint64_t retired;             /* 1: another file has taken this one's place, open that */
  uint64_t writer_heartbeat_ns; /* CLOCK_BOOTTIME, at least once a second */
  uint8_t boot_id[40];
};

struct hobbes_nis_slot_head {
  uint64_t version;
  uint64_t pad[7];
};

/* An index entry: 0 empty, low half 0xffffffff deleted, else (hash >> 32) << 32 | slot + 1. The
 * hash is 64-bit FNV-1a of type (2 bytes LE), scope (8 bytes LE) and the name's characters; probing
 * is linear from hash & (capacity - 1). */
#define HOBBES_INDEX_DELETED 0xffffffffULL

HOBBES_ASSERT_LAYOUT(sizeof(struct hobbes_record) == 512);
HOBBES_ASSERT_LAYOUT(sizeof(struct hobbes_change) == 128);
HOBBES_ASSERT_LAYOUT(sizeof(struct hobbes_nis_header) == 144 + 0);
HOBBES_ASSERT_LAYOUT(sizeof(struct hobbes_nis_slot_head) == 64);
HOBBES_ASSERT_LAYOUT(sizeof(struct hobbes_enclave) <= 336);
HOBBES_ASSERT_LAYOUT(sizeof(struct hobbes_key) <= 336);
HOBBES_ASSERT_LAYOUT(sizeof(struct hobbes_name) <= 336);

#ifdef __cplusplus
}
#endif
#endif
