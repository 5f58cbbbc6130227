#include "engine_checks.h"

#include <algorithm>

#include "failure.h"

namespace dibr::runtime {
namespace {

constexpr int ampere = 8;

std::vector<long> numbers(const std::string& version) {
  std::vector<long> parts;
  std::size_t place = 0;
  while (place < version.size()) {
    const std::size_t end = std::min(version.find('.', place), version.size());
    const std::string part = version.substr(place, end - place);
    const bool is_number =
        !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string::npos;
    if (is_number) parts.push_back(std::stol(part));
    place = end + 1;
  }
  return parts;
}

struct Misfit {
  std::string name;
  std::size_t axis = 0;
};

std::vector<Misfit> misfits(const std::map<std::string, Profile>& profile,
                            const std::map<std::string, std::vector<std::int64_t>>& given) {
  std::vector<Misfit> result;
  for (const auto& [name, ranges] : profile) {
    const auto sizes = given.find(name);
    if (sizes == given.end()) continue;
    if (sizes->second.size() != ranges.min.size()) {
      result.push_back({name, 0});
      continue;
    }
    for (std::size_t axis = 0; axis < ranges.min.size(); ++axis) {
      const std::int64_t size = sizes->second[axis];
      if (size < ranges.min[axis] || size > ranges.max[axis]) result.push_back({name, axis});
    }
  }
  return result;
}

}  // namespace

bool loads(const std::string& installed, const Engine& engine) {
  const std::vector<long> built_by = numbers(engine.version);
  std::vector<long> here = numbers(installed);
  here.resize(std::min(here.size(), built_by.size()));
  if (here.empty()) return false;
  return engine.version_compatible ? here[0] == built_by[0] && here >= built_by : here == built_by;
}

void check_tensorrt_version(const std::string& what, const Engine& engine, const std::string& installed,
                            const std::string& rebuild) {
  if (loads(installed, engine)) return;
  const std::string or_later =
      engine.version_compatible ? sentence(" or a later ", numbers(engine.version)[0], ".x") : "";
  fail(DIBR_RUNTIME_ABSENT, what, " needs TensorRT ", engine.version, or_later, ", but ", installed,
       " is installed: install that version, or build the engine again with ", rebuild);
}

void check_device(const std::string& what, const Engine& engine, const ComputeCapability& here,
                  const std::string& rebuild) {
  std::string built_for;
  for (const std::string& capability : engine.compute_capability) {
    built_for += (built_for.empty() ? "" : ", ") + capability;
  }
  const std::string capability = sentence(here.major, ".", here.minor);
  const bool from_ampere = engine.hardware_compatible == "ampere_plus" || engine.compute_capability.empty();
  if (from_ampere && here.major < ampere) {
    built_for = "8.0 and later";
  } else if (from_ampere ||
             std::count(engine.compute_capability.begin(), engine.compute_capability.end(), capability)) {
    return;
  }
  fail(DIBR_RUNTIME_ABSENT, what, " was built for devices of compute capability ", built_for, ", and this one has ",
       capability, ": build the engine again here with ", rebuild);
}

int choose_profile(const std::vector<std::map<std::string, Profile>>& profiles,
                   const std::map<std::string, std::vector<std::int64_t>>& given) {
  if (profiles.empty()) return 0;
  std::vector<Misfit> fewest;
  for (std::size_t index = 0; index < profiles.size(); ++index) {
    std::vector<Misfit> found = misfits(profiles[index], given);
    if (found.empty()) return static_cast<int>(index);
    if (index == 0 || found.size() < fewest.size()) fewest = std::move(found);
  }
  const auto& [name, axis] = fewest.front();
  std::string ranges;
  for (const auto& profile : profiles) {
    const auto stated = profile.find(name);
    if (stated == profile.end() || axis >= stated->second.min.size()) continue;
    ranges += sentence(ranges.empty() ? "" : " or ", stated->second.min[axis], " to ", stated->second.max[axis]);
  }
  const std::vector<std::int64_t>& sizes = given.at(name);
  fail(DIBR_RUNTIME_INVALID_ARGUMENT, "input ", name, " has ",
       axis < sizes.size() ? std::to_string(sizes[axis]) : "nothing", " in axis ", axis,
       ", but the engine was built for ", ranges, ": build one for more sizes with `dibr export --tensorrt`");
}

}  // namespace dibr::runtime
