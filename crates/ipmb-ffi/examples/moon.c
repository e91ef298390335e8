// Sends a message to earth every second, for ever: moon_c [BUS]. The earth may be earth_c, earth_cpp or the Rust example
// bytes_earth.

#include <ipmb_ffi.h>
#include <stdio.h>
#ifdef _WIN32
#include <windows.h>

static void wait_a_second(void) { Sleep(1000); }
#else
#include <threads.h>

static void wait_a_second(void) { thrd_sleep(&(struct timespec){.tv_sec = 1}, NULL); }
#endif

int main(int argc, char **argv) {
  Label label = ipmb_label();
  ipmb_label_insert(&label, "moon");
  const Options options = {argc > 1 ? argv[1] : "com.solar", &label, "", true};

  // A moon only sends.
  Sender sender = NULL;
  ErrorCode code = ipmb_join(options, TIMEOUT_INFINITE, &sender, NULL);
  ipmb_label_drop(label);
  if (code != ERROR_CODE_SUCCESS) {
    fprintf(stderr, "join: %s\n", ipmb_last_error());
    return 1;
  }

  LabelOp earth = ipmb_label_op_leaf("earth");
  const Selector selector = {&earth, kUnicast, 0};
  static const char text[] = "hello world";
  do {
    Message message = ipmb_message(selector, 0, (const uint8_t *)text, sizeof text - 1);
    code = ipmb_send(&sender, message);
    wait_a_second();
  } while (code == ERROR_CODE_SUCCESS);
  fprintf(stderr, "send: %s\n", ipmb_last_error());

  ipmb_label_op_drop(earth);
  ipmb_sender_drop(sender);
  return 1;
}
