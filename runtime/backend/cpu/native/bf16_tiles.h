// Products by tiles of 16 x 16 sums: the AMX unit of the processor, or the same by software.
//
// Packed as bf16. Shapes: a [2][steps][16 rows][32]; b [2][steps][16 pairs][16 columns][2]; sums
// [32][32]. Tiles 0-3 hold the sums, 4 and 5 rows of a, 6 and 7 columns of b.
#pragma once

#include "bf16.h"

namespace verydeep::VD_ISA {

using Bf16 = std::uint16_t;

constexpr Index kTileRows = 16, kTileCols = 16;
constexpr Index kTileElements = kTileRows * kStep;  // of an operand's tile: 1 KiB

#if defined(__AMX_BF16__)
// Written in assembler: the intrinsics of GCC 12 do not describe all memory that they read.
class AmxTiles {
  public:
    AmxTiles() {
        alignas(64) std::uint8_t shape[64] = {};
        shape[0] = 1;
        for (int tile = 0; tile < 8; ++tile) {
            shape[16 + 2 * tile] = 64;  // bytes of a row
            shape[48 + tile] = 16;      // rows
        }
        __asm__ volatile("ldtilecfg %0" : : "m"(shape));
    }
    ~AmxTiles() { __asm__ volatile("tilerelease" : : : "memory"); }
    AmxTiles(const AmxTiles&) = delete;
    AmxTiles& operator=(const AmxTiles&) = delete;

    template <int Tile>
    __attribute__((always_inline)) void load(const void* from, Index stride) {
        __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                         :
                         : "r"(from), "r"(stride), "i"(Tile)
                         : "memory");
    }
    template <int Tile>
    __attribute__((always_inline)) void store(void* to, Index stride) {
        __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                         :
                         : "r"(to), "r"(stride), "i"(Tile)
                         : "memory");
    }
    template <int Sum, int A, int B>
    __attribute__((always_inline)) void multiply() {
        __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(Sum), "i"(A), "i"(B));
    }
};
#endif

// The same operations on tiles in memory.
class EmulatedTiles {
  public:
    template <int Tile>
    void load(const void* from, Index stride) {
        for (Index row = 0; row < kTileRows; ++row)
            std::memcpy(tiles_[Tile] + row * 64, static_cast<const char*>(from) + row * stride, 64);
    }
    template <int Tile>
    void store(void* to, Index stride) {
        for (Index row = 0; row < kTileRows; ++row)
            std::memcpy(static_cast<char*>(to) + row * stride, tiles_[Tile] + row * 64, 64);
    }
    template <int Sum, int A, int B>
    void multiply() {
        for (Index row = 0; row < kTileRows; ++row)
            for (Index col = 0; col < kTileCols; ++col) add_step(tiles_[Sum], tiles_[A], tiles_[B], row, col);
    }

  private:
    static float element(const char* tile, Index index) {
        Bf16 bits;
        std::memcpy(&bits, tile + 2 * index, sizeof bits);
        return flushed(float_of(static_cast<std::uint32_t>(bits) << 16));
    }
    static void add_step(char* sums, const char* a, const char* b, Index row, Index col) {
        float part[2] = {};
        for (Index k = 0; k < kStep; ++k) {
            const double x = static_cast<double>(element(a, row * kStep + k));
            const double y = static_cast<double>(element(b, (k / 2 * kTileCols + col) * 2 + k % 2));
            part[k % 2] = narrow(x * y + static_cast<double>(part[k % 2]));
        }
        float sum;
        char* place = sums + 4 * (row * kTileCols + col);
        std::memcpy(&sum, place, sizeof sum);
        sum = add_flushed(sum, add_flushed(part[0], part[1]));
        std::memcpy(place, &sum, sizeof sum);
    }

    alignas(64) char tiles_[8][1024] = {};
};

template <class Tiles>
struct TileUnit {
    static constexpr Index kRows = 2 * kTileRows, kCols = 2 * kTileCols;
    using Element = Bf16;
    using Session = Tiles;

    // in: [kRows][kStep]
    static void pack_a(const float* in, Index step, Index steps, Element* out) {
        for (Index i = 0; i < kRows; ++i) {
            Element* to = out + ((i / kTileRows * steps + step) * kTileRows + i % kTileRows) * kStep;
            for (Index k = 0; k < kStep; ++k) to[k] = half(in[i * kStep + k]);
        }
    }
    // in: [kStep][kCols]. A pair of places is a word of 32 bits.
    static void pack_b(const float* in, Index step, Index steps, Element* out) {
        for (Index k = 0; k < kStep; k += 2, in += 2 * kCols)
            for (Index col = 0; col < kCols; col += kTileCols) {
                std::uint32_t pairs[kTileCols];
                for (Index j = 0; j < kTileCols; ++j)
                    pairs[j] = bf16_bits(bits_of(in[col + j])) >> 16 |
                               bf16_bits(bits_of(in[kCols + col + j]));
                Element* tile = out + (col / kTileCols * steps + step) * kTileElements;
                std::memcpy(tile + k * kTileCols, pairs, sizeof pairs);
            }
    }
    static void multiply(Session& tiles, const Element* a, const Element* b, Index steps, Index,
                         float* sums) {
        constexpr Index kStride = kCols * 4;
        const Element *a1 = a + steps * kTileElements, *b1 = b + steps * kTileElements;
        float *low = sums, *high = sums + kTileRows * kCols;
        tiles.template load<0>(low, kStride);
        tiles.template load<1>(low + kTileCols, kStride);
        tiles.template load<2>(high, kStride);
        tiles.template load<3>(high + kTileCols, kStride);
        for (Index step = 0; step < steps; ++step) {
            const Index offset = step * kTileElements;
            tiles.template load<4>(a + offset, 64);
            tiles.template load<6>(b + offset, 64);
            tiles.template multiply<0, 4, 6>();
            tiles.template load<7>(b1 + offset, 64);
            tiles.template multiply<1, 4, 7>();
            tiles.template load<5>(a1 + offset, 64);
            tiles.template multiply<2, 5, 6>();
            tiles.template multiply<3, 5, 7>();
        }
        tiles.template store<0>(low, kStride);
        tiles.template store<1>(low + kTileCols, kStride);
        tiles.template store<2>(high, kStride);
        tiles.template store<3>(high + kTileCols, kStride);
    }

  private:
    static Bf16 half(float x) { return static_cast<Bf16>(bf16_bits(bits_of(x)) >> 16); }
};

#if defined(__AMX_BF16__)
using FastTiles = AmxTiles;
#else
using FastTiles = EmulatedTiles;
#endif

}  // namespace verydeep::VD_ISA
