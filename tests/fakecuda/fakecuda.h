// A CUDA driver library for machines without a GPU: enough for PyCUDA, over the emulator's runtime.
// Stricter than a GPU: what CUDA calls undefined is an error here.
#pragma once

#include <cuda.h>

#include <functional>
#include <vector>

namespace fake {

using Work = std::function<CUresult()>;

struct Device {
    size_t used = 0;
    int retained = 0;  // how often the primary context was asked for
};

struct Context {
    int device;
    unsigned reaches = 0;  // devices whose memory it reads, a bit each
};

struct Stream {
    Context* context;
    bool capturing = false;
    std::vector<Work> recorded;
};

constexpr int MAX_DEVICES = 8;
extern Device devices[MAX_DEVICES];
extern Context primary[MAX_DEVICES];

int device_count();
size_t device_memory();

// The calling thread's context, or null.
Context* current();

// Does the work on a stream of the current context, or records it while the stream is captured.
CUresult submit(CUstream stream, Work work);

// What the last failed launch did wrong; cuGetErrorString repeats it.
void remember_failure(const char* text);

}  // namespace fake

#define FAKE_NEEDS_CONTEXT()                                                                       \
    if (fake::current() == nullptr) return CUDA_ERROR_INVALID_CONTEXT
