/* Open MPI "hook" component: gives every app of a composition its own MPI_COMM_WORLD.
 *
 * All apps are one PMIx namespace, so MPI_Init makes one world of all ranks (and shared memory is
 * used between all of them). At the bottom of MPI_Init this component splits that world by app and
 * exchanges the contents of the object every binary knows as MPI_COMM_WORLD with the app's
 * communicator; the other object then holds the whole job and becomes MPI_COMM_UNIVERSE. An
 * attribute on MPI_COMM_SELF, deleted first thing in MPI_Finalize, puts everything back.
 *
 * It counts this rank's messages and waits in the shared file REMORA_PROGRESS (progress.h), so that
 * the launcher can tell a rank that waits for ever from one that communicates or computes. It also
 * tells the launcher how far this rank has come, one letter each on the pipe named by REMORA_PHASE:
 * s the component is there (MPI_Init, or MPI_Session_init before anything else), i MPI_Init
 * entered, I left, f MPI_Finalize entered, F left.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "communicator.h"
#include "ompi/constants.h"
#include "ompi/mca/hook/base/base.h"
#include "ompi/mca/hook/hook.h"
#include "ompi/mca/pml/pml.h"
#include "ompi/request/request.h"
#include "ompi/version.h"
#include "ompi_config.h"
#include "progress.h"
#include "remora.h"
#include "spaces.h"

static ompi_communicator_t*
    universe; /* heap object; between the exchanges it holds the whole job */
static int keyval = MPI_KEYVAL_INVALID;

/* The pipe is found by its name and is what it should be: a number would be whatever the program,
 * or one between the launcher and it, has opened there. In a virtual machine it is a file, since
 * pipes do not reach into other kernels. */
static void tell(char letter) {
  const char* path = getenv("REMORA_PHASE");
  if (path == NULL) return;
  int fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
  struct stat info;
  if (fd >= 0 && fstat(fd, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISREG(info.st_mode)) &&
      info.st_uid == geteuid())
    (void)!write(fd, &letter, 1);
  if (fd >= 0) close(fd);
}

static void die(const char* why) {
  fprintf(stderr, "remora: cannot set up the communicators of this composition: %s\n", why);
  PMPI_Abort(MPI_COMM_WORLD, 1);
}

/* ---- Counting messages and waits: the entry points of the point-to-point layer and of requests.
 * Everything MPI sends, receives or waits for, collectives included, passes through them. */

static struct remora_progress unshared;
static struct remora_progress* progress = &unshared;
static mca_pml_base_module_t plain; /* the layer as it was */
static ompi_request_fns_t plain_requests;

/* Several threads may call MPI at once; one alone need not pay for that. */
static int threaded;

static void count_message(void) {
  if (threaded)
    __atomic_add_fetch(&progress->messages, 1, __ATOMIC_RELAXED);
  else
    __atomic_store_n(&progress->messages, progress->messages + 1, __ATOMIC_RELAXED);
}

/* Calls of the layers into each other. A thread that waits says nothing of the others, so that a
 * rank with several never counts as one that waits. */
static int waiting;

static void begin_wait(void) {
  if (!threaded && waiting++ == 0)
    __atomic_store_n(&progress->waits, progress->waits + 1, __ATOMIC_RELAXED);
}

static int end_wait(int result) {
  if (!threaded && --waiting == 0)
    __atomic_store_n(&progress->waits, progress->waits + 1, __ATOMIC_RELAXED);
  return result;
}

static int counted_send(const void* buffer, size_t n, struct ompi_datatype_t* type, int to, int tag,
                        mca_pml_base_send_mode_t mode, struct ompi_communicator_t* comm) {
  count_message();
  begin_wait();
  return end_wait(plain.pml_send(buffer, n, type, to, tag, mode, comm));
}

static int counted_isend(const void* buffer, size_t n, struct ompi_datatype_t* type, int to,
                         int tag, mca_pml_base_send_mode_t mode, struct ompi_communicator_t* comm,
                         struct ompi_request_t** request) {
  count_message();
  return plain.pml_isend(buffer, n, type, to, tag, mode, comm, request);
}

static int counted_recv(void* buffer, size_t n, struct ompi_datatype_t* type, int from, int tag,
                        struct ompi_communicator_t* comm, ompi_status_public_t* status) {
  count_message();
  begin_wait();
  return end_wait(plain.pml_recv(buffer, n, type, from, tag, comm, status));
}

static int counted_irecv(void* buffer, size_t n, struct ompi_datatype_t* type, int from, int tag,
                         struct ompi_communicator_t* comm, struct ompi_request_t** request) {
  count_message();
  return plain.pml_irecv(buffer, n, type, from, tag, comm, request);
}

static int counted_start(size_t n, struct ompi_request_t** requests) {
  count_message();
  return plain.pml_start(n, requests);
}

static int counted_mrecv(void* buffer, size_t n, struct ompi_datatype_t* type,
                         struct ompi_message_t** message, ompi_status_public_t* status) {
  begin_wait();
  return end_wait(plain.pml_mrecv(buffer, n, type, message, status));
}

static int counted_probe(int from, int tag, struct ompi_communicator_t* comm,
                         ompi_status_public_t* status) {
  begin_wait();
  return end_wait(plain.pml_probe(from, tag, comm, status));
}

static int counted_mprobe(int from, int tag, struct ompi_communicator_t* comm,
                          struct ompi_message_t** message, ompi_status_public_t* status) {
  begin_wait();
  return end_wait(plain.pml_mprobe(from, tag, comm, message, status));
}

static int counted_wait(ompi_request_t** request, ompi_status_public_t* status) {
  begin_wait();
  return end_wait(plain_requests.req_wait(request, status));
}

static int counted_wait_any(size_t n, ompi_request_t** requests, int* which,
                            ompi_status_public_t* status) {
  begin_wait();
  return end_wait(plain_requests.req_wait_any(n, requests, which, status));
}

static int counted_wait_all(size_t n, ompi_request_t** requests, ompi_status_public_t* statuses) {
  begin_wait();
  return end_wait(plain_requests.req_wait_all(n, requests, statuses));
}

static int counted_wait_some(size_t n, ompi_request_t** requests, int* done, int* which,
                             ompi_status_public_t* statuses) {
  begin_wait();
  return end_wait(plain_requests.req_wait_some(n, requests, done, which, statuses));
}

static void count_messages(void) {
  const char* path = getenv("REMORA_PROGRESS");
  const char* rank = getenv("REMORA_RANK");
  if (path == NULL || rank == NULL) return;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  const size_t number = (size_t)atol(rank);
  struct remora_progress* all =
      mmap(NULL, (number + 1) * sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (all == MAP_FAILED) return;
  progress = all + number;
  plain = mca_pml;
  mca_pml.pml_send = counted_send;
  mca_pml.pml_isend = counted_isend;
  mca_pml.pml_recv = counted_recv;
  mca_pml.pml_irecv = counted_irecv;
  mca_pml.pml_start = counted_start;
  mca_pml.pml_mrecv = counted_mrecv;
  mca_pml.pml_probe = counted_probe;
  mca_pml.pml_mprobe = counted_mprobe;
  plain_requests = ompi_request_functions;
  ompi_request_functions.req_wait = counted_wait;
  ompi_request_functions.req_wait_any = counted_wait_any;
  ompi_request_functions.req_wait_all = counted_wait_all;
  ompi_request_functions.req_wait_some = counted_wait_some;
}

/* Runs first in MPI_Finalize, after the user's own callbacks (attributes are deleted last in, first
 * out). */
static int at_finalize(MPI_Comm comm, int key, void* value, void* extra) {
  (void)comm, (void)key, (void)value, (void)extra;
  if (universe == NULL) return MPI_SUCCESS;
  for (int i = 1; i < remora_space_count; ++i)
    if (remora_spaces[i].comm != MPI_COMM_NULL) PMPI_Comm_free(&remora_spaces[i].comm);
  remora_space_count = 0;
  remora_universe = MPI_COMM_NULL;
  exchange_communicators(&ompi_mpi_comm_world.comm, universe);
  MPI_Comm app = universe;
  universe = NULL;
  PMPI_Comm_free(&app);
  return MPI_SUCCESS;
}

/* REMORA_SPACES is "universe=1;name=0;...": every space in one order on all ranks, with this rank's
 * membership. */
static void make_spaces(void) {
  const char* at = getenv("REMORA_SPACES");
  while (at != NULL && *at != '\0' && remora_space_count < REMORA_SPACE_LIMIT) {
    const char* equals = strchr(at, '=');
    struct remora_space* space = &remora_spaces[remora_space_count];
    if (equals == NULL || (size_t)(equals - at) >= sizeof space->name) {
      die("REMORA_SPACES is malformed");
      return;
    }
    memcpy(space->name, at, (size_t)(equals - at));
    space->name[equals - at] = '\0';
    space->comm = MPI_COMM_NULL;
    if (remora_space_count == 0) {
      space->comm = universe;
    } else if (PMPI_Comm_split(universe, equals[1] == '1' ? 0 : MPI_UNDEFINED, universe->c_my_rank,
                               &space->comm) != MPI_SUCCESS) {
      die("splitting off a named space failed");
      return;
    } else if (space->comm != MPI_COMM_NULL) {
      name_communicator(space->comm, space->name);
    }
    ++remora_space_count;
    at = strchr(equals, ';');
    if (at != NULL) ++at;
  }
}

static int begin(void) {
  tell('s');
  return OMPI_SUCCESS;
}

static void init_top(int argc, char** argv, int requested, int* provided) {
  (void)argc, (void)argv, (void)requested, (void)provided;
  tell('i');
}

static void init_bottom(int argc, char** argv, int requested, int* provided) {
  (void)argc, (void)argv, (void)requested;
  threaded = *provided == MPI_THREAD_MULTIPLE;
  const char* number = getenv("REMORA_APP_NUMBER");
  ompi_communicator_t* world = &ompi_mpi_comm_world.comm;
  if (number == NULL) return;
  if (!communicator_layout_is_known()) {
    die("this Open MPI's communicator is laid out differently from that of " OMPI_VERSION);
    return;
  }
  ompi_communicator_t* app = NULL;
  if (ompi_comm_split(world, atoi(number), world->c_my_rank, &app, false) != OMPI_SUCCESS) {
    die("splitting the world by app failed");
    return;
  }
  PMPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, at_finalize, &keyval, NULL);
  PMPI_Comm_set_attr(MPI_COMM_SELF, keyval, NULL);
  exchange_communicators(world, app);
  universe = app;
  name_communicator(universe, "MPI_COMM_UNIVERSE");
  remora_universe = universe;
  make_spaces();
  count_messages();
  tell('I');
}

static void finalize_top(void) { tell('f'); }
static void finalize_bottom(void) { tell('F'); }

const ompi_hook_base_component_1_0_0_t mca_hook_remora_component = {
    .hookm_version = {OMPI_HOOK_BASE_VERSION_1_0_0, .mca_component_name = "remora",
                      MCA_BASE_MAKE_VERSION(component, OMPI_MAJOR_VERSION, OMPI_MINOR_VERSION,
                                            OMPI_RELEASE_VERSION),
                      .mca_open_component = begin},
    .hookm_data = {MCA_BASE_METADATA_PARAM_CHECKPOINT},
    .hookm_mpi_init_top_post_opal =
        init_top, /* the plain init_top comes before this component is loaded */
    .hookm_mpi_init_bottom = init_bottom,
    .hookm_mpi_finalize_top = finalize_top,
    .hookm_mpi_finalize_bottom = finalize_bottom};
