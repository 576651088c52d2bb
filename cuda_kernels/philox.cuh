// Philox4x32-10 (Salmon et al. 2011), with the counters of data_prep/philox.py: the same numbers on
// every device.
#pragma once

#include "common.cuh"

// Block `block` of a sample's stream: draws 4 * block to 4 * block + 3.
__device__ __forceinline__ uint4 philox_block(unsigned block, uint64_t sample, unsigned stream,
                                              uint64_t seed) {
    unsigned c0 = block, c1 = static_cast<unsigned>(sample);
    unsigned c2 = static_cast<unsigned>(sample >> 32), c3 = stream;
    unsigned k0 = static_cast<unsigned>(seed), k1 = static_cast<unsigned>(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned low0 = 0xD2511F53u * c0, high0 = __umulhi(0xD2511F53u, c0);
        const unsigned low1 = 0xCD9E8D57u * c2, high1 = __umulhi(0xCD9E8D57u, c2);
        c0 = high1 ^ c1 ^ k0;
        c2 = high0 ^ c3 ^ k1;
        c1 = low1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return make_uint4(c0, c1, c2, c3);
}
