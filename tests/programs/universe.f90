! What a Fortran program sees of its composition.
program universe
  use mpi_f08
  use remora_f08
  implicit none
  integer :: rank, total, sum, size, number, first, ranks
  type(MPI_Comm) :: space
  call MPI_Init()
  call MPI_Comm_rank(MPI_COMM_UNIVERSE(), rank)
  call MPI_Comm_size(MPI_COMM_UNIVERSE(), total)
  call MPI_Allreduce(rank + 1, sum, 1, MPI_INTEGER, MPI_SUM, MPI_COMM_UNIVERSE())
  if (sum /= total * (total + 1) / 2) call MPI_Abort(MPI_COMM_WORLD, 5)
  size = 0
  space = remora_comm('first')
  if (space /= MPI_COMM_NULL) call MPI_Comm_size(space, size)
  if (remora_comm('nobody') /= MPI_COMM_NULL) call MPI_Abort(MPI_COMM_WORLD, 6)
  if (remora_app('nobody', number, first, ranks)) call MPI_Abort(MPI_COMM_WORLD, 7)
  if (.not. remora_app('fortran', number, first, ranks)) call MPI_Abort(MPI_COMM_WORLD, 8)
  print '(a,i0,a,i0,a,i0,a,i0,a,i0)', 'rank ', rank, ' of ', total, ', first of ', size, &
    ', fortran ', first, '+', ranks
  call MPI_Finalize()
end program universe
