/* The melt of LAMMPS's examples in one process: temperature, potential energy and pressure as it
 * goes, to the last digit. */
#include <lammps/library.h>
#include <mpi.h>
#include <stdio.h>

int main(int count, char** arguments) {
  static char* options[] = {"melt", "-log", "none", "-screen", "none"};
  static const char* const commands[] = {"units lj",
                                         "atom_style atomic",
                                         "lattice fcc 0.8442",
                                         "region box block 0 6 0 6 0 6",
                                         "create_box 1 box",
                                         "create_atoms 1 box",
                                         "mass 1 1.0",
                                         "velocity all create 3.0 87287 loop geom",
                                         "pair_style lj/cut 2.5",
                                         "pair_coeff 1 1 1.0 1.0 2.5",
                                         "neighbor 0.3 bin",
                                         "fix 1 all nve",
                                         "thermo 20"};
  MPI_Init(&count, &arguments);
  void* lammps = lammps_open_no_mpi(5, options, NULL);
  if (lammps == NULL) return 1;
  for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; ++i)
    lammps_command(lammps, commands[i]);
  printf("%6s %22s %22s %22s\n", "step", "temperature", "potential energy", "pressure");
  for (int i = 1; i <= 3; ++i) {
    lammps_command(lammps, "run 20");
    printf("%6d %22.17g %22.17g %22.17g\n", 20 * i, lammps_get_thermo(lammps, "temp"),
           lammps_get_thermo(lammps, "pe"), lammps_get_thermo(lammps, "press"));
  }
  lammps_close(lammps);
  int ranks;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  printf("%d rank\n", ranks);
  MPI_Finalize();
  return 0;
}
