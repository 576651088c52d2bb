// Divides the workspace of a caller into pieces.
#pragma once

#include "vector.h"

#if defined(__SANITIZE_ADDRESS__)
#define VD_FENCES 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VD_FENCES 1
#endif
#endif
#ifdef VD_FENCES
#include <sanitizer/asan_interface.h>
#endif

namespace verydeep::VD_ISA {

// The floats of one piece: a multiple of a cache line, with AddressSanitizer followed by a guard
// region.
VD_INLINE Index piece(Index floats) {
#ifdef VD_FENCES
    return round_up(floats, 16) + 16;
#else
    return round_up(floats, 16);
#endif
}

// Pieces of a workspace that is aligned to a cache line and has room for all of them.
class Arena {
  public:
    Arena(void* workspace, Index floats) : next_(static_cast<float*>(workspace)) {
#ifdef VD_FENCES
        __asan_unpoison_memory_region(next_, static_cast<std::size_t>(floats) * sizeof(float));
#else
        (void)floats;
#endif
    }
    float* floats(Index count) {
        float* p = next_;
        next_ += piece(count);
#ifdef VD_FENCES
        const Index used = round_up(count, 2);  // the alignment of guard regions
        __asan_poison_memory_region(p + used, static_cast<std::size_t>(next_ - p - used) * sizeof(float));
#endif
        return p;
    }
    Vec* vectors(Index count) { return reinterpret_cast<Vec*>(floats(count * kLanes)); }
    // The part of one worker, with `floats` for each, in the rest of the workspace.
    Arena worker(int index, Index floats) const { return {next_ + index * floats, floats}; }

  private:
    float* next_;
};

}  // namespace verydeep::VD_ISA
