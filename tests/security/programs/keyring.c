// Prints the text of a key that the session's keyring has, or why it has none.
//
//   keyring NAME        looks for it
//   keyring NAME VALUE PROGRAM ARGS...   a new session's keyring with this key, and the program in
//   it
#include <errno.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc > 3) {
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0L) < 0 ||
        syscall(SYS_add_key, "user", argv[1], argv[2], strlen(argv[2]), KEY_SPEC_SESSION_KEYRING) <
            0) {
      perror("make a key");
      return 2;
    }
    execv(argv[3], argv + 3);
    perror(argv[3]);
    return 127;
  }
  long key = syscall(SYS_keyctl, KEYCTL_SEARCH, (long)KEY_SPEC_SESSION_KEYRING, "user",
                     argc > 1 ? argv[1] : "", 0L);
  char text[256] = "";
  if (key < 0 || syscall(SYS_keyctl, KEYCTL_READ, key, text, sizeof text - 1) < 0) {
    printf("no key: %s\n", strerror(errno));
    return 1;
  }
  printf("%s\n", text);
  return 0;
}
