// CUDA's threads on a processor: every thread of a block is a fiber, blocks run in turn.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __shared__ static
#define __restrict__

struct Index { int x; };
static Index threadIdx, blockIdx;
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<char> done;
static std::vector<float> exchanged;
static int alive, waiting, generation;
static void (*body)(void **);
static void **arguments;

static void pause_fiber() {
  int me = threadIdx.x;
  swapcontext(&fibers[me], &scheduler);
  threadIdx.x = me;
}

static void __syncthreads() {
  int now = generation;
  if (++waiting == alive) { waiting = 0; ++generation; return; }
  while (generation == now) pause_fiber();
}

static float __shfl_xor_sync(unsigned, float value, int distance) {
  exchanged[threadIdx.x] = value;
  pause_fiber();
  float found = exchanged[threadIdx.x ^ distance];
  pause_fiber();
  return found;
}

static float __int_as_float(int bits) { union { int i; float f; } u{bits}; return u.f; }
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)

static void fiber() {
  body(arguments);
  done[threadIdx.x] = 1;
  --alive;
  if (alive && waiting == alive) { waiting = 0; ++generation; }
  swapcontext(&fibers[threadIdx.x], &scheduler);
}

static void launch(void (*kernel)(void **), int blocks, int threads, void **args) {
  const size_t stack = 32 << 10;
  static char *stacks = (char *)aligned_alloc(64, stack * 1024);
  body = kernel, arguments = args;
  fibers.resize(threads), done.resize(threads), exchanged.resize(1024);
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    alive = threads, waiting = 0;
    for (int t = 0; t < threads; ++t) {
      getcontext(&fibers[t]);
      fibers[t].uc_stack.ss_sp = stacks + t * stack;
      fibers[t].uc_stack.ss_size = stack;
      fibers[t].uc_link = &scheduler;
      makecontext(&fibers[t], fiber, 0);
      done[t] = 0;
    }
    for (int left = threads; left;) {
      left = 0;
      for (int t = 0; t < threads; ++t) {
        if (done[t]) continue;
        threadIdx.x = t;
        swapcontext(&scheduler, &fibers[t]);
        left += !done[t];
      }
    }
  }
}
