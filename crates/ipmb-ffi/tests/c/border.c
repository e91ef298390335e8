// What the library promises of bad arguments, and what one process can see by itself: border BUS

#define _GNU_SOURCE
#include <fcntl.h>
#include <ipmb_ffi.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static const char *const bad_utf8 = "\xff\xfe";

// The function returned nothing or no value, and the last error is `code`.
#define FAILED(code) (ipmb_last_error_code() == (code) && ipmb_last_error()[0] != '\0')

static LabelOp leaf(const char *s) {
  LabelOp op = ipmb_label_op_leaf(s);
  CHECK(op != NULL);
  return op;
}

static void texts_and_versions(void) {
  CHECK(strcmp(ipmb_last_error(), "") == 0 && ipmb_last_error_code() == ERROR_CODE_SUCCESS);
  CHECK(strcmp(ipmb_strerror(0), "success") == 0);
  for (int code = -27; code <= 0; code++) {
    CHECK(strlen(ipmb_strerror(code)) > 0 && strstr(ipmb_strerror(code), "no code") == NULL);
  }
  CHECK(strstr(ipmb_strerror(-28), "no code") != NULL);

  uint8_t major = 99, minor = 99, patch = 99;
  ipmb_version(&major, &minor, &patch);
  CHECK(major != 99 && minor != 99 && patch != 99);
  ipmb_version(NULL, NULL, NULL);

  RString pre = ipmb_version_pre();
  const char *ptr = NULL;
  uintptr_t size = 99;
  ipmb_rstring_data(&pre, &ptr, &size);
  CHECK(ptr != NULL && size == 0);
  ipmb_rstring_data(NULL, &ptr, &size);
  CHECK(FAILED(ERROR_CODE_INVALID_ARGUMENT) && ptr == NULL && size == 0);
  ipmb_rstring_data(&pre, NULL, NULL);
  CHECK(FAILED(ERROR_CODE_INVALID_ARGUMENT));
  ipmb_rstring_drop(pre);
  ipmb_rstring_drop(NULL);
  CHECK(ipmb_version_pre_try(NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_version_pre_try(&pre) == 0);
  ipmb_rstring_drop(pre);

  ipmb_clear_last_error();
  CHECK(strcmp(ipmb_last_error(), "") == 0 && ipmb_last_error_code() == 0);
}

static void labels(void) {
  Label label = ipmb_label();
  ipmb_label_insert(&label, "planet");
  CHECK(ipmb_label_insert_try(&label, bad_utf8) == ERROR_CODE_INVALID_UTF8);
  CHECK(ipmb_label_insert_try(&label, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_label_insert_try(NULL, "x") == ERROR_CODE_INVALID_ARGUMENT);
  ipmb_clear_last_error();
  ipmb_label_insert(&label, bad_utf8);
  CHECK(FAILED(ERROR_CODE_INVALID_UTF8));
  Label none = NULL;
  CHECK(ipmb_label_insert_try(&none, "x") == ERROR_CODE_INVALID_ARGUMENT);

  LabelOp op = ipmb_label_op_and(leaf("planet"), ipmb_label_op_not(leaf("gas")));
  bool matches = false;
  CHECK(ipmb_label_op_validate(&op, &label, &matches) == 0 && matches);
  ipmb_label_insert(&label, "gas");
  CHECK(ipmb_label_op_validate(&op, &label, &matches) == 0 && !matches);
  op = ipmb_label_op_or(op, ipmb_label_op_bool(true));
  CHECK(ipmb_label_op_validate(&op, &label, &matches) == 0 && matches);
  CHECK(ipmb_label_op_validate(&op, &label, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  // A handle of another kind.
  CHECK(ipmb_label_op_validate(&label, &op, &matches) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(strstr(ipmb_last_error(), "LabelOp") != NULL);
  ipmb_label_op_drop(label);
  CHECK(FAILED(ERROR_CODE_INVALID_ARGUMENT));
  ipmb_label_op_drop(op);
  ipmb_label_op_drop(NULL);

  ipmb_clear_last_error();
  CHECK(ipmb_label_op_leaf(bad_utf8) == NULL && FAILED(ERROR_CODE_INVALID_UTF8));
  CHECK(ipmb_label_op_leaf(NULL) == NULL && FAILED(ERROR_CODE_INVALID_ARGUMENT));
  CHECK(ipmb_label_op_not(NULL) == NULL);
  // The operand that is there is taken all the same: the leak checker looks.
  CHECK(ipmb_label_op_and(leaf("a"), NULL) == NULL);
  CHECK(ipmb_label_op_or(NULL, leaf("a")) == NULL);
  op = leaf("a");
  CHECK(ipmb_label_op_and(op, op) == NULL && FAILED(ERROR_CODE_INVALID_ARGUMENT));
  op = (LabelOp)&label;
  CHECK(ipmb_label_op_leaf_try(bad_utf8, &op) == ERROR_CODE_INVALID_UTF8 && op == &label);
  CHECK(ipmb_label_op_leaf_try("a", NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_label_op_leaf_try("a", &op) == 0);
  CHECK(ipmb_label_op_not_try(op, &op) == 0);
  CHECK(ipmb_label_op_and_try(op, leaf("b"), &op) == 0);
  CHECK(ipmb_label_op_or_try(op, leaf("b"), &op) == 0);
  CHECK(ipmb_label_op_or_try(leaf("a"), leaf("b"), NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_label_op_not_try(leaf("a"), NULL) == ERROR_CODE_INVALID_ARGUMENT);
  ipmb_label_op_drop(op);
  ipmb_label_drop(label);
  ipmb_label_drop(NULL);
}

static void messages(void) {
  LabelOp op = leaf("a");
  Selector selector = {&op, kUnicast, 0};
  const uint8_t bytes[3] = {1, 2, 3};

  CHECK(ipmb_message(selector, 7, NULL, 1) == NULL && FAILED(ERROR_CODE_INVALID_ARGUMENT));
  selector.mode = 7;
  CHECK(ipmb_message(selector, 7, bytes, 3) == NULL && FAILED(ERROR_CODE_INVALID_ARGUMENT));
  selector.mode = kMulticast;
  selector.label_op = NULL;
  CHECK(ipmb_message(selector, 7, bytes, 3) == NULL && FAILED(ERROR_CODE_INVALID_ARGUMENT));
  selector.label_op = &op;
  Message message = NULL;
  CHECK(ipmb_message_try(selector, 7, bytes, 3, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_message_try(selector, 7, bytes, SIZE_MAX, &message) == ERROR_CODE_TOO_LARGE);
  CHECK(ipmb_message_try(selector, 7, bytes, SIZE_MAX / 2, &message) == ERROR_CODE_EXHAUSTED);
  CHECK(message == NULL);
  message = ipmb_message(selector, 7, NULL, 0);
  CHECK(message != NULL);
  ipmb_message_drop(message);
  message = ipmb_message(selector, 7, bytes, 3);

  uint16_t format = 0;
  const uint8_t *ptr = NULL;
  uint32_t size = 0;
  ipmb_message_bytes_data(&message, &format, &ptr, &size);
  CHECK(format == 7 && size == 3 && memcmp(ptr, bytes, 3) == 0 && ptr != bytes);
  ipmb_message_bytes_data(&op, &format, &ptr, &size);
  CHECK(FAILED(ERROR_CODE_INVALID_ARGUMENT) && format == 0 && ptr == NULL && size == 0);
  ipmb_message_bytes_data(NULL, NULL, NULL, NULL);
  ipmb_message_bytes_data(&message, NULL, NULL, NULL);
  size_t wide = 0;
  CHECK(ipmb_message_bytes_data_try(&message, NULL, &ptr, &wide) == 0 && wide == 3);
  CHECK(ipmb_message_bytes_data_try(NULL, NULL, &ptr, &wide) == ERROR_CODE_INVALID_ARGUMENT);

  // Objects.
  CHECK(ipmb_message_object_retrieve(&message, 0) == 0 && FAILED(ERROR_CODE_OUT_OF_RANGE));
  CHECK(ipmb_message_object_get(&message, SIZE_MAX) == 0 && FAILED(ERROR_CODE_OUT_OF_RANGE));
  CHECK(ipmb_message_object_get(NULL, 0) == 0 && FAILED(ERROR_CODE_INVALID_ARGUMENT));
  CHECK(ipmb_message_object_append_try(&message, UINT64_MAX) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_message_object_append_try(&message, 1000000) == ERROR_CODE_INVALID_ARGUMENT);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  CHECK(null > 0);
  CHECK(ipmb_message_object_append_try(NULL, (Object)null) == ERROR_CODE_INVALID_ARGUMENT);
  ipmb_message_object_append(&message, (Object)null);
  CHECK(ipmb_message_object_get(&message, 0) == (Object)null);
  Object object = 0;
  CHECK(ipmb_message_object_get_try(&message, 0, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_message_object_retrieve_try(&message, 0, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_message_object_get_try(&message, 1, &object) == ERROR_CODE_OUT_OF_RANGE && object == 0);
  CHECK(ipmb_message_object_count(&message, &wide) == 0 && wide == 1);
  CHECK(ipmb_message_object_retrieve_try(&message, 0, &object) == 0 && object == (Object)null);
  ipmb_object_drop(object);
  CHECK(fcntl(null, F_GETFD) < 0);
  ipmb_object_drop(object);
  CHECK(FAILED(ERROR_CODE_INVALID_ARGUMENT));
  CHECK(ipmb_object_drop_try(UINT64_MAX) == ERROR_CODE_INVALID_ARGUMENT);
  ipmb_object_drop(0);
  CHECK(fcntl(0, F_GETFD) >= 0);

  // Regions.
  CHECK(ipmb_message_memory_region_retrieve(&message, 0) == NULL && FAILED(ERROR_CODE_OUT_OF_RANGE));
  CHECK(ipmb_message_memory_region_get(&message, 0) == NULL && FAILED(ERROR_CODE_OUT_OF_RANGE));
  CHECK(ipmb_message_memory_region_append_try(&message, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  MemoryRegion region = NULL;
  CHECK(ipmb_memory_region(100, &region) == 0);
  CHECK(ipmb_message_memory_region_append_try(NULL, region) == ERROR_CODE_INVALID_ARGUMENT);
  ipmb_message_memory_region_append(&message, region);
  MemoryRegion inside = ipmb_message_memory_region_get(&message, 0);
  CHECK(inside != NULL);
  CHECK(ipmb_memory_region_map(&inside, 0, -1, NULL) != NULL);
  CHECK(ipmb_message_memory_region_append_try(&message, inside) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_message_memory_region_count(&message, &wide) == 0 && wide == 1);
  region = ipmb_message_memory_region_retrieve(&message, 0);
  CHECK(region != NULL);
  ipmb_memory_region_drop(region);

  const uint64_t *endpoints = NULL;
  CHECK(ipmb_message_unreached(&message, &endpoints, &wide) == 0 && wide == 0);
  ipmb_message_drop(message);
  ipmb_message_drop(NULL);
  ipmb_label_op_drop(op);
}

static void regions(void) {
  MemoryRegion region = NULL;
  CHECK(ipmb_memory_region(10, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_memory_region(SIZE_MAX, &region) != 0 && region == NULL);
  CHECK(ipmb_memory_region(10000, &region) == 0);
  uint64_t bytes = 0;
  CHECK(ipmb_memory_region_size(&region, &bytes) == 0 && bytes == 10000);

  intptr_t real = 0;
  uint8_t *data = ipmb_memory_region_map(&region, 0, -1, &real);
  CHECK(data != NULL && real == 10000);
  memset(data, 5, 10000);
  CHECK(ipmb_memory_region_map(&region, 9990, 10, NULL) == data + 9990);
  real = 1;
  CHECK(ipmb_memory_region_map(&region, 9990, 11, &real) == NULL && real == 0);
  CHECK(FAILED(ERROR_CODE_OUT_OF_RANGE));
  CHECK(ipmb_memory_region_map(&region, SIZE_MAX, 2, NULL) == NULL && FAILED(ERROR_CODE_OUT_OF_RANGE));
  CHECK(ipmb_memory_region_map(&region, 10001, -1, NULL) == NULL && FAILED(ERROR_CODE_OUT_OF_RANGE));
  CHECK(ipmb_memory_region_map(NULL, 0, -1, &real) == NULL && FAILED(ERROR_CODE_INVALID_ARGUMENT));
  size_t mapped = 0;
  CHECK(ipmb_memory_region_map_try(&region, 1, SIZE_MAX, &data, &mapped) == 0 && mapped == 9999);
  CHECK(ipmb_memory_region_map_try(&region, 1, 9999, &data, NULL) == 0);
  CHECK(ipmb_memory_region_map_try(&region, 1, 1, NULL, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_memory_region_map_try(&region, 2, SIZE_MAX - 1, &data, NULL) == ERROR_CODE_OUT_OF_RANGE);

  CHECK(ipmb_memory_region_ref_count(&region) == 1);
  CHECK(ipmb_memory_region_ref_count(NULL) == 0 && FAILED(ERROR_CODE_INVALID_ARGUMENT));
  MemoryRegion second = NULL;
  CHECK(ipmb_memory_region_clone(&region, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_memory_region_clone(NULL, &second) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_memory_region_clone(&region, &second) == 0);
  uint32_t count = 0;
  CHECK(ipmb_memory_region_ref_count_try(&second, &count) == 0 && count == 2);

  // Freezing: refused while another handle has it mapped, then for good.
  const uint8_t *frozen = NULL;
  bool is_frozen = true;
  CHECK(ipmb_memory_region_freeze(&second) == ERROR_CODE_BUSY);
  CHECK(ipmb_memory_region_is_frozen(&second, &is_frozen) == 0 && !is_frozen);
  CHECK(ipmb_memory_region_frozen_data(&second, &frozen, &mapped) == ERROR_CODE_NOT_FROZEN);
  CHECK(ipmb_memory_region_unmap(&region) == 0);
  CHECK(ipmb_memory_region_freeze(&second) == 0 && ipmb_memory_region_freeze(&second) == 0);
  CHECK(ipmb_memory_region_is_frozen(&region, &is_frozen) == 0 && is_frozen);
  CHECK(ipmb_memory_region_frozen_data(&region, &frozen, &mapped) == 0);
  CHECK(mapped == 10000 && frozen[0] == 5 && frozen[9999] == 5);
  CHECK(ipmb_memory_region_map(&region, 0, -1, NULL) == NULL && FAILED(ERROR_CODE_FROZEN));

  // In and out as an object.
  Object object = 0;
  CHECK(ipmb_memory_region_object(&region, &object) == 0 && object > 2);
  const int copy = fcntl((int)object, F_DUPFD_CLOEXEC, 3);
  MemoryRegion third = NULL;
  CHECK(ipmb_memory_region_from_object((Object)copy, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_memory_region_from_object((Object)copy, &third) == 0);
  CHECK(ipmb_memory_region_ref_count(&third) == 3);
  const int file = open("/dev/null", O_RDWR | O_CLOEXEC);
  CHECK(ipmb_memory_region_from_object((Object)file, &third) == ERROR_CODE_NOT_A_REGION);
  CHECK(fcntl(file, F_GETFD) < 0);
  ipmb_memory_region_drop(third);
  ipmb_memory_region_drop(second);
  ipmb_memory_region_drop(region);
  ipmb_memory_region_drop(NULL);
}

static MemoryRegistry registry;
static int freed;

static void on_free(void *context) {
  CHECK(context == &freed);
  freed++;
  // The registry that is calling may not be called.
  MemoryRegion region = NULL;
  CHECK(ipmb_memory_registry_alloc(&registry, 1, NULL, &region) == ERROR_CODE_BUSY);
  CHECK(ipmb_memory_registry_maintain_try(&registry) == ERROR_CODE_BUSY);
  ipmb_memory_registry_drop(registry);
  CHECK(FAILED(ERROR_CODE_BUSY));
}

static void on_end(void *context) {
  CHECK(context == NULL);
  freed++;
  // It is being dropped.
  CHECK(ipmb_memory_registry_maintain_try(&registry) == ERROR_CODE_INVALID_ARGUMENT);
}

static void registries(void) {
  registry = ipmb_memory_registry();
  MemoryRegion region = NULL;
  CHECK(ipmb_memory_registry_alloc(NULL, 1, NULL, &region) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_memory_registry_alloc(&registry, 1, NULL, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_memory_registry_alloc(&registry, 1, bad_utf8, &region) == ERROR_CODE_INVALID_UTF8);
  CHECK(ipmb_memory_registry_alloc(&registry, SIZE_MAX, NULL, &region) != 0 && region == NULL);
  CHECK(ipmb_memory_registry_alloc_with_free(&registry, SIZE_MAX, NULL, &freed, on_free, &region) != 0);
  CHECK(ipmb_memory_registry_alloc_with_free(&registry, 10, "video", &freed, on_free, &region) == 0);
  ipmb_memory_registry_maintain(&registry);
  CHECK(freed == 0);
  ipmb_memory_region_drop(region);
  ipmb_memory_registry_maintain(&registry);
  CHECK(freed == 1);
  CHECK(ipmb_memory_registry_alloc_with_free(&registry, 10, "video", NULL, NULL, &region) == 0);
  ipmb_memory_region_drop(region);
  CHECK(ipmb_memory_registry_alloc_with_free(&registry, 10, NULL, NULL, on_end, &region) == 0);
  ipmb_memory_registry_maintain(NULL);
  CHECK(FAILED(ERROR_CODE_INVALID_ARGUMENT));
  ipmb_memory_registry_drop(registry);
  CHECK(freed == 2);
  // What it gave out lives on.
  CHECK(ipmb_memory_region_map(&region, 0, -1, NULL) != NULL);
  ipmb_memory_region_drop(region);
  ipmb_memory_registry_drop(NULL);
}

static void bad_joins(void) {
  Label label = ipmb_label();
  Sender sender = NULL;
  Options options = {"com.test", &label, "", true};
  options.identifier = NULL;
  CHECK(ipmb_join(options, 0, &sender, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  options.identifier = "";
  CHECK(ipmb_join(options, 0, &sender, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  options.identifier = bad_utf8;
  CHECK(ipmb_join(options, 0, &sender, NULL) == ERROR_CODE_INVALID_UTF8);
  options.identifier = "com.test";
  options.token = bad_utf8;
  CHECK(ipmb_join(options, 0, &sender, NULL) == ERROR_CODE_INVALID_UTF8);
  options.token = NULL;
  CHECK(ipmb_join(options, 0, &sender, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  options.token = "";
  options.label = NULL;
  CHECK(ipmb_join(options, 0, &sender, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  options.label = &label;
  Settings settings = ipmb_settings();
  CHECK(ipmb_settings_path(&settings, bad_utf8) == ERROR_CODE_INVALID_UTF8);
  CHECK(ipmb_settings_path(&settings, "relative") == 0);
  CHECK(ipmb_settings_allow_anyone(&settings) == 0 && ipmb_settings_allow_uid(&settings, 1) == 0 &&
        ipmb_settings_allow_gid(&settings, 1) == 0 && ipmb_settings_spin(&settings, 5) == 0 &&
        ipmb_settings_max_region(&settings, 5) == 0 && ipmb_settings_owner(&settings, 5) == 0);
  CHECK(ipmb_join_with(options, &settings, 0, &sender, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(strstr(ipmb_last_error(), "path") != NULL);
  CHECK(ipmb_settings_path(&settings, "/dev/null/bus") == 0);
  CHECK(ipmb_join_with(options, &settings, 20000, &sender, NULL) == ERROR_CODE_SYSTEM);
  CHECK(ipmb_settings_idle_link(NULL, 5) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_join_with(options, &label, 0, &sender, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_settings_owner(NULL, 5) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(sender == NULL);
  ipmb_settings_drop(settings);
  ipmb_label_drop(label);
}

// One endpoint that talks to itself.
static void endpoint(const char *bus) {
  Label label = ipmb_label();
  ipmb_label_insert(&label, "self");
  const Options options = {bus, &label, "", true};
  Settings settings = ipmb_settings();
  CHECK(ipmb_settings_max_payload(&settings, 100000) == 0);
  CHECK(ipmb_settings_self_queue(&settings, 200000) == 0);
  CHECK(ipmb_settings_link_capacity(&settings, 65536) == 0);
  CHECK(ipmb_settings_idle_link(&settings, TIMEOUT_INFINITE) == 0);
  Sender sender = NULL;
  Receiver receiver = NULL;
  CHECK(ipmb_join_with(options, &settings, 10000, &sender, &receiver) == 0);
  LabelOp op = leaf("self");
  const Selector selector = {&op, kUnicast, 0};
  static uint8_t bytes[100001];

  // Null and other kinds.
  Message message = NULL;
  CHECK(ipmb_recv(NULL, &message, 0) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_recv(&receiver, NULL, 0) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_recv(&sender, &message, 0) == ERROR_CODE_INVALID_ARGUMENT && message == NULL);
  CHECK(ipmb_send(&sender, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  // Taken all the same: the leak checker looks.
  CHECK(ipmb_send(NULL, ipmb_message(selector, 1, bytes, 1)) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_try_send(&sender, NULL) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_try_send(&sender, &message) == ERROR_CODE_INVALID_ARGUMENT);
  message = ipmb_message(selector, 1, bytes, 1);
  CHECK(ipmb_try_send(&receiver, &message) == ERROR_CODE_INVALID_ARGUMENT && message != NULL);
  ipmb_message_drop(message);
  CHECK(ipmb_sender_clone(&sender, NULL) == ERROR_CODE_INVALID_ARGUMENT);

  // Nothing there.
  int fd = -1;
  CHECK(ipmb_receiver_fd(&receiver, &fd) == 0 && ipmb_receiver_fd(&receiver, NULL) != 0);
  message = &fd;
  CHECK(ipmb_try_recv(&receiver, &message) == ERROR_CODE_EMPTY && message == NULL);
  CHECK(ipmb_recv(&receiver, &message, 10) == ERROR_CODE_TIMEOUT && message == NULL);
  struct pollfd wait = {fd, POLLIN, 0};
  CHECK(poll(&wait, 1, 0) == 0);

  // There and back, by a clone.
  Sender second = NULL;
  CHECK(ipmb_sender_clone(&sender, &second) == 0);
  message = ipmb_message(selector, 9, bytes, 3);
  CHECK(ipmb_send_timeout(&second, &message, 1000) == 0 && message == NULL);
  CHECK(poll(&wait, 1, 10000) == 1);
  CHECK(ipmb_try_recv(&receiver, &message) == 0);
  uint16_t format = 0;
  CHECK(ipmb_message_bytes_data_try(&message, &format, NULL, NULL) == 0 && format == 9);
  ipmb_message_drop(message);
  ipmb_sender_drop(second);

  // Over the limits.
  message = ipmb_message(selector, 1, bytes, sizeof bytes);
  CHECK(ipmb_try_send(&sender, &message) == ERROR_CODE_TOO_LARGE && message != NULL);
  ipmb_message_drop(message);
  message = ipmb_message(selector, 1, bytes, 1);
  for (int i = 0; i < 254; i++) {
    ipmb_message_object_append(&message, (Object)open("/dev/null", O_RDWR | O_CLOEXEC));
  }
  CHECK(ipmb_send_timeout(&sender, &message, 1000) == ERROR_CODE_LIMIT);
  size_t count = 0;
  CHECK(ipmb_message_object_count(&message, &count) == 0 && count == 254);
  ipmb_message_drop(message);
  LabelOp large = leaf("x");
  for (int i = 0; i < 600; i++) {
    large = ipmb_label_op_or(large, leaf("y"));
  }
  const Selector wide = {&large, kMulticast, 0};
  CHECK(ipmb_send(&sender, ipmb_message(wide, 1, bytes, 1)) == ERROR_CODE_LIMIT);
  ipmb_label_op_drop(large);
  ErrorCode code = 0;
  int queued = 0;
  for (; code == 0; queued += code == 0) {
    message = ipmb_message(selector, 1, bytes, 50000);
    code = ipmb_try_send(&sender, &message);
  }
  CHECK(code == ERROR_CODE_FULL && message != NULL && queued > 0);
  ipmb_message_drop(message);
  for (; queued > 0; queued--) {
    CHECK(ipmb_recv(&receiver, &message, 10000) == 0);
    ipmb_message_drop(message);
  }
  Stats stats;
  CHECK(ipmb_sender_stats(&sender, &stats, sizeof stats) == 0);
  CHECK(stats.received >= 2 && stats.received_bytes >= 50003);
  CHECK(ipmb_sender_stats(&sender, NULL, sizeof stats) == ERROR_CODE_INVALID_ARGUMENT);
  memset(&stats, 7, sizeof stats);
  CHECK(ipmb_sender_stats(&sender, &stats, 8) == 0 && stats.sent < 100 && stats.sent_bytes > 1u << 30);

  // No descriptors left.
  struct rlimit old;
  CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
  const struct rlimit none = {0, old.rlim_max};
  CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
  MemoryRegion region = NULL;
  code = ipmb_memory_region(10, &region);
  CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
  CHECK(code == ERROR_CODE_EXHAUSTED && region == NULL);

  // In a child that was forked.
  CHECK(ipmb_memory_region(10, &region) == 0);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    message = ipmb_message(selector, 1, bytes, 1);
    CHECK(ipmb_try_send(&sender, &message) == ERROR_CODE_FORKED);
    CHECK(ipmb_try_recv(&receiver, &message) == ERROR_CODE_FORKED);
    CHECK(ipmb_memory_region_map(&region, 0, -1, NULL) == NULL && FAILED(ERROR_CODE_FORKED));
    ipmb_memory_region_drop(region);
    ipmb_sender_drop(sender);
    ipmb_receiver_drop(receiver);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  ipmb_memory_region_drop(region);

  // Left.
  CHECK(ipmb_leave(NULL, 0) == ERROR_CODE_INVALID_ARGUMENT);
  CHECK(ipmb_leave(&sender, 10000) == 0);
  CHECK(ipmb_send(&sender, ipmb_message(selector, 1, bytes, 1)) == ERROR_CODE_LEFT);
  CHECK(ipmb_recv(&receiver, &message, 1000) == ERROR_CODE_LEFT);
  ipmb_sender_drop(sender);
  ipmb_receiver_drop(receiver);
  ipmb_label_op_drop(op);
  ipmb_settings_drop(settings);
  ipmb_label_drop(label);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  texts_and_versions();
  labels();
  messages();
  regions();
  registries();
  bad_joins();
  endpoint(argv[1]);
  SAY("fine");
  return 0;
}
