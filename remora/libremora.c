#include <stdlib.h>
#include <string.h>

#include "remora.h"
#include "spaces.h"

MPI_Comm remora_universe = MPI_COMM_NULL;
struct remora_space remora_spaces[REMORA_SPACE_LIMIT];
int remora_space_count = 0;

MPI_Comm remora_comm_universe(void) {
  return remora_universe != MPI_COMM_NULL ? remora_universe : MPI_COMM_WORLD;
}

MPI_Comm remora_comm(const char* name) {
  for (int i = 0; i < remora_space_count; ++i)
    if (strcmp(remora_spaces[i].name, name) == 0) return remora_spaces[i].comm;
  return MPI_COMM_NULL;
}

MPI_Fint remora_comm_f(const char* name, int length) {
  char copy[128];
  while (length > 0 && name[length - 1] == ' ') --length;
  if (length == 0) return MPI_Comm_c2f(remora_comm_universe());
  if (length < 0 || length >= (int)sizeof copy) return MPI_Comm_c2f(MPI_COMM_NULL);
  memcpy(copy, name, (size_t)length);
  copy[length] = '\0';
  return MPI_Comm_c2f(remora_comm(copy));
}

/* REMORA_APPS is "name:first:ranks;name:first:ranks;...", in order of app numbers. */
int remora_app(const char* name, int* number, int* first_rank, int* ranks) {
  const char* at = getenv("REMORA_APPS");
  size_t length = strlen(name);
  for (int i = 0; at != NULL && *at != '\0'; ++i) {
    if (strncmp(at, name, length) == 0 && at[length] == ':') {
      char* end = NULL;
      *number = i;
      *first_rank = (int)strtol(at + length + 1, &end, 10);
      *ranks = (int)strtol(end + 1, NULL, 10);
      return 0;
    }
    at = strchr(at, ';');
    if (at != NULL) ++at;
  }
  return -1;
}
