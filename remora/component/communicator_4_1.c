#include <string.h>

#include "communicator.h"
#include "ompi/group/group.h"
#include "ompi/version.h"
#include "opal/class/opal_pointer_array.h"

#if OMPI_MAJOR_VERSION != 4 || OMPI_MINOR_VERSION != 1
#error "this file knows the communicator of Open MPI 4.1 only"
#endif

bool communicator_layout_is_known(void) {
  const ompi_communicator_t* world = &ompi_mpi_comm_world.comm;
  return world->c_contextid == 0 && world->c_f_to_c_index == 0 &&
         strcmp(world->c_name, "MPI_COMM_WORLD") == 0 &&
         world->c_local_group->grp_my_rank == world->c_my_rank;
}

void exchange_communicators(ompi_communicator_t* a, ompi_communicator_t* b) {
  exchange_flags(a, b);
  EXCHANGE(uint32_t, c_contextid);
  EXCHANGE(int, c_my_rank);
  EXCHANGE(uint32_t, c_assertions);
  EXCHANGE(int, c_id_available);
  EXCHANGE(int, c_id_start_index);
  EXCHANGE(ompi_group_t*, c_local_group);
  EXCHANGE(ompi_group_t*, c_remote_group);
  EXCHANGE(struct ompi_communicator_t*, c_local_comm);
  EXCHANGE(int, c_cube_dim);
  EXCHANGE(struct mca_topo_base_module_t*, c_topo);
  EXCHANGE(struct mca_pml_comm_t*, c_pml_comm);
  EXCHANGE(mca_coll_base_comm_coll_t*, c_coll);
  EXCHANGE(int32_t, c_nbc_tag);
  opal_pointer_array_set_item(&ompi_mpi_communicators, (int)a->c_contextid, a);
  opal_pointer_array_set_item(&ompi_mpi_communicators, (int)b->c_contextid, b);
}

void name_communicator(ompi_communicator_t* comm, const char* name) {
  strncpy(comm->c_name, name, MPI_MAX_OBJECT_NAME - 1);
  comm->c_flags |= OMPI_COMM_NAMEISSET;
}
