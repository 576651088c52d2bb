// Devices, contexts, and the versions of the library.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "fakecuda.h"

namespace fake {

Device devices[MAX_DEVICES];
Context primary[MAX_DEVICES] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};

namespace {
thread_local std::vector<Context*> stack;
std::string failure = "the launch failed";

size_t setting(const char* name, size_t otherwise) {
    const char* text = getenv(name);
    return text != nullptr ? strtoull(text, nullptr, 10) : otherwise;
}
}  // namespace

int device_count() { return static_cast<int>(setting("FAKECUDA_DEVICES", 2)); }
size_t device_memory() { return setting("FAKECUDA_MEMORY", size_t{1} << 30); }
Context* current() { return stack.empty() ? nullptr : stack.back(); }
void remember_failure(const char* text) { failure = text; }

}  // namespace fake

extern "C" {

CUresult cuInit(unsigned) { return fake::device_count() > 0 ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE; }

CUresult cuDriverGetVersion(int* version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
    *count = fake::device_count();
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int number) {
    *device = number;
    return number < fake::device_count() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char* name, int size, CUdevice) {
    snprintf(name, static_cast<size_t>(size), "fake GPU");
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t* size, CUdevice) {
    *size = fake::device_memory();
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice) {
    *major = 9;
    *minor = 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = 227 << 10; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = 48 << 10; break;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
        case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
        default: *value = 0;
    }
    return CUDA_SUCCESS;
}

// If there are more than two devices, the last one has no peer.
CUresult cuDeviceCanAccessPeer(int* can, CUdevice device, CUdevice peer) {
    const int last = fake::device_count() - 1;
    *can = device != peer && (last < 2 || (device != last && peer != last));
    return CUDA_SUCCESS;
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned) {
    FAKE_NEEDS_CONTEXT();
    const unsigned bit = 1u << reinterpret_cast<fake::Context*>(peer)->device;
    if (fake::current()->reaches & bit) return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
    fake::current()->reaches |= bit;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    ++fake::devices[device].retained;
    *context = reinterpret_cast<CUcontext>(&fake::primary[device]);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    fake::Device& entry = fake::devices[device];
    if (entry.retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
    // The last release takes everything with it: a program that has not freed its memory shows.
    if (--entry.retained == 0 && entry.used > 0) {
        fprintf(stderr, "fakecuda: device %d released with %zu bytes in use\n", device, entry.used);
    }
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext context) {
    fake::stack.push_back(reinterpret_cast<fake::Context*>(context));
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext* context) {
    FAKE_NEEDS_CONTEXT();
    if (context != nullptr) *context = reinterpret_cast<CUcontext>(fake::current());
    fake::stack.pop_back();
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) {
    FAKE_NEEDS_CONTEXT();
    *device = fake::current()->device;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext, unsigned* version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char** text) {
    switch (error) {
        case CUDA_ERROR_NO_DEVICE: *text = "no CUDA-capable device is detected"; break;
        case CUDA_ERROR_OUT_OF_MEMORY: *text = "out of memory"; break;
        case CUDA_ERROR_INVALID_CONTEXT: *text = "invalid device context"; break;
        case CUDA_ERROR_LAUNCH_FAILED: *text = fake::failure.c_str(); break;
        case CUDA_ERROR_NOT_INITIALIZED: *text = "the function is not loaded"; break;
        case CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED:
            *text = "asynchronous copy from pageable memory";
            break;
        case CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED:
            *text = "peer access is already enabled";
            break;
        case CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED:
            *text = "operation not permitted when stream is capturing";
            break;
        default: *text = "another error of the fake driver";
    }
    return CUDA_SUCCESS;
}
}
