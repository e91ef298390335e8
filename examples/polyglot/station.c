// The station in C: station_c BUS NEXT. It takes the letter, adds its line to the text, to the file and to the memory, and
// passes the letter on to whoever has the label NEXT.

#define _POSIX_C_SOURCE 200809L
#include <ipmb_ffi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE = 60000 };

// Ends the program unless a call went well.
static void need(bool well, const char *what) {
  if (!well) {
    fprintf(stderr, "C: %s: %s\n", what, ipmb_last_error());
    exit(1);
  }
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: station_c BUS NEXT\n");
    return 2;
  }
  Label label = ipmb_label();
  ipmb_label_insert(&label, "c");
  const Options options = {argv[1], &label, "", false};
  Sender sender = NULL;
  Receiver receiver = NULL;
  need(ipmb_join(options, PATIENCE, &sender, &receiver) == ERROR_CODE_SUCCESS, "join");
  ipmb_label_drop(label);

  Message letter = NULL;
  need(ipmb_recv(&receiver, &letter, PATIENCE) == ERROR_CODE_SUCCESS, "receive");
  const uint8_t *text = NULL;
  uint32_t size = 0;
  ipmb_message_bytes_data(&letter, NULL, &text, &size);
  int lines = 0;
  for (uint32_t i = 0; i < size; i++) {
    lines += text[i] == '\n';
  }
  printf("C      has got the letter with %d line%s and passes it to \"%s\"\n", lines,
         lines == 1 ? "" : "s", argv[2]);
  fflush(stdout);

  char line[64];
  const size_t length = (size_t)snprintf(line, sizeof line, "C was here, process %ld\n", (long)getpid());
  uint8_t *longer = malloc(size + length);
  need(longer != NULL, "no memory");
  memcpy(longer, text, size);
  memcpy(longer + size, line, length);
  LabelOp next = ipmb_label_op_leaf(argv[2]);
  // Kept until the next station has joined.
  const Selector selector = {&next, kUnicast, PATIENCE};
  Message passed = ipmb_message(selector, 0, longer, size + (uint32_t)length);
  need(passed != NULL, "message");
  ipmb_label_op_drop(next);
  free(longer);

  // The file: a descriptor of our own, until the message takes it over.
  Object file = 0;
  need(ipmb_message_object_retrieve_try(&letter, 0, &file) == ERROR_CODE_SUCCESS, "no file");
  need(write((int)file, line, length) == (ssize_t)length, "write to the file");
  ipmb_message_object_append(&passed, file);

  // The memory: the same bytes that all others see.
  MemoryRegion memory = ipmb_message_memory_region_retrieve(&letter, 0);
  need(memory != NULL, "no memory came with the letter");
  intptr_t room = 0;
  uint8_t *bytes = ipmb_memory_region_map(&memory, 0, -1, &room);
  need(bytes != NULL, "map");
  const size_t end = strnlen((const char *)bytes, (size_t)room);
  need(end + length <= (size_t)room, "the memory is full");
  memcpy(bytes + end, line, length);
  ipmb_message_memory_region_append(&passed, memory);

  need(ipmb_send(&sender, passed) == ERROR_CODE_SUCCESS, "send");
  ipmb_message_drop(letter);
  ipmb_receiver_drop(receiver);
  ipmb_sender_drop(sender);
  return 0;
}
