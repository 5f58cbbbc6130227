// A double of the CUDA driver's library, as far as `dibr doctor` asks it. DIBR_TEST_DRIVER says how it behaves:
// "ok", "no GPU" (none is found), "empty" (it starts and lists none), "broken" (it does not start), "abort".
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int mode_is(const char* mode) {
  const char* set = getenv("DIBR_TEST_DRIVER");
  return set != NULL && strcmp(set, mode) == 0;
}

int cuInit(unsigned flags) {
  (void)flags;
  if (mode_is("abort")) abort();
  if (mode_is("no GPU")) return 100;
  return mode_is("broken") ? 999 : 0;
}

int cuDriverGetVersion(int* version) {
  *version = 13010;
  return 0;
}

int cuDeviceGetCount(int* count) {
  *count = mode_is("empty") ? 0 : 1;
  return 0;
}

int cuDeviceGet(int* device, int index) {
  *device = index;
  return 0;
}

int cuDeviceGetName(char* name, int length, int device) {
  (void)device;
  snprintf(name, (size_t)length, "Double of a GPU");
  return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
  (void)device;
  *value = attribute == 75 ? 8 : 9;
  return 0;
}

int cuGetErrorString(int error, const char** words) {
  (void)error;
  *words = "unknown error";
  return 0;
}
