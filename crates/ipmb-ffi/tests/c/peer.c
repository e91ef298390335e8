// The C side of the tests between processes: peer_c ROLE BUS. `peer.cc` plays the same roles in C++.

#define _GNU_SOURCE
#include <ipmb_ffi.h>
#include <poll.h>
#include <unistd.h>

#include "check.h"

enum { SOON = 20000 };

static Sender sender;
static Receiver receiver;

static void join(const char *bus, bool may_host) {
  Label label = ipmb_label();
  ipmb_label_insert(&label, "peer");
  const Options options = {bus, &label, "token", may_host};
  Settings settings = ipmb_settings();
  CHECK(ipmb_settings_link_capacity(&settings, 65536) == 0);
  CHECK(ipmb_join_with(options, &settings, SOON, &sender, &receiver) == 0);
  ipmb_settings_drop(settings);
  ipmb_label_drop(label);
  SAY("ready");
}

static Message message_to(LabelOp op, SelectorMode mode, uint32_t ttl, const char *text) {
  const Selector selector = {&op, mode, ttl};
  Message message = ipmb_message(selector, 1, (const uint8_t *)text, (uint32_t)strlen(text));
  CHECK(message != NULL);
  ipmb_label_op_drop(op);
  return message;
}

// Sends back what comes: the bytes reversed, the format one higher, the objects and regions the same.
static void echo(void) {
  for (;;) {
    Message message = NULL;
    CHECK(ipmb_recv(&receiver, &message, SOON) == 0);
    uint16_t format = 0;
    const uint8_t *data = NULL;
    uint32_t size = 0;
    ipmb_message_bytes_data(&message, &format, &data, &size);
    if (format == 0xffff) {
      ipmb_message_drop(message);
      return;
    }
    uint8_t *reversed = malloc(size + 1u);
    CHECK(reversed != NULL);
    for (uint32_t i = 0; i < size; i++) {
      reversed[i] = data[size - 1 - i];
    }
    LabelOp op = ipmb_label_op_leaf("test");
    const Selector selector = {&op, kUnicast, 0};
    Message answer = ipmb_message(selector, (uint16_t)(format + 1), reversed, size);
    CHECK(answer != NULL);
    free(reversed);
    ipmb_label_op_drop(op);
    size_t count = 0;
    CHECK(ipmb_message_object_count(&message, &count) == 0);
    for (; count > 0; count--) {
      CHECK(ipmb_message_object_get(&message, 0) != 0);
      ipmb_message_object_append(&answer, ipmb_message_object_retrieve(&message, 0));
    }
    CHECK(ipmb_message_memory_region_count(&message, &count) == 0);
    for (; count > 0; count--) {
      MemoryRegion region = ipmb_message_memory_region_retrieve(&message, 0);
      intptr_t mapped = 0;
      uint8_t *bytes = ipmb_memory_region_map(&region, 0, -1, &mapped);
      CHECK(bytes != NULL && mapped > 0);
      bytes[0]++;
      ipmb_message_memory_region_append(&answer, region);
    }
    ipmb_message_drop(message);
    CHECK(ipmb_send(&sender, answer) == 0);
  }
}

// Fills the link to a receiver that does not receive.
static void full(void) {
  listen_once();
  LabelOp op = ipmb_label_op_leaf("slow");
  const Selector selector = {&op, kUnicast, 0};
  uint8_t bytes[1000] = {0};
  uint32_t count = 0;
  Message message = NULL;
  ErrorCode code = 0;
  while (code == 0) {
    memcpy(bytes, &count, sizeof count);
    message = ipmb_message(selector, 1, bytes, sizeof bytes);
    code = ipmb_try_send(&sender, &message);
    if (code == 0) {
      CHECK(message == NULL);
      count++;
    }
  }
  CHECK(code == ERROR_CODE_FULL);
  CHECK(ipmb_send_timeout(&sender, &message, 30) == ERROR_CODE_TIMEOUT);
  // It came back as it was.
  const uint8_t *data = NULL;
  uint32_t size = 0;
  ipmb_message_bytes_data(&message, NULL, &data, &size);
  CHECK(size == sizeof bytes && memcmp(data, bytes, size) == 0);
  SAY("full %u", (unsigned)count);
  CHECK(ipmb_send_timeout(&sender, &message, SOON) == 0 && message == NULL);
  SAY("sent");
  ipmb_label_op_drop(op);
  listen_once();
}

// A multicast that reached one of two comes back for the other.
static void unreached(void) {
  listen_once();
  char bytes[1000] = {0};
  memset(bytes, 'x', sizeof bytes - 1);
  ErrorCode code = 0;
  unsigned count = 0;
  while (code == 0) {
    Message message = message_to(ipmb_label_op_leaf("slow"), kUnicast, 0, bytes);
    code = ipmb_try_send(&sender, &message);
    count += code == 0;
    ipmb_message_drop(message);
  }
  CHECK(code == ERROR_CODE_FULL);
  // The full receiver's next place may still hold a short one.
  Message message = message_to(ipmb_label_op_leaf("many"), kMulticast, 0, bytes);
  CHECK(ipmb_try_send(&sender, &message) == ERROR_CODE_FULL && message != NULL);
  const uint64_t *endpoints = NULL;
  size_t left = 0;
  CHECK(ipmb_message_unreached(&message, &endpoints, &left) == 0 && left == 1 && endpoints[0] != 0);
  SAY("full %u", count);
  CHECK(ipmb_send_timeout(&sender, &message, SOON) == 0);
  SAY("sent");
  listen_once();
}

// One payload that does not decode, one of another type, one that is fine.
static void decode(void) {
  Message message = NULL;
  CHECK(ipmb_recv(&receiver, &message, SOON) == ERROR_CODE_DECODE && message == NULL);
  CHECK(ipmb_recv(&receiver, &message, SOON) == 0);
  uint16_t format = 0;
  CHECK(ipmb_message_bytes_data_try(&message, &format, NULL, NULL) == 0 && format == 5);
  ipmb_message_drop(message);
  Stats stats;
  CHECK(ipmb_sender_stats(&sender, &stats, sizeof stats) == 0 && stats.skipped == 1);
  SAY("done");
  listen_once();
}

static void selectors(void) {
  listen_once();
  LabelOp op = ipmb_label_op_and(ipmb_label_op_leaf("planet"),
                                 ipmb_label_op_not(ipmb_label_op_leaf("gas")));
  CHECK(ipmb_send(&sender, message_to(op, kUnicast, 0, "1")) == 0);
  op = ipmb_label_op_or(ipmb_label_op_leaf("moon"), ipmb_label_op_leaf("gas"));
  CHECK(ipmb_send(&sender, message_to(op, kUnicast, 0, "2")) == 0);
  CHECK(ipmb_send(&sender, message_to(ipmb_label_op_leaf("planet"), kMulticast, 0, "3")) == 0);
  CHECK(ipmb_send(&sender, message_to(ipmb_label_op_bool(false), kMulticast, 0, "4")) == 0);
  CHECK(ipmb_send(&sender, message_to(ipmb_label_op_leaf("late"), kUnicast, 60000, "5")) == 0);
  CHECK(ipmb_send(&sender, message_to(ipmb_label_op_bool(true), kMulticast, 0, "6")) == 0);
  Message message = NULL;
  CHECK(ipmb_recv(&receiver, &message, SOON) == 0);
  const uint8_t *data = NULL;
  uint32_t size = 0;
  ipmb_message_bytes_data(&message, NULL, &data, &size);
  CHECK(size == 1 && data[0] == '6');
  ipmb_message_drop(message);
  SAY("sent");
  listen_once();
}

// Nobody of those who are left may host the controller, so the bus does not settle.
static void settling(void) {
  ErrorCode code = 0;
  Message message = NULL;
  while (code == 0) {
    message = message_to(ipmb_label_op_leaf("nobody"), kUnicast, 0, "x");
    code = ipmb_try_send(&sender, &message);
  }
  CHECK(code == ERROR_CODE_SETTLING && message != NULL);
  CHECK(ipmb_send_timeout(&sender, &message, 30) == ERROR_CODE_TIMEOUT && message != NULL);
  ipmb_message_drop(message);
}

static void count_up(void *context) { ++*(int *)context; }

static void regions(void) {
  int freed = 0;
  MemoryRegistry registry = ipmb_memory_registry();
  MemoryRegion frozen = NULL, lent = NULL, kept = NULL;
  CHECK(ipmb_memory_region(8192, &frozen) == 0);
  uint8_t *bytes = ipmb_memory_region_map(&frozen, 0, -1, NULL);
  CHECK(bytes != NULL);
  memset(bytes, 'f', 8192);
  CHECK(ipmb_memory_region_freeze(&frozen) == 0);
  CHECK(ipmb_memory_registry_alloc_with_free(&registry, 4096, "tag", &freed, count_up, &lent) == 0);
  bytes = ipmb_memory_region_map(&lent, 0, 4096, NULL);
  CHECK(bytes != NULL);
  memset(bytes, 'l', 4096);
  CHECK(ipmb_memory_region_clone(&lent, &kept) == 0);
  int ends[2];
  CHECK(pipe(ends) == 0);
  Message message = message_to(ipmb_label_op_leaf("test"), kUnicast, 60000, "regions");
  ipmb_message_memory_region_append(&message, frozen);
  ipmb_message_memory_region_append(&message, lent);
  ipmb_message_object_append(&message, (Object)ends[1]);
  CHECK(ipmb_send(&sender, message) == 0);
  // Through the pipe whose other end went away with the message.
  char word[4] = "";
  CHECK(read(ends[0], word, 3) == 3 && strcmp(word, "hey") == 0);
  close(ends[0]);
  CHECK(ipmb_memory_region_ref_count(&kept) > 2);
  bytes = ipmb_memory_region_map(&kept, 0, 1, NULL);
  CHECK(bytes != NULL && bytes[0] == 'r');
  ipmb_memory_registry_maintain(&registry);
  CHECK(freed == 0);
  SAY("seen");
  listen_once();
  ipmb_memory_region_drop(kept);
  ipmb_memory_registry_maintain(&registry);
  CHECK(freed == 1);
  ipmb_memory_registry_drop(registry);
  CHECK(freed == 1);
}

// Receives in an event loop.
static void events(void) {
  struct pollfd wait = {-1, POLLIN, 0};
  CHECK(ipmb_receiver_fd(&receiver, &wait.fd) == 0);
  for (;;) {
    Message message = NULL;
    ErrorCode code = 0;
    while ((code = ipmb_try_recv(&receiver, &message)) == 0) {
      uint16_t format = 0;
      CHECK(ipmb_message_bytes_data_try(&message, &format, NULL, NULL) == 0);
      ipmb_message_drop(message);
      if (format == 0xffff) {
        return;
      }
      SAY("got %d", format);
    }
    CHECK(code == ERROR_CODE_EMPTY);
    CHECK(poll(&wait, 1, SOON) == 1);
  }
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*play)(void);
  } roles[] = {
      {"echo", echo},           {"full", full},       {"unreached", unreached}, {"decode", decode},
      {"selectors", selectors}, {"regions", regions}, {"events", events},       {"settling", settling},
  };
  CHECK(argc == 3);
  for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
    if (strcmp(argv[1], roles[i].name) == 0) {
      join(argv[2], roles[i].play != settling);
      roles[i].play();
      ipmb_sender_drop(sender);
      ipmb_receiver_drop(receiver);
      SAY("bye");
      return 0;
    }
  }
  fprintf(stderr, "unknown role %s\n", argv[1]);
  return 2;
}
