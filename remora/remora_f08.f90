! The communicators of a composition for Fortran 2008 programs (remora.h says what they are):
!
!   use mpi_f08
!   use remora_f08
!   call MPI_Barrier(MPI_COMM_UNIVERSE())
!   space = remora_comm('analysis')
!
! Compile it with the program (gfortran writes modules that only its own release reads), and link
! with -lremora.
module remora_f08
  use, intrinsic :: iso_c_binding, only: c_char, c_int, c_null_char
  use mpi_f08, only: MPI_Comm
  implicit none
  private
  public :: MPI_COMM_UNIVERSE, remora_comm, remora_app

  interface
    function comm_f(name, length) bind(c, name='remora_comm_f') result(handle)
      import :: c_char, c_int
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int), value :: length
      integer :: handle
    end function comm_f
    function app_c(name, number, first_rank, ranks) bind(c, name='remora_app') result(found)
      import :: c_char, c_int
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int), intent(out) :: number, first_rank, ranks
      integer(c_int) :: found
    end function app_c
  end interface

contains

  !> The ranks of all apps; MPI_COMM_WORLD in a program that `remora run` did not start.
  function MPI_COMM_UNIVERSE() result(comm)
    type(MPI_Comm) :: comm
    comm = remora_comm('')
  end function MPI_COMM_UNIVERSE

  !> The rank space with this name, or MPI_COMM_NULL when this rank is in none such. An empty name:
  !> the universe.
  function remora_comm(name) result(comm)
    character(len=*), intent(in) :: name
    type(MPI_Comm) :: comm
    comm%MPI_VAL = comm_f(name, len_trim(name))
  end function remora_comm

  !> The app with this name: its number, the universe rank of its rank 0 and its size. False when
  !> there is none.
  function remora_app(name, number, first_rank, ranks) result(found)
    character(len=*), intent(in) :: name
    integer, intent(out) :: number, first_rank, ranks
    logical :: found
    integer(c_int) :: n, f, r
    n = 0
    f = 0
    r = 0
    found = app_c(trim(name)//c_null_char, n, f, r) == 0
    number = n
    first_rank = f
    ranks = r
  end function remora_app

end module remora_f08
