/* An MPI-4 program that never calls MPI_Init: it lists the process sets, and makes communicators of
 * the universe and of its own app. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "remora.h"

static void fail(const char* what) {
  fprintf(stderr, "%s failed\n", what);
  exit(1);
}

/* Ends the group. */
static void use(const char* name, MPI_Group group) {
  MPI_Comm comm;
  int size = 0, rank = 0, one = 1, sum = 0;
  if (MPI_Comm_create_from_group(group, name, MPI_INFO_NULL, MPI_ERRORS_RETURN, &comm) !=
      MPI_SUCCESS)
    fail("MPI_Comm_create_from_group");
  MPI_Comm_size(comm, &size);
  MPI_Comm_rank(comm, &rank);
  if (MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, comm) != MPI_SUCCESS || sum != size)
    fail("the sum");
  printf("%s: rank %d of %d\n", name, rank, sum);
  MPI_Comm_free(&comm);
  MPI_Group_free(&group);
}

int main(void) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  MPI_Session session;
  if (MPI_Session_init(MPI_INFO_NULL, MPI_ERRORS_RETURN, &session) != MPI_SUCCESS)
    fail("MPI_Session_init");

  /* MPI_Session_get_num_psets of Open MPI 5.0 counts sets of PMIx only once their names have been
   * asked for: it reads PMIx's number of them into a null pointer. Three sets are its own. */
  int sets = 0, length = 0;
  MPI_Session_get_nth_pset(session, MPI_INFO_NULL, 3, &length, NULL);
  MPI_Session_get_num_psets(session, MPI_INFO_NULL, &sets);
  for (int i = 0; i < sets; ++i) {
    char name[MPI_MAX_PSET_NAME_LEN] = "";
    length = 0;
    MPI_Session_get_nth_pset(session, MPI_INFO_NULL, i, &length, NULL);
    MPI_Session_get_nth_pset(session, MPI_INFO_NULL, i, &length, name);
    printf("set %s\n", name);
  }

  MPI_Group universe, app;
  if (MPI_Group_from_session_pset(session, "mpi://WORLD", &universe) != MPI_SUCCESS)
    fail("MPI_Group_from_session_pset");
  int number = 0, first = 0, ranks = 0;
  if (remora_app(getenv("REMORA_APP"), &number, &first, &ranks) != 0) fail("remora_app");
  int range[1][3] = {{first, first + ranks - 1, 1}};
  MPI_Group_range_incl(universe, 1, range, &app);
  use("app", app);
  use("universe", universe);
  MPI_Session_finalize(&session);
  return 0;
}
