/* A program that is linked with another MPI than the compositions'. */
int MPI_Init(int* argc, char*** argv);
int main(int argc, char** argv) { return MPI_Init(&argc, &argv); }
