// Warp instructions: lanes exchange values. Every lane of the mask must arrive.
#pragma once

namespace emu {

template <class T>
constexpr int words() {
    static_assert(sizeof(T) <= 4 * EXCHANGE_WORDS, "more than a lane can show at once");
    return (sizeof(T) + 3) / 4;
}

// Values of any T are exchanged in complete words.
template <class T>
inline T exchange(unsigned mask, T value, int from, const char* site) {
    uint32_t bits[words<T>()] = {};
    memcpy(bits, &value, sizeof value);
    put(bits, words<T>());
    warp_sync(mask, site);
    if (mask >> from & 1u) {
        get(bits, words<T>(), from);
    } else {
        // CUDA does not define the value of a lane that does not take part; it is NaN if T has one.
        for (uint32_t& word : bits) {
            word = 0xffffffffu;
        }
    }
    memcpy(&value, bits, sizeof value);
    return value;
}

// The lane to read from; the reading lane itself if the other is outside the segment of `width`.
inline int within(int other, int width) {
    const int own = lane();
    return (other & ~(width - 1)) == (own & ~(width - 1)) && other >= 0 ? other : own;
}

inline unsigned ballot(unsigned mask, int predicate, const char* site) {
    const uint32_t mine = predicate != 0;
    put(&mine, 1);
    warp_sync(mask, site);
    unsigned result = 0;
    for (int i = 0; i < WARP_LANES; ++i) {
        if (mask >> i & 1u) {
            uint32_t theirs;
            get(&theirs, 1, i);
            result |= theirs << i;
        }
    }
    return result;
}

template <class T>
inline T shuffle(const char* site, unsigned mask, T value, int from, int width = 32) {
    return exchange(mask, value, (lane() & ~(width - 1)) | (from & (width - 1)), site);
}
template <class T>
inline T shuffle_up(const char* site, unsigned mask, T value, unsigned by, int width = 32) {
    return exchange(mask, value, within(lane() - static_cast<int>(by), width), site);
}
template <class T>
inline T shuffle_down(const char* site, unsigned mask, T value, unsigned by, int width = 32) {
    return exchange(mask, value, within(lane() + static_cast<int>(by), width), site);
}
template <class T>
inline T shuffle_xor(const char* site, unsigned mask, T value, int by, int width = 32) {
    return exchange(mask, value, within(lane() ^ by, width), site);
}
inline void syncwarp(const char* site, unsigned mask = 0xffffffffu) { warp_sync(mask, site); }

}  // namespace emu

#define __shfl_sync(...) emu::shuffle(EMU_SITE, __VA_ARGS__)
#define __shfl_up_sync(...) emu::shuffle_up(EMU_SITE, __VA_ARGS__)
#define __shfl_down_sync(...) emu::shuffle_down(EMU_SITE, __VA_ARGS__)
#define __shfl_xor_sync(...) emu::shuffle_xor(EMU_SITE, __VA_ARGS__)
#define __ballot_sync(mask, predicate) emu::ballot(mask, predicate, EMU_SITE)
#define __any_sync(mask, predicate) (emu::ballot(mask, predicate, EMU_SITE) != 0)
#define __all_sync(mask, predicate) (emu::ballot(mask, predicate, EMU_SITE) == (mask))
#define __syncwarp(...) emu::syncwarp(EMU_SITE, ##__VA_ARGS__)
