// Products with packed powers of two and with packed bits, and what starts them.
//
// A code of four bits: bit 3 is the sign, bits 0..2 are m: nothing for m = 0, else 2^(m - 1).
// No code is a negative nothing. Sums are int32.

#include <cstdint>
#include <cuda_runtime.h>

namespace {

// Four codes of 16 bits as four int8: the permutation of bytes is the table.
__device__ __forceinline__ uint32_t decoded(uint32_t codes) {
  uint32_t size = __byte_perm(0x04020100u, 0x40201008u, codes & 0x7777u);
  uint32_t mask = __byte_perm(0x0000ff00u, 0u, (codes >> 3) & 0x1111u);
  return (size ^ mask) + (mask & 0x01010101u);  // -v = ~v + 1; no byte carries
}

__device__ __forceinline__ void multiply(int (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

constexpr int kRows = 2, kColumns = 8, kWarps = 4;  // tiles of 16 x 8 a warp
constexpr int kSums = kRows * kColumns * 4;

// y[M][N] = x[M][K] w[K][N], SPLIT warps 32 x 64 of it, each for a part of K, whose sums meet
// in shared memory. TERMS = 0: w are bytes already.
// Codes: words [TERMS][K/32][N/8][lane]: four neighbors along K from 4 (lane % 4), then four
// from 16 on, of column lane / 4. Bytes: the same, two words each.
template <int TERMS, int SPLIT>
__global__ void dot(const int8_t* __restrict__ x, const uint32_t* __restrict__ w,
                    int* __restrict__ y, int rows, int columns, int depth) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int part = warp % SPLIT, group = warp / SPLIT;
  int first = (blockIdx.y * (kWarps / SPLIT) + group) * 16 * kRows;
  int left = blockIdx.x * 8 * kColumns;
  int c[kRows][kColumns][4] = {};
  constexpr int kWords = TERMS == 0 ? 2 : TERMS;  // of B, a tile of columns
  uint32_t a[2][kRows][4], b[2][kColumns][kWords];
  int term = depth / 32 * (columns / 8) * 32;
  // The next step is read while this one is multiplied.
  auto read = [&](int k, uint32_t (&up)[kRows][4], uint32_t (&right)[kColumns][kWords]) {
#pragma unroll
    for (int r = 0; r < kRows; r++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int row = min(first + 16 * r + lane / 4 + 8 * (i % 2), rows - 1);
        int at = row * depth + k + 4 * (lane % 4) + 16 * (i / 2);
        up[r][i] = *reinterpret_cast<const uint32_t*>(x + at);
      }
    }
#pragma unroll
    for (int j = 0; j < kColumns; j++) {
      int at = ((k / 32) * (columns / 8) + left / 8 + j) * 32 + lane;
      if (TERMS == 0) {
        uint2 both = reinterpret_cast<const uint2*>(w)[at];
        right[j][0] = both.x, right[j][1] = both.y;
      } else {
#pragma unroll
        for (int t = 0; t < TERMS; t++) right[j][t] = w[at + t * term];
      }
    }
  };
  auto add = [&](const uint32_t (&up)[kRows][4], const uint32_t (&right)[kColumns][kWords]) {
#pragma unroll
    for (int j = 0; j < kColumns; j++) {
      uint32_t b0 = right[j][0], b1 = right[j][kWords - 1];
      if (TERMS > 0) {
        b0 = decoded(right[j][0] & 0xffffu), b1 = decoded(right[j][0] >> 16);
#pragma unroll
        for (int t = 1; t < TERMS; t++) {
          b0 = __vadd4(b0, decoded(right[j][t] & 0xffffu));
          b1 = __vadd4(b1, decoded(right[j][t] >> 16));
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; r++) multiply(c[r][j], up[r], b0, b1);
    }
  };
  constexpr int kStep = 32 * SPLIT;
  if (first < rows && 32 * part < depth) {
    read(32 * part, a[0], b[0]);
    for (int k = 32 * part; k < depth; k += 2 * kStep) {
      if (k + kStep < depth) read(k + kStep, a[1], b[1]);
      add(a[0], b[0]);
      if (k + 2 * kStep < depth) read(k + 2 * kStep, a[0], b[0]);
      if (k + kStep < depth) add(a[1], b[1]);
    }
  }
  if (SPLIT > 1) {
    __shared__ int held[kWarps / SPLIT][SPLIT > 1 ? SPLIT - 1 : 1][kSums][32];
    int* sums = &c[0][0][0];
    if (part > 0) {
#pragma unroll
      for (int i = 0; i < kSums; i++) held[group][part - 1][i][lane] = sums[i];
    }
    __syncthreads();
    if (part > 0) return;
#pragma unroll
    for (int i = 0; i < kSums; i++)
      for (int other = 0; other < SPLIT - 1; other++) sums[i] += held[group][other][i][lane];
  }
#pragma unroll
  for (int r = 0; r < kRows; r++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int row = first + 16 * r + lane / 4 + 8 * i;
      if (row >= rows) continue;
#pragma unroll
      for (int j = 0; j < kColumns; j++) {
        int2 both = make_int2(c[r][j][2 * i], c[r][j][2 * i + 1]);
        int column = left + 8 * j + 2 * (lane % 4);
        *reinterpret_cast<int2*>(y + row * columns + column) = both;
      }
    }
  }
}

__device__ __forceinline__ int shifted(int x, int count) {
  int found;  // counts above 31, as of a code that is nothing, leave nothing
  asm("shl.b32 %0, %1, %2;" : "=r"(found) : "r"(x), "r"(count));
  return found;
}

// The same by shifts and additions: codes [K/2][N], the low half of a byte an even k.
// Negative terms are complemented; ``ones`` [N] counts them.
__global__ void shift(const int8_t* x, const uint8_t* codes, const int* ones, int* y, int rows,
                      int columns, int depth) {
  constexpr int kTile = 64, kStep = 32;
  __shared__ __align__(16) int left[kStep][kTile + 4];
  __shared__ __align__(16) uint8_t right[kStep / 2][kTile];
  int column = threadIdx.x % 16 * 4, row = threadIdx.x / 16 * 4;
  int first = blockIdx.y * kTile, start = blockIdx.x * kTile;
  int sums[4][4] = {};
  for (int k = 0; k < depth; k += kStep) {
    for (int i = threadIdx.x; i < kTile * kStep / 4; i += blockDim.x) {
      int r = i / (kStep / 4), q = i % (kStep / 4) * 4;
      char4 v = *reinterpret_cast<const char4*>(x + min(first + r, rows - 1) * depth + k + q);
      left[q][r] = v.x, left[q + 1][r] = v.y, left[q + 2][r] = v.z, left[q + 3][r] = v.w;
    }
    for (int i = threadIdx.x; i < kTile * kStep / 8; i += blockDim.x) {
      int q = i / (kTile / 4), n = i % (kTile / 4) * 4;
      *reinterpret_cast<uint32_t*>(&right[q][n]) =
          *reinterpret_cast<const uint32_t*>(codes + (k / 2 + q) * columns + start + n);
    }
    __syncthreads();
#pragma unroll 4
    for (int q = 0; q < kStep; q += 2) {
      uint32_t four = *reinterpret_cast<const uint32_t*>(&right[q / 2][column]);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        int4 v = *reinterpret_cast<const int4*>(&left[q + half][row]);
        int values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int n = 0; n < 4; n++) {
          uint32_t code = four >> (8 * n + 4 * half);
          int count = (int)(code & 7u) - 1, sign = (int)(code << 28) >> 31;
#pragma unroll
          for (int r = 0; r < 4; r++) sums[r][n] += shifted(values[r], count) ^ sign;
        }
      }
    }
    __syncthreads();
  }
  for (int r = 0; r < 4; r++) {
    if (first + row + r >= rows) continue;
    for (int n = 0; n < 4; n++) {
      int at = start + column + n;
      y[(first + row + r) * columns + at] = sums[r][n] + ones[at];
    }
  }
}

// Sums of a part of K of bits^T V: 16 codes, 32 columns, a lane a column, a warp a k.
constexpr int kCodes = 16, kWidth = 32, kThreads = 256;

template <typename T>
__device__ void gathered(T (&sums)[kCodes], T* part) {
  __shared__ T held[kThreads / 32][kCodes][kWidth];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int m = 0; m < kCodes; m++) held[warp][m][lane] = sums[m];
  __syncthreads();
  for (int i = threadIdx.x; i < kCodes * kWidth; i += kThreads) {
    T total = 0;
    for (int w = 0; w < kThreads / 32; w++) total += held[w][i / kWidth][i % kWidth];
    part[i] = total;
  }
}

// bits [B][K] words of 16, v float32 [B][K][32], parts [B][splits][16][32].
__global__ void masked_add(const uint16_t* bits, const float* v, float* parts, int depth) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, splits = gridDim.x;
  int each = (depth + splits - 1) / splits, from = blockIdx.x * each;
  int to = min(from + each, depth);
  bits += (size_t)blockIdx.y * depth, v += (size_t)blockIdx.y * depth * kWidth;
  float sums[kCodes] = {};
#pragma unroll 4
  for (int k = from + warp; k < to; k += kThreads / 32) {
    uint32_t word = bits[k];
    float value = v[k * kWidth + lane];
#pragma unroll
    for (int m = 0; m < kCodes; m++)
      if (word >> m & 1u) sums[m] += value;
  }
  gathered(sums, parts + ((size_t)blockIdx.y * splits + blockIdx.x) * kCodes * kWidth);
}

// bits [B][K/8][16] bytes (a bit a k), v int8 [B][K][32], K a multiple of 8.
__global__ void masked_dot(const uint8_t* bits, const int8_t* v, int* parts, int depth) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, splits = gridDim.x, groups = depth / 8;
  int each = (groups + splits - 1) / splits, from = blockIdx.x * each;
  int to = min(from + each, groups);
  bits += (size_t)blockIdx.y * groups * kCodes, v += (size_t)blockIdx.y * depth * kWidth;
  int sums[kCodes] = {};
  for (int g = from + warp; g < to; g += kThreads / 32) {
    uint32_t four[2] = {};
#pragma unroll
    for (int i = 0; i < 8; i++)
      four[i / 4] |= (uint32_t)(uint8_t)v[(g * 8 + i) * kWidth + lane] << (8 * (i % 4));
    uint4 all = reinterpret_cast<const uint4*>(bits)[g];
    uint32_t words[4] = {all.x, all.y, all.z, all.w};
#pragma unroll
    for (int m = 0; m < kCodes; m++) {
      uint32_t byte = words[m / 4] >> (8 * (m % 4));
      uint32_t low = (byte & 15u) * 0x00204081u & 0x01010101u;
      uint32_t high = (byte >> 4 & 15u) * 0x00204081u & 0x01010101u;
      sums[m] = __dp4a((int)four[1], (int)high, __dp4a((int)four[0], (int)low, sums[m]));
    }
  }
  gathered(sums, parts + ((size_t)blockIdx.y * splits + blockIdx.x) * kCodes * kWidth);
}

// a words [B][W][16], b words [B][W][32]: bits in common.
__global__ void counted(const uint32_t* a, const uint32_t* b, int* parts, int words) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, splits = gridDim.x;
  int each = (words + splits - 1) / splits, from = blockIdx.x * each;
  int to = min(from + each, words);
  a += (size_t)blockIdx.y * words * kCodes, b += (size_t)blockIdx.y * words * kWidth;
  int sums[kCodes] = {};
  for (int w = from + warp; w < to; w += kThreads / 32) {
    uint32_t right = b[w * kWidth + lane];
#pragma unroll
    for (int m = 0; m < kCodes; m++) sums[m] += __popc(a[w * kCodes + m] & right);
  }
  gathered(sums, parts + ((size_t)blockIdx.y * splits + blockIdx.x) * kCodes * kWidth);
}

template <typename T>
__global__ void summed(const T* parts, T* y, int splits) {
  int i = threadIdx.x;
  parts += (size_t)blockIdx.x * splits * kCodes * kWidth;
  T total = 0;
  for (int s = 0; s < splits; s++) total += parts[s * kCodes * kWidth + i];
  y[blockIdx.x * kCodes * kWidth + i] = total;
}

__global__ void nothing() {}

int over(int count, int by) { return (count + by - 1) / by; }

template <int SPLIT>
void start(const int8_t* x, const uint32_t* w, int* y, int rows, int columns, int depth,
           int terms, cudaStream_t stream) {
  dim3 grid(columns / (8 * kColumns), over(rows, 16 * kRows * kWarps / SPLIT));
  auto kernel = terms == 0   ? dot<0, SPLIT>
                : terms == 1 ? dot<1, SPLIT>
                : terms == 2 ? dot<2, SPLIT>
                             : dot<3, SPLIT>;
  kernel<<<grid, 32 * kWarps, 0, stream>>>(x, w, y, rows, columns, depth);
}

}  // namespace

extern "C" {

// Every function returns the error of its launches. Columns are a multiple of 64, K of 32.
int start_dot(const int8_t* x, const uint32_t* w, int* y, int rows, int columns, int depth,
              int terms, cudaStream_t stream) {
  // Few tiles leave multiprocessors idle: several warps share one.
  int tiles = over(rows, 16 * kRows) * (columns / (8 * kColumns));
  if (tiles >= 1024 || depth < 128)
    start<1>(x, w, y, rows, columns, depth, terms, stream);
  else if (depth < 512)
    start<2>(x, w, y, rows, columns, depth, terms, stream);
  else
    start<4>(x, w, y, rows, columns, depth, terms, stream);
  return cudaGetLastError();
}

int start_shift(const int8_t* x, const uint8_t* codes, const int* ones, int* y, int rows,
                int columns, int depth, cudaStream_t stream) {
  shift<<<dim3(columns / 64, over(rows, 64)), 256, 0, stream>>>(x, codes, ones, y, rows,
                                                                columns, depth);
  return cudaGetLastError();
}

int start_masked_add(const uint16_t* bits, const float* v, float* parts, float* y, int batch,
                     int depth, int splits, cudaStream_t stream) {
  masked_add<<<dim3(splits, batch), kThreads, 0, stream>>>(bits, v, parts, depth);
  summed<<<batch, kCodes * kWidth, 0, stream>>>(parts, y, splits);
  return cudaGetLastError();
}

int start_masked_dot(const uint8_t* bits, const int8_t* v, int* parts, int* y, int batch,
                     int depth, int splits, cudaStream_t stream) {
  masked_dot<<<dim3(splits, batch), kThreads, 0, stream>>>(bits, v, parts, depth);
  summed<<<batch, kCodes * kWidth, 0, stream>>>(parts, y, splits);
  return cudaGetLastError();
}

int start_counted(const uint32_t* a, const uint32_t* b, int* parts, int* y, int batch, int words,
                  int splits, cudaStream_t stream) {
  counted<<<dim3(splits, batch), kThreads, 0, stream>>>(a, b, parts, words);
  summed<<<batch, kCodes * kWidth, 0, stream>>>(parts, y, splits);
  return cudaGetLastError();
}

int start_nothing(cudaStream_t stream) {
  nothing<<<1, 32, 0, stream>>>();
  return cudaGetLastError();
}
}
