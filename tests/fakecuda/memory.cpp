// Memory and copies. Every device allocation lies between the emulator's fences.
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

#include "fakecuda.h"

extern "C" {
uint64_t emu_allocate(uint64_t size);
void emu_free(uint64_t address);
uint64_t emu_extent(uint64_t address);
}

namespace {

struct Owned {
    int device;
    size_t size;
};

// Free memory is reported in whole units, as a GPU does.
constexpr size_t UNIT = size_t{2} << 20;

std::map<CUdeviceptr, Owned> owned;
std::map<const char*, size_t> pinned;
std::mutex changing;

bool within(CUdeviceptr address, size_t size) { return size <= emu_extent(address); }

CUresult copy(void* to, const void* from, size_t size) {
    memmove(to, from, size);
    return CUDA_SUCCESS;
}

// Whether a copy may read or write the host memory after the call has returned.
bool is_pinned(const void* memory, size_t size) {
    std::lock_guard<std::mutex> lock(changing);
    const char* first = static_cast<const char*>(memory);
    auto after = pinned.upper_bound(first);
    if (after == pinned.begin()) return false;
    const auto& [start, length] = *std::prev(after);
    return first + size <= start + length;
}

// Host memory takes part in no capture here, as PyCUDA's callers do not keep it.
bool capturing(CUstream stream) {
    return stream != nullptr && reinterpret_cast<fake::Stream*>(stream)->capturing;
}

}  // namespace

extern "C" {

CUresult cuMemAlloc(CUdeviceptr* address, size_t size) {
    FAKE_NEEDS_CONTEXT();
    std::lock_guard<std::mutex> lock(changing);
    fake::Device& device = fake::devices[fake::current()->device];
    if (size == 0) return CUDA_ERROR_INVALID_VALUE;
    if (device.used + size > fake::device_memory()) return CUDA_ERROR_OUT_OF_MEMORY;
    *address = emu_allocate(size);
    if (*address == 0) return CUDA_ERROR_OUT_OF_MEMORY;
    owned[*address] = {fake::current()->device, size};
    device.used += size;
    return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr address) {
    FAKE_NEEDS_CONTEXT();
    std::lock_guard<std::mutex> lock(changing);
    auto found = owned.find(address);
    if (found == owned.end()) return CUDA_ERROR_INVALID_VALUE;
    fake::devices[found->second.device].used -= found->second.size;
    owned.erase(found);
    emu_free(address);
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo(size_t* free_size, size_t* total) {
    FAKE_NEEDS_CONTEXT();
    *total = fake::device_memory();
    *free_size = (*total - fake::devices[fake::current()->device].used) / UNIT * UNIT;
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void** memory, size_t size, unsigned) {
    FAKE_NEEDS_CONTEXT();
    *memory = malloc(size);
    if (*memory == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    std::lock_guard<std::mutex> lock(changing);
    pinned[static_cast<char*>(*memory)] = size;
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void* memory) {
    FAKE_NEEDS_CONTEXT();
    std::lock_guard<std::mutex> lock(changing);
    pinned.erase(static_cast<char*>(memory));
    free(memory);
    return CUDA_SUCCESS;
}

// CUDA does not define when it reads pageable memory, so that a program may not rely on a copy.
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t size, CUstream stream) {
    if (capturing(stream)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (!within(to, size)) return CUDA_ERROR_INVALID_VALUE;
    if (!is_pinned(from, size)) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    return fake::submit(stream, [=] { return copy(reinterpret_cast<void*>(to), from, size); });
}

CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t size, CUstream stream) {
    if (capturing(stream)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (!within(from, size)) return CUDA_ERROR_INVALID_VALUE;
    return fake::submit(stream, [=] { return copy(to, reinterpret_cast<void*>(from), size); });
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    if (!within(to, size) || !within(from, size)) return CUDA_ERROR_INVALID_VALUE;
    return fake::submit(stream, [=] {
        return copy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), size);
    });
}

// The way must have been opened; without that CUDA copies as well, by way of the host.
CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                           CUcontext from_context, size_t size, CUstream stream) {
    if (capturing(stream)) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (!within(to, size) || !within(from, size)) return CUDA_ERROR_INVALID_VALUE;
    fake::Context* reader = reinterpret_cast<fake::Context*>(to_context);
    fake::Context* owner = reinterpret_cast<fake::Context*>(from_context);
    if (reader != owner && !(reader->reaches >> owner->device & 1))
        return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    return fake::submit(stream, [=] {
        return copy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), size);
    });
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream) {
    if (!within(to, size)) return CUDA_ERROR_INVALID_VALUE;
    return fake::submit(stream, [=] {
        memset(reinterpret_cast<void*>(to), value, size);
        return CUDA_SUCCESS;
    });
}
}
