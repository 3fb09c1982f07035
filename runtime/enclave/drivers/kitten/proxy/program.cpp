#include "program.h"

#include <asm/stat.h>
#include <asm/unistd.h>
#include <elf.h>
#include <linux/auxvec.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/resource.h>

#include <initializer_list>

#include "bounce.h"
#include "system.h"
#include "thread.h"
#include "vdso/clock_data.h"

extern "C" {
[[gnu::visibility("hidden")]] extern const char vdso_begin[], vdso_end[];
}

namespace proxy {
namespace {

constexpr std::uint64_t page = 4096, block = 0x200000;
constexpr std::uint64_t position_base = 0x555555554000, guard = 1ULL << 20U;
constexpr std::uint64_t default_stack = 8ULL << 20U, largest_stack = 64ULL << 20U;
constexpr unsigned segment_limit = 64, script_depth = 4, name_size = 4096;
constexpr long no_entry = -2, not_executable = -8, bad_address = -14, invalid = -22, loops = -40;

char path_of_program[name_size];
char interpreter[name_size];
char script_line[script_depth][256];
char* script_arguments[2 * script_depth + 1];

std::uint64_t round_down(std::uint64_t value) { return value & ~(page - 1); }
std::uint64_t round_up(std::uint64_t value) { return round_down(value + page - 1); }

std::size_t length_of(const char* text) {
  std::size_t out = 0;
  while (text[out] != '\0') ++out;
  return out;
}

struct Loader {
  hobbes_call& frame;
  unsigned slot;

  long map(std::uint64_t address, std::uint64_t size, std::uint64_t protection,
           std::uint64_t flags) const {
    return request(frame, slot, HOBBES_REQUEST_MAP, address, size, protection,
                   flags | MAP_PRIVATE | MAP_ANONYMOUS);
  }
  long protect(std::uint64_t address, std::uint64_t size, std::uint64_t protection) const {
    return request(frame, slot, HOBBES_REQUEST_PROTECT, address, size, protection);
  }
};

struct Image {
  std::uint64_t base, entry, headers, end;
  unsigned header_count;
  bool position_independent;
};

long read_all(int file, void* to, std::uint64_t size, std::uint64_t offset) {
  std::uint64_t done = 0;
  while (done < size) {
    long got = call(__NR_pread64, file, as_long(to) + static_cast<long>(done),
                    static_cast<long>(size - done), static_cast<long>(offset + done));
    if (got == -4) continue;
    if (got == bad_address)
      got = read_bounced(file, static_cast<char*>(to) + done, size - done, offset + done);
    if (got <= 0) return got < 0 ? got : not_executable;
    done += static_cast<std::uint64_t>(got);
  }
  return 0;
}

// The headers are untrusted: what does not fit a program's addresses is refused.
long read_headers(int file, Elf64_Ehdr* header, Elf64_Phdr (&segments)[segment_limit]) {
  if (long bad = read_all(file, header, sizeof *header, 0); bad != 0) return not_executable;
  if (__builtin_memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
      header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64 ||
      (header->e_type != ET_EXEC && header->e_type != ET_DYN) ||
      header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum == 0 ||
      header->e_phnum > segment_limit)
    return not_executable;
  if (long bad = read_all(file, segments, header->e_phnum * sizeof(Elf64_Phdr), header->e_phoff);
      bad != 0)
    return not_executable;
  for (unsigned i = 0; i < header->e_phnum; ++i) {
    const Elf64_Phdr& one = segments[i];
    if (one.p_type != PT_LOAD) continue;
    if (one.p_filesz > one.p_memsz || one.p_vaddr >= HOBBES_PROGRAM_HIGH ||
        one.p_memsz > HOBBES_PROGRAM_HIGH - one.p_vaddr ||
        one.p_vaddr % page != one.p_offset % page)
      return not_executable;
  }
  return 0;
}

long load_segments(const Loader& loader, int file, const Elf64_Ehdr& header,
                   const Elf64_Phdr (&segments)[segment_limit], std::uint64_t wanted_base,
                   Image* out) {
  std::uint64_t low = ~0ULL, high = 0;
  for (unsigned i = 0; i < header.e_phnum; ++i)
    if (segments[i].p_type == PT_LOAD) {
      if (round_down(segments[i].p_vaddr) < low) low = round_down(segments[i].p_vaddr);
      if (round_up(segments[i].p_vaddr + segments[i].p_memsz) > high)
        high = round_up(segments[i].p_vaddr + segments[i].p_memsz);
    }
  if (low >= high) return not_executable;
  std::uint64_t base = 0;
  if (header.e_type == ET_DYN) {
    // The whole range first, so that nothing comes between its parts.
    long at = loader.map(wanted_base, high - low, PROT_NONE, 0);
    if (at < 0) return at;
    base = static_cast<std::uint64_t>(at) - low;
  }
  out->base = base;
  out->entry = base + header.e_entry;
  out->headers = 0;
  out->header_count = header.e_phnum;
  out->end = base + high;
  out->position_independent = header.e_type == ET_DYN;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    const Elf64_Phdr& one = segments[i];
    if (one.p_type == PT_PHDR) out->headers = base + one.p_vaddr;
    if (one.p_type != PT_LOAD || one.p_memsz == 0) continue;
    if (header.e_phoff >= one.p_offset && header.e_phoff < one.p_offset + one.p_filesz &&
        out->headers == 0)
      out->headers = base + one.p_vaddr + (header.e_phoff - one.p_offset);
    const std::uint64_t begin = base + round_down(one.p_vaddr),
                        end = base + round_up(one.p_vaddr + one.p_memsz);
    long at = loader.map(begin, end - begin, PROT_READ | PROT_WRITE, MAP_FIXED);
    if (at < 0) return at;
    // What precedes the segment on its first page is the file's too, as with a mapping.
    const std::uint64_t lead = one.p_vaddr % page;
    if (long bad = read_all(file, reinterpret_cast<void*>(begin), one.p_filesz + lead,
                            one.p_offset - lead);
        bad != 0)
      return bad;
    const std::uint64_t protection = ((one.p_flags & PF_R) != 0 ? PROT_READ : 0U) |
                                     ((one.p_flags & PF_W) != 0 ? PROT_WRITE : 0U) |
                                     ((one.p_flags & PF_X) != 0 ? PROT_EXEC : 0U);
    if (protection != (PROT_READ | PROT_WRITE))
      if (long bad = loader.protect(begin, end - begin, protection); bad < 0) return bad;
  }
  return 0;
}

int open_file(const char* path) {
  return static_cast<int>(call(__NR_openat, AT_FDCWD, as_long(path), O_RDONLY | O_CLOEXEC));
}

// "#!INTERPRETER [ARGUMENT]": true when the file begins so. Both words are left in `line`.
bool script(int file, char (&line)[256], char** program, char** argument) {
  long got = call(__NR_pread64, file, as_long(line), sizeof line - 1, 0);
  if (got < 3 || line[0] != '#' || line[1] != '!') return false;
  line[got] = '\0';
  char* at = line + 2;
  char* end = at;
  while (*end != '\0' && *end != '\n') ++end;
  *end = '\0';
  while (end > at && (end[-1] == ' ' || end[-1] == '\t')) *--end = '\0';
  while (*at == ' ' || *at == '\t') ++at;
  *program = at;
  while (*at != '\0' && *at != ' ' && *at != '\t') ++at;
  *argument = nullptr;
  if (*at != '\0') {
    *at++ = '\0';
    while (*at == ' ' || *at == '\t') ++at;
    if (*at != '\0') *argument = at;
  }
  return **program != '\0';
}

std::uint64_t auxiliary(const std::uint64_t* from, std::uint64_t key, std::uint64_t otherwise) {
  for (; from[0] != AT_NULL; from += 2)
    if (from[0] == key) return from[1];
  return otherwise;
}

// Strings from the top down, then the vectors.
class Stack {
 public:
  explicit Stack(std::uint64_t top) : at_(top) {}
  std::uint64_t push(const void* bytes, std::size_t size) {
    at_ -= size;
    __builtin_memcpy(reinterpret_cast<void*>(at_), bytes, size);
    return at_;
  }
  std::uint64_t push_text(const char* text) { return push(text, length_of(text) + 1); }
  std::uint64_t* reserve(std::size_t words) {
    at_ = (at_ - words * 8) & ~15ULL;
    return reinterpret_cast<std::uint64_t*>(at_);
  }
  [[nodiscard]] std::uint64_t pointer() const { return at_; }

 private:
  std::uint64_t at_;
};

std::size_t count_of(char** list) {
  std::size_t out = 0;
  while (list[out] != nullptr) ++out;
  return out;
}

std::size_t bytes_of(char** list) {
  std::size_t out = 0;
  for (; *list != nullptr; ++list) out += length_of(*list) + 1 + 8;
  return out;
}

// The whole of the stack's addresses, with a gap below. Its end.
long make_stack(const Loader& loader, std::size_t used) {
  rlimit64 limit{default_stack, default_stack};
  (void)call(__NR_prlimit64, 0, RLIMIT_STACK, 0, as_long(&limit));
  std::uint64_t size = limit.rlim_cur > largest_stack ? largest_stack : limit.rlim_cur;
  size = (size + block - 1) & ~(block - 1);
  if (size < used + default_stack / 2) size = (used + default_stack + block - 1) & ~(block - 1);
  long at = loader.map(0, size + guard, PROT_NONE, MAP_STACK | MAP_NORESERVE);
  if (at < 0) return at;
  const std::uint64_t begin = static_cast<std::uint64_t>(at) + guard;
  if (long bad = loader.protect(begin, size, PROT_READ | PROT_WRITE); bad < 0) return bad;
  return static_cast<long>(begin + size);
}

// The clock calls that need no kernel: a page of data, then the image. 0: without them.
std::uint64_t make_vdso(const Loader& loader) {
  static_assert(sizeof(hobbes_clock_data) == 32);
  const auto size = static_cast<std::uint64_t>(vdso_end - vdso_begin);
  const std::uint64_t image_size = round_up(size);
  long at = loader.map(0, page + image_size, PROT_READ | PROT_WRITE, 0);
  if (at < 0 || request(loader.frame, loader.slot, HOBBES_REQUEST_CLOCK) != 0) return 0;
  const auto begin = static_cast<std::uint64_t>(at);
  __builtin_memcpy(reinterpret_cast<void*>(begin), loader.frame.copy, sizeof(hobbes_clock_data));
  __builtin_memcpy(reinterpret_cast<void*>(begin + page), vdso_begin, size);
  if (loader.protect(begin, page, PROT_READ) < 0 ||
      loader.protect(begin + page, image_size, PROT_READ | PROT_EXEC) < 0)
    return 0;
  return begin + page;
}

void remember_path(int file, const char* path) {
  char link[32] = "/proc/self/fd/";
  char digits[12];
  unsigned count = 0, number = static_cast<unsigned>(file);
  do digits[count++] = static_cast<char>('0' + number % 10);
  while ((number /= 10) != 0);
  char* at = link + length_of(link);
  while (count > 0) *at++ = digits[--count];
  *at = '\0';
  long size = call(__NR_readlink, as_long(link), as_long(path_of_program), name_size - 1);
  if (size > 0) {
    path_of_program[size] = '\0';
    return;
  }
  std::size_t length = length_of(path);
  if (length >= name_size) length = name_size - 1;
  __builtin_memcpy(path_of_program, path, length);
  path_of_program[length] = '\0';
}

}  // namespace

long program_path(char* to, std::uint64_t size) {
  std::size_t length = length_of(path_of_program);
  if (size == 0) return invalid;
  if (length > size) length = size;
  long bad = copy(to, path_of_program, length);
  return bad != 0 ? bad : static_cast<long>(length);
}

void load_program(hobbes_call& frame, unsigned slot, const ProgramStart& start) {
  const Loader loader{frame, slot};
  const char* path = start.path;
  char** arguments = start.arguments;
  const char* what = start.path;
  auto give_up = [&](long error) { fail(what, error, error == no_entry ? 127 : 126); };

  // Scripts are programs for their interpreter; each adds one or two arguments before its own path.
  std::size_t leading = 0;
  bool replaces_first = false;
  int file = open_file(path);
  if (file < 0) give_up(file);
  for (unsigned depth = 0;; ++depth) {
    char *program, *argument;
    if (depth == script_depth) give_up(loops);
    if (!script(file, script_line[depth], &program, &argument)) break;
    (void)call(__NR_close, file);
    for (std::size_t i = leading; i-- > 0;)
      script_arguments[i + (argument != nullptr ? 2U : 1U)] = script_arguments[i];
    script_arguments[0] = program;
    if (argument != nullptr) script_arguments[1] = argument;
    if (leading > 0) script_arguments[argument != nullptr ? 2 : 1] = const_cast<char*>(path);
    leading += argument != nullptr ? 2 : 1;
    replaces_first = true;
    path = program;
    file = open_file(path);
    if (file < 0) give_up(file);
  }

  Elf64_Ehdr header;
  static Elf64_Phdr segments[segment_limit];
  if (long bad = read_headers(file, &header, segments); bad != 0) give_up(bad);
  interpreter[0] = '\0';
  bool executable_stack = false;
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    if (segments[i].p_type == PT_GNU_STACK) executable_stack = (segments[i].p_flags & PF_X) != 0;
    if (segments[i].p_type != PT_INTERP) continue;
    if (segments[i].p_filesz == 0 || segments[i].p_filesz >= name_size) give_up(not_executable);
    if (read_all(file, interpreter, segments[i].p_filesz, segments[i].p_offset) != 0)
      give_up(not_executable);
    interpreter[segments[i].p_filesz] = '\0';
  }
  if (executable_stack) fail(what, not_executable, 126);

  if (long bad = request(frame, slot, HOBBES_REQUEST_RESET); bad < 0) give_up(bad);
  const std::size_t used = bytes_of(arguments) + bytes_of(start.environment) + 64 * 1024;
  long stack_end = make_stack(loader, used);
  if (stack_end < 0) give_up(stack_end);
  const auto* random =
      reinterpret_cast<const std::uint8_t*>(auxiliary(start.auxiliary, AT_RANDOM, 0));
  std::uint64_t shift = 0;
  if (random != nullptr) __builtin_memcpy(&shift, random + 8, sizeof shift);
  Image image{}, linker{};
  if (long bad = load_segments(loader, file, header, segments,
                               position_base + (shift & 0xffffU) * page, &image);
      bad != 0)
    give_up(bad);
  remember_path(file, path);
  (void)call(__NR_close, file);
  if (interpreter[0] != '\0') {
    what = interpreter;
    int linker_file = open_file(interpreter);
    if (linker_file < 0) give_up(linker_file);
    if (long bad = read_headers(linker_file, &header, segments); bad != 0) give_up(bad);
    if (long bad = load_segments(loader, linker_file, header, segments, 0, &linker); bad != 0)
      give_up(bad);
    (void)call(__NR_close, linker_file);
  }

  const std::uint64_t vdso = make_vdso(loader);
  Stack stack(static_cast<std::uint64_t>(stack_end) - 16);
  const std::uint64_t name = stack.push_text(path);
  std::uint8_t bytes[16] = {};
  if (random != nullptr) __builtin_memcpy(bytes, random, sizeof bytes);
  const std::uint64_t random_at = stack.push(bytes, sizeof bytes);
  const std::uint64_t platform = stack.push_text("x86_64");
  const std::size_t given = count_of(arguments), variables = count_of(start.environment);
  const std::size_t skipped = replaces_first && given > 0 ? 1 : 0;
  const std::size_t count = leading + (replaces_first ? 1 : 0) + given - skipped;
  constexpr std::size_t auxiliary_words = 2 * 24;
  // The strings above the vectors that lead to them.
  std::uint64_t strings = stack.pointer();
  std::uint64_t size = 0;
  auto measure = [&](const char* text) { size += length_of(text) + 1; };
  for (std::size_t i = 0; i < leading; ++i) measure(script_arguments[i]);
  if (replaces_first) measure(start.path);
  for (std::size_t i = skipped; i < given; ++i) measure(arguments[i]);
  for (std::size_t i = 0; i < variables; ++i) measure(start.environment[i]);
  strings -= size;
  Stack vectors(strings);
  std::uint64_t* words = vectors.reserve(1 + count + 1 + variables + 1 + auxiliary_words);
  std::uint64_t* at = words;
  auto put = [&](const char* text) {
    std::size_t length = length_of(text) + 1;
    __builtin_memcpy(reinterpret_cast<void*>(strings), text, length);
    *at++ = strings;
    strings += length;
  };
  *at++ = count;
  for (std::size_t i = 0; i < leading; ++i) put(script_arguments[i]);
  if (replaces_first) put(start.path);
  for (std::size_t i = skipped; i < given; ++i) put(arguments[i]);
  *at++ = 0;
  for (std::size_t i = 0; i < variables; ++i) put(start.environment[i]);
  *at++ = 0;
  auto pair = [&](std::uint64_t key, std::uint64_t value) {
    *at++ = key;
    *at++ = value;
  };
  for (std::uint64_t key : {AT_HWCAP, AT_HWCAP2, AT_PAGESZ, AT_CLKTCK, AT_UID, AT_EUID, AT_GID,
                            AT_EGID, AT_SECURE, AT_MINSIGSTKSZ})
    pair(key, auxiliary(start.auxiliary, key, 0));
  if (vdso != 0) pair(AT_SYSINFO_EHDR, vdso);
  pair(AT_PHDR, image.headers);
  pair(AT_PHENT, sizeof(Elf64_Phdr));
  pair(AT_PHNUM, image.header_count);
  pair(AT_BASE, linker.base);
  pair(AT_FLAGS, 0);
  pair(AT_ENTRY, image.entry);
  pair(AT_RANDOM, random_at);
  pair(AT_PLATFORM, platform);
  pair(AT_EXECFN, name);
  pair(AT_NULL, 0);

  const char* base_name = path;
  for (const char* c = start.path; *c != '\0'; ++c)
    if (*c == '/') base_name = c + 1;
  if (base_name == path && start.path != path) base_name = start.path;
  (void)call(__NR_prctl, PR_SET_NAME, as_long(base_name));
  std::uint64_t mask = 0;
  (void)call(__NR_rt_sigprocmask, 0, 0, as_long(&mask), 8);

  frame.argument[0] = interpreter[0] != '\0' ? linker.entry : image.entry;
  (void)request(frame, slot, HOBBES_REQUEST_START, frame.argument[0],
                reinterpret_cast<std::uint64_t>(words), image.end, mask);
}

}  // namespace proxy
