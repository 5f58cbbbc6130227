/* Somebody's program in C: what the header says works without C++. */
#include <stdio.h>

#include "dibr/runtime.h"

int main(int argc, char** argv) {
  dibr_session_options options = {0};
  dibr_session* session = NULL;
  options.struct_size = sizeof options;
  options.provider = "cpu";
  if (dibr_runtime_abi() != DIBR_RUNTIME_ABI) return 2;
  if (dibr_session_open(argc > 1 ? argv[1] : "", &options, &session) != DIBR_RUNTIME_OK) {
    printf("%s\n", dibr_runtime_last_error());
    return 1;
  }
  printf("%zu inputs on %s\n", dibr_session_input_count(session), dibr_session_provider(session));
  dibr_session_close(session);
  return 0;
}
