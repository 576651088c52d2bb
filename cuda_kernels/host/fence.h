// Fences around arrays: reading beyond an array gives NaN, and writing beyond it is detected.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emu {

// Half-words that are NaN as bfloat16, and in pairs as float. Each array has a different pattern,
// so that a copy of one fence to another is detected. It is a signalling NaN, so that arithmetic in
// place also changes its bits.
class Fence {
   public:
    explicit Fence(unsigned number = 0)
        : half_(static_cast<uint16_t>(0xff80u | (1u + number % 63u))) {}

    void raise(uintptr_t from, uintptr_t to) const {
        for (; from < to && from % sizeof(uint64_t) != 0; ++from) {
            *reinterpret_cast<volatile unsigned char*>(from) = byte(from);
        }
        // Volatile, word by word: the race detector would intercept a call of memset.
        for (; from + sizeof(uint64_t) <= to; from += sizeof(uint64_t)) {
            *reinterpret_cast<volatile uint64_t*>(from) = word();
        }
        for (; from < to; ++from) {
            *reinterpret_cast<volatile unsigned char*>(from) = byte(from);
        }
    }

    bool intact(uintptr_t from, uintptr_t to) const {
        for (; from < to && from % sizeof(uint64_t) != 0; ++from) {
            if (*reinterpret_cast<const unsigned char*>(from) != byte(from)) return false;
        }
        // Checked after every launch, for every array: eight words between branches.
        for (; from + 8 * sizeof(uint64_t) <= to; from += 8 * sizeof(uint64_t)) {
            uint64_t changed = 0;
            for (int i = 0; i < 8; ++i) {
                changed |= reinterpret_cast<const uint64_t*>(from)[i] ^ word();
            }
            if (changed != 0) return false;
        }
        for (; from < to; ++from) {
            if (*reinterpret_cast<const unsigned char*>(from) != byte(from)) return false;
        }
        return true;
    }

   private:
    unsigned char byte(uintptr_t at) const {
        return static_cast<unsigned char>(at % 2 == 0 ? half_ : half_ >> 8);
    }
    uint64_t word() const { return half_ * 0x0001000100010001ull; }

    uint16_t half_;
};

}  // namespace emu
