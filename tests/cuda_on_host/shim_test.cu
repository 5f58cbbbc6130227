// What only the shim has: chosen orders, counters, the 16-bit conversions bit by bit, launches from several threads,
// speed.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>
#include <numeric>
#include <string>
#include <thread>

#include "check.h"

namespace {

// Every thread takes the next place in `sequence`.
__global__ void record_order(unsigned* sequence, int* place) {
  const unsigned number = blockIdx.x * blockDim.x + threadIdx.x;
  sequence[atomicAdd(place, 1)] = number;
}

std::vector<unsigned> recorded_order(const std::string& order, unsigned blocks, unsigned block) {
  setenv("CUDA_ON_HOST_ORDER", order.c_str(), 1);
  DeviceBuffer<unsigned> sequence(blocks * block);
  DeviceBuffer<int> place(1, 0);
  DIBR_LAUNCH(record_order, blocks, block, 0, 0, sequence.get(), place.get());
  unsetenv("CUDA_ON_HOST_ORDER");
  return sequence.values();
}

// The threads of each block as a sorted whole, blocks in the order in which they ran.
std::vector<unsigned> blocks_of(const std::vector<unsigned>& sequence, unsigned block) {
  std::vector<unsigned> blocks;
  for (size_t i = 0; i < sequence.size(); i += block) {
    blocks.push_back(sequence[i] / block);
    for (unsigned k = 0; k < block; ++k) CHECK(sequence[i + k] / block == blocks.back());
  }
  return blocks;
}

void test_orders() {
  const unsigned blocks = 10, block = 40;
  std::vector<unsigned> all(blocks * block);
  std::iota(all.begin(), all.end(), 0u);
  CHECK(recorded_order("", blocks, block) == all);
  CHECK(recorded_order("forward", blocks, block) == all);
  CHECK(recorded_order("reverse", blocks, block) == std::vector<unsigned>(all.rbegin(), all.rend()));

  const std::vector<unsigned> one = recorded_order("random:1", blocks, block);
  CHECK(one == recorded_order("random:1", blocks, block));
  CHECK(one != recorded_order("random:2", blocks, block));
  std::vector<unsigned> sorted = one;
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == all);
  const std::vector<unsigned> block_order = blocks_of(one, block);
  CHECK(!std::is_sorted(block_order.begin(), block_order.end()));
  for (unsigned b = 0; b < blocks; ++b) CHECK(!std::is_sorted(one.begin() + b * block, one.begin() + (b + 1) * block));
  const auto lanes = [&](unsigned b, unsigned k) { return one[b * block + k] % block; };
  bool differ = false;
  for (unsigned k = 0; k < block; ++k) differ |= lanes(0, k) != lanes(1, k);
  CHECK(differ);
}

template <int kRounds>
__global__ void countable(const float* in, float* out, int* sum) {
  float value = __ldg(&in[threadIdx.x]);
  for (int round = 0; round < kRounds; ++round) {
    __syncthreads();
    value += __shfl_xor_sync(0xFFFFFFFFu, value, 1);
  }
  atomicAdd(sum, 1);
  __stcs(&out[threadIdx.x], value);
}

void test_counters() {
  DeviceBuffer<float> in(96, 1.0f), out(96);
  DeviceBuffer<int> sum(1, 0);
  cuda_on_host::reset_counters();
  for (int k = 0; k < 2; ++k) DIBR_LAUNCH((countable<3>), 5, 96, 0, 0, in.get(), out.get(), sum.get());
  CHECK(out.values()[17] == 8.0f && sum.values()[0] == 2 * 5 * 96);
  const cuda_on_host::CountersByKernel counters = cuda_on_host::counters();
  CHECK(counters.size() == 1 && counters.count("countable<3>") == 1);
  const cuda_on_host::Counters counted = counters.begin()->second;
  CHECK(counted.launches == 2 && counted.blocks == 10 && counted.threads == 960);
  CHECK(counted.barriers == 10 * 3 && counted.warp_operations == 10 * 3 * 3 && counted.atomics == 960);
  CHECK(counted.bytes_loaded == 960 * sizeof(float) && counted.bytes_stored == 960 * sizeof(float));
}

// Every 16-bit value survives the way to float and back, and the midpoint of two neighbours goes to the even one.
template <class To16, class ToFloat>
void check_16_bits(unsigned infinity, To16 to_16, ToFloat to_float) {
  for (unsigned bits = 0; bits < infinity; ++bits) {
    const float here = to_float(bits), next = bits + 1 < infinity ? to_float(bits + 1) : std::ldexp(here, 1);
    const unsigned sign = 0x8000u;
    CHECK(to_16(here) == bits && to_16(-here) == (bits | sign) && to_float(bits | sign) == -here);
    if (bits + 1 == infinity) continue;
    const float middle = 0.5f * here + 0.5f * next;
    if (middle == here || middle == next) continue;  // between bfloat16's smallest, floats are too coarse
    CHECK(to_16(middle) == (bits & 1 ? bits + 1 : bits));
    CHECK(to_16(std::nextafter(middle, here)) == bits && to_16(std::nextafter(middle, next)) == bits + 1);
  }
  CHECK(std::isinf(to_float(infinity)) && to_16(INFINITY) == infinity && to_16(-INFINITY) == (infinity | 0x8000u));
  CHECK(std::isnan(to_float(infinity + 1)) && to_16(NAN) == 0x7FFF && to_16(3.4e38f) == infinity);
}

void test_16_bit_types() {
  check_16_bits(
      0x7C00, [](float value) { return unsigned(__half_as_ushort(__float2half(value))); },
      [](unsigned bits) { return __half2float(__ushort_as_half((unsigned short)(bits))); });
  check_16_bits(
      0x7F80, [](float value) { return unsigned(__bfloat16_as_ushort(__float2bfloat16(value))); },
      [](unsigned bits) { return __bfloat162float(__ushort_as_bfloat16((unsigned short)(bits))); });
  CHECK(__half_as_ushort(__float2half(65519.0f)) == 0x7BFF && __half_as_ushort(__float2half(65520.0f)) == 0x7C00);
}

__global__ void sum_of_squares(int* out, int value) {
  __shared__ int squares[128];
  squares[threadIdx.x] = (value + int(threadIdx.x)) * (value + int(threadIdx.x));
  for (int half = 64; half > 0; half /= 2) {
    __syncthreads();
    if (int(threadIdx.x) < half) squares[threadIdx.x] += squares[threadIdx.x + half];
  }
  if (threadIdx.x == 0) out[blockIdx.x] = squares[0];
}

// A door may launch from any thread of its framework.
void test_launches_from_several_threads() {
  std::vector<std::thread> callers;
  std::vector<int> wrong(3, 0);
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([caller, &wrong] {
      for (int k = 0; k < 20; ++k) {
        DeviceBuffer<int> out(4);
        DIBR_LAUNCH(sum_of_squares, 4, 128, 0, 0, out.get(), caller * 20 + k);
        int expected = 0;
        for (int t = 0; t < 128; ++t) expected += (caller * 20 + k + t) * (caller * 20 + k + t);
        for (const int sum : out.values()) wrong[caller] += sum != expected;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == std::vector<int>(3, 0));
}

__global__ void four_barriers(const int* in, int* out) {
  __shared__ int values[256];
  const int t = threadIdx.x, i = blockIdx.x * 256 + t;
  int value = in[i];
  for (int round = 0; round < 2; ++round) {
    values[t] = value;
    __syncthreads();
    value += values[(t + 1) & 255];
    __syncthreads();
  }
  out[i] = value;
}

// Prints the processor seconds that a million threads with four barriers each take.
void print_speed() {
  const int count = 1 << 20;
  DeviceBuffer<int> in(count, 3), out(count);
  const std::clock_t start = std::clock();
  DIBR_LAUNCH(four_barriers, count / 256, 256, 0, 0, in.get(), out.get());
  std::printf("%.3f\n", double(std::clock() - start) / CLOCKS_PER_SEC);
  if (out.values() != std::vector<int>(count, 12)) std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && !std::strcmp(argv[1], "speed")) {
    print_speed();
    return 0;
  }
  test_orders();
  test_counters();
  test_16_bit_types();
  test_launches_from_several_threads();
  return conclude();
}
