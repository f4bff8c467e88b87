/* Runs a model that edgevit compiled to native code, through TVM's C interface.
 *
 *     run_model BUNDLE [THREADS] < inputs > outputs
 *
 * Inputs come from standard input, all elements of the first, then of the second, ..., each in
 * the order of its shape; outputs go to standard output in the same way. "model_plan.h" is
 * written by plan_header.py from the bundle's model.plan.json. What the model needs of the
 * machine: two libraries (libtvm_ffi.so, libtvm_runtime.so), the code, the parameters, and one
 * block of memory. No allocation happens between two runs. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tvm/ffi/c_api.h>

#include "model_plan.h"

#define ALIGNMENT 64 /* bytes: a cache line, which the code counts on */

static void fail(const char *what, const char *why) {
  fprintf(stderr, "run_model: %s: %s\n", what, why);
  exit(1);
}

/* Ends the program with TVM's message if a call failed. */
static void check(int status, const char *what) {
  TVMFFIObjectHandle error = NULL;
  if (status == 0) return;
  TVMFFIErrorMoveFromRaised(&error);
  if (error == NULL) fail(what, "no message");
  TVMFFIErrorCell *cell = (TVMFFIErrorCell *)((char *)error + sizeof(TVMFFIObject));
  fail(what, cell->message.data);
}

static TVMFFIObjectHandle global_function(const char *name) {
  TVMFFIByteArray text = {name, strlen(name)};
  TVMFFIObjectHandle found = NULL;
  check(TVMFFIFunctionGetGlobal(&text, &found), name);
  if (found == NULL) fail(name, "the runtime library does not have it");
  return found;
}

static TVMFFIAny call(TVMFFIObjectHandle function, TVMFFIAny *args, int count, const char *what) {
  TVMFFIAny result = {.type_index = kTVMFFINone};
  check(TVMFFIFunctionCall(function, args, count, &result), what);
  return result;
}

static TVMFFIAny integer(int64_t value) {
  TVMFFIAny any = {.type_index = kTVMFFIInt, .v_int64 = value};
  return any;
}

static TVMFFIAny text(const char *value) {
  TVMFFIAny any = {.type_index = kTVMFFIRawStr, .v_c_str = value};
  return any;
}

static void set_threads(int count) {
  TVMFFIObjectHandle configure = global_function("runtime.config_threadpool");
  TVMFFIAny args[] = {integer(0), integer(count)};
  call(configure, args, 2, "runtime.config_threadpool");
  TVMFFIObjectDecRef(configure);
}

/* The code's one entry: run(arena, params, first, last). */
static TVMFFIObjectHandle entry(const char *path) {
  TVMFFIObjectHandle load = global_function("ffi.ModuleLoadFromFile");
  TVMFFIObjectHandle look_up = global_function("ffi.ModuleGetFunction");
  TVMFFIAny file = text(path);
  TVMFFIAny module = call(load, &file, 1, path);
  TVMFFIAny args[] = {module, text("run"), {.type_index = kTVMFFIBool, .v_int64 = 0}};
  TVMFFIAny found = call(look_up, args, 3, path);
  if (found.type_index != kTVMFFIFunction) fail(path, "it has no function 'run'");
  TVMFFIObjectDecRef(load);
  TVMFFIObjectDecRef(look_up);
  TVMFFIObjectDecRef(module.v_obj); /* the function keeps it */
  return found.v_obj;
}

/* The parameters, mapped: pages that no call reads are never loaded. */
static char *parameters(const char *path) {
  struct stat about;
  int file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &about) != 0) fail(path, "cannot be read");
  if (about.st_size != PLAN_PARAMS) fail(path, "is not as long as the plan says");
  if (PLAN_PARAMS == 0) return aligned_alloc(ALIGNMENT, ALIGNMENT);
  void *mapped = mmap(NULL, PLAN_PARAMS, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  if (mapped == MAP_FAILED) fail(path, "cannot be mapped");
  close(file);
  return mapped;
}

static DLTensor block(void *data, int64_t *bytes, int64_t *stride) {
  DLTensor tensor = {.data = data, .device = {kDLCPU, 0}, .ndim = 1};
  tensor.dtype.code = kDLUInt;
  tensor.dtype.bits = 8;
  tensor.dtype.lanes = 1;
  tensor.shape = bytes;
  tensor.strides = stride;
  return tensor;
}

/* Moves one tensor's elements between a stream and its place, in the order of its shape. */
static void transfer(const struct plan_tensor *tensor, char *const blocks[2], int reading) {
  int64_t index[PLAN_RANK] = {0};
  char *place = blocks[tensor->block] + tensor->offset;
  for (;;) {
    int64_t at = 0;
    for (int i = 0; i < tensor->rank; i++) at += index[i] * tensor->strides[i];
    char *element = place + at * tensor->width;
    size_t moved = reading ? fread(element, tensor->width, 1, stdin)
                           : fwrite(element, tensor->width, 1, stdout);
    if (moved != 1) fail(tensor->name, reading ? "the input ends early" : "cannot be written");
    int axis = tensor->rank - 1;
    while (axis >= 0 && ++index[axis] == tensor->sizes[axis]) index[axis--] = 0;
    if (axis < 0) return;
  }
}

int main(int argc, char **argv) {
  char path[4096];
  int64_t sizes[2] = {PLAN_ARENA > 0 ? PLAN_ARENA : 1, PLAN_PARAMS > 0 ? PLAN_PARAMS : 1};
  int64_t one = 1;
  if (argc < 2) fail("usage", "run_model BUNDLE [THREADS] < inputs > outputs");
  set_threads(argc > 2 ? atoi(argv[2]) : 1);
  snprintf(path, sizeof path, "%s/%s.so", argv[1], PLAN_STEM);
  TVMFFIObjectHandle run = entry(path);
  snprintf(path, sizeof path, "%s/%s.params", argv[1], PLAN_STEM);
  size_t room = (size_t)(sizes[0] + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  char *blocks[2] = {aligned_alloc(ALIGNMENT, room), parameters(path)};
  if (blocks[0] == NULL) fail("arena", "no memory");
  memset(blocks[0], 0, room);
  DLTensor arena = block(blocks[0], &sizes[0], &one), params = block(blocks[1], &sizes[1], &one);
  TVMFFIAny args[4] = {{.type_index = kTVMFFIDLTensorPtr, .v_ptr = &arena},
                       {.type_index = kTVMFFIDLTensorPtr, .v_ptr = &params},
                       integer(0),
                       integer(PLAN_STEPS)};
  for (int i = 0; i < PLAN_INPUTS; i++) transfer(&plan_inputs[i], blocks, 1);
  call(run, args, 4, "run");
  for (int i = 0; i < PLAN_OUTPUTS; i++) transfer(&plan_outputs[i], blocks, 0);
  TVMFFIObjectDecRef(run);
  return 0;
}
