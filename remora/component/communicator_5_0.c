#include <stdlib.h>
#include <string.h>

#include "communicator.h"
#include "ompi/errhandler/errhandler.h"
#include "ompi/group/group.h"
#include "ompi/version.h"
#include "opal/class/opal_hash_table.h"
#include "opal/class/opal_pointer_array.h"

#if OMPI_MAJOR_VERSION != 5 || OMPI_MINOR_VERSION != 0
#error "this file knows the communicator of Open MPI 5.0 only"
#endif

bool communicator_layout_is_known(void) {
  const ompi_communicator_t* world = &ompi_mpi_comm_world.comm;
  return world->c_index == 0 && world->c_f_to_c_index == 0 && world->c_name != NULL &&
         strcmp(world->c_name, "MPI_COMM_WORLD") == 0 &&
         world->c_local_group->grp_my_rank == world->c_my_rank &&
         world->errhandler_type == OMPI_ERRHANDLER_TYPE_COMM &&
         world->instance == world->c_local_group->grp_instance;
}

/* A communicator whose number is not the same in all its processes is found by its identity. */
static void register_communicator(ompi_communicator_t* comm) {
  opal_pointer_array_set_item(&ompi_mpi_communicators, (int)comm->c_index, comm);
  if (!OMPI_COMM_IS_GLOBAL_INDEX(comm))
    opal_hash_table_set_value_ptr(&ompi_comm_hash, &comm->c_contextid, sizeof comm->c_contextid,
                                  comm);
}

void exchange_communicators(ompi_communicator_t* a, ompi_communicator_t* b) {
  exchange_flags(a, b);
  EXCHANGE(ompi_comm_extended_cid_t, c_contextid);
  EXCHANGE(ompi_comm_extended_cid_block_t, c_contextidb);
  EXCHANGE(uint32_t, c_index);
  EXCHANGE(int, c_my_rank);
  EXCHANGE(uint32_t, c_assertions);
#if OPAL_ENABLE_FT_MPI
  EXCHANGE(uint32_t, c_epoch);
#endif
  EXCHANGE(uint32_t*, c_index_vec);
  EXCHANGE(int32_t, c_nbc_tag);
  EXCHANGE(int, c_cube_dim);
  EXCHANGE(ompi_group_t*, c_local_group);
  EXCHANGE(ompi_group_t*, c_remote_group);
  EXCHANGE(struct ompi_communicator_t*, c_local_comm);
  EXCHANGE(struct mca_topo_base_module_t*, c_topo);
  EXCHANGE(struct mca_pml_comm_t*, c_pml_comm);
  EXCHANGE(struct mca_mtl_comm_t*, c_mtl_comm);
  EXCHANGE(mca_coll_base_comm_coll_t*, c_coll);
#if OPAL_ENABLE_FT_MPI
  EXCHANGE(opal_object_t*, agreement_specific);
  EXCHANGE(int, num_acked);
  EXCHANGE(int, any_source_offset);
  EXCHANGE(bool, any_source_enabled);
  EXCHANGE(bool, comm_revoked);
  EXCHANGE(bool, coll_revoked);
#endif
  register_communicator(a);
  register_communicator(b);
}

void name_communicator(ompi_communicator_t* comm, const char* name) {
  free(comm->c_name);
  comm->c_name = strdup(name);
  comm->c_flags |= OMPI_COMM_NAMEISSET;
}
