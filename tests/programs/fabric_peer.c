/* A service and its caller, in C: what a program inside an enclave of any kind does.
 * Usage: fabric-peer serve NAME | fabric-peer call NAME COUNT | fabric-peer stop NAME
 * The service has "reverse" (bytes backwards), "whoami" (the caller's enclave and pid) and "stop".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hobbes.h"

static hobbes_service* service;

static void reverse(hobbes_call* call, void* context) {
  size_t size;
  const char* bytes = hobbes_call_payload(call, &size);
  char out[4096];
  (void)context;
  if (size > sizeof out) {
    hobbes_call_fail(call, EINVAL, "at most 4096 bytes");
    return;
  }
  for (size_t i = 0; i < size; ++i) out[i] = bytes[size - 1 - i];
  hobbes_call_reply(call, out, size);
}

static void whoami(hobbes_call* call, void* context) {
  struct hobbes_peer peer;
  char out[256];
  (void)context;
  hobbes_call_peer(call, &peer);
  hobbes_call_reply(call, out, (size_t)snprintf(out, sizeof out, "%s", peer.enclave));
}

static void stop(hobbes_call* call, void* context) {
  (void)context;
  hobbes_call_reply(call, NULL, 0);
  hobbes_service_stop(service);
}

static int serve(const char* name) {
  service = hobbes_service_open(name, NULL);
  if (!service) {
    fprintf(stderr, "%s\n", hobbes_error());
    return 1;
  }
  hobbes_service_add(service, "reverse", "bytes backwards", reverse, NULL);
  hobbes_service_add(service, "whoami", "the caller's enclave", whoami, NULL);
  hobbes_service_add(service, "stop", "ends the service", stop, NULL);
  if (hobbes_service_run(service, -1) != 0) fprintf(stderr, "%s\n", hobbes_error());
  hobbes_service_close(service);
  return 0;
}

static int answered;
static void on_answer(void* context, int error, const void* bytes, size_t size, int last) {
  (void)context;
  if (last && error == 0 && size == 5 && memcmp(bytes, "edcba", 5) == 0) ++answered;
}

static int call(const char* name, int count) {
  hobbes_client* client = hobbes_client_open(name, NULL, 20000);
  char answer[64];
  if (!client) {
    fprintf(stderr, "%s\n", hobbes_error());
    return 1;
  }
  int64_t size = hobbes_client_call(client, "whoami", NULL, 0, answer, sizeof answer, 20000);
  if (size < 0 || strncmp(answer, hobbes_self(), (size_t)size) != 0) {
    fprintf(stderr, "whoami: %s\n", size < 0 ? hobbes_error() : "another one's name");
    return 1;
  }
  for (int i = 0; i < count; ++i) {
    for (;;) {
      int64_t id = hobbes_client_issue(client, "reverse", "abcde", 5, 20000, on_answer, NULL);
      if (id >= 0) break;
      if (id != -EBUSY || hobbes_client_poll(client, 20000) < 0) {
        fprintf(stderr, "%s\n", hobbes_error());
        return 1;
      }
    }
  }
  while (hobbes_client_poll(client, 20000) > 0) {
  }
  hobbes_client_close(client);
  printf("%d answers\n", answered);
  return answered == count ? 0 : 1;
}

static int end(const char* name) {
  hobbes_client* client = hobbes_client_open(name, NULL, 20000);
  if (!client || hobbes_client_call(client, "stop", NULL, 0, NULL, 0, 20000) < 0) {
    fprintf(stderr, "%s\n", hobbes_error());
    return 1;
  }
  hobbes_client_close(client);
  return 0;
}

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "serve") == 0) return serve(argv[2]);
  if (argc == 3 && strcmp(argv[1], "stop") == 0) return end(argv[2]);
  if (argc == 4 && strcmp(argv[1], "call") == 0) return call(argv[2], atoi(argv[3]));
  return 2;
}
