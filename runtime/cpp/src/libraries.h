// Shared libraries that are found when they are first needed.
#pragma once

#include <string>
#include <vector>

namespace dibr::runtime {

// A shared library, which stays loaded as long as the process lives: what it has started may outlive its users.
class SharedLibrary {
 public:
  // Fails with ABSENT where none of the names can be loaded. what: names it in the error, for example "ONNX Runtime";
  // remedy: what a user can do.
  SharedLibrary(const std::vector<std::string>& names, const std::string& what, const std::string& remedy);

  // nullptr where it has no such symbol.
  void* symbol(const char* name) const;
  template <class Function>
  Function function(const char* name) const {
    return reinterpret_cast<Function>(symbol(name));
  }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  void* handle_ = nullptr;
};

// Path of the folder that this library was loaded from.
std::string own_folder();

// Of the ops that libdibr, which this library is linked to, knows. Fails with REFUSED where a model wants newer ones.
void check_schema_version(const std::string& path, std::int64_t wanted);

}  // namespace dibr::runtime
