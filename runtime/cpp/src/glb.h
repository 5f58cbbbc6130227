// Meshes as binary glTF.
#pragma once

#include "dibr/runtime.h"
#include "files.h"

namespace dibr::runtime {

// Fails with INVALID_ARGUMENT where a size, pointer or index is wrong.
Bytes encode_glb(const dibr_textured_mesh& mesh);

}  // namespace dibr::runtime
