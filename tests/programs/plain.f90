! An ordinary MPI program in Fortran.
program plain
  use mpi
  implicit none
  integer :: rank, size, total, ierr
  call MPI_Init(ierr)
  call MPI_Comm_rank(MPI_COMM_WORLD, rank, ierr)
  call MPI_Comm_size(MPI_COMM_WORLD, size, ierr)
  call MPI_Allreduce(1, total, 1, MPI_INTEGER, MPI_SUM, MPI_COMM_WORLD, ierr)
  if (total /= size) call MPI_Abort(MPI_COMM_WORLD, 5, ierr)
  print '(a,i0,a,i0)', 'Fortran rank ', rank, ' of ', size
  call MPI_Finalize(ierr)
end program plain
