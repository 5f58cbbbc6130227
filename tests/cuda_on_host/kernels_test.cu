// Kernels whose results are known, checked against plain loops. One source for nvcc and for g++ with the shim; it
// passes on a device as it does here, in every order of threads and blocks.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "check.h"

namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// Deterministic numbers in 0 .. 2^24-1 (a linear congruential generator's upper bits).
std::vector<int> random_ints(size_t count) {
  std::vector<int> values(count);
  unsigned state = 12345;
  for (int& value : values) {
    state = state * 1664525u + 1013904223u;
    value = int(state >> 8);
  }
  return values;
}

// ---- Indices ----

__global__ void write_indices(int* linear, int width, int height, int depth) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  const int z = blockIdx.z * blockDim.z + threadIdx.z;
  if (x >= width || y >= height || z >= depth) return;
  linear[(z * height + y) * width + x] = x + 100 * y + 10000 * z + 1000000 * int(gridDim.x * gridDim.y * gridDim.z);
}

void test_indices() {
  const int width = 13, height = 7, depth = 5;
  DeviceBuffer<int> linear(width * height * depth, -1);
  DIBR_LAUNCH(write_indices, dim3(4, 3, 2), dim3(4, 3, 3), 0, 0, linear.get(), width, height, depth);
  const std::vector<int> got = linear.values();
  for (int z = 0; z < depth; ++z)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x)
        CHECK(got[(z * height + y) * width + x] == x + 100 * y + 10000 * z + 24 * 1000000);
}

// ---- Barriers and shared memory ----

// Inclusive scan per block (Hillis and Steele 1986), in dynamic shared memory.
__global__ void scan_block(const int* in, int* out, int count) {
  DIBR_DYNAMIC_SHARED(int, sums);
  const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  sums[t] = i < count ? in[i] : 0;
  __syncthreads();
  for (int distance = 1; distance < int(blockDim.x); distance *= 2) {
    const int other = t >= distance ? sums[t - distance] : 0;
    __syncthreads();
    sums[t] += other;
    __syncthreads();
  }
  if (i < count) out[i] = sums[t];
}

void test_scan(int block) {
  const int count = 1000;
  std::vector<int> in = random_ints(count);
  for (int& value : in) value &= 1023;
  DeviceBuffer<int> device_in(in), out(count);
  DIBR_LAUNCH(scan_block, dim3((count + block - 1) / block), dim3(block), block * sizeof(int), 0, device_in.get(),
              out.get(), count);
  const std::vector<int> got = out.values();
  for (int i = 0, sum = 0; i < count; ++i) {
    sum = (i % block ? sum : 0) + in[i];
    CHECK(got[i] == sum);
  }
}

// Sum per block in static shared memory; the type and the size are template arguments.
template <int kBlock, class T>
__global__ void __launch_bounds__(kBlock) reduce_block(const T* __restrict__ in, T* __restrict__ out, int count) {
  __shared__ T partial[kBlock];
  const int t = threadIdx.x, i = blockIdx.x * kBlock + t;
  partial[t] = i < count ? in[i] : T(0);
  __syncthreads();
  for (int half = kBlock / 2; half > 0; half /= 2) {
    if (t < half) partial[t] += partial[t + half];
    __syncthreads();
  }
  if (t == 0) out[blockIdx.x] = partial[0];
}

template <int kBlock, class T>
void test_reduce() {
  const int count = 1000, blocks = (count + kBlock - 1) / kBlock;
  std::vector<T> in(count);
  for (int i = 0; i < count; ++i) in[i] = T((i * 37) % 101);  // small whole numbers: sums are exact in any order
  DeviceBuffer<T> device_in(in), out(blocks);
  DIBR_LAUNCH((reduce_block<kBlock, T>), dim3(blocks), dim3(kBlock), 0, 0, device_in.get(), out.get(), count);
  const std::vector<T> got = out.values();
  for (int b = 0; b < blocks; ++b) {
    const auto first = in.begin() + b * kBlock;
    CHECK(got[b] == std::accumulate(first, std::min(first + kBlock, in.end()), T(0)));
  }
}

template <int kTile>
__global__ void transpose(const float* in, float* out, int width, int height) {
  __shared__ float tile[kTile][kTile + 1];
  int x = blockIdx.x * kTile + threadIdx.x, y = blockIdx.y * kTile + threadIdx.y;
  if (x < width && y < height) tile[threadIdx.y][threadIdx.x] = in[y * width + x];
  __syncthreads();
  x = blockIdx.y * kTile + threadIdx.x;
  y = blockIdx.x * kTile + threadIdx.y;
  if (x < height && y < width) out[y * height + x] = tile[threadIdx.x][threadIdx.y];
}

void test_transpose() {
  const int width = 45, height = 70;
  std::vector<float> in(width * height);
  std::iota(in.begin(), in.end(), 0.0f);
  DeviceBuffer<float> device_in(in), out(in.size());
  DIBR_LAUNCH(transpose<16>, dim3((width + 15) / 16, (height + 15) / 16), dim3(16, 16), 0, 0, device_in.get(),
              out.get(), width, height);
  const std::vector<float> got = out.values();
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) CHECK(got[x * height + y] == in[y * width + x]);
}

// Votes of a block: how many, whether any, whether all of its values lie below a limit.
__global__ void vote_block(const int* in, const int* limits, int* counts, int* any, int* all) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  for (int k = 0; k < 3; ++k) {
    const bool below = in[i] < limits[k];
    const int counted = __syncthreads_count(below), some = __syncthreads_or(below), every = __syncthreads_and(below);
    if (threadIdx.x != blockDim.x - 1) continue;
    counts[blockIdx.x * 3 + k] = counted;
    any[blockIdx.x * 3 + k] = some != 0;
    all[blockIdx.x * 3 + k] = every != 0;
  }
}

void test_votes() {
  const int block = 96, blocks = 4;
  const std::vector<int> in = random_ints(block * blocks), limits = {0, 1 << 23, 1 << 24};
  DeviceBuffer<int> device_in(in), device_limits(limits), counts(blocks * 3), any(blocks * 3), all(blocks * 3);
  DIBR_LAUNCH(vote_block, dim3(blocks), dim3(block), 0, 0, device_in.get(), device_limits.get(), counts.get(),
              any.get(), all.get());
  const std::vector<int> got_counts = counts.values(), got_any = any.values(), got_all = all.values();
  for (int b = 0; b < blocks; ++b)
    for (int k = 0; k < 3; ++k) {
      const auto first = in.begin() + b * block;
      const int expected = int(std::count_if(first, first + block, [&](int value) { return value < limits[k]; }));
      CHECK(got_counts[b * 3 + k] == expected);
      CHECK(got_any[b * 3 + k] == (expected > 0));
      CHECK(got_all[b * 3 + k] == (expected == block));
    }
}

// ---- Atomics ----

__global__ void histogram(const int* in, unsigned* bins, int count) {
  __shared__ unsigned local[64];
  for (int k = threadIdx.x; k < 64; k += blockDim.x) local[k] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
    atomicAdd(&local[in[i] >> 18], 1u);
  __syncthreads();
  for (int k = threadIdx.x; k < 64; k += blockDim.x) atomicAdd(&bins[k], local[k]);
}

void test_histogram() {
  const std::vector<int> in = random_ints(5000);
  DeviceBuffer<int> device_in(in);
  DeviceBuffer<unsigned> bins(64, 0u);
  DIBR_LAUNCH(histogram, dim3(3), dim3(100), 0, 0, device_in.get(), bins.get(), int(in.size()));
  std::vector<unsigned> expected(64, 0u);
  for (const int value : in) ++expected[value >> 18];
  CHECK(bins.values() == expected);
}

template <class T>
__global__ void fold_integers(const int* in, T* out) {
  const T value = T(in[blockIdx.x * blockDim.x + threadIdx.x]) - T(1 << 23);
  atomicAdd(&out[0], value);
  atomicMin(&out[1], value);
  atomicMax(&out[2], value);
  atomicAnd(&out[3], value | T(5));
  atomicOr(&out[4], value & T(0xF0F0));
  atomicXor(&out[5], value);
  atomicExch(&out[6], T(7));
  T seen = atomicOr(&out[7], T(0)), expected;  // a product by compare and swap
  do {
    expected = seen;
    seen = atomicCAS(&out[7], expected, T((unsigned long long)(expected) * (unsigned long long)(value | T(1))));
  } while (seen != expected);
}

template <class T>
void test_integer_atomics() {
  const std::vector<int> in = random_ints(300);
  DeviceBuffer<int> device_in(in);
  DeviceBuffer<T> out(std::vector<T>{0, 100, 0, T(-1), 0, 0, 0, 1});
  DIBR_LAUNCH(fold_integers<T>, dim3(5), dim3(60), 0, 0, device_in.get(), out.get());
  unsigned long long sum = 0, product = 1;  // wrap as the hardware does
  T least = 100, most = 0, every = T(-1), some = 0, odd = 0;
  for (const int raw : in) {
    const T value = T(raw) - T(1 << 23);
    sum += (unsigned long long)(value);
    product *= (unsigned long long)(value | T(1));
    least = std::min(least, value);
    most = std::max(most, value);
    every &= value | T(5);
    some |= value & T(0xF0F0);
    odd ^= value;
  }
  CHECK(out.values() == (std::vector<T>{T(sum), least, most, every, some, odd, T(7), T(product)}));
}

template <class T>
__global__ void add_floats(const int* in, T* sum, T* first) {
  const T value = T(in[blockIdx.x * blockDim.x + threadIdx.x] & 1023) * T(0.25);
  atomicAdd(sum, value);
  if (threadIdx.x == 0 && blockIdx.x == 0) *first = value;
}

// The maximum of floats as that of their bits, which agree for values that are not negative.
__global__ void max_floats(const int* in, float* most) {
  atomicMax(reinterpret_cast<int*>(most), __float_as_int(float(in[blockIdx.x * blockDim.x + threadIdx.x]) * 0.5f));
}

void test_float_atomics() {
  const std::vector<int> in = random_ints(512);
  DeviceBuffer<int> device_in(in);
  DeviceBuffer<float> sum(1, 0.0f), most(1, 0.0f), first(1);
  DeviceBuffer<double> double_sum(1, 0.0), double_first(1);
  DIBR_LAUNCH(add_floats<float>, dim3(8), dim3(64), 0, 0, device_in.get(), sum.get(), first.get());
  DIBR_LAUNCH(add_floats<double>, dim3(8), dim3(64), 0, 0, device_in.get(), double_sum.get(), double_first.get());
  DIBR_LAUNCH(max_floats, dim3(8), dim3(64), 0, 0, device_in.get(), most.get());
  double expected = 0;  // multiples of 1/4 below 2^17: exact in any order
  for (const int value : in) expected += (value & 1023) * 0.25;
  CHECK(sum.values()[0] == float(expected));
  CHECK(double_sum.values()[0] == expected);
  CHECK(first.values()[0] == float(in[0] & 1023) * 0.25f);
  CHECK(most.values()[0] == float(*std::max_element(in.begin(), in.end())) * 0.5f);
}

// The last block to finish adds up what all blocks left (cf. CUDA C++ Programming Guide, memory fence functions).
__global__ void sum_in_last_block(const int* in, int* partial, unsigned* finished, int* total) {
  __shared__ int block_sum;
  __shared__ bool last;
  if (threadIdx.x == 0) block_sum = 0;
  __syncthreads();
  atomicAdd(&block_sum, in[blockIdx.x * blockDim.x + threadIdx.x] & 0xFFFF);
  __syncthreads();
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = block_sum;
    __threadfence();
    last = atomicAdd(finished, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  int sum = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) sum += partial[b];
  *total = sum;
}

void test_last_block() {
  const std::vector<int> in = random_ints(320);
  DeviceBuffer<int> device_in(in), partial(10), total(1);
  DeviceBuffer<unsigned> finished(1, 0u);
  DIBR_LAUNCH(sum_in_last_block, dim3(10), dim3(32), 0, 0, device_in.get(), partial.get(), finished.get(), total.get());
  int expected = 0;
  for (const int value : in) expected += value & 0xFFFF;
  CHECK(total.values()[0] == expected);
}

// ---- Warp operations ----

struct WarpResults {
  int sum_down, sum_xor, prefix, rotated, broadcast_of_8, up_in_8, down_in_8, any, all, all_below;
  unsigned ballot, match, added, least, most, united, common, differing;
  int signed_added, signed_least, signed_most;
  double rotated_double;
};

__global__ void warp_operations(const int* in, WarpResults* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % warpSize;
  const int value = in[i];
  WarpResults r;
  r.sum_down = r.sum_xor = r.prefix = value;
  for (int distance = 16; distance > 0; distance /= 2) {
    r.sum_down += __shfl_down_sync(kAllLanes, r.sum_down, distance);
    r.sum_xor += __shfl_xor_sync(kAllLanes, r.sum_xor, distance);
  }
  for (int distance = 1; distance < warpSize; distance *= 2) {
    const int other = __shfl_up_sync(kAllLanes, r.prefix, distance);
    if (lane >= distance) r.prefix += other;
  }
  r.rotated = __shfl_sync(kAllLanes, value, lane + 5);
  r.rotated_double = __shfl_sync(kAllLanes, value * 0.125, lane + 5);
  r.broadcast_of_8 = __shfl_sync(kAllLanes, value, 3, 8);
  r.up_in_8 = __shfl_up_sync(kAllLanes, value, 3, 8);
  r.down_in_8 = __shfl_down_sync(kAllLanes, value, 3, 8);
  r.ballot = __ballot_sync(kAllLanes, value & 1);
  r.any = __any_sync(kAllLanes, value % 64 == 0) != 0;
  r.all = __all_sync(kAllLanes, value % 64 != 0) != 0;
  r.all_below = __all_sync(kAllLanes, value < (1 << 24)) != 0;
  r.match = __match_any_sync(kAllLanes, value % 5);
  r.added = __reduce_add_sync(kAllLanes, unsigned(value));
  r.least = __reduce_min_sync(kAllLanes, unsigned(value));
  r.most = __reduce_max_sync(kAllLanes, unsigned(value));
  r.united = __reduce_or_sync(kAllLanes, unsigned(value));
  r.common = __reduce_and_sync(kAllLanes, unsigned(value | 6));
  r.differing = __reduce_xor_sync(kAllLanes, unsigned(value));
  r.signed_added = __reduce_add_sync(kAllLanes, value - (1 << 23));
  r.signed_least = __reduce_min_sync(kAllLanes, value - (1 << 23));
  r.signed_most = __reduce_max_sync(kAllLanes, value - (1 << 23));
  out[i] = r;
}

void test_warp_operations() {
  const int count = 2 * 64;
  const std::vector<int> in = random_ints(count);
  DeviceBuffer<int> device_in(in);
  DeviceBuffer<WarpResults> out(count);
  DIBR_LAUNCH(warp_operations, dim3(2), dim3(64), 0, 0, device_in.get(), out.get());
  const std::vector<WarpResults> got = out.values();
  for (int i = 0; i < count; ++i) {
    const int lane = i % 32;
    const int* const warp = in.data() + i - lane;
    const WarpResults& r = got[i];
    const int sum = std::accumulate(warp, warp + 32, 0);
    unsigned ballot = 0, match = 0, united = 0, common = ~0u, differing = 0;
    bool multiple = false;
    for (int k = 0; k < 32; ++k) {
      ballot |= unsigned(warp[k] & 1) << k;
      match |= unsigned(warp[k] % 5 == warp[lane] % 5) << k;
      united |= unsigned(warp[k]);
      common &= unsigned(warp[k] | 6);
      differing ^= unsigned(warp[k]);
      multiple |= warp[k] % 64 == 0;
    }
    const int least = *std::min_element(warp, warp + 32), most = *std::max_element(warp, warp + 32);
    if (lane == 0) CHECK(r.sum_down == sum);
    CHECK(r.sum_xor == sum);
    CHECK(r.prefix == std::accumulate(warp, warp + lane + 1, 0));
    CHECK(r.rotated == warp[(lane + 5) % 32]);
    CHECK(r.rotated_double == warp[(lane + 5) % 32] * 0.125);
    CHECK(r.broadcast_of_8 == warp[lane / 8 * 8 + 3]);
    CHECK(r.up_in_8 == (lane % 8 >= 3 ? warp[lane - 3] : warp[lane]));
    CHECK(r.down_in_8 == (lane % 8 < 5 ? warp[lane + 3] : warp[lane]));
    CHECK(r.ballot == ballot && r.match == match);
    CHECK(r.any == multiple && r.all == !multiple && r.all_below == 1);
    CHECK(r.added == unsigned(sum) && r.least == unsigned(least) && r.most == unsigned(most));
    CHECK(r.united == united && r.common == common && r.differing == differing);
    CHECK(r.signed_added == sum - 32 * (1 << 23));
    CHECK(r.signed_least == least - (1 << 23) && r.signed_most == most - (1 << 23));
  }
}

// The halves of a warp part and work with masks of their own, then meet again.
__global__ void parted_warp(int* out) {
  const int lane = threadIdx.x;
  int value = lane;
  if (lane < 16) {
    value += __shfl_xor_sync(0x0000FFFFu, value, 15);
  } else {
    for (int distance = 8; distance > 0; distance /= 2) value += __shfl_xor_sync(0xFFFF0000u, value, distance);
  }
  __syncwarp();
  out[lane] = __shfl_sync(kAllLanes, value, 31 - lane);
}

void test_parted_warp() {
  DeviceBuffer<int> out(32);
  DIBR_LAUNCH(parted_warp, 1, 32, 0, 0, out.get());
  const std::vector<int> got = out.values();
  for (int lane = 0; lane < 32; ++lane) CHECK(got[lane] == (lane < 16 ? (16 + 31) * 8 : 15));
}

// __syncwarp orders shared memory within a warp.
__global__ void reverse_warps(const int* in, int* out) {
  __shared__ int values[64];
  const int t = threadIdx.x, warp_start = t / 32 * 32;
  for (int round = 0; round < 3; ++round) {
    values[t] = in[t] + round;
    __syncwarp();
    out[t] = values[warp_start + 31 - (t - warp_start)];
    __syncwarp();
  }
}

void test_syncwarp() {
  const std::vector<int> in = random_ints(64);
  DeviceBuffer<int> device_in(in), out(64);
  DIBR_LAUNCH(reverse_warps, 1, 64, 0, 0, device_in.get(), out.get());
  const std::vector<int> got = out.values();
  for (int t = 0; t < 64; ++t) CHECK(got[t] == in[t / 32 * 32 + 31 - t % 32] + 2);
}

// ---- Types and intrinsics ----

__global__ void vector_types(const float4* in, float2* xy, double2* zw, int4* rounded) {
  const int i = threadIdx.x;
  const float4 v = __ldg(&in[i]);
  xy[i] = make_float2(v.x, v.y);
  zw[i] = make_double2(v.z, v.w);
  int4 r = make_int4(int(v.x), int(v.y), int(v.z), int(v.w));
  r.w = min(r.w, 20) + max(r.x, 3);
  rounded[i] = r;
}

void test_vector_types() {
  static_assert(sizeof(float3) == 12 && alignof(float3) == 4, "three floats are packed");
  static_assert(alignof(float2) == 8 && alignof(float4) == 16 && alignof(int2) == 8 && alignof(uchar4) == 4, "");
  static_assert(alignof(double2) == 16 && sizeof(uint3) == 12 && alignof(ushort4) == 8, "");
  const int count = 50;
  std::vector<float4> in(count);
  for (int i = 0; i < count; ++i) in[i] = make_float4(i, i + 0.25f, i + 0.5f, i + 0.75f);
  DeviceBuffer<float4> device_in(in);
  DeviceBuffer<float2> xy(count);
  DeviceBuffer<double2> zw(count);
  DeviceBuffer<int4> rounded(count);
  DIBR_LAUNCH(vector_types, 1, count, 0, 0, device_in.get(), xy.get(), zw.get(), rounded.get());
  const auto got_xy = xy.values();
  const auto got_zw = zw.values();
  const auto got_rounded = rounded.values();
  for (int i = 0; i < count; ++i) {
    CHECK(got_xy[i].x == i && got_xy[i].y == i + 0.25f && got_zw[i].x == i + 0.5 && got_zw[i].y == i + 0.75);
    CHECK(got_rounded[i].z == i && got_rounded[i].w == std::min(i, 20) + std::max(i, 3));
  }
}

__global__ void round_to_16_bits(const float* in, __half* half, __nv_bfloat16* bfloat16, float* halves,
                                 float* bfloat16s) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  half[i] = __float2half(in[i]);
  bfloat16[i] = __float2bfloat16(in[i]);
  halves[i] = __half2float(half[i]);
  bfloat16s[i] = __bfloat162float(bfloat16[i]);
}

// `value` rounded to `digits` binary digits whose last is worth no less than 2^least, ties to even.
float rounded(float value, int digits, int least) {
  int exponent;
  std::frexp(value, &exponent);
  const int last = std::max(exponent - digits, least);
  return std::ldexp(std::nearbyint(std::ldexp(value, -last)), last);
}

void test_16_bit_types() {
  std::vector<float> in;
  for (const int raw : random_ints(1024)) in.push_back(std::ldexp(float(raw - (1 << 23)), raw % 30 - 40));
  for (int k = 0; k < 64; ++k) in[k] = std::ldexp(float(k), -25);     // ties among half's subnormals
  for (int k = 64; k < 128; ++k) in[k] = 2048.0f + float(k - 64);     // ties among its whole numbers
  for (int k = 128; k < 192; ++k) in[k] = 256.0f + 0.5f * (k - 128);  // and among bfloat16's
  DeviceBuffer<float> device_in(in), halves(in.size()), bfloat16s(in.size());
  DeviceBuffer<__half> half(in.size());
  DeviceBuffer<__nv_bfloat16> bfloat16(in.size());
  DIBR_LAUNCH(round_to_16_bits, 4, 256, 0, 0, device_in.get(), half.get(), bfloat16.get(), halves.get(),
              bfloat16s.get());
  const std::vector<float> got_halves = halves.values(), got_bfloat16s = bfloat16s.values();
  for (size_t i = 0; i < in.size(); ++i) {
    const float expected = rounded(in[i], 11, -24);
    if (std::fabs(expected) <= 65504.0f) CHECK(got_halves[i] == expected);
    CHECK(got_bfloat16s[i] == rounded(in[i], 8, -133));
  }
}

__global__ void bit_intrinsics(const int* in, int* out) {
  const int i = threadIdx.x;
  const unsigned long long wide = (unsigned long long)(in[i]) << 20;
  int* const r = out + 8 * i;
  r[0] = __popc(unsigned(in[i]));
  r[1] = __popcll(wide);
  r[2] = __ffs(in[i]);
  r[3] = __ffsll((long long)(wide));
  r[4] = __clz(in[i]);
  r[5] = __clzll((long long)(wide));
  r[6] = __float_as_int(__uint_as_float(unsigned(in[i])));
  r[7] = int(__double_as_longlong(__longlong_as_double((long long)(wide))) >> 20);
}

void test_bits() {
  std::vector<int> in = random_ints(64);
  in[0] = 0;
  in[1] = 1;
  DeviceBuffer<int> device_in(in), out(8 * 64);
  DIBR_LAUNCH(bit_intrinsics, 1, 64, 0, 0, device_in.get(), out.get());
  const std::vector<int> got = out.values();
  for (int i = 0; i < 64; ++i) {
    const int* const r = got.data() + 8 * i;
    int bits = 0, first = 0, length = 0;
    for (int b = 0; b < 31; ++b) {
      if (!(in[i] >> b & 1)) continue;
      ++bits;
      length = b + 1;
      if (!first) first = b + 1;
    }
    CHECK(r[0] == bits && r[1] == bits);
    CHECK(r[2] == first && r[3] == (first ? first + 20 : 0));
    CHECK(r[4] == 32 - length && r[5] == (length ? 64 - 20 - length : 64));
    CHECK(r[6] == in[i] && r[7] == in[i]);
  }
}

// ---- Launches ----

__global__ void fill_dynamic(double* out) {
  DIBR_DYNAMIC_SHARED(double, values);
  for (int i = threadIdx.x; i < 8000; i += blockDim.x) values[i] = i;
  __syncthreads();
  if (threadIdx.x == 0) *out = values[7999] + values[0];
}

__global__ void nothing(int) {}

void test_launch_errors() {
  DeviceBuffer<double> out(1, 0.0);
  DIBR_LAUNCH(fill_dynamic, 1, 64, 64000, 0, out.get());  // above 48 KiB without asking
  CHECK(cudaPeekAtLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(out.values()[0] == 0.0);
  CHECK_CUDA(cudaFuncSetAttribute(fill_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 64000));
  DIBR_LAUNCH(fill_dynamic, 1, 64, 64000, 0, out.get());
  CHECK(out.values()[0] == 7999.0);
  for (const dim3 block : {dim3(1025), dim3(0), dim3(1, 1, 65), dim3(32, 33)}) {
    DIBR_LAUNCH(nothing, 1, block, 0, 0, 0);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  }
  for (const dim3 grid : {dim3(0), dim3(1, 65536), dim3(1, 1, 65536)}) {
    DIBR_LAUNCH(nothing, grid, 32, 0, 0, 0);
    CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  }
  DIBR_LAUNCH(nothing, 1, 1024, 0, 0, 0);
  CHECK(cudaGetLastError() == cudaSuccess);
}

}  // namespace

int main() {
  test_indices();
  test_scan(64);
  test_scan(37);
  test_reduce<32, float>();
  test_reduce<128, double>();
  test_reduce<256, int>();
  test_transpose();
  test_votes();
  test_histogram();
  test_integer_atomics<int>();
  test_integer_atomics<unsigned>();
  test_integer_atomics<unsigned long long>();
  test_float_atomics();
  test_last_block();
  test_warp_operations();
  test_parted_warp();
  test_syncwarp();
  test_vector_types();
  test_16_bit_types();
  test_bits();
  test_launch_errors();
  return conclude();
}
