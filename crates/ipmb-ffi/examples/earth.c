// Receives what a moon sends, for ever: earth_c [BUS]. The moon may be moon_c, moon_cpp or the Rust example bytes_moon.

#include <ipmb_ffi.h>
#include <stdio.h>

int main(int argc, char **argv) {
  Label label = ipmb_label();
  ipmb_label_insert(&label, "earth");
  const Options options = {argc > 1 ? argv[1] : "com.solar", &label, "", true};

  Sender sender = NULL;
  Receiver receiver = NULL;
  ErrorCode code = ipmb_join(options, TIMEOUT_INFINITE, &sender, &receiver);
  ipmb_label_drop(label);
  if (code != ERROR_CODE_SUCCESS) {
    fprintf(stderr, "join: %s\n", ipmb_last_error());
    return 1;
  }

  Message message = NULL;
  while ((code = ipmb_recv(&receiver, &message, TIMEOUT_INFINITE)) == ERROR_CODE_SUCCESS) {
    const uint8_t *data = NULL;
    uint32_t size = 0;
    ipmb_message_bytes_data(&message, NULL, &data, &size);
    printf("received: %.*s\n", (int)size, (const char *)data);
    fflush(stdout);
    ipmb_message_drop(message);
  }
  fprintf(stderr, "receive: %s\n", ipmb_last_error());

  ipmb_receiver_drop(receiver);
  ipmb_sender_drop(sender);
  return 1;
}
