// What the test programs share: checks that say where they failed, and the talk with the test that started them.

#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Ends the program with what the library says unless `condition` holds.
#define CHECK(condition)                                                                            \
  do {                                                                                              \
    if (!(condition)) {                                                                             \
      fprintf(stderr, "%s:%d: not so: %s (last error: %d, %s)\n", __FILE__, __LINE__, #condition,   \
              (int)LAST_CODE(), LAST_TEXT());                                                       \
      exit(1);                                                                                      \
    }                                                                                               \
  } while (0)

#ifdef __cplusplus
#define LAST_CODE() ipmb_ffi::ipmb_last_error_code()
#define LAST_TEXT() ipmb_ffi::ipmb_last_error()
#else
#define LAST_CODE() ipmb_last_error_code()
#define LAST_TEXT() ipmb_last_error()
#endif

// Tells the test something.
#define SAY(...)              \
  do {                        \
    printf("SAY " __VA_ARGS__); \
    printf("\n");             \
    fflush(stdout);           \
  } while (0)

// Waits until the test says anything.
static inline void listen_once(void) {
  char line[256];
  if (fgets(line, sizeof line, stdin) == NULL) {
    fprintf(stderr, "the test is gone\n");
    exit(1);
  }
}
