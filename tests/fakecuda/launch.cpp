// Modules, launches, streams, events, graphs. A "cubin" is a shared object made by g++ from the .cu.
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "fakecuda.h"
#include "runtime.h"

extern "C" int emu_check_fences(uint64_t* address, uint64_t* size, int* before);

namespace {

using Entry = int (*)(const EmuLaunch*, const void*, size_t, char*, size_t);
using Clock = std::chrono::steady_clock;

struct Function {
    std::string name;
    Entry entry;
    unsigned dynamic_limit = 48 << 10;
    // With lazy loading the first launch would load it, and may wait for all work of the device.
    bool loaded = false;
};

struct Event {
    bool recorded = false;
    Clock::time_point passed;
};

struct Graph {
    std::vector<fake::Work> work;
};

CUresult run(const Function& function, const EmuLaunch& launch, const std::string& packed) {
    char error[1024];
    if (function.entry(&launch, packed.data(), packed.size(), error, sizeof error) != 0) {
        fake::remember_failure(error);
        return CUDA_ERROR_LAUNCH_FAILED;
    }
    uint64_t address, size;
    int before;
    if (emu_check_fences(&address, &size, &before) != 0) {
        snprintf(error, sizeof error, "kernel '%s' wrote beyond an allocation of %zu bytes",
                 function.name.c_str(), static_cast<size_t>(size));
        fake::remember_failure(error);
        return CUDA_ERROR_LAUNCH_FAILED;
    }
    return CUDA_SUCCESS;
}

fake::Stream* as_stream(CUstream stream) { return reinterpret_cast<fake::Stream*>(stream); }

}  // namespace

CUresult fake::submit(CUstream stream, Work work) {
    FAKE_NEEDS_CONTEXT();
    Stream* queue = as_stream(stream);
    if (queue != nullptr && queue->context != current()) return CUDA_ERROR_INVALID_CONTEXT;
    if (queue != nullptr && queue->capturing) {
        queue->recorded.push_back(work);
        return CUDA_SUCCESS;
    }
    return work();
}

extern "C" {

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, CUjit_option*, void**) {
    FAKE_NEEDS_CONTEXT();
    auto header = static_cast<const Elf64_Ehdr*>(image);
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return CUDA_ERROR_INVALID_IMAGE;
    // The section headers are the last thing in the file.
    const size_t size = header->e_shoff + size_t{header->e_shentsize} * header->e_shnum;
    const int file = memfd_create("cubin", 0);
    if (file < 0 || write(file, image, size) != static_cast<ssize_t>(size)) {
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    const std::string path = "/proc/self/fd/" + std::to_string(file);
    *module = static_cast<CUmodule>(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (*module == nullptr) fprintf(stderr, "fakecuda: %s\n", dlerror());
    // The file stays open: the loader would take a second file of the same number for the first.
    return *module != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_IMAGE;
}

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}

// Functions of a module may be in use by a graph, as on a GPU: it stays loaded.
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    void* entry = dlsym(module, (std::string("emu_launch_") + name).c_str());
    if (entry == nullptr) return CUDA_ERROR_NOT_FOUND;
    *function = reinterpret_cast<CUfunction>(new Function{name, reinterpret_cast<Entry>(entry)});
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute, CUfunction function) {
    FAKE_NEEDS_CONTEXT();
    reinterpret_cast<Function*>(function)->loaded = true;
    *value = 0;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    reinterpret_cast<Function*>(function)->dynamic_limit = static_cast<unsigned>(value);
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                        unsigned by, unsigned bz, unsigned shared, CUstream stream, void** params,
                        void** extra) {
    const Function& function = *reinterpret_cast<Function*>(handle);
    if (!function.loaded) return CUDA_ERROR_NOT_INITIALIZED;
    if (params != nullptr || extra == nullptr || gx * gy * gz == 0 ||
        shared > function.dynamic_limit) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    const char* buffer = nullptr;
    size_t size = 0;
    for (int i = 0; extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = static_cast<char*>(extra[i + 1]);
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE) size = *static_cast<size_t*>(extra[i + 1]);
    }
    const EmuLaunch launch = {function.name.c_str(), {gx, gy, gz}, {bx, by, bz}, shared, 0, 0};
    const std::string packed(buffer, size);
    return fake::submit(stream, [&function, launch, packed] {
        return run(function, launch, packed);
    });
}

CUresult cuStreamCreate(CUstream* stream, unsigned) {
    FAKE_NEEDS_CONTEXT();
    *stream = reinterpret_cast<CUstream>(new fake::Stream{fake::current(), false, {}});
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream) {
    delete as_stream(stream);
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream stream) {
    FAKE_NEEDS_CONTEXT();
    return as_stream(stream)->capturing ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
    FAKE_NEEDS_CONTEXT();
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) { return CUDA_SUCCESS; }

CUresult cuEventCreate(CUevent* event, unsigned) {
    FAKE_NEEDS_CONTEXT();
    *event = reinterpret_cast<CUevent>(new Event);
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
    delete reinterpret_cast<Event*>(event);
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream) {
    auto entry = reinterpret_cast<Event*>(event);
    entry->recorded = true;
    entry->passed = Clock::now();
    return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent) { return CUDA_SUCCESS; }

CUresult cuEventElapsedTime(float* ms, CUevent start, CUevent end) {
    auto first = reinterpret_cast<Event*>(start), second = reinterpret_cast<Event*>(end);
    if (!first->recorded || !second->recorded) return CUDA_ERROR_INVALID_HANDLE;
    *ms = std::chrono::duration<float, std::milli>(second->passed - first->passed).count();
    return CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode) {
    as_stream(stream)->capturing = true;
    return CUDA_SUCCESS;
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
    fake::Stream* queue = as_stream(stream);
    queue->capturing = false;
    *graph = reinterpret_cast<CUgraph>(new Graph{std::move(queue->recorded)});
    queue->recorded.clear();
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* ready, CUgraph graph, unsigned long long) {
    *ready = reinterpret_cast<CUgraphExec>(new Graph(*reinterpret_cast<Graph*>(graph)));
    return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph graph) {
    delete reinterpret_cast<Graph*>(graph);
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec graph) {
    delete reinterpret_cast<Graph*>(graph);
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec graph, CUstream stream) {
    for (const fake::Work& work : reinterpret_cast<Graph*>(graph)->work) {
        const CUresult status = fake::submit(stream, work);
        if (status != CUDA_SUCCESS) return status;
    }
    return CUDA_SUCCESS;
}
}
