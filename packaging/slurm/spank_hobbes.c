/* SPANK plugin (spank(7), Slurm 22.05 and newer): `srun --enclave=BUNDLE program` runs each task in
 * an enclave of its own, made for the job's user by hobbes-run and gone with the task.
 *
 * Options: --enclave, --enclave-kind, --enclave-cores, --enclave-memory. sbatch and salloc take
 * them for all steps of the job, which they reach as SLURM_ENCLAVE, SLURM_ENCLAVE_KIND, ...; the
 * batch script itself runs outside, where Slurm's commands are.
 *
 * plugstack.conf: required hobbes_spank.so [hobbes_run=/usr/bin/hobbes-run]
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <slurm/slurm.h>
#include <slurm/spank.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

SPANK_PLUGIN(hobbes, 1)

enum wish { BUNDLE, KIND, CORES, MEMORY, WISHES };

static char* wishes[WISHES]; /* what the user has said; NULL: nothing */
static const char* const variables[WISHES] = {"SLURM_ENCLAVE", "SLURM_ENCLAVE_KIND",
                                              "SLURM_ENCLAVE_CORES", "SLURM_ENCLAVE_MEMORY"};
static const char* program = "/usr/bin/hobbes-run";

/* Takes effect in hobbes-run, which says what is wrong with it. */
static int on_option(int which, const char* value, int remote) {
  (void)remote;
  if (value == NULL || *value == '\0') {
    slurm_error("hobbes: an --enclave option has no value");
    return -1;
  }
  free(wishes[which]);
  wishes[which] = strdup(value);
  return wishes[which] == NULL ? -1 : 0;
}

static struct spank_option options[WISHES] = {
    {"enclave", "BUNDLE", "run each task in an enclave made from this bundle (a folder)", 1, BUNDLE,
     on_option},
    {"enclave-kind", "KIND", "linux, kitten or palacios, whatever the bundle says", 1, KIND,
     on_option},
    {"enclave-cores", "N", "cores of each enclave, whatever the bundle says", 1, CORES, on_option},
    {"enclave-memory", "SIZE", "memory of each enclave, as 2GiB, whatever the bundle says", 1,
     MEMORY, on_option}};

int slurm_spank_init(spank_t spank, int count, char** words) {
  static const char run[] = "hobbes_run=";
  for (int i = 0; i < count; ++i) {
    if (strncmp(words[i], run, sizeof run - 1) != 0) {
      slurm_error("hobbes: plugstack.conf gives it '%s'; it knows hobbes_run=PATH", words[i]);
      return -1;
    }
    program = words[i] + sizeof run - 1;
  }
  const spank_context_t context = spank_context();
  if (context != S_CTX_LOCAL && context != S_CTX_REMOTE && context != S_CTX_ALLOCATOR) return 0;
  for (int i = 0; i < WISHES; ++i)
    if (spank_option_register(spank, &options[i]) != ESPANK_SUCCESS) return -1;
  return 0;
}

/* What sbatch and salloc were told is told to the job's steps. */
int slurm_spank_init_post_opt(spank_t spank, int count, char** words) {
  (void)spank, (void)count, (void)words;
  if (spank_context() != S_CTX_ALLOCATOR) return 0;
  for (int i = 0; i < WISHES; ++i)
    if (wishes[i] != NULL && setenv(variables[i], wishes[i], 1) != 0) return -1;
  return 0;
}

struct command {
  const char** words;
  size_t count, limit;
};

static int add(struct command* to, const char* word) {
  if (to->count + 2 > to->limit) {
    const size_t limit = 2 * to->limit + 64;
    const char** more = realloc(to->words, limit * sizeof *more);
    if (more == NULL) return -1;
    to->words = more;
    to->limit = limit;
  }
  to->words[to->count++] = word;
  to->words[to->count] = NULL;
  return 0;
}

static int add_option(struct command* to, const char* name, const char* value) {
  return add(to, name) != 0 || add(to, value) != 0 ? -1 : 0;
}

/* The limits that srun has taken over from its user, which Slurm would set after this. */
static void set_limits(spank_t spank) {
  static const struct {
    const char* variable;
    int resource;
  } limits[] = {{"SLURM_RLIMIT_CPU", RLIMIT_CPU},         {"SLURM_RLIMIT_FSIZE", RLIMIT_FSIZE},
                {"SLURM_RLIMIT_DATA", RLIMIT_DATA},       {"SLURM_RLIMIT_STACK", RLIMIT_STACK},
                {"SLURM_RLIMIT_CORE", RLIMIT_CORE},       {"SLURM_RLIMIT_RSS", RLIMIT_RSS},
                {"SLURM_RLIMIT_NPROC", RLIMIT_NPROC},     {"SLURM_RLIMIT_NOFILE", RLIMIT_NOFILE},
                {"SLURM_RLIMIT_MEMLOCK", RLIMIT_MEMLOCK}, {"SLURM_RLIMIT_AS", RLIMIT_AS}};
  for (size_t i = 0; i < sizeof limits / sizeof *limits; ++i) {
    char text[64], *end = NULL;
    struct rlimit now;
    if (spank_getenv(spank, limits[i].variable, text, sizeof text) != ESPANK_SUCCESS ||
        getrlimit((__rlimit_resource_t)limits[i].resource, &now) != 0)
      continue;
    errno = 0;
    const unsigned long long wanted = strtoull(text, &end, 10);
    if (errno != 0 || end == text) continue;
    now.rlim_cur = wanted < now.rlim_max ? wanted : now.rlim_max;
    (void)setrlimit((__rlimit_resource_t)limits[i].resource, &now);
  }
}

/* "PATH" with a backslash before each colon and backslash: hobbes-run's --volume. */
static void quote(const char* path, char* out, size_t size) {
  size_t at = 0;
  for (; *path != '\0' && at + 3 < size; ++path) {
    if (*path == ':' || *path == '\\') out[at++] = '\\';
    out[at++] = *path;
  }
  out[at] = '\0';
}

/* In the task's process, as the job's user, in place of Slurm's own execve. */
int slurm_spank_task_init(spank_t spank, int count, char** words) {
  (void)count, (void)words;
  uint32_t job = 0, step = 0, task = 0;
  uid_t user = 0;
  int argc = 0;
  char **argv = NULL, **environment = NULL;
  if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS ||
      spank_get_item(spank, S_JOB_STEPID, &step) != ESPANK_SUCCESS ||
      spank_get_item(spank, S_JOB_UID, &user) != ESPANK_SUCCESS ||
      spank_get_item(spank, S_TASK_GLOBAL_ID, &task) != ESPANK_SUCCESS ||
      spank_get_item(spank, S_JOB_ARGV, &argc, &argv) != ESPANK_SUCCESS ||
      spank_get_item(spank, S_JOB_ENV, &environment) != ESPANK_SUCCESS)
    return -1;
  if (step == SLURM_BATCH_SCRIPT || step == SLURM_EXTERN_CONT || step == SLURM_INTERACTIVE_STEP)
    return 0;
  static char told[WISHES][PATH_MAX];
  for (int i = 0; i < WISHES; ++i)
    if (wishes[i] == NULL &&
        spank_getenv(spank, variables[i], told[i], PATH_MAX) == ESPANK_SUCCESS &&
        told[i][0] != '\0')
      wishes[i] = told[i];
  if (wishes[BUNDLE] == NULL) {
    for (int i = KIND; i < WISHES; ++i)
      if (wishes[i] != NULL) {
        slurm_error("hobbes: --%s says nothing without --enclave=BUNDLE", options[i].name);
        return -1;
      }
    return 0;
  }

  static char node[256], id[512], folder[PATH_MAX], volume[2 * PATH_MAX];
  if (spank_getenv(spank, "SLURMD_NODENAME", node, sizeof node) != ESPANK_SUCCESS)
    (void)gethostname(node, sizeof node - 1);
  /* The epilog finds the job in it. */
  (void)snprintf(id, sizeof id, "%s.%u.%u.%u.%u", node, user, job, step, task);
  struct command command = {NULL, 0, 0};
  int failed = add(&command, program) | add(&command, "run") | add(&command, "--bound") |
               add(&command, "--env-host") | add_option(&command, "--bundle", wishes[BUNDLE]);
  static const char* const names[WISHES] = {"--bundle", "--kind", "--cores", "--memory-size"};
  for (int i = KIND; i < WISHES; ++i)
    if (wishes[i] != NULL) failed |= add_option(&command, names[i], wishes[i]);
  if (getcwd(folder, sizeof folder) != NULL && strcmp(folder, "/") != 0) {
    quote(folder, volume, sizeof volume);
    failed |= add_option(&command, "--volume", volume) | add_option(&command, "--cwd", folder);
  }
  failed |= add(&command, id) | add(&command, "--");
  for (int i = 0; i < argc; ++i) failed |= add(&command, argv[i]);
  if (failed != 0) {
    slurm_error("hobbes: no memory for the task's command");
    return -1;
  }
  set_limits(spank);
  sigset_t none;
  sigemptyset(&none);
  for (int number = 1; number < NSIG; ++number)
    if (number != SIGKILL && number != SIGSTOP) (void)signal(number, SIG_DFL);
  (void)sigprocmask(SIG_SETMASK, &none, NULL);
  (void)execve(program, (char**)(uintptr_t)command.words, environment);
  slurm_error("hobbes: cannot execute %s: %s; see hobbes_run= in plugstack.conf", program,
              strerror(errno));
  return -1;
}
