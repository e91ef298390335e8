// Tries to join a bus and says the code: join BUS TOKEN AFFINITY TIMEOUT [PATH] [OWNER]

#include <ipmb_ffi.h>

#include "check.h"

int main(int argc, char **argv) {
  CHECK(argc >= 5);
  Label label = ipmb_label();
  ipmb_label_insert(&label, "joiner");
  const Options options = {argv[1], &label, argv[2], strcmp(argv[3], "yes") == 0};
  Settings settings = ipmb_settings();
  if (argc > 5 && argv[5][0] != '\0') {
    CHECK(ipmb_settings_path(&settings, argv[5]) == 0);
  }
  if (argc > 6) {
    CHECK(ipmb_settings_owner(&settings, (uint32_t)atoi(argv[6])) == 0);
  }
  Sender sender = NULL;
  Receiver receiver = NULL;
  const ErrorCode code =
      ipmb_join_with(options, &settings, (uint32_t)atoi(argv[4]), &sender, &receiver);
  // On failure nothing is written, and the thread's last error is this one.
  CHECK((code == 0) == (sender != NULL) && (code == 0) == (receiver != NULL));
  CHECK(code == 0 || ipmb_last_error_code() == code);
  SAY("%d %s", (int)code, code == 0 ? "" : ipmb_last_error());
  if (code == 0) {
    listen_once();
  }
  ipmb_sender_drop(sender);
  ipmb_receiver_drop(receiver);
  ipmb_settings_drop(settings);
  ipmb_label_drop(label);
  return 0;
}
